"""A session: who hears himself, and who awaits a QoS 2 message."""

import pytest

from robustmq.broker.api import Options, Principal, Window
from robustmq.errors import Refusal
from robustmq.mqtt.session import Recording, Session, Subscribed
from tests.unit.mqtt.scripted import ScriptedBroker


@pytest.fixture
def session() -> Session:
    window = Window(ScriptedBroker().turn, 10, 1_000, 1_000)
    session = Session(Principal("c"), window)
    assert window.session is session
    assert session.client_id == "c"
    return session


def options(no_local: bool) -> Options:
    return Options(no_local=no_local)


def test_no_local_concerns_what_the_filter_matches(session: Session) -> None:
    assert session.hears_itself(b"a/b")
    session.subscribe(Subscribed(b"a/#", options(no_local=True)))
    session.subscribe(Subscribed(b"b/#", options(no_local=False)))
    assert not session.hears_itself(b"a/b")
    assert session.hears_itself(b"b/b")


def test_a_shared_subscription_has_a_group_and_a_filter() -> None:
    shared = Subscribed(b"$share/g/a/$share/b", Options())
    assert (shared.group, shared.topic_filter) == (b"g", b"a/$share/b")
    plain = Subscribed(b"$shared/g/a", Options())
    assert (plain.group, plain.topic_filter) == (None, b"$shared/g/a")


def test_subscriptions_are_found_by_filter_however_many_there_are(session: Session) -> None:
    known: dict[bytes, Subscribed] = {}
    for number, written in enumerate([b"a", b"a", b"b", b"c", b"b", b"a"]):
        known[written] = Subscribed(written, Options(), number)
        session.subscribe(known[written])
        assert list(session.subscriptions) == list(known.values())
        assert session.subscription_count == len(known)
    assert session.subscription(b"b") == known[b"b"]
    for written in (b"x", b"b", b"b", b"a", b"x", b"c", b"c"):
        assert session.subscription(written) == known.get(written)
        assert session.unsubscribe(written) == known.pop(written, None)
        assert list(session.subscriptions) == list(known.values())
        assert session.subscription_count == len(known)
    session.subscribe(Subscribed(b"a", Options()))
    session.unsubscribe_all()
    assert session.subscription(b"a") is None


@pytest.mark.parametrize("code", [0, Refusal.BUSY])
def test_all_who_wait_for_a_message_are_told_once(session: Session, code: int) -> None:
    told: list[tuple[str, int, bool]] = []
    waiting: Recording = [lambda c, m: told.append(("first", c, m))]
    session.receive(7, waiting)
    waiting.append(lambda c, m: told.append(("repeat", c, m)))
    assert session.waiting_for(7) is waiting
    session.recorded(7, waiting, code, False)
    assert told == [("first", code, False), ("repeat", code, False)]
    assert list(session.received) == ([] if code else [7])
    assert session.waiting_for(7) is None


def test_an_answer_for_a_packet_id_that_means_another_message_by_now(session: Session) -> None:
    old: Recording = []
    new: Recording = []
    session.receive(7, new)
    session.recorded(7, old, 0, True)
    assert session.waiting_for(7) is new
    assert session.release(7)
    assert not session.release(7)
    session.recorded(7, new, 0, True)
    assert not session.has_received(7)
