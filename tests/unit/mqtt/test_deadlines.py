"""Sessions by the time when they are due: near and far, and a great many at once."""

import pytest

from robustmq.broker.api import Principal, Window
from robustmq.mqtt.deadlines import AT_ONCE, FAR_MS, NEAR_MS, Deadlines
from robustmq.mqtt.session import Session
from tests.unit.mqtt.scripted import START_MS, ScriptedBroker


class Book:
    """Deadlines of sessions that are due at their `ended_ms`, and who was due when."""

    def __init__(self) -> None:
        self.broker = ScriptedBroker()
        self.told: list[tuple[Session, int]] = []
        self.deadlines = Deadlines(self.broker, lambda session: session.ended_ms or None, self._due)

    def _due(self, session: Session) -> None:
        self.told.append((session, self.broker.turn.now_ms))

    def session(self, when_ms: int) -> Session:
        session = Session(Principal("c"), Window(self.broker.turn, 1, 1, 1))
        session.ended_ms = when_ms
        self.deadlines.add(session)
        return session

    def run(self, until_ms: int) -> None:
        """Let time pass as a worker does: it looks when a timer is due."""
        timers = self.broker.timers
        while (next_ms := timers.next_ms) is not None and next_ms <= until_ms:
            self.broker.turn.now_ms = max(self.broker.turn.now_ms, next_ms)
            timers.run(self.broker.turn.now_ms)
        self.broker.turn.now_ms = until_ms


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.mark.parametrize(
    "after_ms", [-5_000_000, 0, 1, 50, 999, FAR_MS, 2 * FAR_MS, 2 * FAR_MS + 1, 604_800_000]
)
def test_due_in_time(book: Book, after_ms: int) -> None:
    session = book.session(START_MS + after_ms)
    book.run(START_MS + max(after_ms - 1, -1))
    assert book.told == []
    book.run(START_MS + max(after_ms, 0) + 2 * NEAR_MS)
    ((told, when_ms),) = book.told
    assert told is session
    assert when_ms >= START_MS + after_ms
    book.run(START_MS + 2 * 604_800_000)
    assert len(book.told) == 1
    assert book.broker.timers.next_ms is None


def test_in_the_order_of_time(book: Book) -> None:
    times = [START_MS + number * 7_919_000 % 5_000_000 for number in range(500)]
    for when_ms in times:
        book.session(when_ms)
    book.run(START_MS + 10_000_000)
    dues = [session.ended_ms for session, _ in book.told]
    assert sorted(dues) == sorted(times)
    assert all(when_ms - session.ended_ms < 2 * NEAR_MS for session, when_ms in book.told)


def test_who_has_left_is_not_due_and_may_come_again(book: Book) -> None:
    for after_ms in (1_000, 10 * FAR_MS):
        session = book.session(START_MS + after_ms)
        book.deadlines.discard(session)
        book.deadlines.discard(session)
        session.ended_ms = 0
        book.deadlines.add(session)
        book.deadlines.discard(session)
    book.run(START_MS + 20 * FAR_MS)
    assert book.told == []
    again = book.session(book.broker.turn.now_ms + 10)
    book.run(book.broker.turn.now_ms + 200)
    assert [session for session, _ in book.told] == [again]


def test_sessions_that_come_and_go_leave_nothing_behind(book: Book) -> None:
    for _ in range(10_000):
        session = book.session(book.broker.turn.now_ms + 604_800_000)
        book.deadlines.discard(session)
        book.run(book.broker.turn.now_ms + 1)
    assert len(book.broker.timers) <= 2
    assert len(book.deadlines._far) <= 2
    assert not any(book.deadlines._far.values())


def test_a_multitude_is_handled_in_portions(book: Book) -> None:
    count = 3 * AT_ONCE + 1
    for _ in range(count):
        book.session(START_MS + 10)
    book.broker.turn.now_ms = START_MS + 60
    for portion in (AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE, count):
        book.broker.turn.now_ms += NEAR_MS
        book.broker.timers.run(book.broker.turn.now_ms)
        assert len(book.told) == portion
    assert len({session for session, _ in book.told}) == count
