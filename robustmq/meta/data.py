"""The machine of a `data` group: whose sessions there are, and what is retained.

Rows: `s<identity>` a session, `o<owner><identity>` the same by its owner; `r<topic>` the index at
which a topic's retained message last changed and the message, None when it was cleared; `p<index>
<topic>` the same by index; `t<index><topic>` those that were cleared, of which the latest are
kept; `f<node>` what was said of a node that is gone; `#` the counts.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.errors import Refusal, Refused
from robustmq.message import session_record
from robustmq.message.core_number import NODE_MAX
from robustmq.message.session_record import SessionChange, SessionRecord, Verdict
from robustmq.meta import commands
from robustmq.meta.machine import Store

CLEARED_KEPT: Final = 10_000
"""Cleared topics that are remembered; who has been away for longer reads all that is retained."""

ALL: Final = b"\xff"
"""Behind every topic: they are UTF-8."""

_SESSION: Final = b"s"
_OWNED: Final = b"o"
_TOPIC: Final = b"r"
_POSITION: Final = b"p"
_CLEARED: Final = b"t"
_FENCE: Final = b"f"
_STATE: Final = b"#"
_INDEX_BYTES: Final = 8


class Retained(Struct, array_like=True, frozen=True, gc=False):
    """What is retained of a topic, as its core keeps it; None: it was cleared."""

    topic: bytes
    message: bytes | None


class Batch(Struct, tag="batch", array_like=True, frozen=True):
    """All that a node has collected: changes of its sessions, and retained messages.

    The outcome is a Verdict for each change. Refused as a whole with UNAVAILABLE when the node
    was fenced as this incarnation: what it says is void.
    """

    node: int
    incarnation: int
    sessions: list[SessionChange] = []
    retained: list[Retained] = []


class Open(Struct, tag="open", array_like=True, frozen=True):
    """A node was fenced, and is `incarnation` from now on: others may adopt its sessions."""

    node: int
    incarnation: int


class Close(Struct, tag="close", array_like=True, frozen=True):
    """A node is back as `incarnation`: what nobody has adopted is its own again."""

    node: int
    incarnation: int


Command: TypeAlias = Batch | Open | Close


class Fence(Struct, array_like=True, frozen=True):
    """What was last said of a node: its incarnation, and whether its sessions may be adopted."""

    incarnation: int = 0
    is_open: bool = False


class Changes(NamedTuple):
    """Retained messages by the index at which each last changed.

    With `is_whole` they are all that there are: what is not named is gone. `after` is the index
    to go on from, None at the end.
    """

    rows: list[tuple[int, Retained]]
    after: tuple[int, bytes] | None
    is_whole: bool


class _Row(Struct, array_like=True, frozen=True, gc=False):
    index: int
    message: bytes | None


class _State(Struct, array_like=True):
    index: int = 0
    sessions: int = 0
    retained: int = 0
    cleared: int = 0
    floor: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final = msgspec.msgpack.Decoder(Command)
_sessions: Final = msgspec.msgpack.Decoder(SessionRecord)
_rows: Final = msgspec.msgpack.Decoder(_Row)
_fences: Final = msgspec.msgpack.Decoder(Fence)
_states: Final = msgspec.msgpack.Decoder(_State)
_verdicts: Final = msgspec.msgpack.Decoder(list[Verdict])


def encode(command: Command) -> bytes:
    """Return a command as bytes."""
    return _encoder.encode(command)


def verdicts(value: bytes) -> list[Verdict]:
    """Read the value of a batch's outcome."""
    return _verdicts.decode(value)


