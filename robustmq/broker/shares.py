"""Shared subscriptions on a core: the groups that it leads, and its sessions' memberships."""

from collections.abc import Callable
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.batch import cut, gather
from robustmq._kernel.fanout import Group, Route
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric
from robustmq.broker.subscriptions import Subscriptions, Tap
from robustmq.shard.share_group import ShareGroup

KEY_SHIFT: Final = 48
"""A session's key has its home core in the bits from here on."""

Want = Callable[[bytes, Callable[[], None]], None]


class _Led:
    """A group that this core leads; `joining` waits until its filter is settled everywhere."""

    def __init__(self, group: ShareGroup, tap: Tap) -> None:
        self.group = group
        self.tap = tap
        self.settled = False
        self.joining: list[tuple[int, int]] = []


class _Membership:
    """One session's place in one group; it is the origin of the runs that came from there."""

    def __init__(self, window: Window, options: Options) -> None:
        self.window = window
        self.options = options
        self.route = Route([], [], 0, self)
        self.refresh()

    def refresh(self) -> None:
        """The session may speak another version of its protocol now."""
        options = self.options
        group = Group(
            self.window.version,
            options.qos,
            options.retain_as_published,
            False,
            options.identifier,
            [self.window],
        )
        self.route = Route([group], [], 0, self)


class _Join(NamedTuple):
    """A join that its group's leader has not answered."""

    member: int
    key: bytes
    reply: Callable[[], None]


