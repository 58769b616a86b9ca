"""The memberships of this core's sessions in shared subscriptions, and what they were given.

What a member of a durable group is given lies in a log of the inbox that only its session reads,
until it is acknowledged or goes back to the leader. Row `F` NUL `m` member, group key -> that log.
"""

from collections.abc import Callable
from typing import Final

from robustmq._kernel.batch import cut, gather
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.cursor import Unsent
from robustmq.broker.cursors import Cursors
from robustmq.broker.exchanges import EXCHANGE_KEY
from robustmq.broker.filter_log import LAST
from robustmq.broker.handovers import LEADER, Handovers
from robustmq.broker.inbox import Inbox, Row
from robustmq.broker.membership import MEMBER_LOGS, Given, Join, Membership, member_of
from robustmq.broker.placement import Placement
from robustmq.broker.route import route_to
from robustmq.broker.router import Fabric
from robustmq.broker.share_leads import ShareLeads, group_key
from robustmq.broker.state import State
from robustmq.broker.subscriptions import Subscriptions
from robustmq.message.batch import count_of
from robustmq.policy.shared_groups import SharedGroups

KEY_SHIFT: Final = 48
"""A new session's key has its home core in the bits from here on."""
_MOST: Final = 4_000
"""Messages that a member has at a time; then the others take its share until it has half of it."""
_MOST_BYTES: Final = 4 << 20
_UNKNOWN: Final = -1


