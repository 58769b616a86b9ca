"""What a partition takes of a producer, and how it is changed: checks, times, codecs."""

import struct

import pytest

from robustmq._kernel.batch import records
from robustmq._kernel.crc import crc32c
from robustmq.message.compression import Codec, codec_of, compressed, decompressed
from robustmq.shard.fault import Fault
from robustmq.shard.produced import STAMPED, Terms, Unfit, checked
from robustmq.shard.producer_state import own_producer
from tests.produced import START_MS, TRANSACTIONAL, produced, record, restated, sealed

NOW = START_MS + 1_000
TERMS = Terms()
BATCH = produced(b"a", b"b", b"c", times=(START_MS, START_MS + 9, START_MS + 5))
CODECS = [codec for codec in Codec if codec is not Codec.NONE]


def fault_of(batch: bytes, terms: Terms = TERMS) -> Fault:
    with pytest.raises(Unfit) as caught:
        checked(batch, terms, NOW)
    assert caught.value.detail
    return caught.value.fault


def crc_of(batch: bytes) -> int:
    return int(struct.unpack_from(">I", batch, 17)[0])


@pytest.mark.parametrize("codec", [Codec.NONE, *CODECS])
def test_a_batch_that_fits_is_taken_as_it_is(codec: Codec) -> None:
    batch = compressed(BATCH, codec)
    found = checked(batch, TERMS, NOW)
    assert found.data is batch
    assert found[1:] == (3, -1, -1, -1, False, -1)


@pytest.mark.parametrize(
    ("batch", "fault"),
    [
        (b"", Fault.CORRUPT),
        (BATCH[:60], Fault.CORRUPT),
        (BATCH[:-1], Fault.CORRUPT),
        (BATCH[:-1] + b"x", Fault.CORRUPT),
        (BATCH + BATCH, Fault.INVALID_RECORD),
        (BATCH[:16] + b"\1" + BATCH[17:], Fault.INVALID_RECORD),
        (restated(BATCH, 57, bytes(4)), Fault.INVALID_RECORD),
        (restated(BATCH, 57, b"\0\0\0\2"), Fault.INVALID_RECORD),
        (restated(BATCH, 23, b"\xff\xff\xff\xff"), Fault.INVALID_RECORD),
        (restated(BATCH, 57, b"\xff\xff\xff\xff"), Fault.INVALID_RECORD),
        (restated(BATCH, 21, b"\0\5"), Fault.UNSUPPORTED_COMPRESSION),
        (restated(BATCH, 21, b"\0\4"), Fault.CORRUPT),
        (restated(BATCH, 21, b"\0\x20"), Fault.INVALID_RECORD),
        (restated(BATCH, 21, b"\0\x10"), Fault.INVALID_RECORD),
        (restated(BATCH, 21, b"\0\x08"), Fault.INVALID_TIMESTAMP),
        (produced(b"a", producer=1, epoch=-1, first=0), Fault.INVALID_RECORD),
        (produced(b"a", producer=1, epoch=0, first=-1), Fault.INVALID_RECORD),
        (produced(b"a", producer=own_producer(0, 1, 1).producer, epoch=0, first=0),
         Fault.INVALID_RECORD),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_sentence(batch: bytes, fault: Fault) -> None:
    assert fault_of(batch) is fault


@pytest.mark.parametrize(
    "rest",
    [
        record(0, b"k", b"v") + record(2, b"k", b"v"),
        record(0, b"k", b"v") + record(1, b"k", b"v") + b"\0",
        record(0, b"k", b"v") + record(1, b"k", b"v")[:-1],
        record(0, b"k", b"v") + record(1, b"k", b"v", headers=b"\2\2a"),
        record(0, b"k", b"v") + record(1, b"k", b"v", headers=b"\1"),
        record(0, b"k", b"v") + record(1, b"k", b"v", headers=b"\0\0"),
        record(0, b"k", b"v"),
        b"",
    ],
)
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4])
def test_records_are_looked_at(rest: bytes, codec: Codec) -> None:
    batch = compressed(sealed(rest, 2, (0, NOW, NOW), (-1, -1, -1)), codec)
    assert fault_of(batch) is Fault.INVALID_RECORD
    if codec is Codec.LZ4:
        unseen = TERMS._replace(checks_compressed=False)
        assert checked(batch, unseen, NOW).data is batch


