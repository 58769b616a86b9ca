"""Snapshots on their way: the leader's rows in parts, each and all together with a checksum.

The sender reads a view of its store, so applying goes on; the receiver fills a generation of its
own store, which counts only when it is whole.
"""

from typing import Final

import msgspec

from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.meta.database import Row, View
from robustmq.meta.peer_message import Chunk, ChunkReply
from robustmq.meta.store import GroupStore, Staged
from robustmq.raft.message import Snapshot

_ROWS_AT_ONCE: Final = 512
_encode: Final = msgspec.msgpack.encode
_rows: Final = msgspec.msgpack.Decoder(list[bytes])


class Outgoing:
    """A snapshot that is being sent to a follower; `window` parts may be under way."""

    def __init__(
        self, to: int, first: Chunk, view: View, now_ms: int, *, window: int, part_bytes: int
    ) -> None:
        self.to = to
        self.progress_ms = now_ms
        """When it was last heard that a part has arrived."""
        self.sent_ms = now_ms
        self._template = first
        self._view = view
        self._window = window
        self._part_bytes = part_bytes
        self._key: bytes | None = b""
        """Where the next part begins; None: all has been read."""
        self._next = 0
        self._total = 0
        self._under_way: list[Chunk] = []

    @property
    def transfer(self) -> int:
        """The number of this sending."""
        return self._template.transfer

    @property
    def term(self) -> int:
        """The term in which it was begun."""
        return self._template.term

    @property
    def snapshot(self) -> Snapshot:
        """What is sent."""
        return self._template.snapshot

    @property
    def has_arrived(self) -> bool:
        """Whether all of it is there."""
        return self._key is None and not self._under_way

    def parts(self, now_ms: int) -> list[Chunk]:
        """Return the parts that are to be sent now. Raises Corrupt."""
        fresh: list[Chunk] = []
        while self._key is not None and len(self._under_way) < self._window:
            part = self._read()
            self._under_way.append(part)
            fresh.append(part)
            self.sent_ms = now_ms
        return fresh

    def again(self, now_ms: int) -> list[Chunk]:
        """Return all that is under way: it may be lost."""
        self.sent_ms = now_ms
        return list(self._under_way)

    def arrived(self, expected: int, now_ms: int) -> None:
        """The receiver has all parts before `expected`."""
        under_way = [part for part in self._under_way if part.number >= expected]
        if len(under_way) < len(self._under_way):
            self.progress_ms = now_ms
        self._under_way = under_way

    def close(self) -> None:
        """Let go of the rows."""
        self._view.close()

    def _read(self) -> Chunk:
        assert self._key is not None
        flat: list[bytes] = []
        size = 0
        while size < self._part_bytes and self._key is not None:
            found = self._view.items(self._key, _ROWS_AT_ONCE)
            if len(found) < _ROWS_AT_ONCE:
                self._key = None
            for key, value in found:
                flat += (key, value)
                size += len(key) + len(value)
                if size >= self._part_bytes:
                    break
            else:
                if found and self._key is not None:
                    self._key = found[-1][0] + b"\0"
                continue
            self._key = flat[-2] + b"\0"
        rows = _encode(flat)
        self._total = crc32c(rows, self._total)
        part = msgspec.structs.replace(
            self._template,
            number=self._next,
            rows=rows,
            crc=crc32c(rows),
            total=self._total,
            last=self._key is None,
        )
        self._next += 1
        return part


class Incoming:
    """A snapshot that is being received into the next generation of a store."""

    def __init__(self, store: GroupStore, first: Chunk, sender: int) -> None:
        self.transfer = first.transfer
        self.sender = sender
        self.staged: Staged = store.stage(first.snapshot)
        self.is_whole = False
        self._store = store
        self._expected = 0
        self._total = 0

    def take(self, chunk: Chunk) -> ChunkReply:
        """Take a part, unless it is here or another one is missing before it."""
        if chunk.number == self._expected and not self.is_whole:
            fault = self._fault(chunk)
            if fault:
                return self.reply(chunk.group, refused=True)
        return self.reply(chunk.group)

    def reply(self, group: int, refused: bool = False) -> ChunkReply:
        """Return what the sender is told."""
        return ChunkReply(group, self.transfer, self._expected, refused)

    def _fault(self, chunk: Chunk) -> bool:
        """Write a part; say whether it or the whole is not what was sent."""
        total = crc32c(chunk.rows, self._total)
        if crc32c(chunk.rows) != chunk.crc or total != chunk.total:
            return True
        try:
            flat = _rows.decode(chunk.rows)
            rows: list[Row] = list(zip(flat[::2], flat[1::2], strict=True))
        except ValueError:
            return True
        if rows:
            self.staged.database.write(rows)
        self._total = total
        self._expected += 1
        if not chunk.last:
            return False
        try:
            self.is_whole = self._store.is_whole(self.staged)
        except (Corrupt, ValueError):
            return True
        return not self.is_whole
