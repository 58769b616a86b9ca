"""Clients that roam over the nodes of a cluster, to which chance happens, and then a calm end.

One seed is a whole history: links and proposals that take their time, clients that come anywhere
and several at once, nodes that die, are cut off, fenced by the cluster, and come back.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from robustmq.message.session_record import SessionRecord
from robustmq.meta.placement import rendezvous
from robustmq.mqtt.session import Session
from robustmq.storage.memory_table import MemoryTable
from tests.simulation.cluster_memory import Memory
from tests.simulation.roamer import Roamer
from tests.simulation.site import TIMEOUT_MS, Links, Seen, Site
from tests.simulation.wire import Wire

NODES: Final = (0, 1, 2)
LEASE_MS: Final = 300
FENCE_MS: Final = 1_000
START_MS: Final = 1_700_000_000_000


class World:
    """A seed's nodes and clients; `run` returns the promises that were broken."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        rng = self.rng = Random(seed)
        self._lines = trace
        self.now_ms = START_MS
        self.faults: list[str] = []
        self.memory = Memory(rng)
        self.links = Links()
        self.wills: dict[bytes, int] = {}
        self.lives = 0
        self.version = 0
        self.history: list[dict[int, Seen]] = [{}]
        self.learns: dict[int, int] = {}
        self.silent_since: dict[int, int] = {}
        self.died: list[tuple[int, int]] = []
        self.steps = rng.randint(150, 600)
        self.reckless = rng.choice((0, 1, 1, 3))
        self.disks = {number: MemoryTable() for number in NODES}
        self.sites: dict[int, Site] = {}
        self._shares: list[tuple[int, Site, int]] = []
        self.roamers = [Roamer(f"c{index}", self) for index in range(rng.randint(1, 4))]
        self._publish({number: Seen(1, True) for number in NODES})
        for number in NODES:
            self._start(number)

    def trace(self, line: str) -> None:
        """Tell what happens."""
        if self._lines is not None:
            self._lines(f"{self.now_ms - START_MS:>7} {line}")

    def fault(self, what: str) -> None:
        """A promise is broken."""
        self.trace(f"FAULT {what}")
        self.faults.append(what)

    # ------------------------------------------------------------------ nodes

    def _publish(self, view: dict[int, Seen]) -> None:
        self.version += 1
        self.history.append(view)
        self.trace(f"version {self.version}: {[n for n, s in view.items() if s.is_live]} are live")

    def _start(self, number: int) -> None:
        self.lives += 1
        self.trace(f"node {number} starts, life {self.lives}")
        site = self.sites[number] = Site(
            number,
            self.lives,
            links=self.links,
            memory=self.memory,
            table=self.disks[number],
            now_ms=self.now_ms,
            will=self._will,
            nodes=NODES,
        )
        self._join(site)

    def _join(self, site: Site) -> None:
        """A node that runs is heard again: it learns what is its own."""
        number = site.number
        self.silent_since.pop(number, None)
        seen = self.history[-1][number]
        if not seen.is_live:
            self.memory.welcome(number, seen.incarnation)
            self._publish({**self.history[-1], number: Seen(seen.incarnation, True)})
            self.lives += 1
            site.rejoin(self.lives, seen.incarnation)
        site.incarnation = seen.incarnation
        self._catch_up(site, self.version)
        site.roaming.rejoined(not seen.is_live)
        site.own()

    def _catch_up(self, site: Site, version: int) -> None:
        while site.version < version:
            before = site.view
            view = self.history[site.version + 1]
            site.learn(site.version + 1, view)
            changed = {n for n in view if n not in before or view[n].is_live != before[n].is_live}
            if changed:
                # Who takes over what is decided anew: some may have been the share of a node
                # that is gone too.
                for node, seen in view.items():
                    if not seen.is_live and node != site.number:
                        site.roaming.fenced(node)
                        due_ms = self.now_ms + self.rng.choice((0, 20, 200))
                        self._shares.append((due_ms, site, node))

    def _share_out(self) -> None:
        waiting, self._shares = self._shares, []
        for due_ms, site, node in waiting:
            if due_ms > self.now_ms or (site.is_cut and not site.is_dead):
                self._shares.append((due_ms, site, node))
            elif not site.is_dead and not site.view[node].is_live:
                live = [n for n, seen in site.view.items() if seen.is_live]
                rows = [r for r in self.memory.owned(node) if _share(r, live) == site.number]
                if not self.memory.data.fence(node).is_open:
                    continue
                if rows:
                    site.adopt(node, rows)
                    self._shares.append((self.now_ms + 500, site, node))
                else:
                    site.roaming.settled(node)

    def _control(self) -> None:
        """Fence who is silent for too long, and tell nodes what is new."""
        for number, since_ms in list(self.silent_since.items()):
            site = self.sites[number]
            seen = self.history[-1][number]
            is_alone = site.is_cut and not site.is_dead and self.now_ms - since_ms >= LEASE_MS
            if is_alone and site.roaming.refusal is None:
                self.trace(f"node {number} is isolated")
                site.mqtt.isolated()
            others = [n for n, s in self.history[-1].items() if s.is_live and n != number]
            is_late = self.now_ms - since_ms >= FENCE_MS
            if seen.is_live and is_late and any(n not in self.silent_since for n in others):
                self.trace(f"node {number} is fenced")
                self.died.append((number, since_ms))
                self.memory.fence(number, seen.incarnation + 1)
                self._publish({**self.history[-1], number: Seen(seen.incarnation + 1, False)})
        for site in self.sites.values():
            if not (site.is_dead or site.is_cut) and site.version < self.version:
                due_ms = self.learns.setdefault(site.number, self.now_ms + self.rng.choice((0, 60)))
                if due_ms <= self.now_ms:
                    del self.learns[site.number]
                    self._catch_up(site, site.version + 1)
        self._share_out()

    def _kill(self, number: int) -> None:
        site = self.sites[number]
        self.trace(f"node {number} dies")
        self.died.append((number, self.now_ms))
        self._heal(number, False)
        site.die()
        self.disks[number] = site.table.crash(False)
        self.silent_since.setdefault(number, self.now_ms)

    def _cut(self, number: int) -> None:
        self.trace(f"node {number} is cut off")
        self.sites[number].is_cut = True
        self.links.cut.add(number)
        self.silent_since.setdefault(number, self.now_ms)

    def _heal(self, number: int, joins: bool = True) -> None:
        site = self.sites[number]
        if site.is_cut:
            self.links.cut.discard(number)
            site.is_cut = False
            if joins:
                self.trace(f"node {number} is not cut off any more")
                if site.roaming.refusal is None and self.history[-1][number].is_live:
                    del self.silent_since[number]
                else:
                    if site.roaming.refusal is None:
                        site.mqtt.isolated()
                    self._join(site)

    def _will(self, payload: bytes) -> None:
        self.trace(f"will {payload!r}")
        self.wills[payload] = self.wills.get(payload, 0) + 1
        if self.wills[payload] > 1:
            self.fault(f"the will {payload!r} was published twice")

    # ------------------------------------------------------------------ what happens

    def connect(self, name: str) -> Wire | None:
        """A client connects to some node that runs."""
        up = [site for site in self.sites.values() if not site.is_dead]
        if not up:
            return None
        site = self.rng.choice(up)
        wire = Wire(name, site.number)
        site.accept(wire)
        return wire

    def run(self) -> list[str]:
        """Let it all happen."""
        for _ in range(self.steps):
            self.now_ms += self.rng.choice((0, 1, 5, 20, 60))
            self._happen()
            self._round(everything=False)
            if self.faults:
                return self.faults
        self._finish()
        return self.faults

    def _happen(self) -> None:
        rng = self.rng
        self.rng.choice(self.roamers).act()
        if rng.random() < 0.02 * self.reckless:
            number = rng.choice(NODES)
            site = self.sites[number]
            if site.is_dead:
                self._start(number)
            elif site.is_cut:
                self._heal(number)
            elif len(self.silent_since) == 0:
                (self._kill if rng.random() < 0.5 else self._cut)(number)
        for number in list(self.silent_since):
            if rng.random() < 0.02:
                if self.sites[number].is_dead:
                    self._start(number)
                elif self.sites[number].is_cut:
                    self._heal(number)

    def _round(self, everything: bool) -> None:
        self.memory.turn(self.now_ms)
        self._control()
        for site in self.sites.values():
            if not site.is_dead and (everything or self.rng.random() < 0.8):
                site.turn(self.now_ms, self.rng, everything)
        for roamer in self.roamers:
            roamer.read()
        self._check_sessions()

    def _finish(self) -> None:
        self.trace("all is mended")
        for number in NODES:
            if self.sites[number].is_dead:
                self._start(number)
            self._heal(number)
        for roamer in self.roamers:
            roamer.leave_all()
        self._pass(3 * TIMEOUT_MS)
        for roamer in self.roamers:
            roamer.check_wills()
            roamer.come_back()
        self._pass(TIMEOUT_MS)
        for roamer in self.roamers:
            roamer.check_back()
        owned = {row.identity for number in NODES for row in self.memory.owned(number)}
        here = {
            session.principal.identity
            for site in self.sites.values()
            for session in site.mqtt.sessions.walk()
            if session.stored
        }
        if owned != here:
            self.fault(f"the cluster knows of {sorted(owned)}, the nodes have {sorted(here)}")

    def _pass(self, milliseconds: int) -> None:
        until_ms = self.now_ms + milliseconds
        while self.now_ms < until_ms and not self.faults:
            self.now_ms += 20
            self._round(everything=True)

    def session_of(self, name: str) -> Session | None:
        """The session of a client, on whichever node serves it."""
        for site in self.sites.values():
            session = site.mqtt.sessions.get(name)
            if site.serves and session is not None:
                return session
        return None

    def _check_sessions(self) -> None:
        for roamer in self.roamers:
            name = roamer.name
            having = [
                site.number
                for site in self.sites.values()
                if site.serves and site.mqtt.sessions.get(name) is not None
            ]
            if len(having) > 1:
                self.fault(f"{name} has sessions on the nodes {having}")


def _share(row: SessionRecord, live: list[int]) -> int:
    return rendezvous(row.identity.encode(), live)
