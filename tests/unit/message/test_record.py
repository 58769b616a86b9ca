"""Records: the attribute byte and the header block of the v2 layout."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.message.record import (
    EXPIRES_AT,
    NO_HEADERS,
    Record,
    expires_at,
    header_block,
    read_headers,
    zigzag,
)

headers = st.lists(st.tuples(st.binary(max_size=300), st.none() | st.binary(max_size=300)))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (-64, "7f"), (64, "8001"), (300, "d804")],
)
def test_zigzag_by_example(value: int, encoded: str) -> None:
    # The examples are those of the protocol buffers' documentation of ZigZag, and varints.
    assert zigzag(value).hex() == encoded


def test_the_attribute_byte() -> None:
    for qos in range(3):
        for retain in (False, True):
            record = Record(key=b"a", value=b"", qos=qos, retain=retain, timestamp=0)
            assert record.attributes == qos + 4 * retain
    assert Record(key=b"a", value=b"", timestamp=0).headers == NO_HEADERS == header_block([])


@given(headers)
def test_what_is_written_is_read(entries: list[tuple[bytes, bytes | None]]) -> None:
    assert list(read_headers(header_block(entries))) == entries


@given(headers.filter(len), st.data())
def test_a_cut_block_is_corrupt(
    entries: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    block = header_block(entries)
    cut = block[: data.draw(st.integers(0, len(block) - 1))]
    with pytest.raises(Corrupt):
        list(read_headers(cut))


@given(st.binary(max_size=60))
def test_garbage_is_headers_or_corrupt(garbage: bytes) -> None:
    found: list[tuple[bytes, bytes | None]] = []
    with suppress(Corrupt):
        found += read_headers(garbage)
    assert sum(len(name) + len(value or b"") for name, value in found) <= len(garbage)


@pytest.mark.parametrize(
    "block", [zigzag(-1), zigzag(1) + zigzag(-5) + b"abc", b"", b"\x80" * 11 + b"\0"]
)
def test_negative_and_endless_lengths_are_corrupt(block: bytes) -> None:
    with pytest.raises(Corrupt):
        list(read_headers(block))


def test_expiry_is_found_among_other_headers() -> None:
    when = (1_234_567_890_123).to_bytes(8, "big")
    assert expires_at(header_block([(b"a", b"b"), (EXPIRES_AT, when)])) == 1_234_567_890_123
    assert expires_at(header_block([(b"a", EXPIRES_AT), (b"b", None)])) == 0
    assert expires_at(header_block([(EXPIRES_AT, None)])) == 0
    assert expires_at(NO_HEADERS) == 0
