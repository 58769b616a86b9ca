"""The receiving end of a ring: fragments are put together, frames for an earlier life dropped."""

from typing import TYPE_CHECKING

from robustmq.errors import Corrupt
from robustmq.shm import frame

if TYPE_CHECKING:
    from robustmq._kernel.ring import Ring
    from robustmq.shm.doorbell import Doorbell
    from robustmq.shm.region import State


class Receiver:
    """Receives the frames of one other process, in order.

    `source_epoch` is the life of the source that sent the last frames received; `stale_frames`
    counts what was dropped because it was meant for an earlier life of this process.
    `doorbell_of_source`, when given, is rung when the source waits for room in the ring.
    """

    __slots__ = (
        "_bell",
        "_epoch",
        "_max_frame_bytes",
        "_partial",
        "_partial_bytes",
        "_ring",
        "_source",
        "_stamp",
        "source_epoch",
        "stale_frames",
    )

    def __init__(
        self,
        ring: "Ring",
        state_of_source: "State",
        my_state: "State",
        doorbell_of_source: "Doorbell | None" = None,
        *,
        max_frame_bytes: int = frame.MAX_FRAME_BYTES,
    ) -> None:
        self._ring = ring
        self._source = state_of_source
        self._epoch = my_state.epoch & frame.EPOCH_MASK
        self._bell = doorbell_of_source
        self._max_frame_bytes = max_frame_bytes
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._stamp = 0
        self.source_epoch = 0
        self.stale_frames = 0

    def receive(self, limit_bytes: int) -> list[bytes]:
        """Take frames from the ring until about `limit_bytes` of ring space have been freed.

        All frames of one answer are from the same life of the source (`source_epoch`); there may
        be more in the ring, as `Ring.sleep` tells. Raises Corrupt when the ring's content cannot
        be: the source then has to be replaced, and nothing more is read from this life of it.
        """
        ring = self._ring
        frames: list[bytes] = []
        left = limit_bytes
        only: int | None = None
        while left > 0:
            run = ring.pull(left, only)
            if not run:
                break
            left -= ring.taken
            if ring.stamp & frame.EPOCH_MASK != self._epoch:
                self.stale_frames += len(run)
                continue
            if ring.stamp != self._stamp:
                self._drop_partial()
                self._stamp = ring.stamp
                self.source_epoch = ring.stamp >> 32
            if ring.kind == frame.WHOLE and not self._partial:
                frames += run
            else:
                self._put_together(run, frames)
            if frames:
                only = self._stamp
        if left < limit_bytes:
            if self._bell is not None and ring.room_wanted():
                self._bell.ring()
        elif self._partial and self._source_is_gone() and not ring.used():
            # Whoever had begun this frame published no end of it before its life was over.
            self._drop_partial()
        return frames

    def sleep(self) -> bool:
        """Announce sleep to the source; False when there is something to receive first."""
        return self._ring.sleep()

    def awake(self) -> None:
        """Take the announcement back: the source need not ring."""
        self._ring.awake()

    def _put_together(self, run: list[bytes], frames: list[bytes]) -> None:
        kind = self._ring.kind
        self._partial_bytes += sum(map(len, run))
        if self._partial_bytes > self._max_frame_bytes:
            size = self._partial_bytes
            self._drop_partial()
            raise Corrupt(f"ring: a frame of {size} bytes or more")
        if kind == frame.MORE:
            self._partial += run
        elif kind == frame.LAST and self._partial and len(run) == 1:
            frames.append(b"".join((*self._partial, *run)))
            self._drop_partial()
        else:
            self._drop_partial()
            raise Corrupt(f"ring: a frame of kind {kind} out of order")

    def _source_is_gone(self) -> bool:
        return self._source.epoch & frame.EPOCH_MASK != self.source_epoch

    def _drop_partial(self) -> None:
        self._partial.clear()
        self._partial_bytes = 0
