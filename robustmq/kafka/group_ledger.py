"""One group's page and offsets in the ledger: what is written in which order, and what is known.

A page is written by itself: what changes meanwhile is in the next one, and offsets that are to be
committed wait, as their commit must name the page's version. When it is not known what became of
a change, or another coordinator has made one, the group is given up (`lost`): whoever asks next
reads it anew.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from robustmq.broker.ledger_api import Kept, Ledger, Page
from robustmq.errors import Refusal, Refused
from robustmq.kafka.errors import ErrorCode, coordinator_error

Then: TypeAlias = Callable[[ErrorCode], None]

Position: TypeAlias = tuple[str, int]
"""A topic, as clients write it, and a partition."""

_PENDING: Final = "?"
_STAMP: Final = 32
_SETTLED: Final = 10_000
"""Producers whose last transaction that has ended is remembered, so that nothing comes late."""
_NOTHING_DONE: Final = frozenset({Refusal.TOO_LARGE, Refusal.QUOTA_EXCEEDED, Refusal.BUSY})


def stamped(kept: Kept, topic_id: bytes) -> Kept:
    """An offset as it is kept: what is noted with it begins with the topic's id (16 bytes).

    So an offset of a topic that is gone is not taken for one of another by the same name.
    """
    return kept._replace(note=topic_id.hex() + kept.note)


def plain(kept: Kept) -> tuple[bytes, str]:
    """The topic's id, and what the reader has noted."""
    return bytes.fromhex(kept.note[:_STAMP]), kept.note[_STAMP:]


class Pending(NamedTuple):
    """Offsets of a producer's open transaction; `serial` grows with each of its transactions."""

    serial: int
    offsets: dict[Position, Kept]


class _Change(NamedTuple):
    """Offsets on their way: their rows, what to do when they are kept, and whom to tell."""

    rows: Mapping[str, Kept | None]
    fold: Callable[[], None]
    then: Then


