"""Segments that may be synced a little later are synced beside the writer, which writes on.

Otherwise everything that is appended would wait, with every interval, for the disk to take all
that was appended before.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from robustmq.storage.files import Files
from robustmq.storage.segment import Segment
from robustmq.storage.segment_jobs import sync
from robustmq.storage.writer import Writer


class _Sync(NamedTuple):
    """The state of a segment's file when its sync began."""

    segment: Segment
    fd: int
    written: int


class SegmentSyncs:
    """Called by the writer but for `close`; `wake` is called when `finish` has something.

    Without a `syncer` everything is done at once. While a segment is under way nothing but
    writing may be done to its file.
    """

    def __init__(self, files: Files, wake: Callable[[], None], syncer: Writer | None) -> None:
        self._files = files
        self._wake = wake
        self._syncer = syncer
        self._is_started = False
        self._is_closing = False
        self._under_way: set[Segment] = set()
        self._inbox: deque[_Sync] = deque()
        self._done: deque[tuple[_Sync, OSError | None]] = deque()

    def is_under_way(self, segment: Segment) -> bool:
        """Say whether the file of a segment is in use."""
        return segment in self._under_way

    def begin(self, segments: Iterable[Segment]) -> None:
        """Sync segments none of which is under way. Raises OSError."""
        for segment in segments:
            if self._syncer is None or self._is_closing or segment.suspect:
                # After a failure it is written anew first, which the writer alone may do.
                sync(self._files, segment)
            elif not (segment.dropped or segment.fd is None or segment.synced == segment.written):
                segment.suspect = True
                self._under_way.add(segment)
                self._inbox.append(_Sync(segment, segment.fd, segment.written))
        if self._inbox and self._syncer is not None:
            if not self._is_started:
                self._is_started = True
                self._syncer.start(self._work)
            self._syncer.wake()

    def finish(self) -> list[Segment]:
        """Take notice of what has been synced; returns those that could not be."""
        if self._is_closing:
            self._work()
        failed: list[Segment] = []
        while self._done:
            done, error = self._done.popleft()
            segment = done.segment
            self._under_way.discard(segment)
            if error is not None:
                failed.append(segment)
                continue
            segment.suspect = False
            segment.synced = max(segment.synced, done.written)
        return failed

    def close(self) -> None:
        """End the thread; what is begun from now on is done by the writer itself."""
        self._is_closing = True
        if self._syncer is not None:
            self._syncer.stop()

    def _work(self) -> None:
        while True:
            try:
                begun = self._inbox.popleft()
            except IndexError:
                return
            failure: OSError | None = None
            try:
                self._files.fdatasync(begun.fd)
            except OSError as error:
                failure = error
            except Exception as error:
                failure = OSError(errno.EIO, repr(error))
            self._done.append((begun, failure))
            self._wake()
