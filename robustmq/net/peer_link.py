"""One link: frames between two lives of two cores of different nodes, over connections that break.

Reliable, in order and exactly once: what is sent is kept until the other side has acknowledged it
and is sent again on the next connection, from the record after the last that the other side has
taken; a record out of its turn ends the connection. A link knows no connection, no clock and no
other core: records come and go, and whoever drives it says when there is a new connection
(`connected`) and when the other side is another life (`begin`).
"""

from collections import deque

from robustmq.errors import ProtocolError
from robustmq.net.peer_records import (
    COUNT_MAX,
    HEAD_BYTES,
    Fault,
    Kind,
    Record,
    pack,
    unpack,
)


class Link:
    """What one core keeps for another: what it says to it, and how far it has listened.

    `record_bytes` of frames travel as one record; a larger frame is cut, so that acknowledgements
    and signs of life pass between its pieces. A frame has at most `max_frame_bytes`.
    `backlog_bytes` counts what waits or is not acknowledged: nothing is ever dropped, whoever
    feeds the link stops when it has grown. `received` is the last record that was taken, and
    `owed_bytes` what was taken since the other side was last told so. `frames` and `resent` count
    the frames and the repeated records until somebody sets them to 0.
    """

    __slots__ = (
        "_again",
        "_cut",
        "_cut_at",
        "_kept",
        "_kept_bytes",
        "_max_frame_bytes",
        "_partial",
        "_partial_bytes",
        "_queue",
        "_queue_bytes",
        "_record_bytes",
        "_sent",
        "frames",
        "owed_bytes",
        "received",
        "resent",
    )

    def __init__(self, record_bytes: int, max_frame_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._max_frame_bytes = max_frame_bytes
        self.frames = 0
        self.resent = 0
        self._queue: deque[bytes] = deque()
        self._kept: deque[Record] = deque()
        self._again: deque[Record] = deque()
        self._partial: list[bytes] = []
        self.begin()

    def begin(self) -> None:
        """Forget everything: the other side is another life."""
        self._queue.clear()
        self._kept.clear()
        self._again.clear()
        self._partial.clear()
        self._partial_bytes = 0
        self._queue_bytes = self._kept_bytes = 0
        self._cut = b""
        self._cut_at = 0
        self._sent = 0
        self.received = 0
        self.owed_bytes = 0

    # ------------------------------------------------------------------ speaking

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were not sent, or not acknowledged."""
        return self._queue_bytes + self._kept_bytes

    def send(self, frame: bytes) -> None:
        """Queue one frame; raises ValueError when it exceeds the limit."""
        if len(frame) > self._max_frame_bytes:
            raise ValueError(f"a frame of {len(frame)} bytes exceeds {self._max_frame_bytes}")
        self._queue.append(frame)
        self._queue_bytes += len(frame)
        self.frames += 1

    def take(self) -> Record | None:
        """Return the next record to be sent on the present connection."""
        if self._again:
            self.resent += 1
            return self._again.popleft()
        if not self._queue and not self._cut:
            return None
        kind, body = self._next_body()
        self._sent += 1
        record = Record(kind, self._sent, self.received, body)
        self.owed_bytes = 0
        self._kept.append(record)
        self._kept_bytes += HEAD_BYTES + len(body)
        return record

    def _next_body(self) -> tuple[Kind, bytes]:
        queue = self._queue
        if not self._cut and len(queue[0]) > self._record_bytes:
            self._cut, self._cut_at = queue.popleft(), 0
        if self._cut:
            return self._next_piece()
        if self._queue_bytes <= self._record_bytes and len(queue) <= COUNT_MAX:
            body = pack(queue)
            queue.clear()
            self._queue_bytes = 0
            return Kind.FRAMES, body
        frames = [queue.popleft()]
        size = len(frames[0])
        while queue and len(frames) < COUNT_MAX and size + len(queue[0]) <= self._record_bytes:
            size += len(queue[0])
            frames.append(queue.popleft())
        self._queue_bytes -= size
        return Kind.FRAMES, pack(frames)

    def _next_piece(self) -> tuple[Kind, bytes]:
        start = self._cut_at
        piece = self._cut[start : start + self._record_bytes]
        self._cut_at += len(piece)
        self._queue_bytes -= len(piece)
        if self._cut_at < len(self._cut):
            return Kind.MORE, piece
        self._cut = b""
        return Kind.LAST, piece

    def connected(self, received: int) -> None:
        """Begin a connection: the other side has taken the records up to `received`.

        Raises ProtocolError when it cannot have.
        """
        self.acknowledged(received)
        self._again = deque(self._kept)
        self.owed_bytes = 0

    def acknowledged(self, number: int) -> None:
        """Forget what the other side has taken; raises ProtocolError for what was never sent."""
        if number > self._sent:
            raise ProtocolError(
                Fault.ORDER, f"record {number} is acknowledged, {self._sent} were sent"
            )
        kept = self._kept
        while kept and kept[0].number <= number:
            self._kept_bytes -= HEAD_BYTES + len(kept.popleft().body)

    def acknowledgement(self) -> Record:
        """Return a record that says how far we have listened, and that we are there."""
        self.owed_bytes = 0
        return Record(Kind.ACK, 0, self.received, b"")

    # ------------------------------------------------------------------ listening

    def receive(self, record: Record) -> list[bytes]:
        """Take a record; return the frames that it completes.

        Raises ProtocolError when it is not the next one, or says what cannot be.
        """
        self.acknowledged(record.acknowledged)
        kind = record.kind
        if kind == Kind.ACK:
            return []
        if kind not in {Kind.FRAMES, Kind.MORE, Kind.LAST}:
            raise ProtocolError(Fault.RECORD, f"{kind.name} within an open link")
        if record.number != self.received + 1:
            raise ProtocolError(
                Fault.ORDER, f"record {record.number} came where {self.received + 1} was due"
            )
        if kind == Kind.FRAMES and self._partial:
            raise ProtocolError(Fault.ORDER, "whole frames came within a frame that is cut")
        frames = unpack(record.body) if kind == Kind.FRAMES else self._put_together(record)
        self.received += 1
        self.owed_bytes += HEAD_BYTES + len(record.body)
        return frames

    def _put_together(self, record: Record) -> list[bytes]:
        size = self._partial_bytes + len(record.body)
        if size > self._max_frame_bytes:
            raise ProtocolError(Fault.TOO_LARGE, f"a frame of {size} bytes or more")
        self._partial.append(record.body)
        self._partial_bytes = size
        if record.kind == Kind.MORE:
            return []
        frame = b"".join(self._partial)
        self._partial.clear()
        self._partial_bytes = 0
        return [frame]
