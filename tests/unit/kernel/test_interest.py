"""Interest: who gets which records of a batch, and which nobody wants."""

import pytest

from robustmq.errors import Corrupt
from tests.datapath import SIDES, Side, batch_of

CORES = {b"a": (0, 1), b"b": (1,), b"c": (2,)}
NONE: tuple[int, ...] = ()


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


class Table:
    """What the broker knows, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def resolve(self, topic: bytes) -> tuple[int, ...]:
        self.asked.append(topic)
        return CORES.get(topic, NONE)


def test_cores_get_their_records_and_ranges_say_what_nobody_wants(side: Side) -> None:
    topics = [b"x", b"a", b"a", b"b", b"y", b"x", b"c", b"a", b"x"]
    batch = batch_of(side, *((topic, b"%d" % i, i % 3) for i, topic in enumerate(topics)))
    table = Table()
    out, unmatched = side.Interest(table.resolve, 100).split(batch)
    assert unmatched == [(0, 1), (4, 6), (8, 9)]
    every = side.records(batch)
    got = dict(out)
    assert sorted(got) == [0, 1, 2]
    for core, part in out:
        assert side.records(part) == [
            record for record in every if core in CORES.get(record[3], NONE)
        ]
        assert part[8:12] == (len(part) - 12).to_bytes(4, "big")
        assert part[:8] + part[12:17] + part[21:57] == batch[:8] + batch[12:17] + batch[21:57]
    assert table.asked == [b"x", b"a", b"b", b"y", b"c"]


def test_a_batch_for_the_same_cores_is_handed_on_as_it_is(side: Side) -> None:
    batch = batch_of(side, (b"a", b"1", 0), (b"a", b"2", 1))
    out, unmatched = side.Interest(Table().resolve, 100).split(batch)
    assert [core for core, _ in out] == [0, 1]
    assert all(part is batch for _, part in out)
    assert unmatched == []


def test_a_batch_that_nobody_wants(side: Side) -> None:
    batch = batch_of(side, (b"x", b"1", 0), (b"y", b"2", 1))
    assert side.Interest(Table().resolve, 100).split(batch) == ([], [(0, 2)])
    assert side.Interest(Table().resolve, 100).split(side.gather(batch, [])) == ([], [])


def test_records_without_key_interest_nobody(side: Side) -> None:
    batch = batch_of(side, (b"a", b"1", 0))
    null = bytes((14, 0, 0, 0, 1, 2)) + b"v\0"
    keyed = side.cut(batch, 61, 1)[0]
    both = side.gather(batch, [null, keyed, null, null])
    out, unmatched = side.Interest(Table().resolve, 100).split(both)
    assert [(core, len(side.records(part))) for core, part in out] == [(0, 1), (1, 1)]
    assert unmatched == [(0, 1), (2, 4)]


def test_answers_are_kept_until_forgotten_and_bounded(side: Side) -> None:
    table = Table()
    interest = side.Interest(table.resolve, 2)
    batch = batch_of(side, (b"a", b"", 0), (b"b", b"", 0), (b"a", b"", 0))
    interest.split(batch)
    interest.split(batch)
    assert table.asked == [b"a", b"b"]
    interest.forget(b"a")
    interest.forget(b"unknown")
    interest.split(batch)
    assert table.asked == [b"a", b"b", b"a"]
    interest.forget()
    assert interest.targets == {}
    interest.split(batch_of(side, *((b"%d" % i, b"", 0) for i in range(5))))
    assert len(interest.targets) <= 2


def test_damaged_batches_are_corrupt(side: Side) -> None:
    batch = batch_of(side, (b"a", b"1", 0), (b"b", b"2", 1))
    for cut in (0, 60, 61, 65, len(batch) - 1):
        with pytest.raises(Corrupt):
            side.Interest(Table().resolve, 9).split(batch[:cut])