class Data:
    """Folds batches; what an owner says twice, or from an earlier tenure, changes nothing.

    `on_applied(index, retained, is_fenced)` hears of every command that was folded: what was
    retained with it, and whether a node's sessions were opened to others or closed; `on_reload()`
    that the rows may be other ones.
    """

    def __init__(self, store: Store) -> None:
        self.on_applied: Callable[[int, Sequence[Retained], bool], None] = lambda *_: None
        self.on_reload: Callable[[], None] = lambda: None
        self._store = store
        self._state = _State()
        self.reload()

    @property
    def index(self) -> int:
        """The index of the last command that was folded; 0: none was."""
        return self._state.index

    @property
    def counts(self) -> tuple[int, int]:
        """How many sessions and retained messages there are."""
        return self._state.sessions, self._state.retained

    def reload(self) -> None:
        """See `Machine`."""
        data = self._store.get(_STATE)
        self._state = _states.decode(data) if data is not None else _State()
        self.on_reload()

    def apply(self, index: int, command: bytes) -> bytes:
        """See `Machine`."""
        retained: Sequence[Retained] = ()
        is_fenced = False
        try:
            wanted: Command = _commands.decode(command)
        except msgspec.MsgspecError:
            result = commands.not_understood()
        else:
            if isinstance(wanted, Batch):
                refused = self._is_void(wanted)
                if refused is None:
                    retained = wanted.retained
                result = self._batch(index, wanted) if refused is None else refused
            else:
                is_fenced = True
                result = self._fence(wanted)
        self._state.index = index
        self._store.put(_STATE, _encoder.encode(self._state))
        self.on_applied(index, retained, is_fenced)
        return result

    # ------------------------------------------------------------------ read

    def session(self, identity: str) -> SessionRecord | None:
        """Return the row of a session; None when there is none."""
        data = self._store.get(_SESSION + identity.encode())
        return None if data is None else _sessions.decode(data)

    def owned(self, node: int, start: str = "") -> Iterator[SessionRecord]:
        """Yield the sessions that a node owns by identity, from `start` on."""
        prefix = _OWNED + bytes((node,))
        for key, _ in self._store.walk(prefix, prefix + start.encode()):
            session = self.session(key[2:].decode())
            assert session is not None
            yield session

    def fence(self, node: int) -> Fence:
        """Return what was last said of a node's being there."""
        data = self._store.get(_FENCE + bytes((node,)))
        return Fence() if data is None else _fences.decode(data)

    def retained(self, topic: bytes) -> bytes | None:
        """Return what is retained of a topic."""
        row = self._topic(topic)
        return None if row is None else row.message

    def changes(self, after: tuple[int, bytes], limit: int, is_whole: bool = False) -> Changes:
        """Return up to `limit` retained messages that have changed since `after`, by index.

        `after` is an index and the last topic that was read of it, `ALL` when it was read to its
        end. Who has read no further than what is remembered of cleared topics reads all
        from (0, b"") on; `is_whole` says that it is about to.
        """
        if not is_whole and after[0] < self._state.floor:
            after, is_whole = (0, b""), True
        start = _place(_POSITION, *after)
        rows = [*islice(self._since(_POSITION, start), limit)]
        if not is_whole:
            cleared = islice(self._since(_CLEARED, _place(_CLEARED, *after)), limit)
            rows = sorted([*rows, *cleared])[:limit]
        found: list[tuple[int, Retained]] = []
        for index, topic in rows:
            row = self._topic(topic)
            assert row is not None
            found.append((index, Retained(topic, row.message)))
        return Changes(found, rows[-1] if len(rows) == limit else None, is_whole)

    # ------------------------------------------------------------------ fold

    def _is_void(self, batch: Batch) -> bytes | None:
        if not 0 <= batch.node <= NODE_MAX:
            return commands.not_understood()
        fence = self.fence(batch.node)
        if batch.incarnation >= fence.incarnation and not fence.is_open:
            return None
        return commands.refused(
            Refused(
                Refusal.UNAVAILABLE,
                f"node {batch.node} was given up by the cluster, and has not come back to it yet",
            )
        )

    def _batch(self, index: int, batch: Batch) -> bytes:
        found = [self._change(batch.node, change) for change in batch.sessions]
        # Of several for one topic the last counts.
        for row in {each.topic: each for each in batch.retained}.values():
            self._retain(index, row)
        return commands.done(_encoder.encode(found)) if found else commands.DONE

    def _change(self, node: int, change: SessionChange) -> Verdict:
        row = self.session(change.identity)
        if change.owner != node:
            return Verdict.TAKEN
        verdict = session_record.judge(row, change)
        if verdict is not Verdict.DONE:
            return verdict
        if row is not None and row.owner != node and not self.fence(row.owner).is_open:
            return Verdict.TAKEN
        new = session_record.changed(row, change)
        if new is row:
            return verdict
        identity = change.identity.encode()
        if row is not None and (new is None or new.owner != row.owner):
            self._store.delete(_owned(row.owner, identity))
        if new is None:
            self._store.delete(_SESSION + identity)
        else:
            self._store.put(_SESSION + identity, _encoder.encode(new))
            if row is None or row.owner != new.owner:
                self._store.put(_owned(new.owner, identity), b"")
        self._state.sessions += (new is not None) - (row is not None)
        return verdict

    def _retain(self, index: int, new: Retained) -> None:
        state = self._state
        old = self._topic(new.topic)
        if old is None and new.message is None:
            return
        if old is not None:
            kind = _CLEARED if old.message is None else _POSITION
            self._store.delete(_place(kind, old.index, new.topic))
            state.cleared -= old.message is None
            state.retained -= old.message is not None
        kind = _CLEARED if new.message is None else _POSITION
        self._store.put(_place(kind, index, new.topic), b"")
        self._store.put(_TOPIC + new.topic, _encoder.encode(_Row(index, new.message)))
        state.cleared += new.message is None
        state.retained += new.message is not None
        if state.cleared > CLEARED_KEPT:
            self._forget_cleared()

    def _forget_cleared(self) -> None:
        index, topic = next(self._since(_CLEARED, _CLEARED))
        self._store.delete(_place(_CLEARED, index, topic))
        self._store.delete(_TOPIC + topic)
        self._state.cleared -= 1
        # Whoever has not read this index yet would never hear that the topic was cleared.
        self._state.floor = index

    def _fence(self, command: Open | Close) -> bytes:
        if not 0 <= command.node <= NODE_MAX:
            return commands.not_understood()
        known = self.fence(command.node)
        new = Fence(command.incarnation, isinstance(command, Open))
        if command.incarnation < known.incarnation or (
            # A node that is back stays so until it is fenced again.
            command.incarnation == known.incarnation and new.is_open and not known.is_open
        ):
            return commands.refused(
                Refused(
                    Refusal.NOT_AUTHORIZED,
                    f"node {command.node} is known as incarnation {known.incarnation} already",
                )
            )
        self._store.put(_FENCE + bytes((command.node,)), _encoder.encode(new))
        return commands.DONE

    def _topic(self, topic: bytes) -> _Row | None:
        data = self._store.get(_TOPIC + topic)
        return None if data is None else _rows.decode(data)

    def _since(self, kind: bytes, start: bytes) -> Iterator[tuple[int, bytes]]:
        for key, _ in self._store.walk(kind, start):
            if key != start:
                yield int.from_bytes(key[1 : 1 + _INDEX_BYTES]), key[1 + _INDEX_BYTES :]


def _owned(node: int, identity: bytes) -> bytes:
    return b"%c%c%b" % (_OWNED, node, identity)


def _place(kind: bytes, index: int, topic: bytes) -> bytes:
    return kind + index.to_bytes(_INDEX_BYTES) + topic
