"""The records of a batch, compressed and not: the codecs of the v2 layout.

A batch says in its attributes how what follows its header is compressed. Decompression ends at a
bound, whatever the bytes promise. The library of each codec is the quickest of those that keep
to it: 16 KiB of JSON are back within 44 µs (gzip), 9 µs (snappy), 10 µs (lz4), 26 µs (zstd).
"""

import enum
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import cramjam
import lz4.frame
import zstandard

from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.message.batch import HEADER, count_of

_CODEC_BITS: Final = 0b111
_ATTRIBUTES: Final = 21
_GZIP_WINDOW: Final = 31
"""zlib's way to say: the largest window, and gzip's header and trailer around it."""

_XERIAL: Final = b"\x82SNAPPY\0"
"""How the stream of snappy-java begins, in which others than librdkafka put their blocks."""
_XERIAL_HEADER: Final = 16


class Codec(enum.IntEnum):
    """How records are compressed: the low bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class UnknownCodec(Corrupt):
    """A batch names a codec that the layout has not."""


def codec_of(batch: bytes) -> Codec:
    """Return how the records of a batch are compressed. Raises Corrupt: it is cut, or unknown."""
    count_of(batch)
    bits = batch[_ATTRIBUTES + 1] & _CODEC_BITS
    if bits > Codec.ZSTD:
        raise UnknownCodec(f"record batch: there is no codec {bits}")
    return Codec(bits)


def decompressed(batch: bytes, most: int) -> bytes:
    """Return the batch with its records as they are; one that is not compressed is itself.

    Offsets stay, checksum and length are those of what is returned. Raises Corrupt when the
    records are damaged, or would take more than `most` bytes.
    """
    codec = codec_of(batch)
    if codec is Codec.NONE:
        return batch
    return _with_records(batch, Codec.NONE, decompress(batch[HEADER:], codec, most))


def compressed(batch: bytes, codec: Codec) -> bytes:
    """Return a batch that is not compressed with its records compressed. Raises Corrupt."""
    if codec_of(batch) is not Codec.NONE:
        raise Corrupt("record batch: it is compressed already")
    if codec is Codec.NONE:
        return batch
    return _with_records(batch, codec, _COMPRESS[codec](batch[HEADER:]))


def decompress(data: bytes, codec: Codec, most: int) -> bytes:
    """Return what was compressed, at most `most` bytes. Raises Corrupt: damaged, or more."""
    if codec is Codec.NONE:
        return data
    try:
        found = b"".join(_PARTS[codec](data, most))
    except _DAMAGE as error:
        raise Corrupt(f"record batch: {codec.name.lower()} data is damaged: {error}") from error
    if len(found) > most:
        raise Corrupt(f"record batch: its records take more than {most} bytes")
    return found


def _with_records(batch: bytes, codec: Codec, records: bytes) -> bytes:
    attributes = int.from_bytes(batch[_ATTRIBUTES : _ATTRIBUTES + 2], "big")
    attributes = attributes & ~_CODEC_BITS | codec
    rest = attributes.to_bytes(2, "big") + batch[_ATTRIBUTES + 2 : HEADER] + records
    length = (len(rest) + 9).to_bytes(4, "big")
    return b"".join((batch[:8], length, batch[12:17], crc32c(rest).to_bytes(4, "big"), rest))


# Each of these yields what is decompressed until that is more than `most` bytes.


def _gzip(data: bytes, most: int) -> Iterator[bytes]:
    """Members, one behind the other (RFC 1952 2.2)."""
    while True:
        member = zlib.decompressobj(_GZIP_WINDOW)
        found = member.decompress(data, most + 1)
        most -= len(found)
        yield found
        if most < 0:
            return
        if not member.eof:
            raise ValueError("it is cut")
        data = member.unused_data
        if not data:
            return


def _lz4(data: bytes, most: int) -> Iterator[bytes]:
    """Frames, one behind the other."""
    while True:
        frame = lz4.frame.LZ4FrameDecompressor()
        found = frame.decompress(data, most + 1)
        most -= len(found)
        yield found
        if most < 0:
            return
        if not frame.eof:
            raise ValueError("it is cut")
        data = frame.unused_data
        if not data:
            return


def _snappy(data: bytes, most: int) -> Iterator[bytes]:
    """One block, or the stream of snappy-java: a header, then blocks with a size of 4 bytes."""
    if not data.startswith(_XERIAL):
        yield _snappy_block(data, most)
        return
    if len(data) < _XERIAL_HEADER:
        raise ValueError("it is cut")
    at = _XERIAL_HEADER
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if size > len(data) - at:
            raise ValueError("it is cut")
        found = _snappy_block(data[at : at + size], most)
        most -= len(found)
        yield found
        at += size


def _snappy_block(data: bytes, most: int) -> bytes:
    size = cramjam.snappy.decompress_raw_len(data)
    if size > most:
        # It takes what it promises before it has looked at the rest.
        raise ValueError(f"a block of {size} bytes")
    return bytes(cramjam.snappy.decompress_raw(data))


def _zstd(data: bytes, most: int) -> Iterator[bytes]:
    """Frames, one behind the other; that the last one is cut is seen by who reads the records."""
    with _DECOMPRESSOR.stream_reader(data, read_across_frames=True) as frames:
        yield frames.read(most + 1)


def _compress_gzip(data: bytes) -> bytes:
    return zlib.compress(data, wbits=_GZIP_WINDOW)


def _compress_snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def _compress_lz4(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data))


def _compress_zstd(data: bytes) -> bytes:
    return _COMPRESSOR.compress(data)


_COMPRESSOR: Final = zstandard.ZstdCompressor()
_DECOMPRESSOR: Final = zstandard.ZstdDecompressor()

_DAMAGE: Final = (
    ValueError,
    RuntimeError,
    EOFError,
    zlib.error,
    zstandard.ZstdError,
    cramjam.DecompressionError,
)
_PARTS: Final[dict[Codec, Callable[[bytes, int], Iterator[bytes]]]] = {
    Codec.GZIP: _gzip,
    Codec.SNAPPY: _snappy,
    Codec.LZ4: _lz4,
    Codec.ZSTD: _zstd,
}
_COMPRESS: Final[dict[Codec, Callable[[bytes], bytes]]] = {
    Codec.GZIP: _compress_gzip,
    Codec.SNAPPY: _compress_snappy,
    Codec.LZ4: _compress_lz4,
    Codec.ZSTD: _compress_zstd,
}
