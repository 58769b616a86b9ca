"""The machine of an `offset` group: how far groups have read, and cursors of sessions.

Rows: `o<tenant> NUL <group> NUL <shard>` holds an Offset.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.meta import commands
from robustmq.meta.machine import Store

_OFFSET: Final = b"o"


class Offset(Struct, array_like=True, frozen=True, gc=False):
    """How far a group has read of a shard: the next offset, what it noted, and when (Unix ms)."""

    offset: int
    note: str = ""
    at_ms: int = 0


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Whose offset it is. Names hold no U+0000."""

    tenant: str
    group: str
    shard: str


class Commit(Struct, array_like=True, frozen=True, gc=False):
    """Set an offset; None removes it.

    Where `expected` is not None, only when that is the offset there: -1 for none.
    """

    place: Place
    offset: Offset | None
    expected: int | None = None


class Commits(Struct, tag="commits", array_like=True, frozen=True):
    """All that was collected; the outcome says of each whether it was done."""

    commits: list[Commit]


class DropGroup(Struct, tag="drop_group", array_like=True, frozen=True):
    """Remove all offsets of a group."""

    tenant: str
    group: str


class DropShard(Struct, tag="drop_shard", array_like=True, frozen=True):
    """Remove the offsets of all groups in a shard that is no more."""

    shard: str


Command: TypeAlias = Commits | DropGroup | DropShard

_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final = msgspec.msgpack.Decoder(Command)
_offsets: Final = msgspec.msgpack.Decoder(Offset)
_outcomes: Final = msgspec.msgpack.Decoder(list[bool])


def encode(command: Command) -> bytes:
    """Return a command as bytes."""
    return _encoder.encode(command)


def outcomes(value: bytes) -> list[bool]:
    """Read the value of the outcome of commits."""
    return _outcomes.decode(value)


class Offsets:
    """Folds commits; of several for one place in a command each sees what those before it did."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reload(self) -> None:
        """See `Machine`: nothing is kept beside the store."""

    def apply(self, index: int, command: bytes) -> bytes:
        """See `Machine`."""
        del index
        try:
            wanted: Command = _commands.decode(command)
        except msgspec.MsgspecError:
            return commands.not_understood()
        match wanted:
            case Commits(commits):
                return commands.done(_encoder.encode([self._commit(each) for each in commits]))
            case DropGroup(tenant, group):
                self._drop([_group(tenant, group)])
            case DropShard(shard):
                end = b"\0" + shard.encode()
                self._drop([key for key, _ in self._store.walk(_OFFSET) if key.endswith(end)])
        return commands.DONE

    def offset(self, place: Place) -> Offset | None:
        """Return an offset; None when there is none."""
        data = self._store.get(_key(place))
        return None if data is None else _offsets.decode(data)

    def of_group(self, tenant: str, group: str) -> Iterator[tuple[str, Offset]]:
        """Yield the offsets of a group by shard."""
        prefix = _group(tenant, group)
        for key, data in self._store.walk(prefix):
            yield key[len(prefix) :].decode(), _offsets.decode(data)

    def _commit(self, commit: Commit) -> bool:
        if commit.expected is not None:
            known = self.offset(commit.place)
            if commit.expected != (-1 if known is None else known.offset):
                return False
        if commit.offset is None:
            self._store.delete(_key(commit.place))
        else:
            self._store.put(_key(commit.place), _encoder.encode(commit.offset))
        return True

    def _drop(self, prefixes: list[bytes]) -> None:
        for prefix in prefixes:
            for key in [key for key, _ in self._store.walk(prefix)]:
                self._store.delete(key)


class Unflushed:
    """Plain commits that need not be kept at once: the latest of each place waits for its turn.

    At most `most` places wait: then they are due at once. `delay_ms` after the first they are due
    anyhow. What was taken and not committed comes back by `restore`.
    """

    def __init__(self, delay_ms: int, most: int) -> None:
        self.next_ms: int | None = None
        """When what waits is due; None while nothing waits."""
        self._delay_ms = delay_ms
        self._most = most
        self._waiting: dict[Place, Offset] = {}

    def put(self, place: Place, offset: Offset, now_ms: int) -> None:
        """Note how far a group has read; what was noted before of the same place is forgotten."""
        self._waiting[place] = offset
        if len(self._waiting) >= self._most:
            self.next_ms = now_ms
        elif self.next_ms is None:
            self.next_ms = now_ms + self._delay_ms

    def take(self, now_ms: int) -> list[Commit]:
        """Return what is due, for one command."""
        if self.next_ms is None or now_ms < self.next_ms:
            return []
        taken = [Commit(place, offset) for place, offset in self._waiting.items()]
        self._waiting.clear()
        self.next_ms = None
        return taken

    def restore(self, commits: list[Commit], now_ms: int) -> None:
        """Take back what could not be committed, but for what is known better by now."""
        for commit in commits:
            if commit.offset is not None and commit.place not in self._waiting:
                self.put(commit.place, commit.offset, now_ms)

    def get(self, place: Place) -> Offset | None:
        """Return what waits for a place."""
        return self._waiting.get(place)


def _group(tenant: str, group: str) -> bytes:
    return b"%c%b\0%b\0" % (_OFFSET, tenant.encode(), group.encode())


def _key(place: Place) -> bytes:
    return _group(place.tenant, place.group) + place.shard.encode()
