"""A Raft group of three to five replicas in one thread from one seed: links, disks, power cuts.

Virtual milliseconds. Messages are delayed, dropped, repeated and overtaken; links are cut in one
direction or in both; replicas are stopped for a while, and lose what was not synced when they
crash; members come and go; logs are compacted, so that snapshots travel. After every event the
truth is looked at; at the end all faults end, and the group must agree and stay calm.
"""

import random
from collections.abc import Callable
from heapq import heappop, heappush

from robustmq.errors import Refused
from robustmq.raft.message import Membership, Message, MessageKind, Snapshot, decode, encode
from robustmq.raft.node import Node
from robustmq.raft.ready import Read
from robustmq.settings.raft import Raft
from tests.simulation.raft_disk import Disk
from tests.simulation.raft_truth import Broken, Truth

GROUP = 7
TIMEOUT = 100
CHAOS_MS = 3_000
CALM_MS = 30_000
"""Time in which a group without faults must agree."""
SETTLE_MS = 1_200


class Host:
    """A machine with a replica, as long as it runs."""

    def __init__(self, number: int, start: Snapshot) -> None:
        self.number = number
        self.disk = Disk(start)
        self.node: Node | None = None
        self.life = 0
        self.stopped_until = 0
        self.tick_ms = -1
        self.syncing = False


