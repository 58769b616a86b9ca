"""The subscriber's side of a core: filters of its sessions, and the route of each topic."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

from robustmq._kernel.fanout import Fanout, Group, Route
from robustmq._kernel.trie import Trie
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import topic_cache
from robustmq.broker.api import Options
from robustmq.broker.cursor import Take
from robustmq.broker.cursors import Cursors
from robustmq.broker.filter_log import FilterLog
from robustmq.broker.members import (
    Members,
    each_member,
    is_member,
    with_member,
    without_member,
)
from robustmq.broker.overlap import copies
from robustmq.broker.placement import Placement
from robustmq.message.batch import qos_of
from robustmq.message.topic import is_wildcard
from robustmq.policy.topic_rules import TopicRules

_T = TypeVar("_T")

Tap: TypeAlias = Callable[[bytes, int, int, int], object]
"""Called with (batch, start, stop, count) of a run of one topic: byte positions, and records."""

Describe: TypeAlias = Callable[[bytes, int], tuple[bytes, int, int]]
"""(header block, protocol version) -> (properties, deadline in ms or 0, publisher or 0)."""


class Sharing(NamedTuple):
    """A shared group with durable members: it takes what must not be lost, and taps the rest."""

    take: Take
    tap: Tap


class _Alike(NamedTuple):
    """What subscribers have in common for whom a message is encoded once (see `Group`)."""

    version: int
    qos: int
    retain_as_published: bool
    no_local: bool
    identifier: bytes
    stored: bool
    copy: int

    def group(self, windows: list[Window]) -> Group:
        """The group of those who have this in common."""
        return Group(*self[:5], windows, self.stored)


class _Unsettled(NamedTuple):
    """A subscription that `cores` do not know yet; `call` is what they will answer."""

    call: int
    cores: set[int]


class Subscriptions:
    """Who subscribes to what on this core; resolves a topic once into a kernel `Route`.

    A subscription hears nothing from a core that has not settled it: what is on its way from
    there until then may also be retained, and would arrive twice.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        placement: Placement,
        describe: Describe,
        rules: TopicRules,
        route_cache: int,
        max_topic_aliases: int,
        separate: bool = False,
    ) -> None:
        self.fanout = Fanout(turn, self._resolve, describe, route_cache)
        self.cursors: Cursors
        self._rules = rules
        self._placement = placement
        self.source = 0
        """The core that has published what is being delivered."""
        self._provisional: list[bytes] = []
        self._filters: dict[bytes, Members] = {}
        self._unsettled: dict[bytes, dict[Window, _Unsettled]] = {}
        self._taps: dict[bytes, list[Tap]] = {}
        self._sharing: dict[bytes, list[Sharing]] = {}
        self._wild: Trie[bytes] = Trie()
        self._aliases: dict[bytes, int] = {}
        self._max_aliases = max_topic_aliases
        self._separate = separate

    def deliver(self, source: int, batch: bytes) -> None:
        """Give every record that core `source` has sent to the subscribers of its topic."""
        self.source = source
        self.fanout.deliver(batch)
        while self._provisional:
            self.fanout.forget(self._provisional.pop())

    def add(
        self, window: Window, topic_filter: bytes, options: Options, call: int, start: int
    ) -> None:
        """Subscribe, or change the options of a subscription.

        A new one waits for each core to settle it with `call`, unless that is 0. That of a
        durable session begins at position `start` of the inbox.
        """
        members = self._filters.get(topic_filter)
        if members is None:
            self._add_filter(topic_filter)
        if options.qos and window in self.cursors:
            self.cursors.subscribe(window, topic_filter, options, start)
        else:
            self.cursors.unsubscribe(window, topic_filter)
        known = is_member(members, window)
        self._filters[topic_filter] = with_member(members, window, options)
        if known or not call:
            self.forget(topic_filter)
        else:
            self._unsettled.setdefault(topic_filter, {})[window] = _Unsettled(
                call, set(self._placement.cores)
            )

    def settle(self, window: Window, topic_filter: bytes, call: int, core: int) -> None:
        """A core has answered `call`: what it sends from now on is for this window too."""
        unsettled = self._unsettled.get(topic_filter)
        waiting = unsettled.get(window) if unsettled is not None else None
        if unsettled is None or waiting is None or waiting.call != call:
            return
        waiting.cores.discard(core)
        if not waiting.cores:
            self._end_wait(window, topic_filter, unsettled)
            self.cursors.caught_up(window)
        self.forget(topic_filter)

    def _end_wait(
        self, window: Window, topic_filter: bytes, unsettled: dict[Window, _Unsettled]
    ) -> None:
        if unsettled.pop(window, None) is not None and not unsettled:
            del self._unsettled[topic_filter]

    def has(self, window: Window, topic_filter: bytes) -> bool:
        """Say whether the window subscribes to the filter."""
        return is_member(self._filters.get(topic_filter), window)

    def remove(self, window: Window, topic_filter: bytes) -> None:
        """Take a subscription back; one that is not there changes nothing."""
        members = self._filters.get(topic_filter)
        if members is None or not is_member(members, window):
            return
        unsettled = self._unsettled.get(topic_filter)
        if unsettled is not None:
            self._end_wait(window, topic_filter, unsettled)
        self.cursors.unsubscribe(window, topic_filter)
        left = without_member(members, window)
        if left is None:
            del self._filters[topic_filter]
            self._discard_filter(topic_filter)
        else:
            self._filters[topic_filter] = left
        self.forget(topic_filter)

    def tap(self, topic_filter: bytes, tap: Tap) -> None:
        """Show every run that matches to a callable."""
        self._attach(self._taps, topic_filter, tap)

    def untap(self, topic_filter: bytes, tap: Tap) -> None:
        """Undo `tap`."""
        self._detach(self._taps, topic_filter, tap)

    def share(self, topic_filter: bytes, sharing: Sharing) -> None:
        """Give a durable shared group what matches."""
        self._attach(self._sharing, topic_filter, sharing)

    def unshare(self, topic_filter: bytes, sharing: Sharing) -> None:
        """Undo `share`."""
        self._detach(self._sharing, topic_filter, sharing)

    def _attach(self, places: dict[bytes, list[_T]], topic_filter: bytes, what: _T) -> None:
        known = places.setdefault(topic_filter, [])
        if not known:
            self._add_filter(topic_filter)
        known.append(what)
        self.forget(topic_filter)

    def _detach(self, places: dict[bytes, list[_T]], topic_filter: bytes, what: _T) -> None:
        known = places[topic_filter]
        known.remove(what)
        if not known:
            del places[topic_filter]
            self._discard_filter(topic_filter)
        self.forget(topic_filter)

    def is_wanted(self, topic_filter: bytes) -> bool:
        """Say whether this core needs what matches the filter."""
        return (
            topic_filter in self._filters
            or topic_filter in self._taps
            or topic_filter in self._sharing
        )

    def hears(self, window: Window, topic_filter: bytes) -> bool:
        """Say whether the window hears by this filter what is being delivered."""
        waiting = self._unsettled.get(topic_filter, {}).get(window)
        return waiting is None or self.source not in waiting.cores

    def is_durable(self, topic_filter: bytes) -> bool:
        """Say whether durable sessions are owed what matches the filter."""
        return self.cursors.log_of(topic_filter) is not None or topic_filter in self._sharing

    def filters(self) -> list[bytes]:
        """Every filter that this core needs."""
        return list(self._filters.keys() | self._taps.keys() | self._sharing.keys())

    def forget(self, topic_filter: bytes) -> None:
        """Resolve the topics of a filter anew: something about its subscribers has changed."""
        topic_cache.forget(self.fanout, self.fanout.routes, topic_filter)

    def _add_filter(self, topic_filter: bytes) -> None:
        if is_wildcard(topic_filter):
            self._wild.add(topic_filter, topic_filter)

    def _discard_filter(self, topic_filter: bytes) -> None:
        if not self.is_wanted(topic_filter) and is_wildcard(topic_filter):
            self._wild.discard(topic_filter, topic_filter)

    def _resolve(self, topic: bytes) -> Route:
        subscribers: dict[Window, list[Options]] = {}
        taps: list[Tap] = []
        sharing: list[Sharing] = []
        logs: list[FilterLog] = []
        unheard: set[Window] = set()
        for topic_filter in (topic, *self._wild.match(topic)):
            taps += self._taps.get(topic_filter, ())
            sharing += self._sharing.get(topic_filter, ())
            log = self.cursors.log_of(topic_filter)
            if log is not None:
                logs.append(log)
            unsettled = self._unsettled.get(topic_filter)
            waiting = self._deaf(topic, unsettled) if unsettled else ()
            for window, options in each_member(self._filters.get(topic_filter)):
                if window in waiting:
                    if options.qos and window in self.cursors:
                        unheard.add(window)
                else:
                    subscribers.setdefault(window, []).append(options)
        rule = self._rules.of(topic)
        stores = rule.engine != "memory"
        alikes: dict[_Alike, list[Window]] = {}
        further: list[tuple[Window, list[Options]]] = []
        for window, wanted in subscribers.items():
            is_kept = stores and window in self.cursors
            more: list[Options] = []
            for copy, options in enumerate(copies(wanted, self._separate)):
                alike = _Alike(
                    window.version,
                    options.qos,
                    options.retain_as_published,
                    options.no_local,
                    options.identifier,
                    is_kept and options.qos > 0,
                    copy,
                )
                alikes.setdefault(alike, []).append(window)
                if alike.stored and copy:
                    more.append(options)
            if more:
                further.append((window, more))
        alias = self._alias(topic) if subscribers else 0
        groups = [each.group(windows) for each, windows in alikes.items() if not each.stored]
        kept_groups = [each.group(windows) for each, windows in alikes.items() if each.stored]
        if (logs or sharing) and stores:
            firsts = [
                each.group(windows)
                for each, windows in alikes.items()
                if each.stored and not each.copy
            ]
            route = Route(firsts, [], alias)
            takes = [each.take for each in sharing]
            deaf = unheard.difference(*(each.windows for each in firsts))
            keep = partial(self.cursors.keep, route, further, logs, takes, list(deaf), rule)
            taps.append(keep)
        if not (stores and rule.store_qos0):
            taps += [partial(_pass_on, each.tap, stores) for each in sharing]
        if not rule.store_qos0:
            groups += kept_groups
        return Route(groups, taps, alias)

    def _deaf(self, topic: bytes, unsettled: dict[Window, _Unsettled]) -> set[Window]:
        """Windows that do not hear the core which is speaking; the next one may be heard."""
        self._provisional.append(topic)
        source = self.source
        return {window for window, waiting in unsettled.items() if source in waiting.cores}

    def _alias(self, topic: bytes) -> int:
        alias = self._aliases.get(topic, 0)
        if not alias and len(self._aliases) < self._max_aliases:
            alias = self._aliases[topic] = len(self._aliases) + 1
        return alias


def _pass_on(tap: Tap, only_qos_0: bool, batch: bytes, start: int, stop: int, count: int) -> None:  # noqa: PLR0917
    """Show a group what is not kept for it."""
    if not (only_qos_0 and qos_of(batch, start)):
        tap(batch, start, stop, count)
