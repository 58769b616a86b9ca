"""The sending end of a ring: the frames of a turn are cut, stamped and pushed together."""

from typing import TYPE_CHECKING

from robustmq.metrics import DOORBELLS_RUNG, FRAMES_BYTES, FRAMES_SENT
from robustmq.shm import frame

if TYPE_CHECKING:
    from robustmq._kernel.ring import Ring
    from robustmq.shm.doorbell import Doorbell
    from robustmq.shm.region import State


class Sender:
    """Sends frames from this process to one other, in order.

    What does not fit into the ring is kept here, and `backlog_bytes` says how much: the caller
    stops feeding a sender whose backlog has grown. `counters` is this process's row.
    """

    __slots__ = (
        "_bell",
        "_counters",
        "_kinds",
        "_max_frame_bytes",
        "_piece_bytes",
        "_queue",
        "_ring",
        "_source_epoch",
        "_stamp",
        "_target",
        "backlog_bytes",
    )

    def __init__(
        self,
        ring: "Ring",
        doorbell: "Doorbell",
        state_of_target: "State",
        my_state: "State",
        counters: memoryview,
        *,
        max_frame_bytes: int = frame.MAX_FRAME_BYTES,
    ) -> None:
        self._ring = ring
        self._bell = doorbell
        self._target = state_of_target
        self._source_epoch = my_state.epoch
        self._counters = counters
        self._max_frame_bytes = max_frame_bytes
        self._piece_bytes = ring.capacity // 4
        self._queue: list[bytes | memoryview] = []
        self._kinds = bytearray()
        self.rebind()

    def send(self, data: bytes) -> None:
        """Queue one frame for the next `flush`; raises ValueError when it exceeds the limit."""
        size = len(data)
        if size <= self._piece_bytes:
            self._queue.append(data)
            self._kinds.append(frame.WHOLE)
        else:
            self._cut(data)
        self.backlog_bytes += size

    def flush(self) -> bool:
        """Push what fits and ring the bell of a target that sleeps; True when nothing is left.

        When something is left the ring says that this side waits for room: the receiver rings
        the doorbell of this process when it has made some.
        """
        queue = self._queue
        if not queue:
            return True
        ring = self._ring
        while True:
            pushed = ring.push(queue, self._stamp, self._kinds)
            if pushed:
                self._forget(pushed)
            if not queue or ring.wait_for_room(len(queue[0])):
                break
        if ring.wants_bell():
            self._bell.ring()
            self._counters[DOORBELLS_RUNG] += 1
        return not queue

    def rebind(self) -> None:
        """Discard what is queued and stamp frames for the target's present epoch from now on.

        Called when the target was replaced: what the earlier one had not answered, the caller
        sends again.
        """
        self._queue.clear()
        self._kinds.clear()
        self.backlog_bytes = 0
        self._stamp = frame.stamp(self._source_epoch, self._target.epoch)

    def _cut(self, data: bytes) -> None:
        if len(data) > self._max_frame_bytes:
            raise ValueError(f"a frame of {len(data)} bytes exceeds {self._max_frame_bytes}")
        view = memoryview(data)
        step = self._piece_bytes
        pieces = [view[start : start + step] for start in range(0, len(data), step)]
        self._queue += pieces
        self._kinds += bytes([frame.MORE]) * (len(pieces) - 1)
        self._kinds.append(frame.LAST)

    def _forget(self, pushed: int) -> None:
        queue, kinds, counters = self._queue, self._kinds, self._counters
        counters[FRAMES_SENT] += pushed - kinds.count(frame.MORE, 0, pushed)
        if pushed == len(queue):
            counters[FRAMES_BYTES] += self.backlog_bytes
            self.backlog_bytes = 0
            queue.clear()
            kinds.clear()
        else:
            size = sum(map(len, queue[:pushed]))
            counters[FRAMES_BYTES] += size
            self.backlog_bytes -= size
            del queue[:pushed]
            del kinds[:pushed]
