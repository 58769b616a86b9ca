"""Rings between the cores of a simulated node: in order, of little room, and lives that end.

They do what `workers.links` promises: what a dead core had pushed is still received, before its
peers hear of the replacement; what was meant for an earlier life, or came from one that is known
to be over, is not.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Frame(NamedTuple):
    """What one life of a core has pushed for one life of another."""

    source_life: int
    target_life: int
    data: bytes


class Rings:
    """The shared memory of a node: one ring per pair, and the life that each core is in."""

    def __init__(self, cores: int, room: int) -> None:
        self.cores = cores
        self.room = room
        self.lives = [1] * cores
        self.frames: dict[tuple[int, int], deque[Frame]] = {
            (source, target): deque()
            for source in range(cores)
            for target in range(cores)
            if source != target
        }

    def restart(self) -> None:
        """Everything was killed: the memory is new, and the lives are counted anew."""
        self.lives = [1] * self.cores
        for ring in self.frames.values():
            ring.clear()


class Links:
    """The rings as one life of one core sees them; `handle` and `replaced` are its core's."""

    def __init__(self, rings: Rings, core: int) -> None:
        self._rings = rings
        self._core = core
        self.life = rings.lives[core]
        self._known = list(rings.lives)
        self._own: list[bytes] = []
        self._waiting: dict[int, deque[bytes]] = {}
        self.handle: Callable[[int, bytes], None]
        self.replaced: Callable[[int], None]

    # ------------------------------------------------------------------ the broker's fabric

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame; to the core itself it comes with the next turn."""
        if core == self._core:
            self._own.append(frame)
        else:
            self._waiting.setdefault(core, deque()).append(frame)

    def backlog(self, core: int) -> int:
        """Bytes that found no room."""
        return sum(map(len, self._waiting.get(core, ())))

    def epoch(self, core: int) -> int:
        """The life that a core is in, as far as this one has met it."""
        return self._known[core]

    # ------------------------------------------------------------------ the turn

    def receive_own(self) -> bool:
        """Handle what the core told itself; True when there was anything."""
        found = bool(self._own)
        while self._own:
            own, self._own = self._own, []
            for frame in own:
                self.handle(self._core, frame)
        return found

    def receive(self, peer: int, most: int) -> bool:
        """Handle at most so many frames of a peer; says whether there was any."""
        ring = self._rings.frames[peer, self._core]
        found = False
        while ring and most:
            frame = ring.popleft()
            if frame.target_life != self.life:
                continue
            if frame.source_life > self._known[peer]:
                self._meet(peer)
            if frame.source_life == self._known[peer]:
                most -= 1
                found = True
                self.handle(peer, frame.data)
        if most and not ring:
            found |= self._meet(peer)
        return found

    def _meet(self, peer: int) -> bool:
        if self._known[peer] == self._rings.lives[peer]:
            return False
        self._known[peer] = self._rings.lives[peer]
        self._waiting.pop(peer, None)
        self.replaced(peer)
        return True

    def flush(self, most: int = 1 << 30) -> bool:
        """Push what finds room, at most so many frames; says whether anything was pushed."""
        pushed = False
        for core, queue in self._waiting.items():
            ring = self._rings.frames[self._core, core]
            size = sum(len(frame.data) for frame in ring)
            # A frame that is larger than the room goes in parts, which nobody sees.
            while queue and most and (not ring or size + len(queue[0]) <= self._rings.room):
                data = queue.popleft()
                ring.append(Frame(self.life, self._known[core], data))
                size += len(data)
                most -= 1
                pushed = True
        return pushed

    def tear(self, rng: Random) -> None:
        """The core dies while it pushes: some frames are there, the others will never be."""
        self.flush(rng.randint(0, sum(map(len, self._waiting.values()))))

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be pushed or to be handled here."""
        return not self._own and not any(self._waiting.values())
