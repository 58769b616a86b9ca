"""Records of links: any split gives the same ones, and what is none is said to be none."""

import struct

import pytest

from robustmq.errors import ProtocolError
from robustmq.net.peer_records import (
    HEAD_BYTES,
    STRANGER_BYTES,
    Fault,
    Kind,
    Reader,
    Record,
    encode,
    pack,
    unpack,
)

FRAMES = [b"", b"a", b"bc" * 400]
RECORDS = [
    Record(Kind.HELLO, 0, 0, b"hello"),
    Record(Kind.FRAMES, 1, 7, pack(FRAMES)),
    Record(Kind.ACK, 0, 1 << 60, b""),
]


def sent(records: list[Record]) -> bytes:
    return b"".join(encode(record) + record.body for record in records)


@pytest.mark.parametrize("step", [1, 27, 28, 29, 10_000])
def test_any_split_gives_the_same_records(step: int) -> None:
    data = sent(RECORDS)
    reader = Reader()
    found: list[Record] = []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        while (record := reader.next()) is not None:
            found.append(record)
    assert found == RECORDS
    assert unpack(found[1].body) == FRAMES


@pytest.mark.parametrize("at", [1, 4, 8, 16, 24, HEAD_BYTES, HEAD_BYTES + 4])
def test_a_changed_byte_is_noticed(at: int) -> None:
    data = bytearray(sent(RECORDS))
    data[at] ^= 1
    reader = Reader()
    reader.feed(bytes(data))
    with pytest.raises(ProtocolError) as caught:
        list(iter(reader.next, None))
    assert caught.value.reason == Fault.CHECKSUM


def test_an_unknown_kind_is_refused() -> None:
    reader = Reader()
    reader.feed(b"\x63" + bytes(HEAD_BYTES))
    with pytest.raises(ProtocolError, match="unknown kind 99"):
        reader.next()


def test_a_large_record_is_refused_by_its_head() -> None:
    reader = Reader()
    reader.feed(encode(Record(Kind.HELLO, 0, 0, bytes(STRANGER_BYTES + 1))))
    with pytest.raises(ProtocolError, match="4097 bytes, more than 4096") as caught:
        reader.next()
    assert caught.value.reason == Fault.TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01\0\0",
        struct.pack("<I", 0),
        struct.pack("<I", 3) + bytes(8),
        struct.pack("<II", 1, 5) + b"four",
        struct.pack("<II", 1, 3) + b"four",
        struct.pack("<I", 0xFFFFFFFF),
    ],
)
def test_a_table_that_does_not_fit_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(body)
