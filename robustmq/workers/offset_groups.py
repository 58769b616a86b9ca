"""What the coordinators of a core keep in the offset groups of its cluster: their ledger."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from robustmq.broker.ledger_api import Kept, Page
from robustmq.errors import Refusal, Refused
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, offset
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.offset import CONFLICT, PRODUCER_IDS, Commit, Deed, Deeds, Draw, Erase, Write
from robustmq.workers.meta_link import MetaLink

BATCH_BYTES: Final = 256 << 10
"""Bytes of what a batch holds at which it is full; a longer deed travels alone."""

IDS: Final = 1_000
"""Producer ids that are taken at once."""

_COMMIT_BYTES: Final = 64
_CONFLICT: Final = Refused(Refusal.CONFLICT, "another coordinator has changed it: ask that one")
_USED_UP: Final = Refused(Refusal.QUOTA_EXCEEDED, "there are no more producer ids")


class _Gathered:
    """Deeds of one group that travel together, and who waits for each."""

    __slots__ = ("deeds", "done", "size")

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.done: list[Callable[[int | Refused], None]] = []
        self.size = 0


class OffsetGroups:
    """A `ledger_api.Ledger` over `groups` groups. Call `flush` at the end of every turn."""

    def __init__(self, groups: int, link: MetaLink) -> None:
        self._groups = groups
        self._link = link
        self._gathered: dict[str, list[_Gathered]] = {}

    # ------------------------------------------------------------------ writing

    def write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        """See `Ledger`."""
        self._gather(key, Write(key, version, value), len(value or b""), reply)

    def commit(
        self,
        key: str,
        version: int,
        offsets: Mapping[str, Kept | None],
        reply: Callable[[Refused | None], None],
    ) -> None:
        """See `Ledger`."""
        found = {at: None if each is None else offset.Offset(*each) for at, each in offsets.items()}
        size = sum(_COMMIT_BYTES + len(each.note) for each in found.values() if each is not None)
        self._gather(key, Commit(key, version, found), size, partial(_refusal, reply))

    def erase(self, key: str, version: int, reply: Callable[[Refused | None], None]) -> None:
        """See `Ledger`."""
        self._gather(key, Erase(key, version), 0, partial(_refusal, reply))

    def producer_ids(self, reply: Callable[[range | Refused], None]) -> None:
        """See `Ledger`."""
        self._link.propose(_name(0), offset.encode(Draw(IDS)), partial(_drawn, reply))

    def flush(self) -> None:
        """Propose what the turn has gathered."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}
        for group, batches in gathered.items():
            for each in batches:
                command = offset.encode(Deeds(each.deeds))
                self._link.propose(group, command, partial(_tell, each.done))

    def _gather(
        self, key: str, deed: Deed, size: int, done: Callable[[int | Refused], None]
    ) -> None:
        batches = self._gathered.setdefault(self._group(key), [])
        if not batches or batches[-1].size >= BATCH_BYTES:
            batches.append(_Gathered())
        batch = batches[-1]
        batch.deeds.append(deed)
        batch.done.append(done)
        batch.size += size + len(key)

    # ------------------------------------------------------------------ reading

    def read(self, key: str, reply: Callable[[Page | Refused], None]) -> None:
        """See `Ledger`."""

        def found(page: offset.Page | Refused) -> None:
            if isinstance(page, Refused):
                reply(page)
            else:
                reply(Page(page.version, page.value) if page.version else Page())

        self._link.page(self._group(key), key, found)

    def keys(self, prefix: str, reply: Callable[[Sequence[str] | Refused], None]) -> None:
        """See `Ledger`: from all groups, one after the other."""
        found: list[str] = []

        def ask(number: int, start: str) -> None:
            self._link.page_keys(_name(number), prefix, start, partial(take, number))

        def take(number: int, answer: tuple[list[Any], str | None] | Refused) -> None:
            if isinstance(answer, Refused):
                reply(answer)
                return
            rows, after = answer
            found.extend(rows)
            if after is not None:
                ask(number, after)
            elif number + 1 < self._groups:
                ask(number + 1, "")
            else:
                reply(found)

        ask(0, "")

    def offsets(self, key: str, reply: Callable[[Mapping[str, Kept] | Refused], None]) -> None:
        """See `Ledger`."""
        found: dict[str, Kept] = {}
        group = self._group(key)

        def take(answer: tuple[list[Any], str | None] | Refused) -> None:
            if isinstance(answer, Refused):
                reply(answer)
                return
            rows, after = answer
            for each in rows:
                kept = each.offset
                found[each.place] = Kept(kept.offset, kept.note, kept.at_ms, kept.leader_epoch)
            if after is None:
                reply(found)
            else:
                self._link.offsets(group, key, after, take)

        self._link.offsets(group, key, "", take)

    def _group(self, key: str) -> str:
        return _name(stable_hash(key.encode()) % self._groups)


def _name(number: int) -> str:
    return f"offset_{number}"


def _tell(waiting: list[Callable[[int | Refused], None]], outcome: Outcome) -> None:
    """Tell who waits what became of each deed."""
    result = commands.outcome(outcome.result) if isinstance(outcome, Applied) else outcome
    if isinstance(result, Refused):
        for done in waiting:
            done(result)
        return
    for done, version in zip(waiting, offset.outcomes(result), strict=True):
        done(_CONFLICT if version == CONFLICT else version)


def _refusal(reply: Callable[[Refused | None], None], result: int | Refused) -> None:
    reply(result if isinstance(result, Refused) else None)


def _drawn(reply: Callable[[range | Refused], None], outcome: Outcome) -> None:
    result = commands.outcome(outcome.result) if isinstance(outcome, Applied) else outcome
    if isinstance(result, Refused):
        reply(result)
        return
    (first,) = offset.outcomes(result)
    found = range(first, min(first + IDS, PRODUCER_IDS))
    reply(found or _USED_UP)
