"""Timers: never early, in whole steps, and free to be set and cancelled meanwhile."""

from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from robustmq.broker.timers import Alarm, Timers


@given(st.lists(st.integers(0, 1_000)), st.lists(st.integers(0, 1_100)))
def test_each_is_called_once_within_a_step_and_never_early(
    due: list[int], looks: list[int]
) -> None:
    timers = Timers(step_ms=50)
    called: dict[int, int] = {}

    def note(number: int, now: list[int]) -> Callable[[], None]:
        def callback() -> None:
            assert number not in called
            called[number] = now[0]

        return callback

    now = [0]
    for number, when in enumerate(due):
        timers.at(when, note(number, now))
    for look in [*sorted(looks), 1_100]:
        now[0] = look
        timers.run(look)
        for number, when in enumerate(due):
            if number in called:
                assert called[number] >= when
            else:
                assert look < when + 50
    assert timers.next_ms is None


def test_many_that_are_due_together_cost_one_wake_up() -> None:
    timers = Timers(step_ms=50)
    for when in range(101, 151):
        timers.at(when, lambda: None)
    assert timers.next_ms == 150
    timers.run(150)
    assert timers.next_ms is None


def test_a_callback_may_set_and_cancel_timers() -> None:
    timers = Timers(step_ms=50)
    called: list[str] = []
    never = timers.at(100, lambda: called.append("never"))

    def first() -> None:
        called.append("first")
        never.cancel()
        timers.at(100, lambda: called.append("again"))

    timers.at(50, first)
    timers.run(100)
    assert called == ["first", "again"]


def test_cancelled_timers_do_not_wait_for_their_time() -> None:
    timers = Timers(step_ms=50)
    called: list[int] = []
    kept = [timers.at(when * 1_000, partial(called.append, when)) for when in range(10)]
    for _ in range(20):
        for when in range(1_000):
            timers.at(1_000_000 + when * 50, lambda: called.append(-1)).cancel()
        assert len(timers) < 3_000
    kept[3].cancel()
    timers.run(9_000)
    assert called == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_one_that_is_due_cancels_those_after_it_and_itself() -> None:
    timers = Timers(step_ms=50)
    called: list[str] = []

    def first() -> None:
        called.append("first")
        for timer in ours:
            timer.cancel()
            timer.cancel()

    ours = [timers.at(10, first), timers.at(10, lambda: called.append("second"))]
    for number in range(2_000):
        timers.at(60, partial(called.append, str(number)))
    timers.run(50)
    assert called == ["first"]
    timers.run(100)
    assert len(called) == 2_001
    assert len(timers) == 0
    assert timers.next_ms is None


def test_an_alarm_rings_for_what_comes_first_and_is_one_timer() -> None:
    timers = Timers(step_ms=50)
    rung: list[int] = []
    alarm = Alarm(timers.at, lambda: rung.append(1))
    for when_ms in (1_000, 400, 700):
        alarm.set(when_ms)
    timers.run(399)
    assert not rung
    timers.run(400)
    assert rung == [1]
    alarm.set(2_000)
    timers.run(1_999)
    assert rung == [1]
    timers.run(2_000)
    assert rung == [1, 1]
    assert timers.next_ms is None