class Shares:
    """Keeps the memberships of this core; `leads` are the groups that it leads."""

    def __init__(
        self,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        subscriptions: Subscriptions,
        leads: ShareLeads,
        handovers: Handovers,
        inbox: Inbox,
        cursors: Cursors,
        state: State,
        groups: SharedGroups,
        most: int = _MOST,
    ) -> None:
        self.leads = leads
        self._most = min(_MOST, most)
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._subscriptions = subscriptions
        self._handovers = handovers
        self._inbox = inbox
        self._cursors = cursors
        self._state = state
        self._memberships: dict[tuple[int, bytes], Membership] = {}
        self._groups_of: dict[int, list[bytes]] = {}
        self._joins: dict[int, Join] = {}
        self._last_call = 0
        self._given: dict[int, dict[bytes, Given]] = {}
        self._returning: dict[Given, int] = {}
        self._watched: set[Given] = set()
        self._groups = groups
        self._reported: dict[tuple[int, bytes], int] = {}
        handovers.take = self._take
        handovers.reroute = self._return
        leads.joined = self._send_joined

    # ------------------------------------------------------------------ memberships

    def join(
        self,
        window: Window,
        group: bytes,
        topic_filter: bytes,
        options: Options,
        reply: Callable[[], None],
    ) -> None:
        """Make a session a member; `reply` when nothing that is published later is missed."""
        key = self.restore_member(window, group, topic_filter, options)
        self._ask(window.key, key, reply)

    def _ask(self, member: int, key: bytes, reply: Callable[[], None] | None) -> None:
        self._last_call += 1
        leader = self._memberships[member, key].leader
        self._joins[self._last_call] = Join(leader, member, key, reply)
        self._send_join(self._last_call, member, key)

    def restore_member(
        self, window: Window, group: bytes, topic_filter: bytes, options: Options
    ) -> bytes:
        """A session is a member; after a restart its leader is told with all the others."""
        key = group_key(group, topic_filter)
        known = self._memberships.get((window.key, key))
        if known is None:
            self._groups_of.setdefault(window.key, []).append(key)
            leader = self._placement.group_core(key)
            known = self._memberships[window.key, key] = Membership(window, options, leader)
            known.is_measured = self._groups.strategy(group) == "least_inflight"
        else:
            known.options = options
            known.refresh()
        given = self._given_to(window.key, key)
        if given is not None:
            given.left = False
            self._cursors.subscribe(window, given.name, options, 0)
        return key

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        """End a membership and give back what may go to the others."""
        key = group_key(group, topic_filter)
        membership = self._memberships.pop((window.key, key), None)
        if membership is None:
            return
        keys = self._groups_of[window.key]
        keys.remove(key)
        if not keys:
            del self._groups_of[window.key]
        for leader in (membership.leader, *membership.former):
            self._send_leave(leader, window.key, key)
        self._return_live(membership, key)
        given = self._given_to(window.key, key)
        if given is not None:
            given.left = True
            self._return_later(given)

    def ready(self, window: Window, ready: bool) -> None:
        """The client of a session has come or gone; while it is gone others take its share."""
        for key in self._groups_of.get(window.key, ()):
            membership = self._memberships[window.key, key]
            membership.refresh()
            self._send_join(0, window.key, key)
            if not ready:
                self._return_live(membership, key)
        if not ready:
            for given in self._given.get(window.key, {}).values():
                self._return_later(given)

    def dropped(self, window: Window) -> None:
        """The session ends: what was sent at QoS 2 is nobody's any more (MQTT5 4.8.2)."""
        for given in self._given.get(window.key, {}).values():
            given.withdrawn = _withdraw(given)
            given.unsent = self._cursors.unsent(window)._replace(flying=set())
            given.window = None
            self._return_later(given)

    def _send_join(self, call: int, member: int, key: bytes) -> None:
        membership = self._memberships[member, key]
        durable = membership.window in self._cursors and membership.options.qos > 0
        ready = membership.is_ready
        for leader in (membership.leader, *membership.former):
            answer = call if leader == membership.leader else 0
            if leader == self._core:
                self.leads.on_join(self._core, answer, member, ready, durable, key)
            else:
                self._fabric.send(leader, frames.join(answer, member, ready, durable, key))

    def _send_leave(self, leader: int, member: int, key: bytes) -> None:
        if leader == self._core:
            self.leads.on_leave(self._core, member, key)
        else:
            self._fabric.send(leader, frames.leave(member, key))

    def _send_joined(self, core: int, call: int) -> None:
        if core == self._core:
            self.joined(call)
        else:
            self._fabric.send(core, frames.joined(call))

    def joined(self, call: int) -> None:
        """The leader has answered a join."""
        join = self._joins.pop(call, None)
        if join is None:
            return
        if join.reply is not None:
            join.reply()
            return
        membership = self._memberships.get((join.member, join.key))
        if membership is not None and membership.leader == join.core:
            former, membership.former = membership.former, set()
            for leader in former:
                self._send_leave(leader, join.member, join.key)

    # ------------------------------------------------------------------ loads

    def _count(self, member: int, key: bytes, membership: Membership, batch: bytes) -> None:
        """A member was given something, which its leader wants to hear when it goes by loads."""
        if membership.is_measured:
            membership.received += count_of(batch)
            self._reported[member, key] = _UNKNOWN

    def report(self) -> None:
        """Once a turn: tell leaders what their members have, until it is nothing."""
        for (member, key), reported in list(self._reported.items()):
            membership = self._memberships.get((member, key))
            load = 0 if membership is None else self._load(membership, self._given_to(member, key))
            if not load:
                del self._reported[member, key]
            if membership is None or load == reported:
                continue
            if load:
                self._reported[member, key] = load
            if membership.leader == self._core:
                self.leads.on_load(self._core, member, membership.received, load, key)
            else:
                frame = frames.load(member, membership.received, load, key)
                self._fabric.send(membership.leader, frame)

    @staticmethod
    def _load(membership: Membership, given: Given | None) -> int:
        if given is not None:
            return given.log.messages
        return membership.window.in_flight + membership.window.queued

    # ------------------------------------------------------------------ what is not kept

    def assigned(self, source: int, member: int, key: bytes, batch: bytes) -> None:
        """A leader has chosen a session of this core for these records."""
        membership = self._memberships.get((member, key))
        if membership is None:
            # The leader may know the member from an earlier life of this core.
            self._fabric.send(source, frames.leave(member, key))
            self._fabric.send(source, frames.give_back(key, batch))
        elif membership.window.outbox is None:
            self._fabric.send(source, frames.give_back(key, batch))
        else:
            self._count(member, key, membership, batch)
            self._subscriptions.fanout.deliver_to(membership.route, batch)

    def _return_live(self, membership: Membership, key: bytes) -> None:
        leader = membership.leader
        for run, index in membership.window.withdraw(membership):
            assert run.source is not None, "a run with an origin has a source"
            batch, start, skipped = run.source
            raw = cut(batch, start, skipped + index + 1)[-1]
            self._fabric.send(leader, frames.give_back(key, gather(batch, [raw])))

    # ------------------------------------------------------------------ what is kept

    def _take(self, member: int, key: bytes, batch: bytes) -> None:
        """Take over what another core hands over, for the group that is led here or a member."""
        if member == LEADER:
            self.leads.given_back(key, batch)
            return
        membership = self._memberships.get((member, key))
        if membership is None or membership.window.outbox is None:
            self._return(key, batch)
            return
        self._count(member, key, membership, batch)
        if not membership.options.qos:
            self._subscriptions.fanout.deliver_to(membership.route, batch)
        else:
            given = self._given_to(member, key) or self._open(member, key, membership)
            route = route_to(membership.window, membership.options, given)
            self._cursors.keep_for(route, [given.log], batch)
            if given.log.messages > self._most or given.log.size > _MOST_BYTES:
                self._watched.add(given)
                if not membership.is_full:
                    membership.is_full = True
                    self._send_join(0, member, key)

    def _return(self, key: bytes, batch: bytes) -> None:
        self._handovers.send(self._placement.group_core(key), LEADER, key, batch)

    def _given_to(self, member: int, key: bytes) -> Given | None:
        return self._given.get(member, {}).get(key)

    def _open(self, member: int, key: bytes, membership: Membership) -> Given:
        window = membership.window
        self._cursors.admit(window)
        given = Given(member, key, window)
        given.log = self._cursors.subscribe(window, given.name, membership.options, 0, given)
        self._given.setdefault(member, {})[key] = given
        return given

    def _return_later(self, given: Given) -> None:
        """Give back when all that was put so far can be read."""
        state = self._state
        self._returning[given] = state.next_commit - (not state.is_midway)

    @property
    def is_active(self) -> bool:
        """Whether something waits to be given back; what is watched changes with a commit only."""
        return bool(self._returning)

    def settle(self) -> None:
        """After a commit, and after what it made durable was given out: give back."""
        for given, commit in list(self._returning.items()):
            if commit <= self._state.durable:
                del self._returning[given]
                self._give_back(given)
        for given in list(self._watched):
            self._look_after(given)

    def _give_back(self, given: Given) -> None:
        window = given.window
        is_connected = window is not None and window.outbox is not None
        if is_connected and not given.left:
            return
        withdrawn = given.withdrawn or _withdraw(given)
        unsent = given.unsent
        if unsent is None:
            assert window is not None, "a session that has ended has left what it was"
            unsent = self._cursors.unsent(window)

        def stay(row: Row) -> list[int]:
            back, rest = [], []
            for each in range(row.position, row.stop):
                if each in withdrawn or (each >= unsent.first and each not in unsent.sent):
                    back.append(each)
                elif is_connected or each in unsent.flying:
                    rest.append(each)
            if back:
                self._return(given.key, row.only(back))
            return rest

        self._inbox.sift(given.log, stay)
        if not given.log.messages:
            self._close(given)
        elif given.left:
            self._watched.add(given)

    def _close(self, given: Given) -> None:
        """Its log is empty, and nobody is owed anything by it."""
        self._watched.discard(given)
        self._returning.pop(given, None)
        mine = self._given[given.member]
        del mine[given.key]
        if not mine:
            del self._given[given.member]
        if given.window is None:
            self._inbox.remove(given.name)
        else:
            self._cursors.unsubscribe(given.window, given.name)
        membership = self._memberships.get((given.member, given.key))
        if membership is not None and membership.is_full:
            membership.is_full = False
            self._send_join(0, given.member, given.key)

    def _look_after(self, given: Given) -> None:
        """See whether a member can take more again, or an old log can go."""
        membership = self._memberships.get((given.member, given.key))
        log = given.log
        if membership is not None and membership.is_full:
            if log.messages <= self._most // 2 and log.size <= _MOST_BYTES // 2:
                membership.is_full = False
                self._send_join(0, given.member, given.key)
        elif membership is not None and membership.window.outbox is not None:
            self._watched.discard(given)
        elif not log.messages and given not in self._returning:
            self._close(given)

    # ------------------------------------------------------------------ lives

    def restore(self) -> None:
        """After a restart, when the sessions are back, before their exchanges are."""
        self._handovers.restore()
        self.leads.restore()
        names = self._inbox.names(MEMBER_LOGS)
        windows = self._cursors.durable_windows() if names else {}
        for name in names:
            member, key = member_of(name)
            window = windows.get(member)
            given = Given(member, key, window)
            self._given.setdefault(member, {})[key] = given
            if window is None:
                given.log = self._inbox.log(name)
                given.unsent = Unsent(0, self._exchanges_of(member), set())
            else:
                membership = self._memberships.get((member, key))
                given.left = membership is None
                options = membership.options if membership is not None else Options(2)
                given.log = self._cursors.subscribe(window, name, options, 0, given)

    def _exchanges_of(self, member: int) -> set[int]:
        rows = self._state.walk(
            EXCHANGE_KEY.pack(b"X", member, 0), EXCHANGE_KEY.pack(b"X", member, LAST)
        )
        return {EXCHANGE_KEY.unpack(key)[2] for key, _ in rows}

    def start(self) -> None:
        """All is restored: give back what nobody here can be given now."""
        for (_, key), membership in self._memberships.items():
            # Which nodes are live was not known when it was restored.
            membership.leader = self._placement.group_core(key)
        self._handovers.look()
        for mine in list(self._given.values()):
            for given in list(mine.values()):
                self._give_back(given)
        self.tell(self._core)
        self.leads.told(self._core)

    def tell(self, core: int) -> None:
        """Tell a core of the members of the groups that it leads, and hand over what it lacks."""
        for (member, key), membership in self._memberships.items():
            if membership.leader == core:
                membership.received = 0
                self._send_join(0, member, key)
        self._handovers.resend(core)

    def drop_core(self, core: int) -> None:
        """A core was replaced: what it had not answered is asked again."""
        self._handovers.drop_core(core)
        self.leads.drop_core(core)
        self._repeat(core)

    def _repeat(self, core: int) -> None:
        """Ask again for answers of a core that were lost; a session that has left needs none."""
        for call, join in list(self._joins.items()):
            if join.core != core:
                continue
            membership = self._memberships.get((join.member, join.key))
            if membership is not None:
                self._joins[call] = join._replace(core=membership.leader)
                self._send_join(call, join.member, join.key)
            else:
                self.joined(call)

    def departed(self, core: int) -> None:
        """A core is gone with its node; `placed` follows."""
        self._handovers.departed(core)
        self.leads.departed(core)

    def placed(self, awaited: set[int]) -> None:
        """Other cores may lead what others did: tell the new ones of the members here.

        A leader that is there still leads on until the new one misses nothing. `awaited` have not
        told of theirs by the same placement.
        """
        self.leads.placed(awaited)
        self._handovers.look()
        gone = {join.core for join in self._joins.values()}
        for (member, key), membership in list(self._memberships.items()):
            leader = self._placement.group_core(key)
            if leader != membership.leader:
                self._move(member, key, membership, leader)
        for core in gone:
            if not self._placement.is_live(core):
                self._repeat(core)
        self.leads.end_empty()

    def _move(self, member: int, key: bytes, membership: Membership, leader: int) -> None:
        former = {membership.leader, *membership.former}
        membership.former = {each for each in former if self._placement.is_live(each)} - {leader}
        membership.leader = leader
        membership.received = 0
        if membership.former:
            self._ask(member, key, None)
        else:
            self._send_join(0, member, key)


def _withdraw(given: Given) -> set[int]:
    """Take what may go to others out of the window; returns its positions."""
    if given.window is None:
        return set()
    return {run.position + index for run, index in given.window.withdraw(given)}
