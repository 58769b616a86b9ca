"""Sender and receiver equal a list of frames; lives of either side are never mixed."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.metrics import CELLS
from robustmq.shm.receiver import Receiver
from robustmq.shm.sender import Sender
from tests.kernels import implementations

CAPACITY = 520
SIZES = st.integers(0, CAPACITY // 4 + 2) | st.integers(0, 3 * CAPACITY)
LIMITS = st.integers(1, 4 * CAPACITY)


class Bell:
    def ring(self) -> None:
        """Nobody sleeps here."""


class Link:
    """A ring whose ends can be replaced, with the truth about what was sent."""

    def __init__(self, kernel: ModuleType) -> None:
        self.ring = kernel.Ring(bytearray(192 + CAPACITY), 0, 192 + CAPACITY)
        self.source: Any = SimpleNamespace(epoch=1)
        self.target: Any = SimpleNamespace(epoch=1)
        self.bell: Any = Bell()
        self.number = 0
        self.expected: list[tuple[int, bytes]] = []
        self.start_source()
        self.start_target()

    def start_source(self) -> None:
        row = memoryview(bytearray(CELLS * 8)).cast("Q")
        self.sender = Sender(self.ring, self.bell, self.target, self.source, row)

    def start_target(self) -> None:
        self.receiver = Receiver(self.ring, self.source, self.target)

    def send(self, size: int) -> bytes:
        self.number += 1
        data = (self.number.to_bytes(4, "little") * (size // 4 + 1))[:size]
        self.sender.send(data)
        return data

    def receive(self, limit: int) -> list[tuple[int, bytes]]:
        frames = self.receiver.receive(limit)
        return [(self.receiver.source_epoch, data) for data in frames]


@pytest.mark.parametrize("kernel", implementations("ring"))
@settings(max_examples=200, deadline=None)
@given(turns=st.lists(st.tuples(st.lists(SIZES, max_size=5), LIMITS), max_size=12))
def test_frames_of_any_size_arrive_once_and_in_order(
    kernel: ModuleType, turns: list[tuple[list[int], int]]
) -> None:
    link = Link(kernel)
    sent: list[bytes] = []
    got: list[bytes] = []
    for sizes, limit in turns:
        sent += [link.send(size) for size in sizes]
        drained = link.sender.flush()
        assert drained is (link.sender.backlog_bytes == 0 and not link.sender._queue)
        got += link.receiver.receive(limit)
    while not link.sender.flush() or link.ring.used():
        got += link.receiver.receive(CAPACITY)
    assert got == sent
    assert link.receiver.stale_frames == 0


STEP = (
    st.tuples(st.just("send"), SIZES)
    | st.tuples(st.just("flush"), st.just(0))
    | st.tuples(st.just("receive"), LIMITS)
    | st.tuples(st.sampled_from(["source dies", "target dies", "rebind"]), st.just(0))
)


@pytest.mark.parametrize("kernel", implementations("ring"))
@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEP, max_size=60))
def test_lives_are_never_mixed(kernel: ModuleType, steps: list[tuple[str, int]]) -> None:
    """What a target receives is, for each life of the source, a run of what that life sent to it.

    Nothing torn, nothing twice, nothing meant for an earlier target; and what the last source
    sent to the last target after their last change arrives completely.
    """
    link = Link(kernel)
    sent: dict[tuple[int, int], list[bytes]] = {}
    got: dict[tuple[int, int], list[bytes]] = {}
    bound = 1

    def receive(limit: int) -> None:
        for source, data in link.receive(limit):
            got.setdefault((source, link.target.epoch), []).append(data)

    for step, value in steps:
        if step == "send":
            data = link.send(value)
            sent.setdefault((link.source.epoch, bound), []).append(data)
        elif step == "flush":
            link.sender.flush()
        elif step == "receive":
            receive(value)
        elif step == "source dies":
            link.source.epoch += 1
            link.start_source()
            bound = link.target.epoch
        elif step == "target dies":
            link.target.epoch += 1
            link.start_target()
        elif bound != link.target.epoch:
            link.sender.rebind()
            bound = link.target.epoch
    while not link.sender.flush() or link.ring.used():
        receive(CAPACITY)

    for lives, frames in got.items():
        assert frames == sent[lives][: len(frames)]
    last = (link.source.epoch, link.target.epoch)
    assert got.get(last, []) == sent.get(last, [])


@pytest.mark.parametrize("kernel", implementations("ring"))
@settings(max_examples=200, deadline=None)
@given(
    frames=st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 4)), max_size=8),
    stamps=st.lists(st.integers(0, 2), min_size=2, max_size=2),
)
def test_any_marks_are_frames_or_corrupt(
    kernel: ModuleType, frames: list[tuple[bytes, int]], stamps: list[int]
) -> None:
    link = Link(kernel)
    for data, kind in frames:
        link.ring.push([data], stamps[0] << 32 | stamps[1], bytes([kind]))
    got: list[bytes] = []
    try:
        while link.ring.used():
            got += link.receiver.receive(64)
    except Corrupt:
        assert stamps[1] == 1
    assert len(b"".join(got)) <= sum(len(data) for data, _ in frames)
    if stamps[1] != 1:
        assert got == []
        assert link.receiver.stale_frames == len(frames)
