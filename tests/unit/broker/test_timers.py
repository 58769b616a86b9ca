"""Timers: never early, in whole steps, and free to be set and cancelled meanwhile."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from robustmq.broker.timers import Timers


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
