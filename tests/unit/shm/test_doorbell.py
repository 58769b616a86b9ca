"""Doorbells: many rings are one, and nobody blocks."""

import os
import select

import pytest

from robustmq.shm.doorbell import Doorbell


def is_ringing(bell: Doorbell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_many_rings_are_answered_once() -> None:
    bell = Doorbell.create()
    assert bell.answer() is False
    assert not is_ringing(bell)
    bell.ring()
    bell.ring()
    assert is_ringing(bell)
    assert bell.answer() is True
    assert bell.answer() is False
    assert not is_ringing(bell)
    bell.close()


def test_a_bell_that_cannot_count_further_still_rings() -> None:
    bell = Doorbell(os.eventfd((1 << 32) - 2, os.EFD_NONBLOCK))
    os.eventfd_write(bell.fileno(), (1 << 64) - 1 - (1 << 32))
    for _ in range(3):
        bell.ring()
    assert bell.answer() is True
    assert bell.answer() is False
    bell.close()


def test_a_closed_bell_is_an_error() -> None:
    bell = Doorbell.create()
    bell.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        bell.ring()
    with pytest.raises(OSError, match="Bad file descriptor"):
        bell.answer()


def test_a_bell_rings_in_another_process() -> None:
    bell = Doorbell.create()
    child = os.fork()
    if child == 0:
        bell.ring()
        os._exit(0)
    os.waitpid(child, 0)
    assert bell.answer() is True
    bell.close()
