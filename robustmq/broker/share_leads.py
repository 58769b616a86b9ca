"""The shared groups that a core leads: who takes what, and what waits for somebody who can.

A core leads whatever group members ask it to lead, because they may know earlier than it does
that it is the leader, and until they have left: then it passes on what waits to the leader that
the placement names.

A group with a durable member has a log in the inbox, so that what its publishers were told to be
safe outlives this core. Row `F` NUL `g` group key -> the number of that log: the group's only row.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq._kernel.batch import cut, gather, records
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.filter_log import FilterLog, GroupLog
from robustmq.broker.handovers import LEADER, Handovers
from robustmq.broker.inbox import Inbox
from robustmq.broker.placement import MEMBERSHIP, Placement
from robustmq.broker.router import Fabric
from robustmq.broker.state import State
from robustmq.broker.subscriptions import Sharing, Subscriptions, Tap
from robustmq.message.batch import HEADER, count_of
from robustmq.message.core_number import FIRST_REMOTE
from robustmq.message.record import client_of
from robustmq.policy.shared_groups import SharedGroups
from robustmq.shard.share_group import ShareGroup
from robustmq.shard.share_strategy import Shares, make

GROUP_LOGS: Final = b"\0g"
"""The names of groups' logs begin so, which no filter does."""
_PAGE: Final = 1_000
"""Records of a group's log that are given to members in one turn."""
_ANYWHERE: Final = -1
_KEY_BITS: Final = 64
_KEY: Final = (1 << _KEY_BITS) - 1
"""In the place of the publisher's core: it is not known any more."""

Want = Callable[[bytes, Callable[[], None]], None]


class Led:
    """A group that this core leads; `joining` waits until its filter is settled everywhere.

    `log` is that of a durable group; `cores` are the homes of the members (see `_member`),
    `unconfirmed` those members whose core was replaced and has not told of them again.
    """

    def __init__(self, group: ShareGroup) -> None:
        self.group = group
        self.log: FilterLog | None = None
        self.cores: dict[int, int] = {}
        self.unconfirmed: set[int] = set()
        self.unsettled = 0
        self.joining: list[tuple[int, int]] = []
        self.tap: Tap
        self.sharing: Sharing

    def leave(self, member: int) -> None:
        """A member is gone."""
        self.group.leave(member)
        self.cores.pop(member, None)
        self.unconfirmed.discard(member)


