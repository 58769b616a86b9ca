"""A replica's log: what of it is durable, committed and handed out; its newest part in memory."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Final

from robustmq.errors import Corrupt
from robustmq.raft.message import (
    ENTRY_BYTES,
    Entry,
    EntryKind,
    Membership,
    Snapshot,
    membership,
)
from robustmq.raft.quorum import members
from robustmq.raft.ready import Entries, Stored

UNKNOWN: Final = -1
"""The term of an entry that the log does not have."""
_SCAN_BYTES: Final = 4 << 20


class ReplicaLog:
    """The log of one replica from its start on; every index is known by its term.

    What is not durable, or not handed out, is in memory; older entries are as long as they fit
    into the cache, and are read from the journal otherwise. Terms need no entries: a log has few
    of them, and their first indices are kept.
    """

    __slots__ = (
        "_cache",
        "_cache_bytes",
        "_cache_limit",
        "_first",
        "_flying",
        "_journal",
        "_memberships",
        "_number",
        "_term_firsts",
        "_terms",
        "commit",
        "handed",
        "last_index",
        "last_term",
        "stable",
        "start",
        "written",
    )

    def __init__(self, stored: Stored, cache_bytes: int) -> None:
        """Raises Corrupt when the parts of what is stored do not fit together."""
        start, journal = stored.start, stored.entries
        self._journal: Entries = journal
        self._cache: list[Entry] = []
        self._cache_bytes = 0
        self._cache_limit = cache_bytes
        self._flying: deque[tuple[int, int]] = deque()
        self._number = 0
        self.start = start
        self.last_index = start.index
        self.last_term = start.term
        self._term_firsts = [start.index]
        self._terms = [start.term]
        self._memberships = [(start.index, start.membership)]
        self._scan(journal.last_index)
        self._first = self.last_index + 1
        self.stable = self.written = self.last_index
        self.handed = stored.applied
        if not start.index <= stored.applied <= self.last_index:
            raise Corrupt(
                f"the Raft journal has entries {start.index} to {self.last_index}, and the state "
                f"has applied {stored.applied}: they are not of one replica"
            )
        self.commit = min(max(stored.hard_state.commit, stored.applied), self.last_index)

    def _scan(self, last: int) -> None:
        """Learn terms and memberships of what the journal has."""
        if last < self.last_index:
            raise Corrupt(f"the Raft journal ends at {last}, before its start {self.last_index}")
        while self.last_index < last:
            found = self._journal.read(self.last_index + 1, last, _SCAN_BYTES)
            for entry in found:
                if entry.index != self.last_index + 1 or entry.term < self.last_term:
                    raise Corrupt(f"the Raft journal breaks off behind entry {self.last_index}")
                self._count(entry)
            if not found:
                raise Corrupt(f"the Raft journal lacks what is behind entry {self.last_index}")

    def _count(self, entry: Entry) -> None:
        """Take an entry as the last one, but for its content."""
        self.last_index = entry.index
        if entry.term != self.last_term:
            self.last_term = entry.term
            self._term_firsts.append(entry.index)
            self._terms.append(entry.term)
        if entry.kind is EntryKind.MEMBERSHIP:
            self._memberships.append((entry.index, membership(entry.data)))

    # What is asked.

    def term_at(self, index: int) -> int:
        """The term of an entry; UNKNOWN below the start and behind the end."""
        if index > self.last_index or index < self.start.index:
            return UNKNOWN
        if index >= self._term_firsts[-1]:
            return self.last_term
        return self._terms[bisect_right(self._term_firsts, index) - 1]

    def latest_up_to(self, index: int, term: int) -> int:
        """The last index up to `index` whose term is at most `term`; the start's when none is."""
        index = min(index, self.last_index)
        if self.last_term <= term:
            return max(index, self.start.index)
        behind = self._term_firsts[bisect_right(self._terms, term)]
        return max(min(index, behind - 1), self.start.index)

    def is_behind(self, index: int, term: int) -> bool:
        """Whether a log that ends with (index, term) is as good as this one (Raft 5.4.1)."""
        return term > self.last_term or (term == self.last_term and index >= self.last_index)

    @property
    def membership(self) -> Membership:
        """The latest membership of the log."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """The index of the entry that made the latest membership."""
        return self._memberships[-1][0]

    def membership_at(self, index: int) -> tuple[int, Membership]:
        """The membership as of an entry, and the index of the entry that made it."""
        found = self._memberships[0]
        for each in self._memberships:
            if each[0] <= index:
                found = each
        return found

    def was_left_by(self, node: int) -> bool:
        """Whether a replica belonged to an earlier membership of the log, and not to the latest."""
        if node in members(self.membership):
            return False
        return any(node in members(membership) for _, membership in self._memberships)

    def describe(self, index: int) -> Snapshot:
        """What stands for the log up to `index`, which it has."""
        return Snapshot(index, self.term_at(index), self.membership_at(index)[1])

    def read(self, first: int, last: int, most_bytes: int) -> Sequence[Entry]:
        """Entries from `first` (behind the start) to at most `last`; at least one."""
        if first < self._first:
            # What is in the journal alone is durable; the journal answers in pieces.
            stored = self._journal.read(first, min(last, self._first - 1), most_bytes)
            if not stored:
                raise Corrupt(f"the Raft journal lacks entry {first}")
            return stored
        begin, end = first - self._first, last - self._first + 1
        found = self._cache[begin:end]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data) + ENTRY_BYTES
            if size > most_bytes and count:
                return found[:count]
        return found

    # What is added and taken away.

    def append(self, entries: Sequence[Entry]) -> None:
        """Take entries that follow the last one."""
        for entry in entries:
            if entry.term == self.last_term and entry.kind is not EntryKind.MEMBERSHIP:
                self.last_index = entry.index
            else:
                self._count(entry)
            self._cache_bytes += len(entry.data) + ENTRY_BYTES
        self._cache += entries

    def merge(self, entries: Sequence[Entry]) -> bool:
        """Take a leader's entries that stand on one that matches; no: it contradicts a commit.

        What is there already stays, and all behind it: a shorter repetition removes nothing
        (Raft 5.3). From the first entry of another term on, ours are replaced.
        """
        count = 0
        if entries and entries[0].index <= self.last_index:
            for entry in entries:
                if self.term_at(entry.index) != entry.term:
                    break
                count += 1
            entries = entries[count:]
            if entries and entries[0].index <= self.last_index:
                if entries[0].index <= self.commit:
                    return False
                self._truncate(entries[0].index)
        if entries:
            self.append(entries)
        return True

    def _truncate(self, first: int) -> None:
        """Forget the entries from `first` on; what of them is under way to the disk is void."""
        while self._term_firsts[-1] >= first:
            self._term_firsts.pop()
            self._terms.pop()
        while self._memberships[-1][0] >= first:
            self._memberships.pop()
        keep = max(0, first - self._first)
        self._cache_bytes -= sum(entry.size for entry in self._cache[keep:])
        del self._cache[keep:]
        self._first = min(self._first, first)
        self.last_index = first - 1
        self.last_term = self._terms[-1]
        self.stable = min(self.stable, first - 1)
        self.written = min(self.written, first - 1)
        self._flying = deque((number, min(last, first - 1)) for number, last in self._flying)

    def install(self, snapshot: Snapshot) -> None:
        """Forget all entries: the log starts behind a snapshot that was handed in."""
        self.start = snapshot
        self.last_index = self.commit = self.handed = self.written = snapshot.index
        self.last_term = snapshot.term
        self._term_firsts = [snapshot.index]
        self._terms = [snapshot.term]
        self._memberships = [(snapshot.index, snapshot.membership)]
        self._cache.clear()
        self._cache_bytes = 0
        self._first = snapshot.index + 1
        self.stable = snapshot.index
        flying = self._flying
        self._flying = deque((number, min(last, snapshot.index)) for number, last in flying)

    def compact(self, index: int) -> None:
        """Let the log start at `index`, which is durable and handed out."""
        if index <= self.start.index:
            return
        start = self.describe(index)
        made, joined = self.membership_at(index)
        behind = [each for each in self._memberships if each[0] > index]
        self._memberships = [(made, joined), *behind]
        spans = bisect_right(self._term_firsts, index) - 1
        del self._term_firsts[:spans]
        del self._terms[:spans]
        self._term_firsts[0] = index
        self.start = start
        if index >= self._first:
            self._drop(index + 1 - self._first)

    def _drop(self, count: int) -> None:
        """Forget the oldest entries in memory."""
        self._cache_bytes -= sum(entry.size for entry in self._cache[:count])
        del self._cache[:count]
        self._first += count

    def _trim(self) -> None:
        """Keep in memory what fits, and what must be there."""
        most = min(self.stable, self.handed) + 1 - self._first
        size, count = self._cache_bytes, 0
        # A little more than needed, so that this is not done for every entry.
        wanted = self._cache_limit - (self._cache_limit >> 3)
        while count < most and size > wanted:
            size -= self._cache[count].size
            count += 1
        if count:
            self._drop(count)

    # The way to the disk and to the state machine.

    def take_unwritten(self) -> Sequence[Entry]:
        """The entries that the journal was not given yet, as given now."""
        if self.written == self.last_index:
            return ()
        found = self._cache[self.written + 1 - self._first :]
        self.written = self.last_index
        return found

    def fly(self) -> int:
        """Note that all that was taken is under way to the disk; returns the number of that."""
        self._number += 1
        self._flying.append((self._number, self.written))
        return self._number

    @property
    def flying(self) -> int:
        """The number of the latest of what is under way to the disk; 0: nothing is."""
        return self._flying[-1][0] if self._flying else 0

    def persisted(self, number: int) -> None:
        """All that is under way up to that number is durable."""
        flying = self._flying
        while flying and flying[0][0] <= number:
            self.stable = max(self.stable, flying.popleft()[1])
        if self._cache_bytes > self._cache_limit:
            self._trim()

    def commit_to(self, index: int) -> bool:
        """Raise what is committed, never beyond the end; says whether it has risen."""
        index = min(index, self.last_index)
        if index <= self.commit:
            return False
        self.commit = index
        return True

    def take_committed(self, most_bytes: int) -> Sequence[Entry]:
        """Entries that are committed and durable, and not handed out yet; some of them."""
        last = min(self.commit, self.stable)
        if self.handed >= last:
            return ()
        found = self.read(self.handed + 1, last, most_bytes)
        self.handed = found[-1].index
        if self._cache_bytes > self._cache_limit:
            self._trim()
        return found
