"""Compressed batches: what real clients make is read, and bombs, damage and lies are Corrupt."""

import zlib
from collections.abc import Callable

import cramjam
import lz4.frame
import pytest
import zstandard
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record import MemoryRecordsBuilder

from robustmq._kernel.batch import records
from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.message.compression import (
    Codec,
    UnknownCodec,
    codec_of,
    compressed,
    decompress,
    decompressed,
)

MOST = 1 << 20
CODECS = [codec for codec in Codec if codec is not Codec.NONE]
ROWS = [(1_000 + i, b"key %d" % (i % 3), b"value of some length %d" % i) for i in range(50)]


def by_aiokafka(codec: Codec) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=7,
        producer_epoch=1,
        base_sequence=5,
        batch_size=1 << 20,
    )
    for i, (timestamp, key, value) in enumerate(ROWS):
        assert builder.append(i, timestamp, key, value, [("h", b"1")])
    return bytes(builder.build())


def by_kafka_python(codec: Codec) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=1 << 20)
    for timestamp, key, value in ROWS:
        assert builder.append(timestamp=timestamp, key=key, value=value, headers=[("h", b"1")])
    builder.close()
    return bytes(builder.buffer())


def read(batch: bytes) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(timestamp, key, value) for _, timestamp, _, key, value, _ in records(batch)]


def is_whole(batch: bytes) -> bool:
    length = int.from_bytes(batch[8:12], "big")
    return length == len(batch) - 12 and int.from_bytes(batch[17:21], "big") == crc32c(batch[21:])


@pytest.mark.parametrize(
    ("make", "codec"),
    [(by_aiokafka, codec) for codec in CODECS]
    # It has snappy by another library only.
    + [(by_kafka_python, codec) for codec in CODECS if codec is not Codec.SNAPPY],
)
def test_what_clients_compress_is_read(make: Callable[[Codec], bytes], codec: Codec) -> None:
    batch = make(codec)
    assert codec_of(batch) is codec
    plain = decompressed(batch, MOST)
    assert codec_of(plain) is Codec.NONE
    assert is_whole(plain)
    assert read(plain) == ROWS
    # The producer's fields and the offsets are what they were.
    assert plain[:8] == batch[:8]
    assert plain[23:61] == batch[23:61]


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_compressed_here_is_smaller_and_comes_back(codec: Codec) -> None:
    plain = by_aiokafka(Codec.NONE)
    small = compressed(plain, codec)
    assert is_whole(small)
    assert len(small) < len(plain)
    assert decompressed(small, MOST) == plain


def test_a_batch_that_is_not_compressed_is_itself() -> None:
    plain = by_aiokafka(Codec.NONE)
    assert decompressed(plain, 0) is plain
    assert compressed(plain, Codec.NONE) is plain


def test_what_is_compressed_is_not_compressed_again() -> None:
    with pytest.raises(Corrupt, match="already"):
        compressed(by_aiokafka(Codec.LZ4), Codec.LZ4)


@pytest.mark.parametrize("codec", CODECS)
def test_the_bound_is_exact(codec: Codec) -> None:
    batch = compressed(by_aiokafka(Codec.NONE), codec)
    size = len(by_aiokafka(Codec.NONE)) - 61
    assert len(decompressed(batch, size)) == size + 61
    with pytest.raises(Corrupt):
        decompressed(batch, size - 1)


def bombs() -> list[tuple[Codec, bytes]]:
    zeros = bytes(64 << 20)
    block = bytes(cramjam.snappy.compress_raw(zeros))
    xerial = b"\x82SNAPPY\0" + bytes(8) + (len(block).to_bytes(4, "big") + block) * 2
    return [
        (Codec.GZIP, zlib.compress(zeros, wbits=31)),
        (Codec.LZ4, lz4.frame.compress(zeros, store_size=False)),
        (Codec.LZ4, lz4.frame.compress(zeros)),
        (Codec.ZSTD, zstandard.ZstdCompressor().compress(zeros)),
        (Codec.ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(zeros)),
        (Codec.SNAPPY, block),
        (Codec.SNAPPY, xerial),
        # A block that promises 4 GiB and holds nothing.
        (Codec.SNAPPY, b"\xff\xff\xff\xff\x0f"),
    ]


def test_bombs_are_corrupt() -> None:
    for codec, data in bombs():
        with pytest.raises(Corrupt):
            decompress(data, codec, 100_000)


@pytest.mark.parametrize("codec", CODECS)
def test_members_and_frames_may_follow_each_other(codec: Codec) -> None:
    if codec is Codec.SNAPPY:
        block = bytes(cramjam.snappy.compress_raw(b"twice "))
        data = b"\x82SNAPPY\0" + bytes(8) + (len(block).to_bytes(4, "big") + block) * 2
    else:
        batch = bytes(61)
        data = compressed(batch + b"twice ", codec)[61:] * 2
    assert decompress(data, codec, 12) == b"twice twice "
    with pytest.raises(Corrupt):
        decompress(data, codec, 11)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_cut_is_corrupt_or_cut(codec: Codec) -> None:
    plain = by_aiokafka(Codec.NONE)
    whole = compressed(plain, codec)
    for length in range(61, len(whole)):
        try:
            found = decompressed(whole[:length], MOST)
        except Corrupt:
            continue
        assert len(found) < len(plain)
        with pytest.raises(Corrupt):
            records(found)


def test_an_unknown_codec_and_a_cut_header_are_corrupt() -> None:
    batch = bytearray(by_aiokafka(Codec.NONE))
    batch[22] = 5
    with pytest.raises(UnknownCodec, match="no codec 5"):
        decompressed(bytes(batch), MOST)
    with pytest.raises(Corrupt):
        codec_of(bytes(60))
