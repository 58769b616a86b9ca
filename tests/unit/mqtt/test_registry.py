"""Changes of sessions on their way to the cluster: one at a time, until they are known."""

from collections.abc import Callable

import pytest

from robustmq.broker.api import Options, Principal
from robustmq.message.session_record import SessionChange, SubscriptionRecord, Verdict
from robustmq.mqtt.packets import Will
from robustmq.mqtt.registry import Registrar, head_for
from robustmq.mqtt.session import Session, Subscribed
from robustmq.mqtt.session_table import SessionTable
from robustmq.settings.mqtt import MqttProtocol
from tests.unit.mqtt.scripted import ScriptedBroker


class Place:
    """A core's sessions in a cluster that answers when the test says so."""

    def __init__(self) -> None:
        self.broker = ScriptedBroker()
        self.asked: list[tuple[SessionChange, Callable[[Verdict], None]]] = []
        self.registrar = Registrar(self.broker, self, 3, at_once=10, retry_ms=200)
        self.registrar.quieted = lambda: None
        self.sessions = SessionTable(self.broker, MqttProtocol(), 5 << 48)
        self.sessions.join(self.registrar, lambda _session: None)
        self.kept: list[bool] = []

    def propose(self, change: SessionChange, done: Callable[[Verdict], None]) -> None:
        self.asked.append((change, done))

    def open(self, will: bytes = b"") -> Session:
        wanted = Will(b"w", will) if will else None
        return self.sessions.open(Principal("c"), False, expiry=60, will=wanted).session

    def wait(self) -> None:
        self.sessions.when_kept(
            "c", lambda: self.kept.append(True), lambda: self.kept.append(False)
        )

    def turn(self) -> list[SessionChange]:
        self.broker.end_turn()
        self.registrar.flush()
        return [change for change, _ in self.asked]

    def answer(self, verdict: Verdict = Verdict.DONE) -> SessionChange:
        change, done = self.asked.pop(0)
        done(verdict)
        self.broker.end_turn()
        self.registrar.flush()
        return change


@pytest.fixture
def place() -> Place:
    return Place()


def subscribe(place: Place, session: Session, written: bytes) -> None:
    subscribed = Subscribed(written, Options(1))
    session.subscribe(subscribed)
    place.sessions.rows.put_subscription(session, subscribed)


def test_what_a_turn_changes_travels_together_and_is_kept_when_the_cluster_has_it(
    place: Place,
) -> None:
    session = place.open()
    subscribe(place, session, b"a")
    place.wait()
    (change,) = place.turn()
    assert (change.owner, change.takes, change.whole) == (3, 0, True)
    assert change.subscribed == [SubscriptionRecord(b"a", 1)]
    assert place.kept == []
    place.answer()
    assert place.kept == [True]
    assert place.registrar.is_quiet("c")


def test_what_comes_meanwhile_follows_as_a_difference(place: Place) -> None:
    session = place.open()
    first = place.turn()[0]
    subscribe(place, session, b"b")
    assert len(place.turn()) == 1
    place.answer()
    (second,) = place.turn()
    assert (second.takes, second.whole, second.generation) == (None, False, first.generation)
    assert second.subscribed == [SubscriptionRecord(b"b", 1)]
    assert second.revision > first.revision


def test_who_waits_hears_that_nothing_was_heard_and_it_is_said_again_as_a_whole(
    place: Place,
) -> None:
    session = place.open()
    place.turn()
    place.answer()
    subscribe(place, session, b"a")
    place.wait()
    place.turn()
    place.answer(Verdict.UNKNOWN)
    assert place.kept == [False]
    assert not place.registrar.is_quiet("c")
    place.broker.pass_ms(300)
    (change,) = place.turn()
    assert change.whole
    place.answer()
    assert place.registrar.is_quiet("c")


def test_a_will_is_published_when_nobody_else_can_take_it(place: Place) -> None:
    session = place.open(b"gone")
    place.turn()
    place.answer()
    place.sessions.detach(session, with_will=True)
    (change,) = place.turn()
    assert change.head is not None
    assert change.head.will is None
    assert place.broker.published == []
    place.answer()
    assert [asked.record.value for asked in place.broker.published] == [b"gone"]


def test_a_session_that_another_node_has_is_given_up_without_its_will(place: Place) -> None:
    session = place.open(b"gone")
    place.turn()
    place.answer()
    place.sessions.detach(session, with_will=True)
    place.turn()
    place.answer(Verdict.TAKEN)
    assert place.sessions.get("c") is None
    assert place.broker.published == []


def test_a_new_tenure_waits_for_the_end_of_the_one_before(place: Place) -> None:
    session = place.open()
    place.turn()
    place.answer()
    place.sessions.end(session)
    heard: list[Verdict] = []
    head = head_for(Principal("c"), 60, None, 5)
    assert head is not None
    place.registrar.begin("c", head, lambda verdict, _: heard.append(verdict))
    (end,) = place.turn()
    assert end.head is None
    place.answer()
    (begin,) = place.turn()
    assert begin.generation > end.generation
    place.answer()
    assert heard == [Verdict.DONE]
