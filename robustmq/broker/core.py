"""One core of the broker: it routes between the sides, and decides nothing itself."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from robustmq import metrics
from robustmq._kernel.fanout import Group, Route
from robustmq._kernel.intake import Handle
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Kept, Options
from robustmq.broker.frames import Kind
from robustmq.broker.interests import Interests
from robustmq.broker.placement import Placement
from robustmq.broker.retained import Retained
from robustmq.broker.retained_scans import RetainedScans
from robustmq.broker.router import Fabric, Router
from robustmq.broker.shares import Shares
from robustmq.broker.subscriptions import Subscriptions
from robustmq.broker.timers import Timer, Timers
from robustmq.errors import Refused
from robustmq.message.record import Record
from robustmq.policy.admission import Admission
from robustmq.policy.principal import Principal


class _Wait:
    """An interest that waits for cores to know it; they are `owing` an answer.

    `window` is the subscriber's, None when a shared group wants the filter.
    """

    __slots__ = ("kept", "owing", "reply", "retained", "topic_filter", "window")

    def __init__(
        self,
        topic_filter: bytes,
        owing: list[int],
        window: Window | None,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        self.topic_filter = topic_filter
        self.owing = set(owing)
        self.window = window
        self.retained = retained
        self.reply = reply
        self.kept: list[Kept] = []


class _Fetch(NamedTuple):
    """Retained messages on their way from a core to a window."""

    core: int
    window: Window
    topic_filter: bytes
    options: Options


class Core:
    """The port's implementation, and the door for frames from other cores."""

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        admission: Admission,
        interests: Interests,
        router: Router,
        retained: Retained,
        scans: RetainedScans,
        subscriptions: Subscriptions,
        shares: Shares,
    ) -> None:
        self.turn = turn
        self.timers = Timers()
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._admission = admission
        self._interests = interests
        self._router = router
        self._retained = retained
        self._scans = scans
        self._subscriptions = subscriptions
        self._shares = shares
        self._waits: dict[int, _Wait] = {}
        self._fetches: dict[int, _Fetch] = {}
        self._last_call = 0
        router.deliver_here = lambda batch: subscriptions.deliver(core, batch)
        router.receive_here = scans.receive_here = lambda frame: self.receive(core, frame)
        shares.want = lambda topic_filter, reply: self._want(
            topic_filter, None, False, lambda _: reply()
        )
        shares.unwant = self._unwant
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.STORE: self._on_store,
            Kind.RETAIN: self._on_retain,
            Kind.CONFIRM: self._on_confirm,
            Kind.DELIVER: self._on_deliver,
            Kind.WANT: self._on_want,
            Kind.UNWANT: self._on_unwant,
            Kind.RETAINED: self._on_retained,
            Kind.WANTED: self._on_wanted,
            Kind.JOIN: self._on_join,
            Kind.JOINED: self._on_joined,
            Kind.LEAVE: self._on_leave,
            Kind.ASSIGN: self._on_assign,
            Kind.RETURN: self._on_return,
            Kind.SCAN: self._on_scan,
            Kind.TOLD: self._on_told,
        }

    # ------------------------------------------------------------------ the port

    def route(self, principal: Principal, topic: bytes) -> Handle | Refused:
        """See `api.Broker.route`."""
        refused = self._admission.publish(principal, topic)
        return refused or Handle(topic, self._router.builder)

    def publish(
        self, principal: Principal, record: Record, reply: Callable[[int, bool], None] | None
    ) -> Refused | None:
        """See `api.Broker.publish`."""
        refused = self._admission.publish(principal, record.key)
        if refused is not None:
            self.turn.row[metrics.MESSAGES_DROPPED_REFUSED] += 1
            return refused
        builder = self._router.builder
        builder.append(
            record.key, record.value, record.headers, record.attributes, record.timestamp
        )
        if reply is not None:
            builder.expect(reply, 0)
        builder.settle_if_full()
        return None

    @property
    def blocked(self) -> bool:
        """See `api.Broker.blocked`."""
        return self._router.blocked

    def authorize(self, principal: Principal, topic_filter: str) -> Refused | None:
        """See `api.Broker.authorize`."""
        return self._admission.subscribe(principal, topic_filter)

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        """See `api.Broker.subscribe`."""
        # What was published here before goes before: it is not for this subscription.
        self._router.flush()
        self._subscriptions.add(window, topic_filter, options, self._last_call + 1)
        self._want(topic_filter, window, retained, reply)

    def unsubscribe(self, window: Window, topic_filter: bytes) -> None:
        """See `api.Broker.unsubscribe`."""
        self._subscriptions.remove(window, topic_filter)
        self._unwant(topic_filter)

    def join(
        self,
        window: Window,
        group: bytes,
        topic_filter: bytes,
        options: Options,
        reply: Callable[[], None],
    ) -> None:
        """See `api.Broker.join`."""
        self._shares.join(window, group, topic_filter, options, reply)

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        """See `api.Broker.leave`."""
        self._shares.leave(window, group, topic_filter)

    def open(self, window: Window, ready: bool) -> None:
        """See `api.Broker.open`."""
        self._shares.ready(window, ready)

    def moved(self, topic_filter: bytes) -> None:
        """A subscriber of the filter speaks another version of its protocol now."""
        self._subscriptions.forget(topic_filter)

    def send_retained(
        self, window: Window, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        """See `api.Broker.send_retained`."""
        if not kept:
            return
        answers = sorted(kept)
        for place, core in enumerate(self._placement.retained_cores(topic_filter)):
            self._last_call += 1
            self._fetches[self._last_call] = _Fetch(core, window, topic_filter, options)
            until = [(position, sent[place]) for _, position, sent in answers]
            self._send(core, frames.scan(self._last_call, until, topic_filter))

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """See `api.Broker.at`."""
        return self.timers.at(when_ms, callback)

    # ------------------------------------------------------------------ the turn

    def start(self, alive: Iterable[int]) -> None:
        """Begin: tell the others that nothing is wanted yet, and hear what they want.

        `alive` are the cores that may have subscribers: until all of them have told what they
        want, or have died, nothing is appended here.
        """
        self._interests.await_from(core for core in alive if core != self._core)
        if self._interests.awaited:
            self._router.hold()
        for core in range(self._placement.workers):
            if core != self._core:
                self._fabric.send(core, frames.told(self._router.retained))

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        return self._scans.busy or self._router.busy

    def run_turn(self) -> None:
        """Everything that is done once a turn: batches, then pages of retained messages."""
        self._router.flush()
        self._scans.run()

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame from another core (or from this one)."""
        self._handlers[frame[0]](source, frame)

    def replaced(self, core: int) -> None:
        """Core `core` was replaced: say again what its predecessor knew or had not answered."""
        self._interests.replaced(core)
        self._scans.drop_core(core)
        for call in [call for call, fetch in self._fetches.items() if fetch.core == core]:
            del self._fetches[call]
        for call, wait in self._waits.items():
            if core in wait.owing:
                self._fabric.send(core, frames.want(call, False, wait.retained, wait.topic_filter))
                if not self._subscriptions.is_wanted(wait.topic_filter):
                    self._fabric.send(core, frames.unwant(wait.topic_filter))
        for topic_filter in self._subscriptions.filters():
            self._fabric.send(core, frames.want(0, False, False, topic_filter))
        self._shares.drop_core(core)
        self._router.resend(core)
        self._fabric.send(core, frames.told(self._router.retained))

    # ------------------------------------------------------------------ interest

    def _want(
        self,
        topic_filter: bytes,
        window: Window | None,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        cores = list(range(self._placement.workers))
        self._last_call += 1
        call = self._last_call
        self._waits[call] = _Wait(topic_filter, cores, window, retained, reply)
        self._tell(frames.want(call, False, retained, topic_filter))

    def _unwant(self, topic_filter: bytes) -> None:
        if not self._subscriptions.is_wanted(topic_filter):
            self._tell(frames.unwant(topic_filter))

    def _tell(self, frame: bytes) -> None:
        for core in range(self._placement.workers):
            self._fabric.send(core, frame)

    def _send(self, core: int, frame: bytes) -> None:
        # What concerns deliveries keeps their order, and those for this core take no detour.
        if core == self._core:
            self.receive(core, frame)
        else:
            self._fabric.send(core, frame)

    # ------------------------------------------------------------------ frames

    def _on_store(self, source: int, frame: bytes) -> None:
        _, call, batch = frames.read_store(frame)
        self._subscriptions.deliver(source, batch)
        self._confirm(source, call, 0)

    def _on_retain(self, source: int, frame: bytes) -> None:
        call, position, batch = frames.read_retain(frame)
        self._retained.apply(batch, source, position)
        self._scans.arrived(source, position)
        self._confirm(source, call, 0)

    def _confirm(self, core: int, call: int, code: int) -> None:
        if core == self._core:
            self._router.confirmed(core, call, code)
        else:
            self._fabric.send(core, frames.confirm(call, code))

    def _on_confirm(self, source: int, frame: bytes) -> None:
        self._router.confirmed(source, *frames.read_confirm(frame))

    def _on_deliver(self, source: int, frame: bytes) -> None:
        self._subscriptions.deliver(source, frame[1:])

    def _on_want(self, source: int, frame: bytes) -> None:
        call, durable, retained, topic_filter = frames.read_want(frame)
        self._interests.want(source, topic_filter, durable)
        if call:
            so_far = self._router.retained_so_far(topic_filter) if retained else (0, [])
            self._send(source, frames.wanted(call, *so_far))

    def _on_unwant(self, source: int, frame: bytes) -> None:
        self._interests.unwant(source, frame[1:])

    def _on_wanted(self, source: int, frame: bytes) -> None:
        call, position, sent = frames.read_wanted(frame)
        wait = self._waits.get(call)
        if wait is None or source not in wait.owing:
            return
        wait.owing.discard(source)
        if wait.retained:
            wait.kept.append(Kept(source, position, sent))
        if wait.window is not None:
            self._subscriptions.settle(wait.window, wait.topic_filter, call, source)
        if not wait.owing:
            del self._waits[call]
            wait.reply(wait.kept)

    def _on_scan(self, source: int, frame: bytes) -> None:
        self._scans.ask(source, *frames.read_scan(frame))

    def _on_retained(self, source: int, frame: bytes) -> None:
        del source
        call, last, batch = frames.read_retained(frame)
        fetch = self._fetches.get(call)
        if fetch is None:
            return
        if last:
            del self._fetches[call]
        _, window, topic_filter, options = fetch
        if batch and self._subscriptions.has(window, topic_filter):
            group = Group(window.version, options.qos, True, False, options.identifier, [window])
            self._subscriptions.fanout.deliver_to(Route([group], [], 0), batch)

    def _on_told(self, source: int, frame: bytes) -> None:
        self._interests.told(source)
        self._scans.arrived(source, frames.read_told(frame))

    def _on_join(self, source: int, frame: bytes) -> None:
        self._shares.on_join(source, *frames.read_member(frame))

    def _on_joined(self, source: int, frame: bytes) -> None:
        del source
        self._shares.joined(frames.read_joined(frame))

    def _on_leave(self, source: int, frame: bytes) -> None:
        del source
        _, member, _, key = frames.read_member(frame)
        self._shares.on_leave(member, key)

    def _on_assign(self, source: int, frame: bytes) -> None:
        del source
        self._shares.assigned(*frames.read_assign(frame))

    def _on_return(self, source: int, frame: bytes) -> None:
        del source
        self._shares.on_return(*frames.read_give_back(frame))
