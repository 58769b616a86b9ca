"""The memory that the processes of a node share: states, counters, and a ring for each pair."""

import enum
import mmap
from typing import Final

from robustmq._kernel.ring import RING_HEADER_BYTES, Ring
from robustmq.errors import Corrupt
from robustmq.metrics import CELLS

MAGIC: Final = int.from_bytes(b"robustmq", "little")
LAYOUT_VERSION: Final = 1
RING_BYTES_MIN: Final = 4096
STATE_CELLS: Final = 8

_HEADER_CELLS: Final = 8
_CELL: Final = 8


class Phase(enum.IntEnum):
    """How far a process has come; set by the process itself."""

    STARTING = 0
    RECOVERING = 1
    READY = 2
    DRAINING = 3
    STOPPED = 4


class _Cell:
    """A u64 of a state line as a typed attribute."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, state: "State", owner: type["State"]) -> int:
        return state.cells[self._index]

    def __set__(self, state: "State", value: int) -> None:
        state.cells[self._index] = value


class State:
    """The state line of one endpoint: eight u64 cells on a cache line of their own.

    The supervisor writes `epoch`, and all cells before it forks; the endpoint writes the others.
    Times are nanoseconds of the monotonic clock. `isolated` is the meta process': 1 while it hears
    of no leader, so that others may have taken over what this node has.
    """

    __slots__ = ("cells",)

    epoch = _Cell(0)
    heartbeat_ns = _Cell(1)
    pid = _Cell(3)
    started_ns = _Cell(4)
    connections = _Cell(5)
    isolated = _Cell(6)

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    @property
    def phase(self) -> Phase:
        """Return the phase; raises Corrupt when the cell holds none."""
        try:
            return Phase(self.cells[2])
        except ValueError:
            raise Corrupt(f"state line: phase {self.cells[2]}") from None

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self.cells[2] = phase


class Region:
    """One mapping, made before the fork and inherited by every process of the node.

    In it: a header line, a state line and a row of `metrics.CELLS` counters for each endpoint,
    and for each ordered pair of endpoints a ring on pages of its own. Nothing but the header is
    written here, so a page costs memory only once it is used. Raises Corrupt when `memory` was
    not made by `create`.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._cells = memoryview(memory).cast("Q")
        magic, version, self.endpoints, self.ring_bytes, cells = self._cells[:5]
        if (magic, version, cells) != (MAGIC, LAYOUT_VERSION, CELLS):
            raise Corrupt(f"shared memory: layout {version} with {cells} counters")
        if len(memory) != size_bytes(self.endpoints, self.ring_bytes):
            raise Corrupt(f"shared memory: {len(memory)} bytes")

    @classmethod
    def create(cls, endpoints: int, ring_bytes: int) -> "Region":
        """Map a zeroed region for `endpoints` processes.

        A ring takes `ring_bytes`, its header included: a multiple of the page size, at least
        `RING_BYTES_MIN`. Raises ValueError for sizes that cannot be, OSError when there is no
        room.
        """
        if endpoints < 1:
            raise ValueError("a region needs an endpoint")
        if ring_bytes < RING_BYTES_MIN or ring_bytes % mmap.PAGESIZE:
            raise ValueError(f"a ring of {ring_bytes} bytes is not a multiple of the page size")
        memory = mmap.mmap(-1, size_bytes(endpoints, ring_bytes))
        header = (MAGIC, LAYOUT_VERSION, endpoints, ring_bytes, CELLS)
        memory[: len(header) * _CELL] = b"".join(word.to_bytes(_CELL, "little") for word in header)
        return cls(memory)

    def state(self, endpoint: int) -> State:
        """Return the state line of `endpoint`."""
        start = _HEADER_CELLS + STATE_CELLS * self._checked(endpoint)
        return State(self._cells[start : start + STATE_CELLS])

    def counters(self, endpoint: int) -> memoryview:
        """Return the counters of `endpoint`: `metrics.CELLS` u64 that only it writes."""
        start = _counters_start(self.endpoints) + CELLS * self._checked(endpoint)
        return self._cells[start : start + CELLS]

    def ring(self, source: int, target: int) -> Ring:
        """Return the ring from `source` to `target`; raises ValueError when they are the same."""
        if self._checked(source) == self._checked(target):
            raise ValueError(f"endpoint {source} needs no ring to itself")
        place = source * (self.endpoints - 1) + target - (target > source)
        offset = _rings_start(self.endpoints) + place * self.ring_bytes
        return Ring(self._memory, offset, self.ring_bytes)

    def _checked(self, endpoint: int) -> int:
        if not 0 <= endpoint < self.endpoints:
            raise ValueError(f"endpoint {endpoint} of {self.endpoints}")
        return endpoint


def size_bytes(endpoints: int, ring_bytes: int) -> int:
    """Return the size of a region: address space, of which only touched pages are memory."""
    return _rings_start(endpoints) + endpoints * (endpoints - 1) * ring_bytes


def ring_capacity(ring_bytes: int) -> int:
    """Return the ring space that frames have in a ring of `ring_bytes`."""
    return ring_bytes - RING_HEADER_BYTES


def _counters_start(endpoints: int) -> int:
    return _HEADER_CELLS + STATE_CELLS * endpoints


def _rings_start(endpoints: int) -> int:
    cells = _counters_start(endpoints) + CELLS * endpoints
    return -(-cells * _CELL // mmap.PAGESIZE) * mmap.PAGESIZE
