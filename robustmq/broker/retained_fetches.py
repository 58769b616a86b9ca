"""The retained messages that this core's subscribers have asked for (MQTT5 3.3.1.3)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from robustmq._kernel.batch import gather, records, slice_of
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Kept, Options
from robustmq.broker.placement import Placement
from robustmq.broker.route import route_to
from robustmq.broker.subscriptions import Subscriptions, Tap
from robustmq.message.batch import raw_records
from robustmq.message.record import RETAIN_BIT


class _Fetch(NamedTuple):
    """Retained messages on their way from a core to a window."""

    core: int
    window: Window
    topic_filter: bytes
    options: Options


class _Heard:
    """The topics of which a newer retained message has come live; `fetches` are under way."""

    def __init__(self, hears: Callable[[], bool]) -> None:
        self._hears = hears
        self.topics: set[bytes] = set()
        self.fetches = 0

    def tap(self, batch: bytes, start: int, stop: int, count: int) -> None:
        """See a run that the subscription's filter matches."""
        if not self._hears():
            return
        for attributes, _, _, topic, _, _ in records(slice_of(batch, start, stop, count)):
            if attributes & RETAIN_BIT and topic is not None:
                self.topics.add(topic)

    def without(self, batch: bytes) -> bytes:
        """Return the records of topics that were not heard; nothing when there are none."""
        if not self.topics:
            return batch
        left = [raw for raw, fields in raw_records(batch) if fields[3] not in self.topics]
        return gather(batch, left) if left else b""


class RetainedFetches:
    """Asks the cores that keep a filter's retained messages, and delivers what they send.

    What comes live after the subscription is newer than what was retained before, and may be
    heard first; then the older one is not delivered any more.
    """

    def __init__(self, placement: Placement, subscriptions: Subscriptions) -> None:
        self._placement = placement
        self._subscriptions = subscriptions
        self._fetches: dict[int, _Fetch] = {}
        self._heard: dict[tuple[Window, bytes], tuple[_Heard, Tap]] = {}
        self._last_call = 0
        self.of_groups = False
        """Whether the groups of a cluster say what is retained."""
        self.send: Callable[[int, bytes], None]

    def listen(self, window: Window, topic_filter: bytes) -> None:
        """Note what comes live from now on, for a subscription that wants what is retained."""
        if (window, topic_filter) not in self._heard:
            heard = _Heard(partial(self._subscriptions.hears, window, topic_filter))
            tap = heard.tap
            self._heard[window, topic_filter] = heard, tap
            self._subscriptions.tap(topic_filter, tap)

    def forget(self, window: Window, topic_filter: bytes) -> None:
        """The subscription has ended, or has all that was retained."""
        known = self._heard.pop((window, topic_filter), None)
        if known is not None:
            self._subscriptions.untap(topic_filter, known[1])

    def ask(self, window: Window, topic_filter: bytes, options: Options, kept: list[Kept]) -> None:
        """Ask for what was retained when the cores settled the subscription."""
        known = self._heard.get((window, topic_filter))
        if not kept or known is None:
            return
        if self.of_groups:
            self._ask_of_groups(known[0], window, topic_filter, options, kept)
            return
        answers = sorted(kept)
        for place, core in enumerate(self._placement.retained_cores(topic_filter)):
            self._last_call += 1
            known[0].fetches += 1
            self._fetches[self._last_call] = _Fetch(core, window, topic_filter, options)
            until = [(position, sent[place]) for _, position, sent in answers]
            self.send(core, frames.scan(self._last_call, until, topic_filter))

    def _ask_of_groups(
        self,
        heard: _Heard,
        window: Window,
        topic_filter: bytes,
        options: Options,
        kept: list[Kept],
    ) -> None:
        cuts = [(core, position) for core, position, _ in kept]
        awaited = [max(indexes) for indexes in zip(*(each.sent for each in kept), strict=True)]
        for core in self._placement.retained_cores(topic_filter):
            self._last_call += 1
            heard.fetches += 1
            self._fetches[self._last_call] = _Fetch(core, window, topic_filter, options)
            self.send(core, frames.look(self._last_call, cuts, awaited, topic_filter))

    def arrived(self, call: int, last: bool, batch: bytes) -> None:
        """A page of what was asked for is here."""
        fetch = self._fetches.get(call)
        if fetch is None:
            return
        _, window, topic_filter, options = fetch
        known = self._heard.get((window, topic_filter))
        if batch and known is not None and self._subscriptions.has(window, topic_filter):
            options = options._replace(retain_as_published=True, no_local=False)
            batch = known[0].without(batch)
            if batch:
                self._subscriptions.fanout.deliver_to(route_to(window, options), batch)
        if last:
            self._end(call)

    def drop_core(self, core: int) -> None:
        """A core was replaced: what was asked of it is not coming."""
        for call in [call for call, fetch in self._fetches.items() if fetch.core == core]:
            self._end(call)

    def _end(self, call: int) -> None:
        fetch = self._fetches.pop(call)
        known = self._heard.get((fetch.window, fetch.topic_filter))
        if known is not None:
            known[0].fetches -= 1
            if not known[0].fetches:
                self.forget(fetch.window, fetch.topic_filter)