class World:
    """One history."""

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.chance = random.Random(seed)
        self.tell = tell
        self.now = 0
        self.truth = Truth()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        size = self.chance.choice((3, 3, 4, 5, 5))
        start = Snapshot(0, 0, Membership(tuple(range(size))))
        spare = 2 if self.chance.random() < 0.5 else 0
        self.hosts = [Host(number, start) for number in range(size)]
        self.hosts += [Host(size + each, Snapshot()) for each in range(spare)]
        self.disks = {host.number: host.disk for host in self.hosts}
        self.settings = Raft(
            election_timeout_ms=TIMEOUT,
            heartbeat_interval_ms=20,
            append_bytes=self.chance.choice((1_024, 1_024, 65_536)),
            inflight_messages=self.chance.choice((1, 3, 64)),
            inflight_bytes=self.chance.choice((1_024, 1 << 20)),
            uncommitted_bytes=self.chance.choice((8_192, 1 << 20)),
            apply_bytes=self.chance.choice((1_024, 1 << 20)),
            cache_bytes=self.chance.choice((0, 1_024, 1 << 20)),
            promote_entries=self.chance.choice((0, 20, 1_000)),
        )
        self.loss = self.chance.choice((0.0, 0.0, 0.02, 0.1))
        self.repeats = self.chance.choice((0.0, 0.05, 0.3))
        self.disk_ms = self.chance.choice(((0, 1, 2), (0, 1, 5, 30), (20, 60, 150)))
        replies = (MessageKind.VOTE_REPLY, MessageKind.APPEND_REPLY)
        self.trap = self.chance.choice((None, None, *replies, self.chance.choice([*MessageKind])))
        """What a replica has said when it crashes, now and then."""
        self.luck = self.chance.choice((self.chance.random, lambda: self.chance.randint(0, 2) / 9))
        """How long replicas are patient: sometimes two of them often as long as each other."""
        self.restless = self.chance.choice((0.03, 0.03, 0.3))
        self.pace = self.chance.choice((100, 500))
        self.slowest = self.chance.choice((2, 10, 40))
        self.cut: set[tuple[int, int]] = set()
        self.calm = False
        self.commands = 0
        self.reads: dict[int, tuple[int, int]] = {}
        self.answered = 0
        self.deposed_since: dict[int, int] = {}

    # Events.

    def at(self, delay: int, event: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._events, (self.now + delay, self._order, event))

    def say(self, what: str) -> None:
        if self.tell is not None:
            self.tell(f"{self.now:6} {what}")

    def run(self) -> None:
        """Live through it; raises Broken when something is not as it must be."""
        for host in self.hosts:
            self.start(host)
        for fault in (self._fault, self._client, self._compaction):
            self.at(self.chance.randint(1, 100), fault)
        self._until(CHAOS_MS, lambda: False)
        self._calm_down()

    def _until(self, end: int, done: Callable[[], bool]) -> bool:
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heappop(self._events)
            event()
            if done():
                return True
        self.now = end
        return False

    # Hosts.

    def start(self, host: Host) -> None:
        host.life += 1
        host.node = Node(
            host.number,
            GROUP,
            self.settings,
            host.disk.stored(),
            chance=self.luck,
            now_ms=self.now,
        )
        host.syncing = False
        host.tick_ms = -1
        self.say(f"{host.number} starts at {host.disk.applied} of {host.disk.last_index}")
        self.pump(host, host.node)

    def crash(self, host: Host) -> None:
        host.node = None
        host.disk.crash(self.chance)
        self.say(f"{host.number} loses power")

    def act(self, host: Host, action: Callable[[Node], None], life: int) -> None:
        """Let a replica do something, unless it is another life, and later when it is stopped."""
        if host.node is None or host.life != life:
            return
        if host.stopped_until > self.now:
            delay = host.stopped_until - self.now + self.chance.randint(0, 2)
            self.at(delay, lambda: self.act(host, action, life))
            return
        action(host.node)
        self.pump(host, host.node)

    def pump(self, host: Host, node: Node) -> None:
        """Do what a host does: write, send, apply, answer; then look at it."""
        self.truth.look(host.number, node, self.disks)
        while (ready := node.ready()) is not None:
            self.truth.look(host.number, node, self.disks)
            if ready.number:
                host.disk.write(ready)
                self._sync_later(host)
            for message in ready.messages:
                self.send(message)
            for to in ready.snapshots_to:
                self._send_snapshot(host, node, to)
            if ready.committed:
                self.truth.handed(host.number, host.disk.applied, list(ready.committed))
                host.disk.applied = ready.committed[-1].index
            for read in ready.reads:
                self._answered(host, read)
        self._look_for_stale(host, node)
        if host.tick_ms < 0 or node.next_ms < host.tick_ms:
            self._tick_later(host, node)

    def _tick_later(self, host: Host, node: Node) -> None:
        life = host.life
        host.tick_ms = max(node.next_ms, self.now + 1)

        def tick(node: Node) -> None:
            host.tick_ms = -1
            node.tick(self.now)

        self.at(host.tick_ms - self.now, lambda: self.act(host, tick, life))

    def _look_for_stale(self, host: Host, node: Node) -> None:
        """Nobody leads for long beside a leader of a later term, unless it was stopped."""
        number = host.number
        later = node.leads and any(
            each.node is not None and each.node.leads and each.node.term > node.term
            for each in self.hosts
        )
        if not later:
            self.deposed_since.pop(number, None)
        elif self.now - self.deposed_since.setdefault(number, self.now) > 2 * TIMEOUT:
            raise Broken(f"{number} leads in term {node.term} long after it was replaced")

    def _sync_later(self, host: Host) -> None:
        if host.syncing:
            return
        host.syncing = True
        life = host.life

        def sync(node: Node) -> None:
            host.syncing = False
            number = self.chance.choice(host.disk.pending).number
            host.disk.sync(number)
            node.persisted(number)
            if host.disk.pending:
                self._sync_later(host)

        delay = self.chance.choice(self.disk_ms)
        self.at(delay, lambda: self.act(host, sync, life))

    # Links.

    def send(self, message: Message) -> None:
        if message.kind is self.trap and not self.calm and self.chance.random() < 0.2:
            host, back = self.hosts[message.sender], self.chance.choice((1, 10, 100))
            self.at(0, lambda: self._crash(host, back))
        if (message.sender, message.to) in self.cut:
            return
        if not self.calm and self.chance.random() < self.loss:
            return
        if self.chance.random() < 0.02:
            (message,) = decode(encode([message]), 1 << 20)
        self._deliver(message, self.chance.randint(1, self.slowest))
        if not self.calm and self.chance.random() < self.repeats:
            self._deliver(message, self.chance.choice((1, 30, 200, 1_000)))

    def _deliver(self, message: Message, delay: int) -> None:
        host = self.hosts[message.to]

        def arrive() -> None:
            self.act(host, lambda node: node.step(message, self.now), host.life)

        self.at(delay, arrive)

    def _send_snapshot(self, host: Host, node: Node, to: int) -> None:
        index, life, term = host.disk.applied, host.life, node.term
        if not node.snapshot_begins(to, index):
            self.at(20, lambda: self.act(host, lambda n: n.snapshot_ended(to, 0, False), life))
            return
        snapshot = node.describe(index)
        arrived = (host.number, to) not in self.cut and self.chance.random() > 0.2
        self.say(f"{host.number} sends {to} a snapshot of {index}: {arrived}")

        def end() -> None:
            self.act(host, lambda each: each.snapshot_ended(to, index, arrived), life)
            if arrived:
                kind = MessageKind.SNAPSHOT
                message = Message(kind, GROUP, host.number, to, term, snapshot=snapshot)
                self._deliver(message, 1)
                if self.chance.random() < self.repeats:
                    self._deliver(message, self.chance.choice((5, 100, 500)))

        self.at(self.chance.choice((5, 50, 300)), end)

    # Clients.

    def _client(self) -> None:
        """Somebody proposes, reads, or changes the members."""
        if self.calm:
            return
        self.at(self.chance.randint(1, 20), self._client)
        host = self.chance.choice(self.hosts)
        what = self.chance.random()
        if what > self.restless + 0.4:
            self.act(host, self._propose, host.life)
        elif what > self.restless:
            self.act(host, self._read, host.life)
        else:
            for each in self.hosts:
                if each.node is not None and each.node.leads:
                    self.act(each, self._change, each.life)

    def _propose(self, node: Node) -> None:
        count = self.chance.choice((1, 1, 3, 20))
        data = [b"%d" % (self.commands + each) for each in range(count)]
        data = [each.ljust(self.chance.choice((8, 8, 600))) for each in data]
        if not isinstance(node.propose(data, self.now), Refused):
            self.commands += count

    def _read(self, node: Node) -> None:
        token = len(self.reads) + 1
        self.reads[token] = (node._me, self.truth.committed)
        node.read_index(token, self.now)

    def _answered(self, host: Host, read: Read) -> None:
        """A read sees all that was committed anywhere before it was asked (linearizable)."""
        asker, committed = self.reads[read.token]
        if asker != host.number:
            raise Broken(f"{host.number} is told what {asker} has asked")
        if read.index is None:
            return
        self.answered += 1
        if read.index < committed or host.disk.applied < read.index:
            raise Broken(f"a read of {host.number} sees {read.index}, not {committed}")

    def _change(self, node: Node) -> None:
        """The members change, or the office is given up."""
        membership = node.membership
        what = self.chance.random()
        target = self.chance.choice(self.hosts).number
        result: int | Refused | None
        if what < 0.4:
            result = node.transfer_leadership(target, self.now)
        elif target in membership.learners:
            result = node.promote(target, self.now)
        elif target in membership.voters:
            result = node.remove(target, False, self.now)
        else:
            result = node.add_learner(target, self.now)
        self.say(f"{node._me} changes {target} of {membership}: {result}")

    def _compaction(self) -> None:
        if self.calm:
            return
        self.at(self.chance.randint(20, 400), self._compaction)
        host = self.chance.choice(self.hosts)
        self.act(host, lambda node: self._compact(host, node), host.life)

    def _compact(self, host: Host, node: Node) -> None:
        host.disk.applied_durable = host.disk.applied
        if host.disk.applied >= node.start.index:
            index = self.chance.randint(node.start.index, host.disk.applied)
            host.disk.compact(node.compact(index))

    # Faults.

    def _fault(self) -> None:
        if self.calm:
            return
        self.at(self.chance.randint(self.pace // 10, self.pace), self._fault)
        host = self.chance.choice(self.hosts)
        number = host.number
        others = [each.number for each in self.hosts if each is not host]
        what = self.chance.choice(("heal", "heal", "alone", "deaf", "mute", "half", "pair",
                                   "crash", "crash", "all", "stop"))  # fmt: skip
        self.say(f"fault: {what} {number}")
        if what == "heal":
            self.cut.clear()
        elif what == "crash":
            self._crash(host, self.chance.choice((1, 10, 300, 1_000)))
        elif what == "all":
            for each in self.hosts:
                self._crash(each, self.chance.randint(1, 200))
        elif what == "stop":
            host.stopped_until = self.now + self.chance.choice((30, 150, 600))
        else:
            if what in {"alone", "deaf"}:
                self.cut |= {(each, number) for each in others}
            if what in {"alone", "mute"}:
                self.cut |= {(number, each) for each in others}
            if what == "pair":
                self.cut.add((number, self.chance.choice(others)))
            if what == "half":
                side = {each.number for each in self.hosts if self.chance.random() < 0.5}
                self.cut |= {(a, b) for a in side for b in self.disks if b not in side}
                self.cut |= {(b, a) for a in side for b in self.disks if b not in side}

    def _crash(self, host: Host, back: int) -> None:
        if host.node is not None and not self.calm:
            self.crash(host)
            self.at(back, lambda: self.start(host) if host.node is None else None)

    # The end.

    def _calm_down(self) -> None:
        """All faults end: the group agrees, serves, and is not disturbed by one that returns."""
        self.say("calm")
        self.calm = True
        self.cut.clear()
        for host in self.hosts:
            host.stopped_until = 0
            if host.node is None:
                self.start(host)
        if not self._until(self.now + CALM_MS, self._agreed):
            raise Broken(f"no agreement: {self._state()}")
        self._match_all()
        # What was repeated late is still on its way.
        self._until(self.now + SETTLE_MS, lambda: False)
        self._disturb()

    def _leader(self) -> Host | None:
        leading = [each for each in self.hosts if each.node is not None and each.node.leads]
        return leading[0] if len(leading) == 1 else None

    def _agreed(self) -> bool:
        leader = self._leader()
        if leader is None or leader.node is None:
            return False
        node = leader.node
        if node.last_index != node.commit:
            return False
        members = (*node.membership.voters, *node.membership.learners)
        return all(self.hosts[each].disk.applied == node.commit for each in members)

    def _match_all(self) -> None:
        nodes = [host.node for host in self.hosts if host.node is not None]
        for at, first in enumerate(nodes):
            for second in nodes[at + 1 :]:
                self.truth.match(first, second)

    def _disturb(self) -> None:
        """One replica is cut off and returns; the leader stays, and commits and answers."""
        leader = self._leader()
        assert leader is not None
        assert leader.node is not None
        node, term, life = leader.node, leader.node.term, leader.life
        others = [each for each in node.membership.voters if each != leader.number]
        if len(others) >= 2:
            number = self.chance.choice(others)
            ways = self.chance.choice(("both", "in", "out"))
            if ways != "out":
                self.cut |= {(each, number) for each in self.disks}
            if ways != "in":
                self.cut |= {(number, each) for each in self.disks}
            self._until(self.now + 4 * TIMEOUT, lambda: False)
            self.cut.clear()
            self._until(self.now + TIMEOUT, lambda: False)
        self.act(leader, self._propose, life)
        answered = self.answered
        for each in (*node.membership.voters, *node.membership.learners):
            self.act(self.hosts[each], self._read, self.hosts[each].life)
        self._until(self.now + 4 * TIMEOUT, lambda: False)
        if not self._until(self.now + CALM_MS, self._agreed) or leader.node.term != term:
            raise Broken(f"a replica that returns disturbs term {term}: {self._state()}")
        members = len(node.membership.voters) + len(node.membership.learners)
        if self.answered - answered < members:
            raise Broken(f"{self.answered - answered} of {members} reads are answered")

    def _state(self) -> str:
        return "; ".join(
            f"{host.number}: {host.node.role.name} term {host.node.term} log {host.node.last_index}"
            f" commit {host.node.commit} of {host.node.membership}"
            for host in self.hosts
            if host.node is not None
        )
