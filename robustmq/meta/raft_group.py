"""One replicated group on one node: its replica, journal, store and machine, put together.

What Raft decides is done here in the order that keeps it true: journal before messages, store
after journal, outcomes after store.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.meta.machine import Machine, Outcome, Store
from robustmq.meta.outcomes import Batch, Outcomes, Result, batches_of, entry_data
from robustmq.meta.peer_message import Chunk, ChunkReply, Forward
from robustmq.meta.proposals import Proposals
from robustmq.meta.site import Site
from robustmq.meta.snapshots import Snapshots
from robustmq.meta.store import GroupStore, Position, Staged
from robustmq.raft.journal import Journal
from robustmq.raft.message import NOBODY, Entry, EntryKind, Membership, Message, Snapshot
from robustmq.raft.node import Node
from robustmq.raft.ready import Ready, Stored

MachineFactory: TypeAlias = Callable[[Store], Machine]
_ASKED_AGAIN_MS: Final = 50
_NOT_READ: Final = Refused(
    Refusal.UNAVAILABLE, "no majority of the cluster has said what is committed"
)


class _Reading(msgspec.Struct):
    """Reads that were asked for together."""

    asked_ms: int
    waiting: list[tuple[int, Callable[[Refused | None], None]]]
    """Each with its deadline."""


class RaftGroup:
    """A group as its host drives it: `turn` after anything has happened, and at `next_ms`."""

    def __init__(
        self,
        number: int,
        name: str,
        site: Site,
        *,
        store: GroupStore,
        make: MachineFactory,
        voters: Membership,
        now_ms: int,
    ) -> None:
        self.number = number
        self.name = name
        self._site = site
        self._store = store
        self._journal = site.journals.open(name)
        _check(name, self._journal, store, voters)
        if self._journal.recovered.cut:
            site.report(
                f"{self._journal.recovered.reason}: {self._journal.recovered.cut} bytes that "
                f"nobody was told of were cut off"
            )
        stored = Stored(
            start=self._journal.start,
            hard_state=self._journal.hard_state,
            applied=store.position.index,
            entries=self._journal,
        )
        self.node = Node(site.me, number, site.settings, stored, chance=site.chance, now_ms=now_ms)
        self._outcomes = Outcomes(store)
        self.machine = make(store)
        self.machine.reload()
        settings = site.settings
        self._proposals = Proposals(
            site.me, site.life, settings.pending_bytes, site.answer, site.counters
        )
        self._forwarded: deque[Batch] = deque()
        self._forwarded_bytes = 0
        self._target = (NOBODY, 0)
        self._sent_ms = now_ms
        self._has_gap = False
        """Whether what was lost on its way has been sent again, and nothing has come of it yet."""
        self._readings: dict[int, _Reading] = {}
        self._unread: list[tuple[int, Callable[[Refused | None], None]]] = []
        self._ticket = 0
        self._writing: deque[tuple[int, int]] = deque()
        """What the node waits for: (batch of the journals, number of the Ready)."""
        self._installing: tuple[int, Staged] | None = None
        self._syncing: tuple[int, int] | None = None
        self._cut_at = self._journal.start.index + settings.keep_entries
        """What was applied when the log was last cut short."""
        self._bytes = 0
        """Bytes of entries applied since the log was last cut short."""
        self._snapshots = Snapshots(site, self)

    # ------------------------------------------------------------------ asked from outside

    @property
    def store(self) -> GroupStore:
        """The group's store."""
        return self._store

    @property
    def journal(self) -> Journal:
        """The group's journal."""
        return self._journal

    @property
    def leader(self) -> int | None:
        """The number of the node that leads; None: nobody is known to."""
        return None if self.node.leader == NOBODY else self.node.leader

    @property
    def position(self) -> Position:
        """What has been applied here."""
        return self._store.position

    def propose(self, command: bytes, done: Callable[[Outcome], None], deadline_ms: int) -> None:
        """Have a command folded; `done` is called once, after some turn."""
        most = self._site.settings.max_proposal_bytes
        if len(command) > most:
            sentence = f"it has {len(command)} bytes, and {most} are the most: make it smaller"
            self._proposals.refuse(Refused(Refusal.TOO_LARGE, sentence), done)
        else:
            self._proposals.add(command, done, deadline_ms)

    def read(self, done: Callable[[Refused | None], None], deadline_ms: int) -> None:
        """Call `done(None)` when all is folded here that was committed anywhere at this time."""
        self._unread.append((deadline_ms, done))

    # ------------------------------------------------------------------ from other nodes

    def step(self, message: Message, now_ms: int) -> None:
        """A message of Raft has come."""
        self.node.step(message, now_ms)

    def forwarded(self, forward: Forward, sender: int) -> None:
        """Another node's proposals have come. What is too much is dropped: it comes again."""
        batch = forward.batch
        size = sum(map(len, batch.commands))
        most = self._site.settings.pending_bytes
        if self.node.leads and batch.node == sender and self._forwarded_bytes + size <= most:
            self._forwarded_bytes += size
            self._forwarded.append(batch)

    def unreachable(self, peer: int) -> None:
        """The link to a peer broke: what was sent lately may be lost."""
        self.node.unreachable(peer)
        if self.node.leader == peer:
            self._proposals.send_again()

    def chunk(self, chunk: Chunk, sender: int, now_ms: int) -> None:
        """A part of a snapshot has come."""
        if self._installing is None:
            self._snapshots.take(chunk, sender, now_ms)

    def chunk_reply(self, reply: ChunkReply, sender: int, now_ms: int) -> None:
        """What a follower says of a snapshot has come."""
        self._snapshots.heard(reply, sender, now_ms)

    # ------------------------------------------------------------------ a turn

    def turn(self, now_ms: int) -> None:
        """Do all that can be done now. Raises Corrupt, OSError, which end the process."""
        node = self.node
        self._see_durable()
        if now_ms >= node.next_ms:
            node.tick(now_ms)
        self._give(now_ms)
        self._ask(now_ms)
        while (ready := node.ready()) is not None:
            self._do(ready, now_ms)
        self._snapshots.turn(now_ms, is_installing=self._installing is not None)
        self._proposals.expire(now_ms)
        self._compact()

    def next_ms(self, now_ms: int) -> int:
        """When `turn` has something to do although nothing has come."""
        times = [self.node.next_ms]
        if (deadline := self._proposals.next_ms) is not None:
            times += (deadline, max(self._sent_ms + self._site.settings.retry_ms, now_ms + 1))
        for reading in self._readings.values():
            times.append(reading.asked_ms + self._site.settings.retry_ms)
        if self._unread:
            times.append(now_ms + _ASKED_AGAIN_MS)
        if (wanted := self._snapshots.next_ms) is not None:
            times.append(wanted)
        return min(times)

    def close(self, why: Refused) -> None:
        """Answer what waits, and let go of the store."""
        self._proposals.refuse_all(why)
        for _, done in self._reads_waiting():
            self._site.answer(_call(done, why))
        self._readings.clear()
        self._snapshots.close()
        self._store.close()

    # ------------------------------------------------------------------ proposals

    def _give(self, now_ms: int) -> None:
        """Give what is proposed to the leader: this replica, or another node."""
        node, proposals, settings = self.node, self._proposals, self._site.settings
        target = (node.leader, node.term)
        if target != self._target:
            self._target = target
            proposals.send_again()
        if node.leads:
            self._append(now_ms)
            return
        self._forwarded.clear()
        self._forwarded_bytes = 0
        if node.leader == NOBODY:
            return
        if len(proposals) and now_ms >= self._sent_ms + settings.retry_ms:
            proposals.send_again()
        if proposals.has_unsent:
            self._sent_ms = now_ms
            for batch in proposals.batches(settings.batch_bytes):
                self._site.outbox.tell(node.leader, Forward(self.number, batch))

    def _append(self, now_ms: int) -> None:
        """As the leader: put what waits into entries, as long as not too many are on their way."""
        settings, proposals = self._site.settings, self._proposals
        room = settings.batches_in_flight - (self.node.last_index - self.node.commit)
        while room > 0 and (self._forwarded or proposals.has_unsent):
            before, size = proposals.sent, 0
            batches: list[Batch] = []
            for batch in self._forwarded:
                if size >= settings.batch_bytes:
                    break
                batches.append(batch)
                size += sum(map(len, batch.commands))
            others = len(batches)
            if size < settings.batch_bytes and proposals.has_unsent:
                batches.append(next(proposals.batches(settings.batch_bytes - size)))
            if isinstance(self.node.propose([entry_data(batches)], now_ms), Refused):
                # On its way out of office, or too much is not committed: they wait.
                proposals.sent = before
                return
            for _ in range(others):
                self._forwarded.popleft()
            self._forwarded_bytes -= size
            room -= 1

    # ------------------------------------------------------------------ reads

    def _ask(self, now_ms: int) -> None:
        """Ask which index the reads that wait must see."""
        retry = self._site.settings.retry_ms
        for token in [t for t, r in self._readings.items() if now_ms >= r.asked_ms + retry]:
            self._unread += self._readings.pop(token).waiting
        waiting: list[tuple[int, Callable[[Refused | None], None]]] = []
        for deadline, done in self._unread:
            if now_ms >= deadline:
                self._site.answer(_call(done, _NOT_READ))
            else:
                waiting.append((deadline, done))
        self._unread = waiting
        if waiting and self.node.leader != NOBODY:
            token = self._site.token()
            self._readings[token] = _Reading(now_ms, waiting)
            self._unread = []
            self.node.read_index(token, now_ms)

    def _reads_waiting(self) -> list[tuple[int, Callable[[Refused | None], None]]]:
        found, self._unread = self._unread, []
        for reading in self._readings.values():
            found += reading.waiting
        return found

    # ------------------------------------------------------------------ what Raft says

    def _do(self, ready: Ready, now_ms: int) -> None:
        journal = self._journal
        if ready.snapshot is not None:
            self._install(ready.snapshot)
        if journal.append(ready.entries, ready.hard_state) or ready.snapshot is not None:
            self._ticket = self._site.journals.next
        if ready.number:
            self._writing.append((self._ticket, ready.number))
            self._see_durable()
        for message in ready.messages:
            self._site.outbox.say(message)
        if ready.committed:
            self._apply(ready.committed)
        for read in ready.reads:
            reading = self._readings.pop(read.token, None)
            if reading is None:
                continue
            if read.index is None:
                self._unread += reading.waiting
                continue
            for _, done in reading.waiting:
                self._site.answer(_call(done, None))
        for to in ready.snapshots_to:
            self._snapshots.begin(to, now_ms)

    def _see_durable(self) -> None:
        """Tell the node what is on the disk now."""
        durable = self._site.journals.durable
        if self._installing is not None and self._installing[0] <= durable:
            staged, self._installing = self._installing[1], None
            self._snapshots.installed()
            self._store.switch(staged)
            self._cut_at = self._store.position.index
            self._outcomes.reload()
            self.machine.reload()
            self._site.counters.snapshots_installed += 1
            self._proposals.known(self._outcomes.known(self._site.me, self._site.life))
        number = 0
        while self._writing and self._writing[0][0] <= durable:
            number = self._writing.popleft()[1]
        if number:
            self.node.persisted(number)

    def _install(self, snapshot: Snapshot) -> None:
        """Let a snapshot that has arrived count: in one batch, the store before the journal."""
        staged = self._store.staged
        assert staged is not None
        assert staged.snapshot == snapshot
        self._syncing = None
        store = self._store
        number = self._site.journals.chore(lambda: store.make_current(staged))
        self._journal.begin(snapshot, anew=True)
        self._installing = (number, staged)

    # ------------------------------------------------------------------ the machine

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Fold committed entries, and write all of it at once."""
        before = commands = self._store.position.commands
        for entry in entries:
            self._bytes += entry.size
            if entry.kind is EntryKind.COMMAND:
                commands = self._fold_entry(entry, commands)
        self._store.write(Position(entries[-1].index, commands))
        self._site.counters.applied += commands - before

    def _fold_entry(self, entry: Entry, commands: int) -> int:
        """Fold an entry's commands; returns how many there were ever."""
        store, site = self._store, self._site

        def fold(command: bytes) -> Result:
            nonlocal commands
            commands += 1
            # What a failed command leaves is dropped, and nothing else.
            store.accept()
            result = self._fold(commands, command)
            store.accept()
            return result

        for batch in batches_of(entry.data):
            first, results = self._outcomes.fold(batch, fold)
            store.accept()
            if batch.node != site.me or batch.life != site.life:
                continue
            if results:
                self._has_gap = False
                self._proposals.folded(first, results)
            elif first < batch.first and not self._has_gap:
                # One before it was lost on its way to the leader; once for all that follow it.
                self._has_gap = True
                self._proposals.send_again()
        return commands

    def _fold(self, position: int, command: bytes) -> Result:
        try:
            return Result(position, self.machine.apply(position, command))
        except (Corrupt, OSError, MemoryError):
            # Of this node alone: its peers have folded it.
            raise
        except Exception as error:
            self._store.drop()
            self.machine.reload()
            self._site.report(
                f"command {position} of the group {self.name} failed on every node and changed "
                f"nothing: {error!r}"
            )
            return Result(position, None)

    # ------------------------------------------------------------------ the log's length

    def _compact(self) -> None:
        """Cut the log short when it is long: first the store is synced, by the writer."""
        journals, settings = self._site.journals, self._site.settings
        if self._syncing is not None:
            ticket, index = self._syncing
            if ticket > journals.durable:
                return
            self._syncing = None
            old = self._journal.start.index
            start = self.node.compact(index)
            if start.index > old:
                self._journal.begin(start, anew=False)
            return
        if self._installing is not None:
            return
        applied = self._store.position.index
        behind = applied - self._journal.start.index
        if applied - self._cut_at >= settings.compact_entries:
            keep = settings.keep_entries
        elif self._bytes >= settings.compact_bytes:
            keep = min(settings.keep_entries, behind // 2)
        else:
            return
        if applied - keep <= self._journal.start.index:
            return
        # A snapshot on its way may hold the log up: then it is tried again after as many.
        self._bytes, self._cut_at = 0, applied
        self._syncing = (journals.chore(self._store.database.sync), applied - keep)


def _call(done: Callable[[Refused | None], None], with_: Refused | None) -> Callable[[], None]:
    return lambda: done(with_)


def _check(name: str, journal: Journal, store: GroupStore, voters: Membership) -> None:
    """Begin a journal where there is none; make sure that it and the store belong together."""
    applied, installed = store.position.index, store.installed
    if journal.is_empty and not applied:
        journal.begin(Snapshot(0, 0, voters), anew=True)
        return
    if not journal.is_empty and journal.start.index < installed.index:
        # The end came when the store had its snapshot and the journal did not say so.
        journal.begin(installed, anew=True)
    if journal.is_empty or not journal.start.index <= applied <= journal.last_index:
        raise Corrupt(
            f"the log of the group {name} has entries {journal.start.index + 1} to "
            f"{journal.last_index}, and its store has applied {applied}: one of them has lost "
            f"what it had, so this replica must not go on; replace the node, with an empty data "
            f"directory"
        )
