"""The rows of sessions: layouts that must not change, and what is wrong with others."""

import msgspec
import pytest

from robustmq.broker.api import Options, Principal, Window
from robustmq.errors import Corrupt
from robustmq.mqtt.packets import Properties, Will
from robustmq.mqtt.session import DURABLE, Session, Subscribed
from robustmq.mqtt.session_rows import (
    SessionRows,
    decode_session,
    decode_subscription,
    encode_session,
    encode_subscription,
    flags_of,
    options_of,
    will_of,
)
from tests.unit.mqtt.scripted import ScriptedBroker

NUMBER = 5 << 48 | DURABLE | 9


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def session(broker: ScriptedBroker) -> Session:
    window = Window(broker.turn, 10, 1_000, 1_000)
    window.key = NUMBER
    session = Session(Principal("cliënt", "user", "1.2.3.4"), window)
    session.expiry = 60
    session.version = 5
    session.stored = True
    return session


def rows_of(broker: ScriptedBroker) -> dict[bytes, bytes]:
    broker.end_turn()
    return dict(broker.state.walk(b"s", b"v"))


def test_what_a_session_is_comes_back(session: Session) -> None:
    given = Properties(
        payload_format=1,
        message_expiry_interval=9,
        content_type="t",
        response_topic="r",
        correlation_data=b"\0",
        will_delay_interval=7,
        user_properties=(("a", "1"), ("a", "2")),
    )
    for will in (None, Will(b"w"), Will(b"w", b"\xff", 2, True, given)):
        session.will = will
        row = decode_session(encode_session(session))
        assert (row.number, row.expiry, row.version, row.ended_ms) == (NUMBER, 60, 5, 0)
        assert row.username == "user"
        assert will_of(row.will) == will
    session.ended_ms = 1_700_000_000_000
    assert decode_session(encode_session(session)).ended_ms == 1_700_000_000_000


@pytest.mark.parametrize("flags", [flags for flags in range(16) if flags & 3 != 3])
def test_options_are_the_byte_of_subscribe(flags: int) -> None:
    options = options_of(flags, b"")
    assert options is options_of(flags, b"")
    assert options == Options(flags & 3, bool(flags & 4), bool(flags & 8))
    assert flags_of(options) == flags
    named = Subscribed(b"$share/g/a", options_of(flags, b"\x0b\x05"), 1 << 60)
    assert decode_subscription(b"$share/g/a", encode_subscription(named)) == named


def test_the_layouts_of_version_1(session: Session) -> None:
    """Rows that were written once are read for ever."""
    unpacked = msgspec.msgpack.decode(encode_session(session))
    assert unpacked == [1, NUMBER, 60, 5, 0, "user", None, "1.2.3.4", False, 0, 0]
    older = decode_session(msgspec.msgpack.encode(unpacked[:7]))
    assert (older.username, older.address, older.superuser) == ("user", "", False)
    assert older.generation == 0
    session.will = Will(b"w", b"x", 1, True, Properties(will_delay_interval=7))
    will = msgspec.msgpack.decode(encode_session(session))[6]
    assert will == [b"w", b"x", 1, True, b"\x05\x18\0\0\0\x07"]
    subscribed = Subscribed(b"a", Options(2, True, False, b"\x0b\x05"), 77)
    assert msgspec.msgpack.decode(encode_subscription(subscribed)) == [1, 6, 77, b"\x0b\x05"]


@pytest.mark.parametrize(
    "value", [b"", b"\xff", msgspec.msgpack.encode([2, 1, 1, 1, 1, None, None])]
)
def test_what_cannot_be_read_is_corrupt(value: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_session(value)
    with pytest.raises(Corrupt):
        decode_subscription(b"a", value)


def test_a_will_whose_properties_are_none_is_corrupt(session: Session) -> None:
    row = decode_session(encode_session(session))
    session.will = Will(b"w", properties=Properties(will_delay_interval=1))
    row.will = decode_session(encode_session(session)).will
    assert row.will is not None
    row.will.properties = b"\x05\x18\0"
    with pytest.raises(Corrupt):
        will_of(row.will)


@pytest.mark.parametrize("many", [3, 1_500])
def test_the_rows_of_a_session_go_with_it_and_no_others(
    broker: ScriptedBroker, session: Session, many: int
) -> None:
    rows = SessionRows(broker.state)
    window = Window(broker.turn, 10, 1_000, 1_000)
    window.key = NUMBER + 1
    other = Session(Principal("other"), window)
    for each in (session, other):
        rows.put(each)
        for number in range(many):
            each.subscribe(Subscribed(b"%d" % number, Options()))
            rows.put_subscription(each, Subscribed(b"%d" % number, Options()))
            each.receive(number + 1, None)
            rows.put_received(each, number + 1)
    assert len(rows_of(broker)) == 2 * (1 + 2 * many)
    rows.erase(session)
    left = rows_of(broker)
    assert len(left) == 1 + 2 * many
    assert b"sother" in left
    assert all(key[1:9] == window.key.to_bytes(8, "big") for key in left if key != b"sother")
    rows.delete_subscription(other, b"0")
    rows.delete_received(other, 1)
    assert len(rows_of(broker)) == 2 * many - 1


def test_reading(broker: ScriptedBroker, session: Session) -> None:
    rows = SessionRows(broker.state)
    rows.put(session)
    subscribed = Subscribed("ä/#".encode(), Options(1), 3)
    rows.put_subscription(session, subscribed)
    rows.put_received(session, 65_535)
    broker.end_turn()
    ((client_id, row),) = rows.sessions()
    assert (client_id, row.number) == ("cliënt", NUMBER)
    ((key, number, found),) = rows.subscriptions()
    assert (number, found) == (NUMBER, subscribed)
    ((other, number, packet_id),) = rows.received()
    assert (number, packet_id) == (NUMBER, 65_535)
    rows.discard(key)
    rows.discard(other)
    assert list(rows_of(broker)) == ["scliënt".encode()]
