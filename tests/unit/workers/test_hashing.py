"""Passwords are looked at aside: in order, bounded, and told on the loop's side."""

import queue
import threading
from collections.abc import Callable

import pytest

from robustmq.workers.hashing import Hashing

PATIENCE_SECONDS = 20.0


def test_checks_run_aside_and_are_told_where_the_loop_is() -> None:
    loop: queue.Queue[Callable[[], None]] = queue.Queue()
    hashing = Hashing(loop.put, 2)
    go = threading.Event()
    ran_by: list[int] = []
    told: list[bool] = []

    def check() -> bool:
        ran_by.append(threading.get_ident())
        return go.wait(PATIENCE_SECONDS)

    assert hashing.later(check, told.append)
    assert hashing.later(lambda: False, told.append)
    assert not hashing.later(check, told.append)
    assert told == []
    go.set()
    for _ in range(2):
        loop.get(timeout=PATIENCE_SECONDS)()
    assert told == [True, False]
    assert ran_by != [threading.get_ident()]
    assert hashing.later(check, told.append)
    hashing.close()


def test_an_error_of_a_check_is_raised_where_the_loop_is() -> None:
    loop: queue.Queue[Callable[[], None]] = queue.Queue()
    hashing = Hashing(loop.put, 1)
    assert hashing.later(lambda: 1 // 0 == 0, lambda _: None)
    tell = loop.get(timeout=PATIENCE_SECONDS)
    with pytest.raises(ZeroDivisionError):
        tell()
    assert hashing.later(lambda: True, lambda _: None)
    hashing.close()
