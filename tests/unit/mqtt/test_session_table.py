"""Sessions of a core over time: kept, expired, and their wills."""

import pytest

from robustmq import metrics
from robustmq.broker.api import Options, Principal
from robustmq.errors import Refusal, Refused
from robustmq.mqtt.packets import Properties, Will
from robustmq.mqtt.session import NEVER, Session, Subscribed
from robustmq.mqtt.session_table import SessionTable
from robustmq.settings.mqtt import MqttProtocol
from tests.unit.mqtt.scripted import ScriptedBroker


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def table(broker: ScriptedBroker) -> SessionTable:
    return SessionTable(broker, MqttProtocol(), 5 << 48)


def opened(table: SessionTable, expiry: int = 0, will_delay: int | None = None) -> Session:
    will = None
    if will_delay is not None:
        will = Will(b"w", b"x", properties=Properties(will_delay_interval=will_delay))
    return table.open(Principal("c"), False, expiry=expiry, will=will).session


def subscribe(table: SessionTable, session: Session, written: bytes, qos: int = 1) -> None:
    subscribed = Subscribed(written, Options(qos), 7)
    session.subscribe(subscribed)
    table.rows.put_subscription(session, subscribed)


def test_keys_are_of_this_core_and_never_used_twice(table: SessionTable) -> None:
    keys = []
    for _ in range(3):
        session = opened(table)
        keys.append(session.window.key)
        table.detach(session, with_will=False)
    assert keys == [(5 << 48) + number for number in (1, 2, 3)]
    assert len(table) == 0


def test_a_session_is_there_until_it_expires(broker: ScriptedBroker, table: SessionTable) -> None:
    session = opened(table, expiry=2)
    table.detach(session, with_will=False)
    broker.pass_ms(1_900)
    assert table.open(Principal("c", "user"), False, expiry=2) == (session, True, True)
    assert session.principal.username == "user"
    broker.pass_ms(10_000)
    assert len(table) == 1
    table.detach(session, with_will=False)
    broker.pass_ms(2_100)
    assert len(table) == 0
    assert not table.open(Principal("c"), False).present
    assert broker.turn.row[metrics.SESSIONS_EXPIRED] == 1


def test_a_session_for_ever_has_no_timer(broker: ScriptedBroker, table: SessionTable) -> None:
    session = opened(table, expiry=NEVER)
    table.detach(session, with_will=False)
    assert broker.timers.next_ms is None
    assert table.open(Principal("c"), False).session is session


def test_the_end_of_a_session_takes_back_what_it_wanted(
    broker: ScriptedBroker, table: SessionTable
) -> None:
    session = opened(table, expiry=10)
    subscribe(table, session, b"a")
    subscribe(table, session, b"$share/g/b")
    broker.turn.row[metrics.SUBSCRIPTIONS] = 2
    table.detach(session, with_will=False)
    assert broker.gone == []
    fresh, present, waits = table.open(Principal("c"), True)
    assert fresh is not session
    assert not present
    assert waits
    assert broker.gone == [(b"", b"a"), (b"g", b"b")]
    assert broker.turn.row[metrics.SUBSCRIPTIONS] == 0
    assert broker.turn.row[metrics.SESSIONS] == 1


@pytest.mark.parametrize(
    ("expiry", "delay", "due_ms"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (5, 2, 2_000), (2, 5, 2_000), (NEVER, 2, 2_000)],
)
def test_a_will_is_due_after_its_delay_or_with_its_session(
    broker: ScriptedBroker, table: SessionTable, expiry: int, delay: int, due_ms: int
) -> None:
    session = opened(table, expiry, delay)
    table.detach(session, with_will=True)
    if due_ms:
        broker.pass_ms(due_ms - 100)
        assert broker.published == []
        broker.pass_ms(200)
    assert [asked.record.key for asked in broker.published] == [b"w"]
    broker.pass_ms(10_000)
    assert len(broker.published) == 1
    assert broker.turn.row[metrics.WILLS_PUBLISHED] == 1


def test_a_client_that_returns_or_takes_leave_has_no_will(
    broker: ScriptedBroker, table: SessionTable
) -> None:
    session = opened(table, 10, 2)
    table.detach(session, with_will=True)
    broker.pass_ms(1_000)
    assert table.open(Principal("c"), False, expiry=10).session is session
    broker.pass_ms(3_000)
    session.will = Will(b"w", b"x")
    table.detach(session, with_will=False)
    broker.pass_ms(20_000)
    assert broker.published == []
    assert len(table) == 0


def test_a_will_keeps_its_message_and_begins_to_expire_when_published(
    broker: ScriptedBroker, table: SessionTable
) -> None:
    session = opened(table, 10)
    session.will = Will(
        b"w", b"x", 2, True, Properties(will_delay_interval=1, message_expiry_interval=60)
    )
    table.detach(session, with_will=True)
    broker.pass_ms(1_100)
    record = broker.published[0].record
    assert (record.value, record.qos, record.retain) == (b"x", 2, True)
    assert record.timestamp >= broker.turn.now_ms - 100
    assert (record.timestamp + 60_000).to_bytes(8, "big") in record.headers


def test_who_takes_up_a_session_gets_what_that_client_may_have(
    broker: ScriptedBroker, table: SessionTable
) -> None:
    session = opened(table, expiry=10)
    for written in (b"a", b"b", b"$share/g/c"):
        subscribe(table, session, written)
    broker.turn.row[metrics.SUBSCRIPTIONS] = 3
    table.detach(session, with_will=False)
    for refused in (b"a", b"$share/g/c"):
        broker.refusals[refused] = Refused(Refusal.NOT_AUTHORIZED, "not for the other user")
    broker.refusals[b"b"] = Refused(Refusal.TOPIC_INVALID, "a limit that is new")
    assert table.open(Principal("c"), False, expiry=10).session is session
    assert session.subscription_count == 3
    table.detach(session, with_will=False)
    assert table.open(Principal("c", "other"), False, expiry=10).session is session
    assert [each.written for each in session.subscriptions] == [b"b"]
    assert broker.turn.row[metrics.SUBSCRIPTIONS] == 1
    assert broker.turn.row[metrics.SUBSCRIPTIONS_REVOKED] == 2
