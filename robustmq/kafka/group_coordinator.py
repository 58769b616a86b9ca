"""The consumer groups that this core coordinates: read when somebody asks, kept while in use.

Who reads a group writes its page as it is before anything else: from then on the page has another
version, and whoever coordinated the group before can change nothing of it any more. Only then its
offsets are read, so that none is committed behind them. When nodes come or go, others may
take themselves for the coordinator until they have heard of it: for that time the page's version
is looked at with every request, to see whether another one has had the group.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import msgspec

from robustmq import metrics
from robustmq.broker.api import Timer
from robustmq.broker.ledger_api import Kept, Page
from robustmq.errors import Refused
from robustmq.kafka.coordinator_keys import group_key
from robustmq.kafka.errors import ErrorCode, coordinator_error
from robustmq.kafka.group import Group, Known, Name
from robustmq.kafka.group_ledger import Position, stamped
from robustmq.kafka.group_pages import ClassicPage, GroupPage, decode
from robustmq.kafka.protocol import Kafka

Found: TypeAlias = Callable[[Group | ErrorCode], None]


_DOUBT_MS: Final = 10_000
"""Longer than a node serves clients that has not heard yet which nodes live."""


class Reader(NamedTuple):
    """Who commits offsets: a member of a generation, or (by the defaults) nobody of the group."""

    member_id: str = ""
    instance_id: str | None = None
    generation: int = -1


class GroupCoordinator:
    """All groups of this core, by tenant and id."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._settings = kafka.settings.groups
        self._row = kafka.broker.turn.row
        self._groups: dict[str, Group] = {}
        self._loading: dict[str, list[Found]] = {}
        self._born_ms = kafka.now_ms
        self._moved_ms = kafka.now_ms
        self._count = 0
        self._sweep_timer: Timer = self._set_timer()
        kafka.coordinators.append(self.moved)

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    # ------------------------------------------------------------------ finding

    def find(self, tenant: str, group_id: str, then: Found) -> None:
        """Find a group, which need not exist; an error code when nobody knows whether it does."""
        if not group_id or "\0" in group_id:
            then(ErrorCode.INVALID_GROUP_ID)
            return
        key = group_key(tenant, group_id)
        group = self._groups.get(key)
        is_known = group is not None and group.exists
        if is_known and group is not None and self._is_sure(group):
            group.used_ms = self._kafka.now_ms
            then(group)
            return
        waiting = self._loading.get(key)
        if waiting is not None:
            if len(waiting) >= self._settings.max_waiting:
                then(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
            else:
                waiting.append(then)
        elif not is_known and not self._has_room():
            then(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        else:
            self._loading[key] = [then]
            self._ask(Name(tenant, group_id, key), group if is_known else None)

    def _has_room(self) -> bool:
        """Say whether another group may come into the memory, if need be for one not in use."""
        if len(self._groups) + len(self._loading) < self._settings.max_groups:
            return True
        unused = next((group for group in self._groups.values() if not group.is_used), None)
        if unused is not None:
            unused.close(ErrorCode.NOT_COORDINATOR)
            self._forget(unused.key)
        return unused is not None

    def _is_sure(self, group: Group) -> bool:
        """Whether no other core can have had a group since it was read, or looked at."""
        is_alone = self._kafka.cluster.lives == 0
        return is_alone or group.seen_ms >= self._moved_ms + _DOUBT_MS

    def _ask(self, name: Name, group: Group | None) -> None:
        """Read a group, or see whether it is as it is known here, for those who wait now."""
        asked_ms, count = self._kafka.now_ms, len(self._loading[name.key])
        if group is None:
            _Loading(self._kafka, name.key, partial(self._loaded, name, asked_ms, count))
        else:
            group.ledger.verify(partial(self._verified, name, group, asked_ms, count))

    def _verified(
        self, name: Name, group: Group, asked_ms: int, count: int, error: ErrorCode
    ) -> None:
        if error:
            group.close(error)
            self._forget(name.key)
            self._ask(name, None)
            return
        group.seen_ms = asked_ms
        self._answer(name, count, group)

    def _loaded(self, name: Name, asked_ms: int, count: int, result: Known | ErrorCode) -> None:
        if isinstance(result, ErrorCode):
            self._answer(name, count, result)
        elif not self._kafka.coordinates(name.key):
            self._answer(name, count, ErrorCode.NOT_COORDINATOR)
        else:
            lost = partial(self._lost, name.key)
            group = self._groups[name.key] = Group(self._kafka, name, result, self.new_id, lost)
            group.seen_ms = asked_ms
            self._row[metrics.KAFKA_GROUPS] = len(self._groups)
            self._answer(name, count, group)

    def _answer(self, name: Name, count: int, found: Group | ErrorCode) -> None:
        """Answer those who had asked before it was read; the others must know it as it is now."""
        waiting = self._loading.pop(name.key)
        for then in waiting[:count]:
            then(found)
        if isinstance(found, Group) and not found.exists:
            self._forget(name.key)
        for then in waiting[count:]:
            self.find(name.tenant, name.group_id, then)

    def moved(self) -> None:
        """Nodes have come or gone: members of groups that are coordinated elsewhere look there."""
        self._moved_ms = self._kafka.now_ms
        for group in self:
            if not self._kafka.coordinates(group.key):
                group.close(ErrorCode.NOT_COORDINATOR)
                self._forget(group.key)

    def _lost(self, key: str, error: ErrorCode) -> None:
        self._row[metrics.KAFKA_GROUPS_LOST] += bool(error)
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._groups.pop(key, None)
        self._row[metrics.KAFKA_GROUPS] = len(self._groups)

    def new_id(self, client_id: str) -> str:
        """Make an id of a member that no other ever has."""
        self._count += 1
        node, core = self._kafka.cluster.node, self._kafka.core
        return f"{client_id[:200]}-{node:x}-{core:x}-{self._born_ms:x}-{self._count:x}"

    # ------------------------------------------------------------------ all groups

    def ids(self, tenant: str, then: Callable[[Sequence[str] | ErrorCode], None]) -> None:
        """Find the ids of all groups of a tenant, whoever coordinates them."""
        prefix = group_key(tenant, "")

        def found(result: Sequence[str] | Refused) -> None:
            if isinstance(result, Refused):
                then(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            else:
                then([key[len(prefix) :] for key in result])

        self._kafka.ledger.keys(prefix, found)

    def look(self, tenant: str, group_id: str, then: Callable[[GroupPage | None], None]) -> None:
        """Look at a group without taking it over; None: there is none, or it cannot be read."""
        key = group_key(tenant, group_id)
        group = self._groups.get(key)
        if group is not None and group.exists:
            then(group.machine.page)
            return

        def read(page: Page | Refused) -> None:
            if isinstance(page, Refused) or page.value is None:
                then(None)
            else:
                then(_decoded(page.value))

        self._kafka.ledger.read(key, read)

    def remove(self, group: Group, then: Callable[[ErrorCode], None]) -> None:
        """Remove a group that has no members, with its offsets."""

        def erased(error: ErrorCode) -> None:
            if not group.exists:
                self._forget(group.key)
            then(error)

        group.ledger.erase(erased)

    # ------------------------------------------------------------------ transactions

    def pend(  # noqa: PLR0917
        self,
        tenant: str,
        group_id: str,
        reader: Reader,
        producing: tuple[int, int],
        offsets: Mapping[Position, Kept],
        then: Callable[[ErrorCode], None],
    ) -> None:
        """Keep offsets that count when a transaction is committed.

        `producing` is its producer's id and its serial (`transaction.Transaction`). Refused like a
        commit of that reader, and with INVALID_TXN_STATE when that transaction is over.
        Offsets in topics that there are not are left out.
        """

        def found(group: Group | ErrorCode) -> None:
            error = group if isinstance(group, ErrorCode) else group.may_pend(*reader)
            if isinstance(group, ErrorCode) or error:
                then(error)
            else:
                find = self._kafka.catalog.find
                topics = {name: find(tenant, name) for name, _ in offsets}
                ids = {name: topic.id for name, topic in topics.items() if topic is not None}
                kept = {
                    at: stamped(each, ids[at[0]]) for at, each in offsets.items() if at[0] in ids
                }
                group.ledger.pend(*producing, kept, then)

        self.find(tenant, group_id, found)

    def settle(
        self,
        tenant: str,
        group_id: str,
        producing: tuple[int, int],
        is_committed: bool,
        then: Callable[[ErrorCode], None],
    ) -> None:
        """A producer's transaction is over: its offsets count, or are forgotten.

        May be said again; NONE when that is done, or was before.
        """

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                then(group)
            else:
                group.ledger.settle(*producing, is_committed, then)

        self.find(tenant, group_id, found)

    # ------------------------------------------------------------------ what is too old

    def _set_timer(self) -> Timer:
        when_ms = self._kafka.now_ms + self._settings.offsets_retention_check_interval_ms
        return self._kafka.at(when_ms, self._sweep)

    def _sweep(self) -> None:
        """Look for offsets that nobody has needed for long, in all groups, one after the other."""
        self._sweep_timer = self._set_timer()
        for group in self:
            is_elsewhere = not self._kafka.coordinates(group.key)
            is_idle = group.used_ms + self._settings.idle_ms <= self._kafka.now_ms
            if is_elsewhere or (is_idle and not group.is_used):
                group.close(ErrorCode.NOT_COORDINATOR)
                self._forget(group.key)
        self._kafka.ledger.keys("group/", self._look_through)

    def _look_through(self, keys: Sequence[str] | Refused) -> None:
        if isinstance(keys, Refused):
            return
        mine = [key for key in keys if self._kafka.coordinates(key)]

        def follow() -> None:
            while mine:
                key = mine.pop()
                group = self._groups.get(key)
                if group is None:
                    _, tenant, group_id = key.split("/", 2)
                    self.find(tenant, group_id, look)
                    return
                self._expire(group)

        def look(found: Group | ErrorCode) -> None:
            if isinstance(found, Group):
                found.used_ms = 0
                self._expire(found)
            follow()

        follow()

    def _expire(self, group: Group) -> None:
        """Remove the offsets of an empty group that are too old, and the group with the last."""
        if group.is_used or group.ledger.pending:
            return
        retention_ms = self._settings.offsets_retention_minutes * 60_000
        oldest_ms = self._kafka.now_ms - retention_ms
        since_ms = group.machine.since_ms
        old: dict[Position, Kept | None] = {
            position: None
            for position, kept in group.ledger.offsets.items()
            if max(kept.at_ms, since_ms) <= oldest_ms
        }
        if len(old) == len(group.ledger.offsets) and since_ms <= oldest_ms:
            self.remove(group, _nobody_waits)
        elif old:
            group.ledger.commit(old, _nobody_waits)


class _Loading:
    """Reads one group: its page, which it writes again, then its offsets."""

    def __init__(
        self,
        kafka: Kafka,
        key: str,
        then: Callable[[Known | ErrorCode], None],
    ) -> None:
        self._ledger = kafka.ledger
        self._key = key
        self._then = then
        self._ledger.read(key, self._read)

    def _read(self, page: Page | Refused) -> None:
        if isinstance(page, Refused):
            self._then(coordinator_error(page.code))
        elif page.value is None:
            self._then(Known(ClassicPage(), 0, {}))
        else:
            known = _decoded(page.value)
            if known is None:
                self._then(ErrorCode.UNKNOWN_SERVER_ERROR)
                return
            self._ledger.write(self._key, page.value, page.version, partial(self._taken, known))

    def _taken(self, page: GroupPage, version: int | Refused) -> None:
        if isinstance(version, Refused):
            self._then(coordinator_error(version.code))
        else:
            self._ledger.offsets(self._key, partial(self._whole, page, version))

    def _whole(self, page: GroupPage, version: int, rows: Mapping[str, Kept] | Refused) -> None:
        if isinstance(rows, Refused):
            self._then(coordinator_error(rows.code))
        else:
            self._then(Known(page, version, rows))


def _decoded(value: bytes) -> GroupPage | None:
    try:
        return decode(value)
    except msgspec.MsgspecError:
        return None


def _nobody_waits(error: ErrorCode) -> None:
    del error