def test_headers_are_taken() -> None:
    rest = record(0, b"k", None, headers=b"\4\2a\2b\2c\1")
    batch = sealed(rest, 1, (0, NOW, NOW), (-1, -1, -1))
    assert checked(batch, TERMS, NOW).data is batch


def test_a_batch_is_no_larger_than_its_topic_takes() -> None:
    assert checked(BATCH, TERMS._replace(max_bytes=len(BATCH)), NOW).data is BATCH
    assert fault_of(BATCH, TERMS._replace(max_bytes=len(BATCH) - 1)) is Fault.TOO_LARGE


def test_a_bomb_is_not_decompressed() -> None:
    bomb = compressed(produced(bytes(1 << 20)), Codec.ZSTD)
    assert fault_of(bomb, TERMS._replace(most_bytes=1 << 19)) is Fault.CORRUPT


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.SNAPPY])
@pytest.mark.parametrize("checks", [True, False])
def test_times_are_within_what_the_topic_allows(codec: Codec, checks: bool) -> None:
    terms = TERMS._replace(before_ms=1_000, after_ms=500, checks_compressed=checks)
    for times, fits in [
        ((NOW - 1_000, NOW + 500), True),
        ((NOW - 1_001, NOW), False),
        ((NOW, NOW + 501), False),
    ]:
        batch = compressed(produced(b"a", b"b", times=times), codec)
        if fits:
            assert checked(batch, terms, NOW).data is batch
        else:
            assert fault_of(batch, terms) is Fault.INVALID_TIMESTAMP
    timeless = produced(b"a", times=(-1,))
    assert checked(timeless, terms, NOW).data is timeless


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
def test_the_time_of_the_append_is_stamped_on_the_batch(codec: Codec) -> None:
    found = checked(compressed(BATCH, codec), TERMS._replace(stamps=True, before_ms=0), NOW)
    assert found.timestamp_ms == NOW
    assert int.from_bytes(found.data[35:43], "big") == NOW
    assert found.data[22] == STAMPED | codec
    assert crc_of(bytes(found.data)) == crc32c(found.data[21:])
    assert found.data[43:] == compressed(BATCH, codec)[43:]


def test_a_latest_time_that_is_none_of_a_record_is_corrected() -> None:
    lie = restated(BATCH, 35, (START_MS * 2).to_bytes(8, "big"))
    found = checked(lie, TERMS, NOW)
    assert found.data == BATCH


@pytest.mark.parametrize("given", [Codec.NONE, *CODECS])
@pytest.mark.parametrize("wanted", [Codec.NONE, Codec.ZSTD])
def test_a_topic_with_a_codec_has_all_batches_in_it(given: Codec, wanted: Codec) -> None:
    batch = compressed(produced(b"a" * 1_000, b"b", producer=7, epoch=1, first=5), given)
    found = checked(batch, TERMS._replace(codec=wanted, stamps=True, checks_compressed=False), NOW)
    assert codec_of(bytes(found.data)) is wanted
    assert crc_of(bytes(found.data)) == crc32c(found.data[21:])
    assert records(decompressed(bytes(found.data), 1 << 20)) == records(
        decompressed(batch, 1 << 20)
    )
    assert found[1:] == (2, 7, 1, 5, False, NOW)


def test_a_compacted_topic_needs_keys() -> None:
    terms = TERMS._replace(needs_keys=True, checks_compressed=False)
    assert checked(BATCH, terms, NOW).data is BATCH
    keyless = produced(b"a", key=None)
    assert checked(keyless, TERMS, NOW).data is keyless
    for batch in (keyless, compressed(keyless, Codec.LZ4)):
        assert fault_of(batch, terms) is Fault.INVALID_RECORD


def test_a_transactional_batch_says_so() -> None:
    batch = produced(b"a", producer=7, epoch=1, first=5, attributes=TRANSACTIONAL)
    assert checked(batch, TERMS, NOW)[1:] == (1, 7, 1, 5, True, -1)
