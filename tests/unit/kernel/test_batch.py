"""Record batches: the layout of Kafka v2, acknowledgements by record, damage is Corrupt."""

import struct

import pytest

from robustmq._kernel.pure.crc import crc32c
from robustmq.errors import Corrupt
from tests.datapath import SIDES, Kernel, Side, batch_of


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


def test_header_is_that_of_the_v2_layout(side: Side) -> None:
    turn = side.turn()
    builder = side.BatchBuilder(turn, "shard", 1000, None)
    builder.append(b"a/b", b"one", b"\0", 1, 1_000)
    builder.append(b"a/b", b"two", b"\0", 0, 1_007)
    builder.append(b"", b"", b"\0", 0, 990)
    assert builder.count == 3
    size = builder.size
    batch, _ = builder.take()
    assert len(batch) == size
    fields = struct.unpack(">qiibIhiqqqhii", batch[:61])
    offset, length, epoch, magic, crc, attributes, last, first_ms, last_ms, *rest = fields
    assert (offset, length, epoch, magic) == (0, len(batch) - 12, 0, 2)
    assert crc == crc32c(batch[21:])
    assert (attributes, last, first_ms, last_ms) == (0, 2, 1_000, 1_007)
    assert rest == [-1, -1, -1, 3]
    assert batch[61:].startswith(bytes((2 * 12, 1, 0, 0, 6)) + b"a/b" + b"\x06one\x00")


def test_producer_numbers_its_batches(side: Side) -> None:
    builder = side.BatchBuilder(side.turn(), None, 1000, None)
    builder.producer_id, builder.producer_epoch, builder.sequence = 77, 3, 0x7FFFFFFF
    heads = []
    for _ in range(2):
        builder.append(b"k", b"v", b"\0", 0, 0)
        batch, _acks = builder.take()
        heads.append(struct.unpack(">qhi", batch[43:57]))
    assert heads == [(77, 3, 0x7FFFFFFF), (77, 3, 0)]
    assert builder.sequence == 1


def test_records_come_back_as_they_went_in(side: Side) -> None:
    builder = side.BatchBuilder(side.turn(), None, 1 << 20, None)
    given = [
        (b"k" * 300, b"v" * 70_000, b"\x02\x02a\x02b", 5, 1_000),
        (b"", b"", b"\0", 255, 400),
        (b"t", b"\xff\x00", b"\0", 2, 1 << 45),
    ]
    for record in given:
        builder.append(*record)
    batch, _ = builder.take()
    assert side.records(batch) == [
        (attributes, timestamp, i, key, value, headers)
        for i, (key, value, headers, attributes, timestamp) in enumerate(given)
    ]


def test_empty_builder_gives_nothing_and_nobody_waits_for_it(side: Side) -> None:
    builder = side.BatchBuilder(side.turn(), None, 1000, None)
    with pytest.raises(ValueError, match="empty"):
        builder.take()
    with pytest.raises(ValueError, match="no record"):
        builder.expect(print, 0)
    with pytest.raises(ValueError, match="header block"):
        builder.append(b"k", b"v", b"", 0, 0)


def test_builder_marks_itself_once_a_batch_and_says_when_it_is_full(side: Side) -> None:
    turn = side.turn()
    full: list[Kernel] = []
    builder = side.BatchBuilder(turn, None, 200, full.append)
    for i in range(2):
        assert builder.append(b"k", bytes(50), b"\0", 4 * i, 0) == i
        builder.settle_if_full()
    assert (turn.builders, full, builder.retained) == ([builder], [], True)
    builder.append(b"k", bytes(50), b"\0", 0, 0)
    builder.settle_if_full()
    assert full == [builder]
    builder.take()
    assert (builder.count, builder.size, builder.retained) == (0, 61, False)
    builder.append(b"k", b"", b"\0", 0, 0)
    assert turn.builders == [builder, builder]


def test_acks_tell_everybody_once_with_what_matched(side: Side) -> None:
    builder = side.BatchBuilder(side.turn(), None, 1 << 20, None)
    told: list[tuple[int, int, bool]] = []
    for i in range(8):
        builder.append(b"k", b"", b"\0", 0, 0)
        if i != 4:
            builder.expect(lambda code, matched, i=i: told.append((i, code, matched)), 0)
    _, acks = builder.take()
    assert len(acks) == 7
    acks.settle(0, [(0, 2), (3, 5), (7, 8)])
    unmatched = {0, 1, 3, 4, 7}
    assert told == [(i, 0, i not in unmatched) for i in range(8) if i != 4]
    acks.settle(0, [])
    assert (len(told), len(acks)) == (7, 0)


