"""A session: who hears himself, and who awaits a QoS 2 message."""

import pytest

from robustmq.broker.api import Options, Principal, Window
from robustmq.errors import Refusal
from robustmq.mqtt.session import Recording, Session, Subscribed
from tests.unit.mqtt.scripted import ScriptedBroker


@pytest.fixture
def session() -> Session:
    window = Window(ScriptedBroker().turn, 10, 1_000, 1_000)
    session = Session("c", window, Principal("c"))
    assert window.session is session
    return session


def test_no_local_concerns_what_the_filter_matches(session: Session) -> None:
    assert session.hears_itself(b"a/b")
    session.subscriptions["a/#"] = Subscribed(b"a/#", Options(no_local=True), None)
    session.subscriptions["b/#"] = Subscribed(b"b/#", Options(no_local=False), None)
    assert not session.hears_itself(b"a/b")
    assert session.hears_itself(b"b/b")


@pytest.mark.parametrize("code", [0, Refusal.BUSY])
def test_all_who_wait_for_a_message_are_told_once(session: Session, code: int) -> None:
    told: list[tuple[str, int, bool]] = []
    waiting: Recording = [lambda c, m: told.append(("first", c, m))]
    session.received[7] = waiting
    waiting.append(lambda c, m: told.append(("repeat", c, m)))
    session.recorded(7, waiting, code, False)
    assert told == [("first", code, False), ("repeat", code, False)]
    assert session.received == ({} if code else {7: None})


def test_an_answer_for_a_packet_id_that_means_another_message_by_now(session: Session) -> None:
    old: Recording = []
    new: Recording = []
    session.received[7] = new
    session.recorded(7, old, 0, True)
    assert session.received[7] is new
    del session.received[7]
    session.recorded(7, new, 0, True)
    assert session.received == {}