class GroupLedger:
    """What a group keeps under `key`, whose page has `version` and these rows of offsets.

    `page` gives the page as it is now. `lost(code)` is called once, when all that is known here
    may be wrong; then nothing is answered any more but by that code.
    """

    def __init__(  # noqa: PLR0917
        self,
        ledger: Ledger,
        key: str,
        version: int,
        rows: Mapping[str, Kept],
        page: Callable[[], bytes],
        lost: Callable[[ErrorCode], None],
    ) -> None:
        self.version = version
        self.offsets: dict[Position, Kept] = {}
        self.pending: dict[int, Pending] = {}
        """By producer id: what becomes an offset when its transaction is committed."""
        self._settled: dict[int, int] = {}
        self._ledger = ledger
        self._key = key
        self._page = page
        self._lost = lost
        self._fault = ErrorCode.NONE
        self._wanted: list[Then] = []
        self._writing: list[Then] | None = None
        self._held: list[_Change] = []
        self._committing = 0
        self._quiet: list[Callable[[], None]] = []
        self._read(rows)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        is_writing = self._writing is not None or bool(self._wanted)
        return is_writing or bool(self._committing or self._held or self._quiet)

    # ------------------------------------------------------------------ the page

    def keep(self, then: Then) -> None:
        """Write the page; see `group_keeper.Keeper`."""
        if self._fault:
            then(self._fault)
            return
        self._wanted.append(then)
        self._go_on()

    def settled(self, then: Then) -> None:
        """Wait for the pages that are under way."""
        if self._fault or (self._writing is None and not self._wanted):
            then(self._fault)
        elif self._wanted:
            self._wanted.append(then)
        elif self._writing is not None:
            self._writing.append(then)

    def verify(self, then: Then) -> None:
        """Ask whether the page is still as it is known here; NOT_COORDINATOR: it is not."""

        def read(page: Page | Refused) -> None:
            if isinstance(page, Refused):
                error = coordinator_error(page.code)
            else:
                is_same = page.version == self.version
                error = ErrorCode.NONE if is_same else ErrorCode.NOT_COORDINATOR
            asked, self._writing = self._writing or [], None
            for each in asked:
                each(error)
            self._go_on()

        def begin() -> None:
            self._writing = [then]
            self._ledger.read(self._key, read)

        self._when_quiet(begin, then)

    def erase(self, then: Then) -> None:
        """Remove the page and all offsets, when nothing else is under way."""

        def begin() -> None:
            self._writing = [then]
            self._ledger.erase(self._key, self.version, self._erased)

        self._when_quiet(begin, then)

    def _when_quiet(self, callback: Callable[[], None], then: Then) -> None:
        """Call back when all changes so far are done; those to come wait. `then`: or the fault."""
        if self._fault:
            then(self._fault)
            return
        self._quiet.append(lambda: then(self._fault) if self._fault else callback())
        self._go_on()

    def _go_on(self) -> None:
        """Do what is next: a page, when no commit is under way; what needs quiet; commits."""
        if self._fault or self._writing is not None:
            return
        if self._committing and (self._wanted or self._quiet):
            return
        if self._wanted:
            self._writing, self._wanted = self._wanted, []
            self._ledger.write(self._key, self._page(), self.version, self._written)
        elif self._quiet:
            self._quiet.pop(0)()
            self._go_on()
        else:
            held, self._held = self._held, []
            for change in held:
                self._send(change)

    def _written(self, result: int | Refused) -> None:
        if self._fault:
            return
        if isinstance(result, Refused):
            self._give_up(result)
            return
        self.version = result
        self._answer_writing()
        self._go_on()

    def _erased(self, refused: Refused | None) -> None:
        if self._fault:
            return
        if refused is not None:
            self._give_up(refused)
            return
        self.version = 0
        self.offsets.clear()
        self.pending.clear()
        self._answer_writing()
        self._go_on()

    def _answer_writing(self) -> None:
        written, self._writing = self._writing or [], None
        for then in written:
            then(ErrorCode.NONE)

    # ------------------------------------------------------------------ offsets

    def commit(self, offsets: Mapping[Position, Kept | None], then: Then) -> None:
        """Set offsets, or remove them (None)."""
        rows = {_row(position): kept for position, kept in offsets.items()}
        self._change(_Change(rows, partial(self._fold, offsets), then))

    def pend(
        self, producer_id: int, serial: int, offsets: Mapping[Position, Kept], then: Then
    ) -> None:
        """Keep offsets of a transaction, which nobody sees until it is committed.

        Refused with INVALID_TXN_STATE when that transaction is over here, or a later one is open.
        """
        known = self.pending.get(producer_id)
        is_over = serial <= self._settled.get(producer_id, -1)
        if is_over or (known is not None and known.serial > serial):
            then(ErrorCode.INVALID_TXN_STATE)
            return
        rows: dict[str, Kept | None] = {}
        if known is not None and known.serial < serial:  # What came late for an earlier one.
            rows = {_pending_row(producer_id, known.serial, at): None for at in known.offsets}
        rows |= {_pending_row(producer_id, serial, at): kept for at, kept in offsets.items()}

        def fold() -> None:
            kept = self.pending.get(producer_id)
            if kept is None or kept.serial < serial:
                kept = self.pending[producer_id] = Pending(serial, {})
            kept.offsets.update(offsets)

        self._change(_Change(rows, fold, then))

    def settle(self, producer_id: int, serial: int, is_committed: bool, then: Then) -> None:
        """A transaction is over: its offsets count, or are forgotten. May be said again.

        What belongs to a later one stays; what came late for an earlier one is forgotten.
        """
        self._settled[producer_id] = max(serial, self._settled.pop(producer_id, -1))
        if len(self._settled) > _SETTLED:
            del self._settled[next(iter(self._settled))]
        self._when_quiet(partial(self._settle, producer_id, serial, is_committed, then), then)

    def is_unstable(self, position: Position) -> bool:
        """Say whether an open transaction has an offset of a partition."""
        return any(position in each.offsets for each in self.pending.values())

    def _settle(self, producer_id: int, serial: int, is_committed: bool, then: Then) -> None:
        pending = self.pending.get(producer_id)
        if pending is None or pending.serial > serial:
            then(ErrorCode.NONE)
            return
        is_committed = is_committed and pending.serial == serial
        offsets = dict(pending.offsets)
        rows: dict[str, Kept | None] = {}
        for position, kept in offsets.items():
            rows[_pending_row(producer_id, pending.serial, position)] = None
            if is_committed:
                rows[_row(position)] = kept

        def fold() -> None:
            self.pending.pop(producer_id, None)
            if is_committed:
                self._fold(offsets)

        self._send(_Change(rows, fold, then))

    def _change(self, change: _Change) -> None:
        if self._fault:
            change.then(self._fault)
            return
        if self.version == 0 and self._writing is None and not self._wanted:
            self.keep(_nobody_waits)  # A group without members has a page, too: it is listed by it.
        if self._writing is not None or self._wanted or self._quiet:
            self._held.append(change)
        else:
            self._send(change)

    def _send(self, change: _Change) -> None:
        self._committing += 1
        self._ledger.commit(self._key, self.version, change.rows, partial(self._committed, change))

    def _committed(self, change: _Change, refused: Refused | None) -> None:
        self._committing -= 1
        if self._fault:
            change.then(self._fault)
            return
        if refused is None:
            change.fold()
            change.then(ErrorCode.NONE)
        elif refused.code in _NOTHING_DONE:
            change.then(coordinator_error(refused.code))
        else:
            self._give_up(refused)
            change.then(self._fault)
        self._go_on()

    def _fold(self, offsets: Mapping[Position, Kept | None]) -> None:
        for position, kept in offsets.items():
            if kept is None:
                self.offsets.pop(position, None)
            else:
                self.offsets[position] = kept

    def _read(self, rows: Mapping[str, Kept]) -> None:
        for row, kept in rows.items():
            if row.startswith(_PENDING):
                producer_id, serial, position = row[len(_PENDING) :].split("/", 2)
                known = self.pending.setdefault(int(producer_id), Pending(int(serial), {}))
                known.offsets[_position(position)] = kept
            else:
                self.offsets[_position(row)] = kept

    # ------------------------------------------------------------------ the end

    def close(self, error: ErrorCode) -> None:
        """Nobody writes here any more: all that waits is answered with `error`."""
        if self._fault:
            return
        self._fault = error
        waiting = [*(self._writing or ()), *self._wanted, *(each.then for each in self._held)]
        self._writing = None
        self._wanted, self._held = [], []
        quiet, self._quiet = self._quiet, []
        for then in waiting:
            then(error)
        for callback in quiet:
            callback()

    def _give_up(self, refused: Refused) -> None:
        error = coordinator_error(refused.code)
        self.close(error)
        self._lost(error)


def _nobody_waits(error: ErrorCode) -> None:
    del error


def _row(position: Position) -> str:
    topic, partition = position
    return f"{partition}/{topic}"


def _pending_row(producer_id: int, serial: int, position: Position) -> str:
    return f"{_PENDING}{producer_id}/{serial}/{_row(position)}"


def _position(row: str) -> Position:
    partition, topic = row.split("/", 1)
    return topic, int(partition)