class ShareLeads:
    """Leads groups by key, `group NUL filter`."""

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        subscriptions: Subscriptions,
        handovers: Handovers,
        inbox: Inbox,
        state: State,
        max_pending: int,
        groups: SharedGroups,
        chance: Callable[[int], int],
    ) -> None:
        self._turn = turn
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._subscriptions = subscriptions
        self._handovers = handovers
        self._inbox = inbox
        self._state = state
        self._max_pending = max_pending
        self._groups = groups
        self._chance = chance
        self.led: dict[bytes, Led] = {}
        self._behind: set[bytes] = set()
        self._passed_on: dict[bytes, FilterLog] = {}
        """Logs of groups that others lead now, on their way to them."""
        self._awaited: set[int] = set()
        self.joined: Callable[[int, int], None]
        self.want: Want
        self.unwant: Callable[[bytes], None]

    # ------------------------------------------------------------------ members

    def on_join(  # noqa: PLR0917
        self, source: int, call: int, member: int, ready: bool, durable: bool, key: bytes
    ) -> None:
        """A core adds a member, or says whether it is ready."""
        member = _member(source, member)
        led = self.led.get(key)
        if led is None:
            led = self._lead(key, durable)
        elif durable and led.log is None:
            self._make_durable(key, led)
        led.group.join(member, ready, source)
        led.cores[member] = source
        led.unconfirmed.discard(member)
        if call:
            led.joining.append((source, call))
            self._answer(led)
        for waiting in led.group.take_waiting():
            self._share(key, led, waiting.batch, [waiting.raw])

    def on_leave(self, source: int, member: int, key: bytes) -> None:
        """A member is gone; with the last one the group ends."""
        led = self.led.get(key)
        if led is not None:
            led.leave(_member(source, member))
            self._end_if_empty(key, led)

    def on_load(
        self, source: int, member: int, received: int, outstanding: int, key: bytes
    ) -> None:
        """A member's core reports what it has."""
        led = self.led.get(key)
        if led is not None:
            led.group.strategy.report(_member(source, member), received, outstanding)

    def on_return(self, key: bytes, batch: bytes) -> None:
        """A member that left had these records; somebody else takes them."""
        led = self.led.get(key)
        leader = self._placement.group_core(key)
        if led is None and leader != self._core:
            self._fabric.send(leader, frames.give_back(key, batch))
            return
        if led is None and self._awaited:
            # Members may be on their way to here.
            led = self._lead(key, False)
        if led is not None:
            self._share(key, led, batch, cut(batch, HEADER, count_of(batch)))

    def given_back(self, key: bytes, batch: bytes) -> None:
        """As `on_return`, of what a durable group must not lose."""
        led = self.led.get(key)
        leader = self._placement.group_core(key)
        if led is None and leader != self._core:
            self._handovers.send(leader, LEADER, key, batch)
            return
        if self._awaited:
            # Whether it is durable is not known before all members are.
            led = self._lead(key, True) if led is None else self._make_durable(key, led)
        if led is None:
            return
        if led.log is None:
            self.on_return(key, batch)
        else:
            self._behind.add(key)
            self._inbox.keep([led.log], batch, HEADER, len(batch), count_of(batch))

    def drop_core(self, core: int) -> None:
        """A core was replaced: it will tell again which members it has."""
        self._awaited.add(core)
        for led in self.led.values():
            for member, home in led.cores.items():
                if home == core:
                    led.group.join(member, False)
                    led.group.strategy.forget(member)
                    led.unconfirmed.add(member)
            led.joining = [waiting for waiting in led.joining if waiting[0] != core]

    def departed(self, core: int) -> None:
        """A core is gone with its node, and its members with it; `placed` follows."""
        for led in self.led.values():
            for member in [each for each, home in led.cores.items() if home == core]:
                led.leave(member)
            led.joining = [waiting for waiting in led.joining if waiting[0] != core]

    def placed(self, awaited: set[int]) -> None:
        """Other cores may lead what others did; `awaited` have not told by the same placement."""
        self._awaited = set(awaited)

    def told(self, core: int) -> None:
        """A core has told of all its members: those that it has not named are gone."""
        self._awaited.discard(core)
        for led in self.led.values():
            for member in [each for each in led.unconfirmed if led.cores[each] == core]:
                led.leave(member)
        self.end_empty()

    def end_empty(self) -> None:
        """End all groups that have no member."""
        for key, led in list(self.led.items()):
            self._end_if_empty(key, led)

    def restore(self) -> None:
        """After a restart: lead the durable groups of the last life, until all have told."""
        self._awaited = set(self._placement.cores)
        if not self._placement.is_known:
            self._awaited.add(MEMBERSHIP)
        for name in self._inbox.names(GROUP_LOGS):
            key = name[len(GROUP_LOGS) :]
            led = self._new(key)
            led.log = self._inbox.log(name, GroupLog)
            self._subscriptions.share(filter_of(key), led.sharing)
            self._behind.add(key)

    # ------------------------------------------------------------------ the group

    def _new(self, key: bytes) -> Led:
        strategy = make(self._groups.strategy(name_of(key)), self._chance)
        led = self.led[key] = Led(ShareGroup(self._max_pending, strategy))

        def tap(batch: bytes, start: int, _stop: int, count: int) -> None:
            source = self._subscriptions.source
            self._share(key, led, batch, cut(batch, start, count), source)

        led.tap = tap
        led.sharing = Sharing(partial(self._take, key, led), tap)
        self._turn.row[metrics.SHARED_GROUPS] = len(self.led)
        return led

    def _lead(self, key: bytes, durable: bool) -> Led:
        led = self._new(key)
        if durable:
            self._keep(key, led)
        else:
            self._subscriptions.tap(filter_of(key), led.tap)
            self._settle(key, led)
        return led

    def _make_durable(self, key: bytes, led: Led) -> Led:
        if led.log is None:
            self._subscriptions.untap(filter_of(key), led.tap)
            self._keep(key, led)
        return led

    def _keep(self, key: bytes, led: Led) -> None:
        """From now on nothing that the group is owed may be lost."""
        self._passed_on.pop(key, None)
        led.log = self._inbox.log(GROUP_LOGS + key, GroupLog)
        self._subscriptions.share(filter_of(key), led.sharing)
        self._settle(key, led)

    def _settle(self, key: bytes, led: Led) -> None:
        led.unsettled += 1

        def settled() -> None:
            led.unsettled -= 1
            self._answer(led)

        self.want(filter_of(key), settled)

    def _answer(self, led: Led) -> None:
        """Tell those who have joined, when nothing can be missed any more."""
        if led.unsettled:
            return
        for source, call in led.joining:
            answer = partial(self.joined, source, call)
            if led.log is None:
                answer()
            else:
                self._state.then(answer)
        led.joining.clear()

    def _end_if_empty(self, key: bytes, led: Led) -> None:
        if len(led.group) or self._awaited:
            return
        del self.led[key]
        self._behind.discard(key)
        topic_filter = filter_of(key)
        if led.log is None:
            self._subscriptions.untap(topic_filter, led.tap)
        else:
            self._subscriptions.unshare(topic_filter, led.sharing)
        self._pass_on(key, led)
        self.unwant(topic_filter)
        self._turn.row[metrics.SHARED_GROUPS] = len(self.led)

    def _pass_on(self, key: bytes, led: Led) -> None:
        """A group has ended here: what waits goes to its leader, or nobody is owed it."""
        leader = self._placement.group_core(key)
        if leader != self._core:
            for batch, raw in led.group.withdraw():
                self._fabric.send(leader, frames.give_back(key, gather(batch, [raw])))
            if led.log is not None:
                self._passed_on[key] = led.log
        elif led.log is not None:
            self._inbox.remove(GROUP_LOGS + key)

    def _pass_on_logs(self) -> None:
        for key, log in list(self._passed_on.items()):
            leader = self._placement.group_core(key)
            if leader == self._core:
                self._take_back(key)
                continue
            for row in self._inbox.take(log):
                self._handovers.send(leader, LEADER, key, row.batch)
                if self._handovers.full:
                    return
            if not self._inbox.waiting(log):
                del self._passed_on[key]
                self._inbox.remove(GROUP_LOGS + key)

    def _take_back(self, key: bytes) -> None:
        """The lead has come back while the log went away."""
        del self._passed_on[key]
        led = self.led.get(key)
        if led is not None:
            self._make_durable(key, led)
        elif self._awaited:
            self._lead(key, True)
        else:
            self._inbox.remove(GROUP_LOGS + key)
            return
        self._behind.add(key)

    # ------------------------------------------------------------------ messages

    def _share(
        self, key: bytes, led: Led, batch: bytes, raws: list[bytes], source: int = _ANYWHERE
    ) -> None:
        dropped = led.group.dropped
        for member, share in _divide(led.group, batch, raws, source).items():
            frame = frames.assign(member & _KEY, key, gather(batch, share))
            self._fabric.send(led.cores[member], frame)
        self._turn.row[metrics.MESSAGES_DROPPED_QUEUE] += led.group.dropped - dropped

    def _take(  # noqa: PLR0917
        self, key: bytes, led: Led, batch: bytes, start: int, stop: int, count: int
    ) -> FilterLog | None:
        """Hand a run over to members; when it has to wait, return the log where it does."""
        del stop
        assert led.log is not None, "a group that takes is durable"
        if self._inbox.waiting(led.log) or self._handovers.full or not led.group.has_ready:
            self._behind.add(key)
            return led.log
        self._hand(key, led, batch, cut(batch, start, count), self._subscriptions.source)
        return None

    def _hand(
        self, key: bytes, led: Led, batch: bytes, raws: list[bytes], source: int = _ANYWHERE
    ) -> None:
        for member, share in _divide(led.group, batch, raws, source).items():
            self._handovers.send(led.cores[member], member & _KEY, key, gather(batch, share))

    @property
    def busy(self) -> bool:
        """Whether something that waits can be taken."""
        ready = bool(self._passed_on) or any(self.led[key].group.has_ready for key in self._behind)
        return ready and self._can_go_on

    @property
    def _can_go_on(self) -> bool:
        state = self._state
        return not (self._handovers.full or state.is_pending) and state.refusal is None

    def run(self) -> None:
        """Once a turn: give members a page of what waits."""
        if not ((self._behind or self._passed_on) and self._can_go_on):
            return
        self._pass_on_logs()
        for key in list(self._behind):
            led = self.led[key]
            if led.log is None or not self._inbox.waiting(led.log):
                self._behind.discard(key)
            elif led.group.has_ready:
                self._give_page(key, led, led.log)

    def _give_page(self, key: bytes, led: Led, log: FilterLog) -> None:
        left = _PAGE
        for row in self._inbox.take(log):
            self._hand(key, led, row.batch, cut(row.batch, HEADER, row.records))
            left -= row.records
            if left <= 0 or self._handovers.full or not led.group.has_ready:
                return


def _member(source: int, key: int) -> int:
    """The number of a member here: keys of sessions are told apart by their node."""
    return key if source < FIRST_REMOTE else source << _KEY_BITS | key


def group_key(group: bytes, topic_filter: bytes) -> bytes:
    """The key of a group: its name and its filter, which cannot contain NUL."""
    return group + b"\0" + topic_filter


def name_of(key: bytes) -> bytes:
    """Return the name of the group with this key."""
    return key.split(b"\0", 1)[0]


def _divide(group: ShareGroup, batch: bytes, raws: list[bytes], source: int) -> Shares:
    """Let a group divide records of a batch, by what its strategy wants to know of them."""
    by = group.strategy.by
    if not by:
        return group.share(batch, raws, home=source)
    fields = records(gather(batch, raws))
    if by == "topic":
        keys = [record[3] or b"" for record in fields]
    else:
        keys = [client_of(record[5]) for record in fields]
    return group.share(batch, raws, keys)


def filter_of(key: bytes) -> bytes:
    """Return the filter of the group with this key."""
    return key.split(b"\0", 1)[1]
