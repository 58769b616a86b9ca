"""Sender and receiver: order, backlog, fragments, epochs, bells, over kernel and twin."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from robustmq import metrics
from robustmq.errors import Corrupt
from robustmq.shm import frame
from robustmq.shm.receiver import Receiver
from robustmq.shm.sender import Sender
from tests.kernels import implementations, modules

CAPACITY = 1024
EVERYTHING = 1 << 30


class Bell:
    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


class Pair:
    """A ring with both its ends, and what they share."""

    def __init__(self, kernel: ModuleType) -> None:
        self.ring = kernel.Ring(bytearray(192 + CAPACITY), 0, 192 + CAPACITY)
        self.source: Any = SimpleNamespace(epoch=1)
        self.target: Any = SimpleNamespace(epoch=1)
        self.counters = memoryview(bytearray(metrics.CELLS * 8)).cast("Q")
        self.target_bell: Any = Bell()
        self.source_bell: Any = Bell()
        self.sender = self.new_sender()
        self.receiver = self.new_receiver()

    def new_sender(self, **limits: int) -> Sender:
        bell, row = self.target_bell, self.counters
        return Sender(self.ring, bell, self.target, self.source, row, **limits)

    def new_receiver(self, **limits: int) -> Receiver:
        return Receiver(self.ring, self.source, self.target, self.source_bell, **limits)


@pytest.fixture(params=implementations("ring"))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.fixture(params=implementations("ring")[1:])
def fast_pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def test_what_a_turn_sent_arrives_in_order(pair: Pair) -> None:
    assert pair.sender.flush() is True
    for data in (b"a", b"", b"ccc"):
        pair.sender.send(data)
    assert pair.receiver.receive(EVERYTHING) == []
    assert pair.sender.flush() is True
    assert pair.receiver.receive(EVERYTHING) == [b"a", b"", b"ccc"]
    assert pair.counters[metrics.FRAMES_SENT] == 3
    assert pair.counters[metrics.FRAMES_BYTES] == 4


def test_what_does_not_fit_stays_in_order(pair: Pair) -> None:
    frames = [bytes([n]) * 200 for n in range(12)]
    for data in frames:
        pair.sender.send(data)
    assert pair.sender.backlog_bytes == 2400
    got: list[bytes] = []
    while not pair.sender.flush():
        assert pair.sender.backlog_bytes == 200 * (12 - len(got)) - pair.ring.used() // 216 * 200
        got += pair.receiver.receive(EVERYTHING)
    got += pair.receiver.receive(EVERYTHING)
    assert got == frames
    assert pair.sender.backlog_bytes == 0
    assert pair.counters[metrics.FRAMES_BYTES] == 2400


def test_large_frames_cross_in_fragments_between_small_ones(pair: Pair) -> None:
    frames = [b"before", bytes(range(256)) * 20, b"between", bytes(257), b"after"]
    for data in frames:
        pair.sender.send(data)
    got: list[bytes] = []
    while not pair.sender.flush():
        got += pair.receiver.receive(100)
    while pair.ring.used():
        got += pair.receiver.receive(100)
    assert got == frames
    assert pair.counters[metrics.FRAMES_SENT] == 5


def test_a_quarter_of_the_ring_is_one_frame_and_more_is_cut(pair: Pair) -> None:
    pair.sender.send(bytes(CAPACITY // 4))
    pair.sender.flush()
    assert pair.ring.used() == CAPACITY // 4 + 16
    pair.receiver.receive(EVERYTHING)
    pair.sender.send(bytes(CAPACITY // 4 + 1))
    pair.sender.flush()
    assert pair.ring.used() == CAPACITY // 4 + 16 + 16 + 8


def test_a_limit_ends_an_answer(pair: Pair) -> None:
    for _ in range(10):
        pair.sender.send(b"12345678")
    pair.sender.flush()
    assert len(pair.receiver.receive(1)) == 1
    assert len(pair.receiver.receive(72)) == 3
    assert len(pair.receiver.receive(EVERYTHING)) == 6


def test_only_a_sleeper_is_rung(fast_pair: Pair) -> None:
    pair = fast_pair
    pair.sender.send(b"a")
    pair.sender.flush()
    assert pair.target_bell.rings == 0
    assert pair.receiver.sleep() is False
    pair.receiver.receive(EVERYTHING)
    assert pair.receiver.sleep() is True
    for _ in range(2):
        pair.sender.send(b"b")
        pair.sender.flush()
    assert pair.target_bell.rings == 1
    assert pair.counters[metrics.DOORBELLS_RUNG] == 1
    pair.receiver.receive(EVERYTHING)
    pair.receiver.sleep()
    pair.receiver.awake()
    pair.sender.send(b"c")
    pair.sender.flush()
    assert pair.target_bell.rings == 1


def test_the_twin_rings_after_every_push() -> None:
    pair = Pair(modules("ring")[0])
    for n in range(1, 3):
        pair.sender.send(b"a")
        pair.sender.flush()
        assert pair.target_bell.rings == n
    pair.sender.flush()
    assert pair.target_bell.rings == 2


def test_a_sender_that_waits_for_room_is_rung(fast_pair: Pair) -> None:
    pair = fast_pair
    pair.sender.send(b"first")
    pair.sender.flush()
    pair.receiver.receive(EVERYTHING)
    assert pair.source_bell.rings == 0
    for _ in range(5):
        pair.sender.send(bytes(250))
    assert pair.sender.flush() is False
    pair.receiver.receive(EVERYTHING)
    assert pair.source_bell.rings == 1
    assert pair.sender.flush() is True
    pair.receiver.receive(EVERYTHING)
    assert pair.source_bell.rings == 1


def test_frames_for_an_earlier_life_are_dropped(pair: Pair) -> None:
    pair.sender.send(b"old")
    pair.sender.flush()
    pair.target.epoch = 2
    replacement = pair.new_receiver()
    pair.sender.send(b"old too")
    pair.sender.flush()
    pair.sender.send(b"never pushed")
    pair.sender.rebind()
    assert pair.sender.backlog_bytes == 0
    pair.sender.send(b"new")
    pair.sender.flush()
    assert replacement.receive(EVERYTHING) == [b"new"]
    assert replacement.stale_frames == 2


def test_an_answer_is_from_one_life_of_the_source(pair: Pair) -> None:
    pair.sender.send(b"a")
    pair.sender.flush()
    pair.source.epoch = 2
    replacement = pair.new_sender()
    replacement.send(b"b")
    replacement.flush()
    assert pair.receiver.receive(EVERYTHING) == [b"a"]
    assert pair.receiver.source_epoch == 1
    assert pair.receiver.sleep() is False
    assert pair.receiver.receive(EVERYTHING) == [b"b"]
    assert pair.receiver.source_epoch == 2


def half_a_frame(pair: Pair) -> None:
    pair.sender.send(bytes(3 * CAPACITY))
    assert pair.sender.flush() is False
    assert pair.receiver.receive(EVERYTHING) == []
    assert pair.receiver._partial_bytes > 0


def test_half_a_frame_of_an_earlier_source_is_discarded(pair: Pair) -> None:
    half_a_frame(pair)
    pair.source.epoch = 2
    replacement = pair.new_sender()
    replacement.send(b"b" * 300)
    replacement.flush()
    assert pair.receiver.receive(EVERYTHING) == [b"b" * 300]
    assert pair.receiver.source_epoch == 2


def test_half_a_frame_is_forgotten_when_its_source_is_gone(pair: Pair) -> None:
    half_a_frame(pair)
    assert pair.receiver.receive(EVERYTHING) == []
    assert pair.receiver._partial_bytes > 0
    pair.source.epoch = 2
    assert pair.receiver.receive(EVERYTHING) == []
    assert pair.receiver._partial_bytes == 0


def test_a_replacement_of_the_target_sees_no_half_frame(pair: Pair) -> None:
    half_a_frame(pair)
    pair.sender.flush()
    pair.target.epoch = 2
    replacement = pair.new_receiver()
    pair.sender.rebind()
    pair.sender.send(b"b" * 300)
    while not pair.sender.flush():
        assert replacement.receive(1) == []
    assert replacement.receive(EVERYTHING) == [b"b" * 300]


def test_epochs_are_compared_as_u32(pair: Pair) -> None:
    pair.source.epoch = pair.target.epoch = (1 << 32) + 3
    sender, receiver = pair.new_sender(), pair.new_receiver()
    sender.send(b"a")
    sender.flush()
    assert receiver.receive(EVERYTHING) == [b"a"]
    assert receiver.source_epoch == 3


def test_frames_have_a_limit_at_both_ends(pair: Pair) -> None:
    sender = pair.new_sender(max_frame_bytes=600)
    with pytest.raises(ValueError, match="601 bytes exceeds 600"):
        sender.send(bytes(601))
    assert sender.backlog_bytes == 0
    sender.send(bytes(600))
    sender.flush()
    receiver = pair.new_receiver(max_frame_bytes=599)
    with pytest.raises(Corrupt, match="a frame of"):
        receiver.receive(EVERYTHING)
    assert receiver._partial_bytes == 0


@pytest.mark.parametrize(
    "kinds",
    [[frame.LAST], [frame.MORE, frame.WHOLE], [7], [frame.MORE, frame.LAST, frame.LAST]],
)
def test_fragments_out_of_order_are_corrupt(pair: Pair, kinds: list[int]) -> None:
    pair.ring.push([b"x"] * len(kinds), frame.stamp(1, 1), bytes(kinds))
    with pytest.raises(Corrupt, match="out of order"):
        pair.receiver.receive(EVERYTHING)
