"""The ring equals a deque, whatever is pushed and pulled, wherever it wraps."""

from collections import deque
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import implementations

CAPACITY = 264

PUSH = st.tuples(
    st.lists(st.tuples(st.binary(max_size=100), st.integers(0, 2)), max_size=6),
    st.integers(0, 3) | st.just((1 << 64) - 1),
)
PULL = st.tuples(st.integers(0, 400), st.none() | st.integers(0, 3))


def space(data: bytes) -> int:
    return 16 + (len(data) + 7) // 8 * 8


@pytest.mark.parametrize("kernel", implementations("ring"))
@settings(max_examples=300, deadline=None)
@given(steps=st.lists(PUSH | PULL, max_size=40), start=st.integers(0, 100))
def test_ring_is_a_deque(
    kernel: ModuleType, steps: list[tuple[object, object]], start: int
) -> None:
    memory = bytearray(192 + CAPACITY)
    memoryview(memory).cast("Q")[0] = memoryview(memory).cast("Q")[8] = start * 8
    ring = kernel.Ring(memory, 0, len(memory))
    model: deque[tuple[bytes, int, int]] = deque()
    used = 0
    for first, second in steps:
        if isinstance(first, list):
            frames, kinds = [data for data, _ in first], bytes(kind for _, kind in first)
            assert isinstance(second, int)
            fitting = []
            for data, kind in first:
                if used + space(data) > CAPACITY:
                    break
                used += space(data)
                fitting.append((data, second, kind))
            assert ring.push(frames, second, kinds) == len(fitting)
            model += fitting
        else:
            assert isinstance(first, int)
            got = ring.pull(first, second)
            expected: list[bytes] = []
            taken = 0
            marks = (0, 0)
            while model and (second is None or model[0][1] == second):
                data, stamp, kind = model[0]
                if expected and (taken + space(data) > first or (stamp, kind) != marks):
                    break
                marks = (stamp, kind)
                taken += space(data)
                expected.append(data)
                model.popleft()
            assert got == expected
            assert ring.taken == taken
            if expected:
                assert (ring.stamp, ring.kind) == marks
            used -= taken
        assert ring.used() == used
        assert ring.free() == CAPACITY - used
        assert ring.sleep() is (used == 0)


@pytest.mark.parametrize("kernel", implementations("ring"))
@settings(max_examples=300, deadline=None)
@given(content=st.binary(min_size=64, max_size=64), tail=st.integers(0, 80))
def test_any_content_is_frames_or_corrupt(kernel: ModuleType, content: bytes, tail: int) -> None:
    """What is read never comes from outside the published part of the ring."""
    outside = b"\xee" * 64
    memory = bytearray(192) + content + outside
    memoryview(memory)[:8] = tail.to_bytes(8, "little")
    ring = kernel.Ring(memoryview(memory)[: 192 + 64], 0, 192 + 64)
    got = []
    try:
        while run := ring.pull(1 << 20):
            got += run
    except kernel.Corrupt:
        pass
    assert sum(map(space, got)) <= tail
    assert all(data in content for data in got)
    assert memory[-64:] == outside