def test_acks_give_tickets_to_targets_that_are_written_in_python(side: Side) -> None:
    told: list[tuple[int, int, bool]] = []

    class Target(side.AckTarget):  # type: ignore[misc, name-defined]
        def settle(self, ticket: int, code: int, matched: bool) -> None:
            told.append((ticket, code, matched))

    builder = side.BatchBuilder(side.turn(), None, 1 << 20, None)
    builder.append(b"k", b"", b"\0", 0, 0)
    builder.expect(Target(), 1 << 40)
    builder.take()[1].settle(3, [])
    assert told == [(1 << 40, 3, True)]
    with pytest.raises(NotImplementedError):
        side.AckTarget().settle(1, 0, True)


def test_cut_and_gather_make_a_batch_of_some_records(side: Side) -> None:
    batch = batch_of(side, *((b"k%d" % i, bytes(i * 50), 1) for i in range(6)))
    first, *_ = side.cut(batch, 61, 1)
    raw = side.cut(batch, 61 + len(first), 3)
    part = side.gather(batch, raw)
    assert [record[3] for record in side.records(part)] == [b"k1", b"k2", b"k3"]
    assert [record[2] for record in side.records(part)] == [1, 2, 3]
    assert part[8:12] == (len(part) - 12).to_bytes(4, "big")
    assert part[17:21] == bytes(4)
    for start in (-1, 0, 60, len(batch) + 1):
        with pytest.raises(Corrupt):
            side.cut(batch, start, 1)
    with pytest.raises(Corrupt):
        side.cut(batch, 61, 7)
    with pytest.raises(Corrupt):
        side.gather(batch[:60], raw)


def test_gather_leaves_its_input_alone(side: Side) -> None:
    header = batch_of(side, (b"k", b"v", 0))[:61]
    before = bytes(bytearray(header))
    assert side.records(side.gather(header, [])) == []
    assert header == before


def test_null_keys_and_values_are_none(side: Side) -> None:
    record = bytes((0, 0, 0, 1, 1, 0))
    header = batch_of(side, (b"k", b"v", 0))[:61]
    batch = side.gather(header, [bytes((2 * len(record),)) + record])
    assert side.records(batch)[0][3:] == (None, None, b"\0")


@pytest.mark.parametrize("cut", range(61, 76))
def test_cut_batches_are_corrupt(side: Side, cut: int) -> None:
    batch = batch_of(side, (b"key", b"value", 0))
    assert len(batch) == 76
    with pytest.raises(Corrupt):
        side.records(batch[:cut])
    with pytest.raises(Corrupt):
        side.records(batch[:60])


def test_records_with_impossible_lengths_are_corrupt(side: Side) -> None:
    header = batch_of(side, (b"k", b"v", 0))[:61]
    for raw in (
        b"",
        b"\x00",
        b"\x01",
        b"\x80" * 11,
        b"\xff" * 20,
        bytes((12, 0, 0, 0, 126, 0, 0)),
        bytes((12, 0, 0, 0, 0, 126, 0)),
        bytes((10, 0, 0, 0, 0, 0)),
    ):
        with pytest.raises(Corrupt):
            side.records(side.gather(header, [raw]))


def test_slice_is_a_batch_of_consecutive_records(side: Side) -> None:
    batch = batch_of(side, *((b"k%d" % i, bytes(i * 50), 1) for i in range(6)))
    raw = side.cut(batch, 61, 6)
    start, stop = 61 + len(raw[0]), len(batch) - len(raw[5])
    part = side.slice_of(batch, start, stop, 4)
    assert part == side.gather(batch, raw[1:5])
    assert [record[3] for record in side.records(part)] == [b"k1", b"k2", b"k3", b"k4"]
    assert side.slice_of(batch, 61, len(batch), 6) is batch
    assert side.slice_of(batch, 61, stop, 5) == side.gather(batch, raw[:5])
    assert side.records(side.slice_of(batch, 61, 61, 0)) == []
    before = bytes(bytearray(batch))
    assert batch == before
    for first, end in ((60, 70), (-1, 70), (70, 69), (61, len(batch) + 1)):
        with pytest.raises(Corrupt):
            side.slice_of(batch, first, end, 1)
    with pytest.raises(Corrupt):
        side.slice_of(batch[:60], 61, 61, 0)


def test_highest_qos_of_a_batch_and_of_its_builder(side: Side) -> None:
    builder = side.BatchBuilder(side.turn(), None, 1 << 20, None)
    for given, highest in (((4, 0), 0), ((1, 4), 1), ((0, 6, 1), 2)):
        assert builder.qos == 0
        for attributes in given:
            builder.append(b"k", b"v", b"\0", attributes, 0)
        assert builder.qos == highest
        batch, _ = builder.take()
        assert side.max_qos(batch) == highest
        with pytest.raises(Corrupt):
            side.max_qos(batch[:-1])
        with pytest.raises(Corrupt):
            side.max_qos(batch[:60])