class Shares:
    """Leads groups by key, `group NUL filter`, and keeps the memberships of this core."""

    def __init__(
        self,
        turn: Turn,
        *,
        placement: Placement,
        fabric: Fabric,
        subscriptions: Subscriptions,
        max_pending: int,
    ) -> None:
        self._turn = turn
        self._placement = placement
        self._fabric = fabric
        self._subscriptions = subscriptions
        self._max_pending = max_pending
        self._led: dict[bytes, _Led] = {}
        self._memberships: dict[tuple[int, bytes], _Membership] = {}
        self._groups_of: dict[int, list[bytes]] = {}
        self._joins: dict[int, _Join] = {}
        self._last_call = 0
        self.want: Want
        self.unwant: Callable[[bytes], None]

    # ------------------------------------------------------------------ the member's core

    def join(
        self,
        window: Window,
        group: bytes,
        topic_filter: bytes,
        options: Options,
        reply: Callable[[], None],
    ) -> None:
        """Make a session a member; `reply` when nothing that is published later is missed."""
        key = group_key(group, topic_filter)
        known = self._memberships.get((window.key, key))
        if known is None:
            self._groups_of.setdefault(window.key, []).append(key)
            self._memberships[window.key, key] = _Membership(window, options)
        else:
            known.options = options
            known.refresh()
        self._last_call += 1
        self._joins[self._last_call] = _Join(window.key, key, reply)
        self._send_join(self._last_call, window, key)

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        """End a membership and give back what may go to the others."""
        self._end(window, group_key(group, topic_filter))

    def _end(self, window: Window, key: bytes) -> None:
        membership = self._memberships.pop((window.key, key), None)
        if membership is None:
            return
        keys = self._groups_of[window.key]
        keys.remove(key)
        if not keys:
            del self._groups_of[window.key]
        self._fabric.send(self._placement.group_core(key), frames.leave(window.key, key))
        self._give_back(membership, key)

    def ready(self, window: Window, ready: bool) -> None:
        """The client of a session has come or gone; while it is gone others take its share."""
        for key in self._groups_of.get(window.key, ()):
            membership = self._memberships[window.key, key]
            membership.refresh()
            self._send_join(0, window, key)
            if not ready:
                self._give_back(membership, key)

    def _send_join(self, call: int, window: Window, key: bytes) -> None:
        frame = frames.join(call, window.key, window.outbox is not None, key)
        self._fabric.send(self._placement.group_core(key), frame)

    def _give_back(self, membership: _Membership, key: bytes) -> None:
        leader = self._placement.group_core(key)
        for run, index in membership.window.withdraw(membership):
            assert run.source is not None, "a run with an origin has a source"
            batch, start, skipped = run.source
            raw = cut(batch, start, skipped + index + 1)[-1]
            self._fabric.send(leader, frames.give_back(key, gather(batch, [raw])))

    def joined(self, call: int) -> None:
        """The leader has answered a join."""
        join = self._joins.pop(call, None)
        if join is not None:
            join.reply()

    def assigned(self, member: int, key: bytes, batch: bytes) -> None:
        """The leader has chosen a session of this core for these records."""
        membership = self._memberships.get((member, key))
        leader = self._placement.group_core(key)
        if membership is None:
            # The leader may know the member from an earlier life of this core.
            self._fabric.send(leader, frames.leave(member, key))
            self._fabric.send(leader, frames.give_back(key, batch))
        elif membership.window.outbox is None:
            self._fabric.send(leader, frames.give_back(key, batch))
        else:
            self._subscriptions.fanout.deliver_to(membership.route, batch)

    # ------------------------------------------------------------------ the leading core

    def on_join(self, source: int, call: int, member: int, ready: bool, key: bytes) -> None:
        """A core adds a member, or says whether it is ready."""
        led = self._led.get(key)
        if led is None:
            led = self._lead(key)
        led.group.join(member, ready)
        if call:
            if led.settled:
                self._fabric.send(source, frames.joined(call))
            else:
                led.joining.append((source, call))
        for waiting in led.group.take_waiting():
            self._share(key, led, waiting.batch, [waiting.raw])

    def on_leave(self, member: int, key: bytes) -> None:
        """A member is gone; with the last one the group ends."""
        led = self._led.get(key)
        if led is not None:
            led.group.leave(member)
            self._end_if_empty(key, led)

    def on_return(self, key: bytes, batch: bytes) -> None:
        """A member that left had these records; somebody else takes them."""
        led = self._led.get(key)
        if led is not None:
            count = int.from_bytes(batch[57:61], "big")
            self._share(key, led, batch, cut(batch, 61, count))

    def drop_core(self, core: int) -> None:
        """A core was replaced: its members are gone, and the groups that it led start anew."""
        for key, led in list(self._led.items()):
            for member in led.group.members:
                if member >> KEY_SHIFT == core:
                    led.group.leave(member)
            led.joining = [waiting for waiting in led.joining if waiting[0] != core]
            self._end_if_empty(key, led)
        for (_, key), membership in self._memberships.items():
            if self._placement.group_core(key) == core:
                self._send_join(0, membership.window, key)
        for call, join in list(self._joins.items()):
            if self._placement.group_core(join.key) == core:
                self._repeat(call, join)

    def _repeat(self, call: int, join: _Join) -> None:
        """Ask again for an answer that was lost; a session that has left needs none."""
        membership = self._memberships.get((join.member, join.key))
        if membership is None:
            self.joined(call)
        else:
            self._send_join(call, membership.window, join.key)

    def _lead(self, key: bytes) -> _Led:
        topic_filter = filter_of(key)

        def tap(batch: bytes, start: int, _stop: int, count: int) -> None:
            self._share(key, led, batch, cut(batch, start, count))

        led = self._led[key] = _Led(ShareGroup(self._max_pending), tap)
        self._subscriptions.tap(topic_filter, tap)

        def settled() -> None:
            led.settled = True
            for source, call in led.joining:
                self._fabric.send(source, frames.joined(call))
            led.joining.clear()

        self.want(topic_filter, settled)
        self._turn.row[metrics.SHARED_GROUPS] = len(self._led)
        return led

    def _end_if_empty(self, key: bytes, led: _Led) -> None:
        if len(led.group) == 0:
            del self._led[key]
            topic_filter = filter_of(key)
            self._subscriptions.untap(topic_filter, led.tap)
            self.unwant(topic_filter)
            self._turn.row[metrics.SHARED_GROUPS] = len(self._led)

    def _share(self, key: bytes, led: _Led, batch: bytes, raws: list[bytes]) -> None:
        dropped = led.group.dropped
        for member, share in led.group.share(batch, raws).items():
            self._fabric.send(member >> KEY_SHIFT, frames.assign(member, key, gather(batch, share)))
        self._turn.row[metrics.MESSAGES_DROPPED_QUEUE] += led.group.dropped - dropped


def group_key(group: bytes, topic_filter: bytes) -> bytes:
    """The key of a group: its name and its filter, which cannot contain NUL."""
    return group + b"\0" + topic_filter


def filter_of(key: bytes) -> bytes:
    """Return the filter of the group with this key."""
    return key.split(b"\0", 1)[1]
