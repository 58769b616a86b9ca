"""Recovery of a journal: a torn end is cut and reported, anything else that is wrong is refused.

What was torn had not been synced, so nobody was told that it is kept. What is damaged elsewhere
was: a replica that forgets its vote or its entries may undo what a majority has agreed on.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct

from robustmq.errors import Corrupt
from robustmq.raft.journal_index import JournalIndex
from robustmq.raft.journal_record import (
    ENTRY,
    HARD,
    HEADER,
    MAGIC,
    OPENING,
    START,
    Header,
    entry_of,
    hard_of,
    opening_of,
    start_of,
    whole_at,
    whole_behind,
)
from robustmq.storage.files import Files

SUFFIX: Final = ".journal"
_REMEDY: Final = (
    "this replica must not go on, since it may have forgotten what it promised: replace the node, "
    "with an empty data directory, so that the others give it all that they have agreed on"
)


class Segment(NamedTuple):
    """One file of a journal; `before` is the last index when it was begun."""

    sequence: int
    before: int


class Recovered(Struct):
    """What was found.

    size: Bytes of the last segment. batch: The number of the last batch. cut: Bytes that were cut
    off the end, and why: `reason`.
    """

    index: JournalIndex
    segments: list[Segment]
    size: int = 0
    batch: int = 0
    cut: int = 0
    reason: str = ""


def segment_path(folder: str, sequence: int) -> str:
    """Return the path of a segment."""
    return f"{folder}/{sequence:016d}{SUFFIX}"


def recover(files: Files, folder: str, tick: Callable[[], object]) -> Recovered:
    """Read a journal; cut its end where a crash has torn it. `tick` is called now and then.

    Raises Corrupt, in a sentence that says what to do; OSError.
    """
    names = sorted(name for name in files.listdir(folder) if name.endswith(SUFFIX))
    found = Recovered(JournalIndex(), [])
    try:
        sequences = [int(name.removesuffix(SUFFIX)) for name in names]
    except ValueError:
        raise Corrupt(f"{folder} holds a file that is no segment; {_REMEDY}") from None
    for place, sequence in enumerate(sequences):
        if place and sequence != sequences[place - 1] + 1:
            gone = segment_path(folder, sequences[place - 1] + 1)
            raise Corrupt(f"{gone} is missing; {_REMEDY}")
        _Reader(files, folder, sequence, found).read(is_last=place == len(sequences) - 1)
        tick()
    index = found.index
    if index.base != index.start.index:
        raise Corrupt(
            f"{folder} begins behind entry {index.base}, and should behind {index.start.index}: "
            f"segments are missing; {_REMEDY}"
        )
    if index.hard_state.commit > index.last:
        raise Corrupt(
            f"{folder} ends at entry {index.last}, and {index.hard_state.commit} is committed; "
            f"{_REMEDY}"
        )
    return found


class _Reader:
    """Reads one segment into what was found before it."""

    def __init__(self, files: Files, folder: str, sequence: int, found: Recovered) -> None:
        self._files = files
        self._folder = folder
        self._path = segment_path(folder, sequence)
        self._sequence = sequence
        self._found = found

    def read(self, is_last: bool) -> None:
        fd = self._files.open(self._path, write=is_last)
        try:
            data = self._files.pread(fd, self._files.size(fd), 0)
            end = self._records(data)
            if end < len(data) or not data:
                self._torn(data, end, is_last)
                if end:
                    self._files.ftruncate(fd, end)
            if is_last:
                # Who wrote it may have been killed before the sync: now it counts as kept.
                self._files.fdatasync(fd)
        finally:
            self._files.close(fd)
        if end:
            self._found.size = end
        else:
            # Not even its opening: the segment was just being begun.
            self._files.unlink(self._path)
        if is_last:
            self._files.sync_directory(self._folder)

    def _records(self, data: bytes) -> int:
        """Take the whole records from the beginning; return where they end."""
        at = 0
        while (header := whole_at(data, at)) is not None:
            payload = data[at + HEADER.size : at + header.size]
            try:
                self._take(header, payload, at)
            except (ValueError, struct.error) as error:
                raise Corrupt(f"{self._path} at {at} means nothing: {error}; {_REMEDY}") from error
            except Corrupt as error:
                raise Corrupt(f"{self._path} at {at}: {error}; {_REMEDY}") from error
            at += header.size
        return at

    def _take(self, header: Header, payload: bytes, at: int) -> None:
        found, index = self._found, self._found.index
        if (at == 0) != (header.kind == OPENING):
            raise ValueError("the segment does not begin as one does")
        if header.batch < found.batch:
            raise ValueError(f"batch {header.batch} lies behind batch {found.batch}")
        if header.kind == ENTRY:
            entry, before = entry_of(payload)
            index.add(entry.index, entry.term, before, self._sequence, at)
        elif header.kind == HARD:
            index.hard_state = hard_of(payload)
        elif header.kind == START:
            index.begin(*start_of(payload))
        elif header.kind == OPENING:
            self._open(payload)
        else:
            raise ValueError(f"there is no kind {header.kind}")
        found.batch = header.batch

    def _open(self, payload: bytes) -> None:
        opening, index = opening_of(payload), self._found.index
        if opening.sequence != self._sequence:
            raise ValueError(f"it was begun as segment {opening.sequence}")
        if not self._found.segments:
            index.open(opening.last, opening.last_term)
            index.hard_state, index.start = opening.hard_state, opening.start
        if (index.last, index.last_term) != (opening.last, opening.last_term):
            raise ValueError(f"it follows entry {opening.last}, not {index.last}")
        known, said = index.hard_state, opening.hard_state
        # What is committed moves on in memory, and is written when something else is.
        if (known.term, known.vote) != (said.term, said.vote) or said.commit < known.commit:
            raise ValueError(f"it was begun with {said}, not {known}")
        index.hard_state = said
        self._found.segments.append(Segment(self._sequence, opening.last))

    def _torn(self, data: bytes, end: int, is_last: bool) -> None:
        """Report what is cut off the end. Raises Corrupt when it was whole once."""
        batch = self._found.batch
        reason = f"{self._path} is damaged at {end}"
        if not is_last:
            raise Corrupt(f"{reason}, and segments follow; {_REMEDY}")
        for at, header in whole_behind(data, end):
            # A batch is written when the one before it has been synced.
            if header.batch > batch + 1 or header.start > end:
                raise Corrupt(f"{reason}, and batch {header.batch} follows at {at}; {_REMEDY}")
        self._found.cut = len(data) - end
        how = "cut short" if MAGIC.startswith(data[end : end + 4]) else "not whole"
        self._found.reason = f"{self._path}: the last record is {how}"
