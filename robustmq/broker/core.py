"""One core of the broker: it routes between the sides, and decides nothing itself."""

from collections.abc import Callable
from typing import Final

from robustmq import metrics
from robustmq._kernel.fanout import Group, Route
from robustmq._kernel.intake import Handle
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.dispatch import Dispatch
from robustmq.broker.frames import Kind
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric, Router
from robustmq.broker.shares import Shares
from robustmq.broker.subscriptions import Subscriptions
from robustmq.broker.timers import Timer, Timers
from robustmq.errors import Refused
from robustmq.message.record import Record
from robustmq.policy.admission import Admission
from robustmq.policy.principal import Principal

_RETAINED_SCAN: Final = b""


class _Wait:
    """A subscription that waits for cores to know it; they are `owing` an answer."""

    def __init__(
        self,
        topic_filter: bytes,
        owing: set[int],
        retained: bool,
        reply: Callable[[list[bytes]], None],
    ) -> None:
        self.topic_filter = topic_filter
        self.owing = owing
        self.retained = retained
        self.reply = reply
        self.batches: dict[int, list[bytes]] = {}


class Core:
    """The port's implementation, and the door for frames from other cores."""

    def __init__(
        self,
        turn: Turn,
        core: int,
        placement: Placement,
        fabric: Fabric,
        admission: Admission,
        router: Router,
        dispatch: Dispatch,
        subscriptions: Subscriptions,
        shares: Shares,
    ) -> None:
        self.turn = turn
        self.timers = Timers()
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._admission = admission
        self._router = router
        self._dispatch = dispatch
        self._subscriptions = subscriptions
        self._shares = shares
        self._waits: dict[int, _Wait] = {}
        self._last_call = 0
        router.append_here = dispatch.append
        dispatch.answer_here = router.appended
        dispatch.deliver_here = subscriptions.fanout.deliver
        shares.want = lambda topic_filter, reply: self._want(
            topic_filter, False, lambda _: reply()
        )
        shares.unwant = self._unwant
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.APPEND: self._on_append,
            Kind.APPENDED: self._on_appended,
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
        }

    # ------------------------------------------------------------------ the port

    def route(self, principal: Principal, topic: bytes) -> Handle | Refused:
        """See `api.Broker.route`."""
        refused = self._admission.publish(principal, topic)
        return refused or Handle(topic, self._router.builder(topic))

    def publish(
        self, principal: Principal, record: Record, reply: Callable[[int, bool], None] | None
    ) -> Refused | None:
        """See `api.Broker.publish`."""
        refused = self._admission.publish(principal, record.key)
        if refused is not None:
            self.turn.row[metrics.MESSAGES_DROPPED_REFUSED] += 1
            return refused
        builder = self._router.builder(record.key)
        builder.append(
            record.key, record.value, record.headers, record.attributes, record.timestamp
        )
        if reply is not None:
            builder.expect(reply, 0)
        builder.settle_if_full()
        return None

    def authorize(self, principal: Principal, topic_filter: str) -> Refused | None:
        """See `api.Broker.authorize`."""
        return self._admission.subscribe(principal, topic_filter)

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        retained: bool,
        reply: Callable[[list[bytes]], None],
    ) -> None:
        """See `api.Broker.subscribe`."""
        self._subscriptions.add(window, topic_filter, options)
        self._want(topic_filter, retained, reply)

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

    def send_retained(self, window: Window, options: Options, batches: list[bytes]) -> None:
        """See `api.Broker.send_retained`."""
        group = Group(window.version, options.qos, True, False, options.identifier, [window])
        route = Route([group], [], 0)
        for batch in batches:
            self._subscriptions.fanout.deliver_to(route, batch)

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """See `api.Broker.at`."""
        return self.timers.at(when_ms, callback)

    # ------------------------------------------------------------------ the turn

    @property
    def busy(self) -> bool:
        """Is there work for another turn although nothing new has arrived?"""
        return self._dispatch.busy

    @property
    def blocked(self) -> bool:
        """Must publishers wait?"""
        return self._router.blocked

    def run_turn(self) -> None:
        """Everything that is done once a turn: pages of retained messages, then batches."""
        self._dispatch.scan()
        self._dispatch.relieve()
        self._router.flush()

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame from another core (or from this one)."""
        self._handlers[frame[0]](source, frame)

    def replaced(self, core: int) -> None:
        """Core `core` was replaced: say again what its predecessor knew or had not answered."""
        self._dispatch.drop_core(core)
        for topic_filter in self._subscriptions.filters():
            if core in self._placement.cores_of_filter(topic_filter):
                self._fabric.send(core, frames.want(0, False, topic_filter))
        self._shares.drop_core(core)
        for call, wait in self._waits.items():
            if core in wait.owing:
                wait.batches.pop(core, None)
                self._fabric.send(core, frames.want(call, wait.retained, wait.topic_filter))
        self._router.resend(core)

    # ------------------------------------------------------------------ interest

    def _want(
        self, topic_filter: bytes, retained: bool, reply: Callable[[list[bytes]], None]
    ) -> None:
        cores = self._placement.cores_of_filter(topic_filter)
        self._last_call += 1
        call = self._last_call
        self._waits[call] = _Wait(topic_filter, set(cores), retained, reply)
        frame = frames.want(call, retained, topic_filter)
        for core in cores:
            self._fabric.send(core, frame)

    def _unwant(self, topic_filter: bytes) -> None:
        if not self._subscriptions.is_wanted(topic_filter):
            frame = frames.unwant(topic_filter)
            for core in self._placement.cores_of_filter(topic_filter):
                self._fabric.send(core, frame)

    # ------------------------------------------------------------------ frames

    def _on_append(self, source: int, frame: bytes) -> None:
        self._dispatch.append(source, *frames.read_append(frame))

    def _on_appended(self, source: int, frame: bytes) -> None:
        self._router.appended(source, *frames.read_appended(frame))

    def _on_deliver(self, source: int, frame: bytes) -> None:
        del source
        self._subscriptions.fanout.deliver(frame[1:])

    def _on_want(self, source: int, frame: bytes) -> None:
        self._dispatch.want(source, *frames.read_want(frame))

    def _on_unwant(self, source: int, frame: bytes) -> None:
        self._dispatch.unwant(source, frame[1:])

    def _on_retained(self, source: int, frame: bytes) -> None:
        call, batch = frames.read_call(frame)
        wait = self._waits.get(call)
        if wait is not None:
            wait.batches.setdefault(source, []).append(batch)

    def _on_wanted(self, source: int, frame: bytes) -> None:
        call, _ = frames.read_call(frame)
        wait = self._waits.get(call)
        if wait is None:
            return
        wait.owing.discard(source)
        if not wait.owing:
            del self._waits[call]
            wait.reply([batch for batches in wait.batches.values() for batch in batches])

    def _on_join(self, source: int, frame: bytes) -> None:
        call, member, ready, _, group, topic_filter = frames.read_member(frame)
        self._shares.on_join(source, call, member, ready, group, topic_filter)

    def _on_joined(self, source: int, frame: bytes) -> None:
        del source
        self._shares.joined(frames.read_call(frame)[0])

    def _on_leave(self, source: int, frame: bytes) -> None:
        del source
        _, member, _, _, group, topic_filter = frames.read_member(frame)
        self._shares.on_leave(member, group, topic_filter)

    def _on_assign(self, source: int, frame: bytes) -> None:
        del source
        self._shares.assigned(*frames.read_assign(frame))

    def _on_return(self, source: int, frame: bytes) -> None:
        del source
        self._shares.on_return(*frames.read_give_back(frame))
