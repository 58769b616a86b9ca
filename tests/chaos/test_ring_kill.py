"""A hundred producers are killed while they push: no torn frame is ever seen."""

import mmap
import os
import random
import signal
import struct
import time
import zlib
from types import ModuleType

import pytest

from robustmq._kernel.ring import Ring
from tests.kernels import implementations

KILLS = 100
IN_MID_PUSH = 10
"""So many kills have to be seen to have left a frame half-written, or the test means nothing."""
RING_BYTES = 1 << 20
HEADER = struct.Struct("=QII")
"""At the start of each frame: its number, the length of the body, the body's CRC."""


def produce(ring: Ring, producer: int) -> None:
    """Push batches of checkable frames, for ever."""
    rng = random.Random(producer)
    bodies = [rng.randbytes(rng.choice((0, 30, 700, 20_000))) for _ in range(40)]
    parts = [(len(body), zlib.crc32(body), body) for body in bodies]
    number = 0
    while True:
        batch = []
        for length, crc, body in rng.choices(parts, k=rng.randrange(1, 60)):
            batch.append(HEADER.pack(number, length, crc) + body)
            number += 1
        while batch:
            del batch[: ring.push(batch, stamp=producer)]


class Consumer:
    """Checks every frame, and that each producer's frames are without a gap."""

    def __init__(self, kernel: ModuleType) -> None:
        self.kernel = kernel
        self.memory = mmap.mmap(-1, RING_BYTES)
        self.ring = kernel.Ring(self.memory, 0, RING_BYTES)
        self.next_number: dict[int, int] = {}

    def check_some(self) -> bool:
        """Check what one pull gives; False when the ring is empty."""
        frames = self.ring.pull(64 * 1024)
        if not frames:
            return False
        producer = self.ring.stamp
        number = self.next_number.get(producer, 0)
        for data in frames:
            seen, length, crc = HEADER.unpack_from(data)
            body = data[HEADER.size :]
            assert (seen, length, crc) == (number, len(body), zlib.crc32(body))
            number += 1
        self.next_number[producer] = number
        return True

    def drain(self) -> None:
        while self.check_some():
            pass

    def drain_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check_some()

    def is_torn(self, producer: int) -> bool:
        """Whether the next frame of this producer lies, begun, beyond the published tail."""
        assert self.ring.used() == 0
        (tail,) = struct.unpack_from("=Q", self.memory, 0)
        place = tail % self.ring.capacity
        stamp_at, frame_at = ((place + n) % self.ring.capacity for n in (8, 16))
        skip = self.kernel.RING_HEADER_BYTES
        (stamp,) = struct.unpack_from("=Q", self.memory, skip + stamp_at)
        (number,) = struct.unpack_from("=Q", self.memory, skip + frame_at)
        return bool(stamp == producer and number == self.next_number[producer])


def kill_one(consumer: Consumer, producer: int, rng: random.Random) -> None:
    child = os.fork()
    if child == 0:
        try:
            produce(consumer.ring, producer)
        finally:
            os._exit(1)
    try:
        # The clock starts with the first frame: a slow fork must not be killed before it.
        give_up = time.monotonic() + 60
        while producer not in consumer.next_number and time.monotonic() < give_up:
            consumer.check_some()
        consumer.drain_for(rng.uniform(0, 0.004))
        # Now the ring has room: while nobody drains it, the producer copies most of the time.
        end = time.monotonic() + rng.uniform(0, 0.00015)
        while time.monotonic() < end:
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.parametrize("kernel", implementations("ring"))
def test_no_torn_frame_after_a_hundred_kills(kernel: ModuleType) -> None:
    consumer = Consumer(kernel)
    rng = random.Random(2026)
    kills = torn = 0
    while kills < KILLS or (torn < IN_MID_PUSH and kills < 10 * KILLS):
        kills += 1
        kill_one(consumer, kills, rng)
        # Every second time the next producer goes on behind what this one has left.
        if kills % 2:
            consumer.drain()
            torn += consumer.is_torn(kills)
    consumer.drain()
    assert sorted(consumer.next_number) == list(range(1, kills + 1))
    assert torn >= IN_MID_PUSH
