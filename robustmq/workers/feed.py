"""The meta process' end toward the other processes of its node: what they ask, and what they hear.

What groups fold is gathered and told once a turn. Who does not read is told nothing more, until
it has caught up with what waits for it, and then where it must ask again.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final, Protocol

import msgspec

from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionRecord
from robustmq.message.topic import stable_hash
from robustmq.meta import data as data_group
from robustmq.meta.data import Batch, Data, Retained
from robustmq.meta.machine import Groups, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.offset import Offsets
from robustmq.meta.records import Record
from robustmq.policy.principal import client_of
from robustmq.workers import meta_messages as messages
from robustmq.workers.meta_messages import (
    PAGE_ROWS,
    Changed,
    Follow,
    Found,
    FoundKey,
    FoundOffset,
    FromMeta,
    Hello,
    Propose,
    Query,
    Records,
    Snapshot,
    Standing,
    Welcome,
)

METADATA: Final = "metadata"
BACKLOG_BYTES: Final = 4 << 20
"""Bytes that wait for a process beyond which it is told nothing but the answers to its own."""

_encoder: Final = msgspec.msgpack.Encoder()


class Line(Protocol):
    """The way to one process of the node; `epoch` is its life now, 0 while it does not run."""

    @property
    def epoch(self) -> int: ...  # noqa: D102

    @property
    def backlog_bytes(self) -> int: ...  # noqa: D102

    def send(self, message: bytes) -> None: ...  # noqa: D102

    def clear(self) -> None: ...  # noqa: D102


class Member:
    """A process of the node: its line, and how far it was told."""

    def __init__(self, endpoint: int, line: Line) -> None:
        self.endpoint = endpoint
        self.line = line
        self.life = 0
        """The life of the process that was welcomed; 0: none was."""
        self.told: int | None = None
        """The index of the metadata that its image has reached; None: it has to fetch it."""
        self.following: dict[str, bool] = {}
        """Groups whose changes it hears of; False: it was left out, and must ask again."""

    def send(self, message: FromMeta) -> None:
        """Send what is meant for its present life."""
        self.line.send(messages.encode(message))

    @property
    def is_behind(self) -> bool:
        """Whether too much waits for it."""
        return self.line.backlog_bytes >= BACKLOG_BYTES


class Feed:
    """Answers the processes of the node, and tells them what groups fold.

    `lines` are by endpoint: workers from 0 on, below `workers`, then others. `life` is this
    process's. `number` is the node's own. `offsets` are the machines of the offset groups.
    Nobody is told anything before `start`. Call `flush` at the end of each
    turn, and `drained` when what waited for a process is sent.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        metadata: Metadata,
        data: Mapping[str, Data],
        groups: Groups,
        *,
        life: int,
        number: int,
        workers: int,
        offsets: Mapping[str, Offsets],
    ) -> None:
        self.members = [Member(endpoint, line) for endpoint, line in enumerate(lines)]
        self.workers = workers
        self.is_isolated = False
        self.is_current = False
        """Whether the processes of the node are told anything yet."""
        self._metadata = metadata
        self._data = data
        self._groups = groups
        self._offsets = offsets
        self._names = {METADATA, *data, *offsets}
        self._life = life
        self._number = number
        self._told = metadata.index
        self._records: list[Record] = []
        self._retained: dict[str, list[tuple[int, Retained]]] = {}
        self._is_stale = False
        metadata.on_applied = self._folded
        metadata.on_reload = self._reloaded
        for name, machine in data.items():
            machine.on_applied = partial(self._retained_in, name)
            machine.on_reload = self._reloaded

    def start(self) -> None:
        """Begin to tell: what is known here is all that the cluster had decided by now."""
        self.is_current = True
        for member in self.members:
            if member.line.epoch:
                self._welcome(member)

    def receive(self, endpoint: int, data: bytes) -> None:
        """Take a message of a process."""
        member = self.members[endpoint]
        message = messages.for_meta(data)
        if message.epoch != member.line.epoch:
            return
        match message:
            case Hello():
                self._greeted(member)
            case Propose(epoch, number, group, command):
                answer = partial(self._answer, member, epoch, number)
                if self._is_known(group):
                    self._groups.propose(group, command, answer)
                else:
                    answer(_unknown(group))
            case Query(group=group):
                if message.kind == "owned" and group in self._data:
                    # Behind all that an earlier life of the core has proposed.
                    barrier = data_group.encode(Batch(self._number, 0))
                    found = partial(self._find, member, message)
                    self._groups.propose(group, barrier, lambda done: found(_refusal(done)))
                elif self._is_known(group):
                    self._groups.read(group, partial(self._find, member, message))
                else:
                    self._find(member, message, _unknown(group))
            case Follow():
                self._follow(member, message)

    def flush(self) -> None:
        """Tell all processes what has been folded since the last time."""
        if self._is_stale:
            self._is_stale = False
            self._tell_all()
        index = self._metadata.index
        if index > self._told:
            for member in self.members:
                self._tell_records(member, index)
            self._told = index
            self._records = []
        if self._retained:
            for group, rows in self._retained.items():
                self._tell_retained(group, rows)
            self._retained = {}

    def is_untold(self, member: Member) -> bool:
        """Whether a process that runs has not been told all that was decided."""
        is_there = bool(member.life) and member.life == member.line.epoch
        return is_there and member.told != self._told

    def drained(self, endpoint: int) -> None:
        """What waited for a process is sent: tell it what it was not told meanwhile."""
        member = self.members[endpoint]
        if not member.life or member.life != member.line.epoch:
            return
        if member.told is None:
            self._send_snapshot(member)
        for group, is_told in member.following.items():
            if not is_told:
                index = self._data[group].index
                member.send(Changed(member.line.epoch, group, index, [], is_missing=True))
        member.following = {group: True for group, told in member.following.items() if told}

    def stand(self, is_isolated: bool) -> None:
        """Tell all processes whether the node is in touch with the cluster."""
        if is_isolated != self.is_isolated:
            self.is_isolated = is_isolated
            for member in self.members:
                if member.line.epoch and member.life == member.line.epoch:
                    member.send(Standing(member.line.epoch, is_isolated))

    def _reloaded(self) -> None:
        # The rows are looked at when the turn is over.
        self._is_stale = True

    def _tell_all(self) -> None:
        self._records = []
        self._retained = {}
        self._told = self._metadata.index
        for member in self.members:
            if member.line.epoch and member.life == member.line.epoch:
                self._send_snapshot(member)
                member.following = dict.fromkeys(member.following, False)
                self.drained(member.endpoint)

    # ------------------------------------------------------------------ what was folded

    def _folded(self, index: int, records: Iterable[Record]) -> None:
        self._records += (msgspec.structs.replace(each, changed=index) for each in records)

    def _retained_in(
        self, group: str, index: int, rows: Iterable[Retained], _is_fenced: bool
    ) -> None:
        self._retained.setdefault(group, []).extend((index, row) for row in rows)

    def _tell_records(self, member: Member, index: int) -> None:
        if member.told is None or member.told >= index or member.life != member.line.epoch:
            return
        if member.is_behind:
            member.told = None
            return
        # Who has fetched all in this turn is told some of it twice, which does no harm.
        before = min(member.told, self._told)
        member.send(Records(member.line.epoch, before, index, self._records))
        member.told = index

    def _tell_retained(self, group: str, rows: list[tuple[int, Retained]]) -> None:
        if not any(member.following.get(group) for member in self.members):
            return
        index = self._data[group].index
        parts: dict[int, list[tuple[int, Retained]]] = {}
        for row in rows:
            core = stable_hash(row[1].topic) % self.workers
            parts.setdefault(core, []).append(row)
        for member in self.members:
            if not member.following.get(group) or member.life != member.line.epoch:
                continue
            if member.is_behind:
                member.following[group] = False
            else:
                part = parts.get(member.endpoint, [])
                member.send(Changed(member.line.epoch, group, index, part))

    # ------------------------------------------------------------------ what is asked

    def _is_known(self, group: str) -> bool:
        return group in self._names

    def _greeted(self, member: Member) -> None:
        if member.life == member.line.epoch:
            self._send_snapshot(member)
            return
        # What was meant for its predecessor is nobody's any more.
        member.line.clear()
        if self.is_current:
            self._welcome(member)

    def _welcome(self, member: Member) -> None:
        member.life = member.line.epoch
        member.following = {}
        member.send(Welcome(member.line.epoch, self._life))
        member.send(Standing(member.line.epoch, self.is_isolated))
        self._send_snapshot(member)

    def _send_snapshot(self, member: Member) -> None:
        index = self._metadata.index
        member.send(Snapshot(member.line.epoch, index, [*self._metadata.records()]))
        member.told = index

    def _answer(self, member: Member, epoch: int, number: int, outcome: Outcome) -> None:
        if epoch != member.line.epoch:
            return
        if isinstance(outcome, Refused):
            code = int(outcome.code)
            member.send(messages.Outcome(epoch, number, 0, b"", code, outcome.detail))
        else:
            member.send(messages.Outcome(epoch, number, outcome.position, outcome.result))

    def _find(self, member: Member, query: Query, refused: Refused | None) -> None:
        epoch, number = query.epoch, query.number
        if epoch != member.line.epoch:
            return
        limit = min(query.limit, PAGE_ROWS)
        machine = self._data.get(query.group)
        if refused is not None:
            code = int(refused.code)
            member.send(Found(epoch, number, code=code, detail=refused.detail))
        elif query.kind == "keys":
            keys = self._metadata.keys(query.prefix, query.start)
            found = [FoundKey(*each) for each in islice(keys, limit + 1)]
            after = found[limit].key if len(found) > limit else None
            member.send(Found(epoch, number, _encoder.encode(found[:limit]), after))
        elif query.kind == "sessions" and machine is not None:
            rows = [machine.session(name) for name in query.names[:PAGE_ROWS]]
            member.send(Found(epoch, number, _encoder.encode(rows)))
        elif query.kind == "owned" and machine is not None:
            self._find_owned(member, query, machine, limit)
        elif query.group in self._offsets:
            member.send(_found_offsets(query, self._offsets[query.group], limit))
        else:
            detail = f"nobody answers {query.kind[:100]} of the group {query.group[:100]}"
            member.send(Found(epoch, number, code=int(Refusal.INTERNAL), detail=detail))

    def _find_owned(self, member: Member, query: Query, machine: Data, limit: int) -> None:
        found: list[SessionRecord] = []
        after: str | None = None
        for session in islice(machine.owned(self._number, query.start), PAGE_ROWS * 4):
            if len(found) >= limit:
                after = session.identity
                break
            if self.home_of(session.identity) == member.endpoint:
                found.append(session)
            after = session.identity + "\0"
        else:
            if after is not None and next(machine.owned(self._number, after), None) is None:
                after = None
        epoch, number = query.epoch, query.number
        member.send(Found(epoch, number, _encoder.encode(found), after))

    def home_of(self, identity: str) -> int:
        """Return the worker of this node that is home to an identity."""
        return stable_hash(client_of(identity)[1].encode()) % self.workers

    def _follow(self, member: Member, wanted: Follow) -> None:
        machine = self._data.get(wanted.group)
        if machine is None:
            return
        member.following.pop(wanted.group, None)
        changes = machine.changes(wanted.after, PAGE_ROWS, wanted.is_whole)
        rows = [row for row in changes.rows if self._is_kept_by(member, row[1].topic)]
        if changes.after is None:
            # What is gathered in this turn is told again with the turn's end.
            member.following[wanted.group] = True
        epoch, index = member.line.epoch, machine.index
        after, is_whole = changes.after, changes.is_whole
        member.send(Changed(epoch, wanted.group, index, rows, after, is_whole))

    def _is_kept_by(self, member: Member, topic: bytes) -> bool:
        return stable_hash(topic) % self.workers == member.endpoint


def _found_offsets(query: Query, machine: Offsets, limit: int) -> Found:
    """Answer what is asked of an offset group."""
    epoch, number = query.epoch, query.number
    if query.kind == "page":
        return Found(epoch, number, _encoder.encode(machine.page(query.start)))
    if query.kind == "page_keys":
        keys = [*islice(machine.keys(query.prefix, query.start), limit + 1)]
        after = keys[limit] if len(keys) > limit else None
        return Found(epoch, number, _encoder.encode(keys[:limit]), after)
    offsets = machine.offsets(query.prefix, query.start)
    rows = [FoundOffset(*each) for each in islice(offsets, limit + 1)]
    after = rows[limit].place if len(rows) > limit else None
    return Found(epoch, number, _encoder.encode(rows[:limit]), after)


def _refusal(outcome: Outcome) -> Refused | None:
    return outcome if isinstance(outcome, Refused) else None


def _unknown(group: str) -> Refused:
    return Refused(Refusal.INTERNAL, f"there is no group {group[:100]}")
