"""Two processes that sleep whenever they can: no wake-up is lost, in either direction."""

import mmap
import os
import random
import select
from types import ModuleType

import pytest

from robustmq import metrics
from robustmq.shm.doorbell import Doorbell
from robustmq.shm.receiver import Receiver
from robustmq.shm.region import Region
from robustmq.shm.sender import Sender
from tests.kernels import implementations

FRAMES = 20_000
RING_BYTES = 4096
LOST_AFTER_SECONDS = 20
SOURCE, TARGET = 0, 1


def sleep(bell: Doorbell) -> None:
    if not select.select([bell], [], [], LOST_AFTER_SECONDS)[0]:
        raise TimeoutError("a wake-up was lost")
    bell.answer()


def send_all(sender: Sender, bell: Doorbell) -> None:
    rng = random.Random(1)
    number = 0
    while number < FRAMES:
        for _ in range(min(rng.choice((1, 1, 1, 2, 20)), FRAMES - number)):
            sender.send(number.to_bytes(4, "little") * rng.choice((1, 3, 60, 400)))
            number += 1
        while not sender.flush():
            sleep(bell)


@pytest.mark.parametrize("kernel", implementations("ring"))
def test_no_wake_up_is_lost(kernel: ModuleType) -> None:
    region = Region.create(2, 4096)
    ring = kernel.Ring(mmap.mmap(-1, RING_BYTES), 0, RING_BYTES)
    bells = [Doorbell.create(), Doorbell.create()]
    source, target = region.state(SOURCE), region.state(TARGET)
    child = os.fork()
    if child == 0:
        try:
            row = region.counters(SOURCE)
            send_all(Sender(ring, bells[TARGET], target, source, row), bells[SOURCE])
            os._exit(0)
        finally:
            os._exit(1)
    receiver = Receiver(ring, source, target, bells[SOURCE])
    number = slept = 0
    while number < FRAMES:
        frames = receiver.receive(1 << 20)
        if not frames and receiver.sleep():
            sleep(bells[TARGET])
            receiver.awake()
            slept += 1
        for data in frames:
            assert data[:4] == number.to_bytes(4, "little")
            number += 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert slept > 0
    assert region.counters(SOURCE)[metrics.FRAMES_SENT] == number == FRAMES
    for bell in bells:
        bell.close()
