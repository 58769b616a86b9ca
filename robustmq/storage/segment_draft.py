"""The file that a segment is compacted into, written batch by batch beside it."""

from collections.abc import Callable
from typing import TypeAlias

from robustmq.storage.files import Files
from robustmq.storage.header import header_at
from robustmq.storage.log import StoredBatch
from robustmq.storage.segment import Segment
from robustmq.storage.segment_jobs import Job, Unlink, Write

Adopt: TypeAlias = Callable[[Segment, int, Segment], object]
"""Called on the loop with a segment, the size that it had when it was swept, and its draft."""


class Written:
    """A draft's last byte is on its way: the draft is adopted when the writer comes here."""

    outlives = True

    def __init__(self, source: Segment, size: int, draft: Segment, adopt: Adopt) -> None:
        self.segment = draft
        self._source = source
        self._size = size
        self._adopt = adopt

    def run(self, files: Files) -> None:
        """Nothing is left to do."""

    def finish(self) -> None:
        """Tell the loop."""
        self._adopt(self._source, self._size, self.segment)


class SegmentDraft:
    """At most one draft at a time; every method returns the jobs that it makes."""

    def __init__(self) -> None:
        self.source: Segment | None = None
        self._size = 0
        self._file = Segment("", 0)
        self._is_smaller = False

    def begin(self, source: Segment) -> list[Job]:
        """Open a draft of a segment."""
        self.source = source
        self._size = source.size
        self._file = Segment(source.directory, source.base)
        self._file.draft = True
        self._is_smaller = False
        return [Write(self._file, 0, None)]

    def add(self, batch: StoredBatch, kept: bytes | None, interval: int) -> list[Job]:
        """Take what is kept of the next batch."""
        if kept is None or len(kept) < len(batch.data):
            self._is_smaller = True
        if kept is None:
            return []
        at = self._file.add(batch.next_offset, len(kept), header_at(kept, 0).newest_ms, interval)
        write = Write(self._file, at, None)
        write.add(len(kept), kept)
        return [write]

    def finish(self, adopt: Adopt) -> list[Job]:
        """Every batch has been seen; a draft that is no smaller is not worth keeping."""
        if self.source is None or not self._is_smaller:
            return self.abandon()
        source, draft = self.source, self._file
        draft.end, draft.newest_ms = source.end, source.newest_ms
        self.source = None
        return [Written(source, self._size, draft, adopt)]

    def abandon(self) -> list[Job]:
        """Remove the draft."""
        if self.source is None:
            return []
        self.source = None
        return discarded(self._file)


def discarded(draft: Segment) -> list[Job]:
    """The jobs that remove a draft."""
    draft.dropped = True
    return [Unlink(draft, ordered=True)]
