"""Links between cores of different simulated nodes, and what all nodes agree on: who is live.

They do what links promise (`workers.peers`): frames in order, once each, between two lives of two
cores, however long they take; of what a dead core had sent some is lost, always the last. What is
for or from a life that is over is never handled, and what is from one that the image of a core
does not name yet waits.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from robustmq.broker.placement import Life
from robustmq.message.core_number import global_core

Stamp = tuple[int, int]
"""The life of a core: its node's incarnation, and the number of its process there."""

FLOOR: Stamp = (0, 0)


class Packet(NamedTuple):
    """What one life of a core has sent to one life of another; it arrives at `due_ms`."""

    source: Stamp
    target: Stamp
    due_ms: int
    data: bytes


class Network:
    """What is under way between cores, by their global numbers, and the images of the cluster.

    `images` are all states of the cluster, the last one is now; cores hear of them later.
    """

    def __init__(self, rng: Random, delays: tuple[int, ...]) -> None:
        self._rng = rng
        self._delays = delays
        self.images: list[dict[int, Life]] = [{}]
        self.stamps: dict[int, Stamp] = {}
        self.ways: dict[tuple[int, int], deque[Packet]] = {}

    def comes_first(self) -> bool:
        """Whether a core that starts has heard already which nodes there are."""
        return self._rng.random() < 0.5

    def send(self, source: int, target: int, packet: Packet, now_ms: int) -> None:
        """Let a frame go; it does not overtake an earlier one."""
        way = self.ways.setdefault((source, target), deque())
        due_ms = now_ms + self._rng.choice(self._delays)
        if way:
            due_ms = max(due_ms, way[-1].due_ms)
        way.append(packet._replace(due_ms=due_ms))

    def lose(self, source: int) -> None:
        """A core has died: the last of what it has sent never arrives."""
        for (sender, _), way in self.ways.items():
            if sender == source:
                for _ in range(self._rng.randint(0, len(way))):
                    way.pop()

    def change(self, node: int, life: Life | None) -> None:
        """The cluster agrees that a node is live, or (None) that it is not."""
        image = dict(self.images[-1])
        if life is None:
            image.pop(node, None)
        else:
            image[node] = life
        self.images.append(image)

    @property
    def rests(self) -> bool:
        """Whether nothing is under way that somebody will hear."""
        live = {
            global_core(node, index)
            for node, life in self.images[-1].items()
            for index in range(life.workers)
        }
        return not any(way for pair, way in self.ways.items() if live.issuperset(pair))


class Lines:
    """The network as one life of one core sees it; `handle` and `replaced` are its core's."""

    def __init__(self, network: Network, node: int, index: int, life: int) -> None:
        self._network = network
        self._node = node
        self._life = life
        self.number = global_core(node, index)
        self.stamp: Stamp = (0, life)
        self.known: dict[int, Stamp] = {}
        self._floors: dict[int, Stamp] = {}
        self.handle: Callable[[int, bytes], None]
        self.replaced: Callable[[int], None]

    def hear(self, image: dict[int, Life]) -> list[int]:
        """Learn of an image; returns the cores that are known by a new link to be told all."""
        life = image.get(self._node)
        if life is None:
            return []
        before, is_new = self.known, life.incarnation != self.stamp[0]
        self.stamp = (life.incarnation, self._life)
        self._network.stamps[self.number] = self.stamp
        self.known = {}
        for node, other in image.items():
            for index in range(other.workers if node != self._node else 0):
                core = global_core(node, index)
                known = before.get(core, FLOOR)
                if known[0] != other.incarnation:
                    known = (other.incarnation, 0)
                self.known[core] = known
        for core in before.keys() - self.known.keys():
            self._floors[core] = before[core]
        return [
            core
            for core, stamp in self.known.items()
            if core in before and (is_new or before[core][0] != stamp[0])
        ]

    def send(self, core: int, data: bytes, now_ms: int) -> None:
        """Let a frame go to a live core; to any other it goes nowhere."""
        target = self.known.get(core)
        if target is not None:
            packet = Packet(self.stamp, target, 0, data)
            self._network.send(self.number, core, packet, now_ms)

    def backlog(self, core: int) -> int:
        """Bytes that have not arrived."""
        way = self._network.ways.get((self.number, core), ())
        return sum(len(packet.data) for packet in way)

    def receive(self, core: int, most: int, now_ms: int) -> bool:
        """Handle at most so many frames of a core; says whether there was any."""
        way = self._network.ways.get((core, self.number), deque())
        found = False
        while way and most and way[0].due_ms <= now_ms:
            packet = way[0]
            known = self.known.get(core)
            if packet.target < self.stamp or packet.source < (
                known or self._floors.get(core, FLOOR)
            ):
                way.popleft()
                continue
            is_ahead = packet.target[0] > self.stamp[0]
            if known is None or packet.source[0] > known[0] or is_ahead:
                # It is told of an image that this core has not heard of.
                break
            if packet.source > known:
                self._meet(core, packet.source)
                continue
            way.popleft()
            most -= 1
            found = True
            self.handle(core, packet.data)
        if not way:
            now, known = self._network.stamps.get(core, FLOOR), self.known.get(core)
            if known is not None and now[0] == known[0] and now > known:
                self._meet(core, now)
                found = True
        return found

    def _meet(self, core: int, stamp: Stamp) -> None:
        self.known[core] = stamp
        self.replaced(core)
