"""The shared region: what lies where, that nothing overlaps, and that pages are lazy."""

import itertools
import mmap
import os
import resource

import pytest

from robustmq.errors import Corrupt
from robustmq.metrics import CELLS
from robustmq.shm.region import Phase, Region, State, ring_capacity, size_bytes

RING_BYTES = 8192


@pytest.fixture
def region() -> Region:
    return Region.create(3, RING_BYTES)


def test_states_are_zero_and_apart(region: Region) -> None:
    names = ("epoch", "heartbeat_ns", "pid", "started_ns", "connections")
    states = [region.state(endpoint) for endpoint in range(3)]
    for state in states:
        assert [getattr(state, name) for name in names] == [0] * len(names)
        assert state.phase is Phase.STARTING
    for i, (state, name) in enumerate(itertools.product(states, names)):
        setattr(state, name, (1 << 64) - 1 - i)
    states[1].phase = Phase.DRAINING
    for i, (endpoint, name) in enumerate(itertools.product(range(3), names)):
        assert getattr(region.state(endpoint), name) == (1 << 64) - 1 - i
    assert [region.state(endpoint).phase for endpoint in range(3)] == [
        Phase.STARTING,
        Phase.DRAINING,
        Phase.STARTING,
    ]


def test_an_unknown_phase_is_corrupt() -> None:
    state = State(memoryview(bytearray(64)).cast("Q"))
    state.cells[2] = 9
    with pytest.raises(Corrupt, match="phase 9"):
        _ = state.phase


def test_counters_are_a_row_for_each_endpoint(region: Region) -> None:
    for endpoint in range(3):
        row = region.counters(endpoint)
        assert (row.format, len(row)) == ("Q", CELLS)
        for cell in range(CELLS):
            row[cell] = endpoint * 1000 + cell
    for endpoint in range(3):
        assert list(region.counters(endpoint)) == [endpoint * 1000 + c for c in range(CELLS)]


def test_rings_states_and_counters_do_not_overlap(region: Region) -> None:
    pairs = list(itertools.permutations(range(3), 2))
    full = ring_capacity(RING_BYTES) - 16
    for i, pair in enumerate(pairs):
        assert region.ring(*pair).push([bytes([i + 1]) * full]) == 1
        assert region.ring(*pair).free() == 0
    for endpoint in range(3):
        region.state(endpoint).connections = endpoint
        region.counters(endpoint)[CELLS - 1] = endpoint
    for i, pair in enumerate(pairs):
        assert region.ring(*pair).pull(0) == [bytes([i + 1]) * full]
    assert [region.state(e).connections for e in range(3)] == [0, 1, 2]
    assert [region.counters(e)[CELLS - 1] for e in range(3)] == [0, 1, 2]


def test_refuses_what_is_not_there(region: Region) -> None:
    for endpoint in (-1, 3):
        with pytest.raises(ValueError, match="of 3"):
            region.state(endpoint)
        with pytest.raises(ValueError, match="of 3"):
            region.counters(endpoint)
        with pytest.raises(ValueError, match="of 3"):
            region.ring(0, endpoint)
    with pytest.raises(ValueError, match="no ring to itself"):
        region.ring(1, 1)


@pytest.mark.parametrize(("endpoints", "ring_bytes"), [(0, 8192), (2, 0), (2, 2048), (2, 8193)])
def test_refuses_sizes_that_cannot_be(endpoints: int, ring_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"endpoint|page size"):
        Region.create(endpoints, ring_bytes)


def test_one_endpoint_needs_no_ring() -> None:
    region = Region.create(1, RING_BYTES)
    region.counters(0)[0] = 1
    assert region.counters(0)[0] == 1


def test_refuses_memory_of_another_layout() -> None:
    with pytest.raises(Corrupt, match="layout 0"):
        Region(mmap.mmap(-1, size_bytes(2, RING_BYTES)))
    region = Region.create(2, RING_BYTES)
    longer = mmap.mmap(-1, size_bytes(2, RING_BYTES) + 4096)
    longer[:64] = bytes(memoryview(region._memory)[:64])
    with pytest.raises(Corrupt, match="bytes"):
        Region(longer)


def test_a_child_shares_it(region: Region) -> None:
    child = os.fork()
    if child == 0:
        region.state(1).epoch = 7
        region.counters(1)[3] += 5
        region.ring(1, 2).push([b"hello"], stamp=9)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert region.state(1).epoch == 7
    assert region.counters(1)[3] == 5
    assert region.ring(1, 2).pull(100) == [b"hello"]


def test_pages_that_nobody_uses_cost_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    region = Region.create(20, 1 << 20)
    rings = [region.ring(*pair) for pair in itertools.permutations(range(20), 2)]
    touched = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert len(rings) == 380
    # The rings have 97,280 pages; some hundred are our own heap's, for the objects.
    assert touched < 2_000
