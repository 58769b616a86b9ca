"""Properties of a message as record headers, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.message.record import (
    EXPIRES_AT,
    NO_HEADERS,
    PUBLISHER,
    expires_at,
    header_block,
    read_headers,
)
from robustmq.mqtt import properties as block
from robustmq.mqtt.headers import describe, to_headers
from robustmq.mqtt.packets import V5, V31, V311, PacketType, Properties
from robustmq.mqtt.wire import Reader, varint

NOW = 1_700_000_000_000
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
messages = st.builds(
    Properties,
    payload_format=st.none() | st.integers(0, 1),
    content_type=st.none() | text,
    response_topic=st.none() | st.just("answers/1"),
    correlation_data=st.none() | st.binary(max_size=20),
    user_properties=st.lists(
        st.tuples(text | st.sampled_from(["mqtt.x", "mqtt.user.y", "robustmq.publisher"]), text),
        max_size=4,
    ).map(tuple),
)


def read(encoded: bytes) -> Properties | None:
    whole = varint(len(encoded)) + encoded
    return block.decode(Reader(whole, 0, len(whole)), PacketType.PUBLISH)


@given(messages, st.none() | st.integers(0, 0xFFFFFFFF), st.integers(0, 1 << 60))
def test_what_goes_in_comes_out(given: Properties, expiry: int | None, publisher: int) -> None:
    given.message_expiry_interval = expiry
    headers = to_headers(given, NOW, 0, publisher)
    encoded, deadline, key = describe(headers, V5)
    assert key == publisher
    assert deadline == (NOW + expiry * 1_000 if expiry is not None else 0)
    assert deadline == expires_at(headers)
    if expiry is not None:
        # The kernel fills in what remains, first in the block.
        assert encoded.startswith(b"\x02\0\0\0\0")
        given.message_expiry_interval = 0
    assert read(encoded) == (None if given == Properties() else given)
    for version in (V31, V311):
        assert describe(headers, version) == (b"", deadline, publisher)


def test_nothing_is_nothing() -> None:
    assert to_headers(None, NOW, 0, 0) == to_headers(Properties(), NOW, 0, 0) == NO_HEADERS
    assert describe(NO_HEADERS, V5) == (b"", 0, 0)


@pytest.mark.parametrize(("asked", "most", "left"), [(None, 5, 5), (9, 5, 5), (3, 5, 3), (9, 0, 9)])
def test_the_server_caps_the_expiry_interval(asked: int | None, most: int, left: int) -> None:
    headers = to_headers(Properties(message_expiry_interval=asked), NOW, most, 0)
    assert expires_at(headers) == NOW + left * 1_000


def test_names_of_ours_stay_ours() -> None:
    """A client cannot forge what the broker itself writes into a record."""
    forged = tuple((name.decode(), "x" * 8) for name in (EXPIRES_AT, PUBLISHER))
    headers = to_headers(Properties(user_properties=forged), NOW, 0, 0)
    assert all(name.startswith(b"mqtt.user.robustmq.") for name, _ in read_headers(headers))
    assert describe(headers, V5)[1:] == (0, 0)


def test_what_mqtt_cannot_say_of_other_protocols_is_left_out() -> None:
    headers = header_block(
        [(b"a", b"1"), (b"\xff", b"2"), (b"b", b"\xff"), (b"c", None), (b"d", b"x" * 65_536)]
    )
    assert read(describe(headers, V5)[0]) == Properties(user_properties=(("a", "1"),))
