"""Varints, tags and batches on the wire."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.kafka.wire import (
    MAX_TEXT,
    PIECE_MIN,
    put_batches,
    put_tag,
    put_uvarint,
    read_uvarint,
    shortened,
    skip_tags,
)

VARINTS = {
    0: "00",
    127: "7f",
    128: "8001",
    300: "ac02",
    16_384: "808001",
    (1 << 32) - 1: "ffffffff0f",
}


@pytest.mark.parametrize(("value", "text"), VARINTS.items())
def test_a_varint_has_seven_bits_a_byte(value: int, text: str) -> None:
    out = bytearray()
    put_uvarint(out, value)
    assert out.hex() == text
    assert read_uvarint(b"x" + bytes(out) + b"y", 1) == (value, 1 + len(out))


def test_a_varint_has_five_bytes_at_most() -> None:
    with pytest.raises(ProtocolError, match="5 bytes"):
        read_uvarint(b"\x80" * 5 + b"\1", 0)
    with pytest.raises(IndexError):
        read_uvarint(b"\x80" * 3, 0)


def test_tags_are_skipped_by_their_sizes() -> None:
    out = bytearray(b"\2")
    put_tag(out, 1, bytearray(b"abc"))
    put_tag(out, 200, bytearray(300))
    assert skip_tags(bytes(out) + b"rest", 0) == len(out)


@pytest.mark.parametrize(
    ("is_compact", "null", "empty", "three"),
    [(False, b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\3"), (True, b"\0", b"\1", b"\4")],
)
def test_batches_are_null_or_bytes_or_several(
    is_compact: bool, null: bytes, empty: bytes, three: bytes
) -> None:
    for batches, expected in (
        (None, null),
        (b"", empty),
        ((), empty),
        (b"abc", three + b"abc"),
        ((b"ab", b"c"), three + b"abc"),
    ):
        out, pieces = bytearray(), list[bytes]()
        put_batches(out, pieces, batches, is_compact)
        assert (bytes(out), pieces) == (expected, [])


def test_large_batches_end_what_was_before_them() -> None:
    batch = bytes(PIECE_MIN)
    out, pieces = bytearray(b"head"), list[bytes]()
    put_batches(out, pieces, [batch, b"tail"], is_compact=False)
    assert pieces == [b"head" + (PIECE_MIN + 4).to_bytes(4, "big"), batch, b"tail"]
    assert not out


def test_a_text_is_cut_between_characters() -> None:
    assert shortened(b"a" + "ö".encode() * MAX_TEXT) == b"a" + "ö".encode() * (MAX_TEXT // 2)
