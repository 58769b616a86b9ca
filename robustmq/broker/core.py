"""One core of the broker: it routes between the sides, and decides nothing itself."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq._kernel.batch import max_qos
from robustmq._kernel.intake import Handle
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Kept, Options
from robustmq.broker.deposits import REPEATED, Deposits
from robustmq.broker.frames import Kind
from robustmq.broker.lives import Lives
from robustmq.broker.parts import Parts
from robustmq.broker.placement import Life, Placement
from robustmq.broker.replicas import Copies, Proposals, Replication
from robustmq.broker.retained_fetches import RetainedFetches
from robustmq.broker.router import Fabric
from robustmq.broker.state import Committer
from robustmq.broker.timers import Alarm, Timer, Timers
from robustmq.broker.wants import Wants
from robustmq.config import Storage
from robustmq.errors import Refused
from robustmq.message.batch import count_of
from robustmq.message.core_number import FIRST_REMOTE, node_of
from robustmq.message.delay import is_delayed
from robustmq.message.record import Record
from robustmq.policy.principal import Principal

_COMMITS: Final = 16
"""Commits that a turn makes at most: what follows from one that is durable may need another."""


class Core:
    """The port's implementation, and the door for frames from other cores."""

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        parts: Parts,
        committer: Committer,
        storage: Storage,
    ) -> None:
        self.turn = turn
        self.state = parts.state
        self.logs = parts.logs
        self.topics = parts.topics
        self.exclusives = parts.exclusives
        self.estates = parts.estates
        self.legacies = parts.legacies
        self.orphans = parts.orphans
        self.timers = Timers()
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._committer = committer
        self._admission = parts.admission
        self._interests = parts.interests
        self._router = parts.router
        self._retained = parts.retained
        self._scans = parts.scans
        self._subscriptions = parts.subscriptions
        self._shares = parts.shares
        self._leads = parts.shares.leads
        self._handovers = parts.handovers
        self._inbox = parts.inbox
        self._cursors = parts.cursors
        self._delayed = parts.delayed
        self._catalog = parts.catalog
        self._taps = parts.taps
        self.partitions = parts.partitions
        self._storage = storage
        self._noting: Timer | None = None
        self._copies: Copies | None = None
        self._deposits = Deposits(parts.state)
        self._fetches = RetainedFetches(placement, parts.subscriptions)
        self._wants = Wants(
            placement=placement,
            fabric=fabric,
            interests=parts.interests,
            router=parts.router,
            subscriptions=parts.subscriptions,
            deposits=self._deposits,
            send=self._send,
        )
        self._lives = Lives(
            core=core,
            placement=placement,
            fabric=fabric,
            parts=parts,
            wants=self._wants,
            fetches=self._fetches,
            deposits=self._deposits,
        )
        self._handlers = self._connect()

    def _connect(self) -> dict[int, Callable[[int, bytes], None]]:
        """Let the parts reach each other through here; returns what takes which kind of frame."""
        core, shares, logs = self._core, self._shares, self.logs
        self._delayed.alarm = Alarm(self.timers.at, self._delayed.wake)
        logs.timers = self._taps.timers = self.partitions.timers = self.timers
        logs.confirm = self._confirming
        self._router.deliver_here = lambda batch: self._subscriptions.deliver(core, batch)
        self._fetches.send = self._send
        here = partial(self.receive, core)
        self._router.receive_here = self._scans.receive_here = here
        wants = self._wants
        shares.leads.want = lambda topic_filter, reply: wants.want(
            topic_filter, None, False, lambda _: reply()
        )
        shares.leads.unwant = wants.unwant
        return (
            self.exclusives.handlers
            | self.partitions.handlers
            | self.orphans.handlers
            | {
                Kind.STORE: self._on_store,
                Kind.RETAIN: self._on_retain,
                Kind.CONFIRM: self._on_confirm,
                Kind.DELIVER: self._on_deliver,
                Kind.WANT: wants.on_want,
                Kind.UNWANT: wants.on_unwant,
                Kind.RETAINED: lambda _, frame: self._fetches.arrived(*frames.read_retained(frame)),
                Kind.WANTED: wants.on_wanted,
                Kind.JOIN: lambda core, frame: shares.leads.on_join(core, *frames.read_join(frame)),
                Kind.JOINED: lambda _, frame: shares.joined(frames.read_joined(frame)),
                Kind.LOAD: lambda core, frame: shares.leads.on_load(core, *frames.read_load(frame)),
                Kind.LEAVE: lambda core, frame: shares.leads.on_leave(
                    core, *frames.read_leave(frame)
                ),
                Kind.ASSIGN: lambda core, frame: shares.assigned(core, *frames.read_assign(frame)),
                Kind.RETURN: lambda _, frame: shares.leads.on_return(*frames.read_give_back(frame)),
                Kind.SCAN: self._on_scan,
                Kind.LOOK: self._scans.look,
                Kind.TOLD: self._lives.on_told,
                Kind.KEEP: logs.on_keep,
                Kind.HAND: self._handovers.receive,
                Kind.TAKEN: self._handovers.taken,
            }
        )

    # ------------------------------------------------------------------ the port

    def route(
        self, principal: Principal, topic: bytes, retain: bool = False
    ) -> Handle | Refused | None:
        """See `api.Broker.route`."""
        if is_delayed(topic):
            delay = self._delayed.admit(principal, topic, retain=retain)
            return delay if isinstance(delay, Refused) else None
        if refused := self._admission.publish(principal, topic, retain=retain):
            return refused
        return None if self._admission.limits_size(topic) else Handle(topic, self._router.builder)

    def publish(
        self,
        principal: Principal,
        record: Record,
        reply: Callable[[int, bool], None] | None,
        once: bool = False,
    ) -> Refused | None:
        """See `api.Broker.publish`."""
        if is_delayed(record.key):
            refused = self._delayed.publish(principal, record, reply)
        else:
            size = len(record.value)
            refused = self._admission.publish(principal, record.key, size, record.retain)
            if refused is None and once:
                refused = self.state.refusal or self._router.refusal(record)
            if refused is None:
                self._router.append(record, reply, once)
        if refused is not None:
            self.turn.row[metrics.MESSAGES_DROPPED_REFUSED] += 1
        return refused

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
        call = self._wants.next_call
        self._subscriptions.add(window, topic_filter, options, call, self.position)
        if retained:
            self._fetches.listen(window, topic_filter)
        self._wants.want(topic_filter, window, retained, reply)

    @property
    def position(self) -> int:
        """See `api.Broker.position`."""
        return self._inbox.next_position

    def keep(self, window: Window, position: int | None = None) -> None:
        """See `api.Broker.keep`."""
        self._cursors.add(window, position)

    def drop(self, window: Window) -> None:
        """See `api.Broker.drop`."""
        self._shares.dropped(window)
        self.legacies.dropped(window)
        self._cursors.drop(window)

    def restore(self, window: Window, topic_filter: bytes, options: Options, position: int) -> None:
        """See `api.Broker.restore`."""
        self._subscriptions.add(window, topic_filter, options, 0, position)

    def pump(self, window: Window) -> None:
        """See `api.Broker.pump`."""
        self._cursors.pump(window)

    def released(self, window: Window, packet_id: int) -> None:
        """See `api.Broker.released`."""
        self._cursors.released(window, packet_id)

    def completed(self, window: Window, packet_id: int) -> None:
        """See `api.Broker.completed`."""
        self._cursors.completed(window, packet_id)

    def unsubscribe(self, window: Window, topic_filter: bytes) -> None:
        """See `api.Broker.unsubscribe`."""
        self._fetches.forget(window, topic_filter)
        self._subscriptions.remove(window, topic_filter)
        self._wants.unwant(topic_filter)

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

    def restore_member(
        self, window: Window, group: bytes, topic_filter: bytes, options: Options
    ) -> None:
        """See `api.Broker.restore_member`."""
        self._shares.restore_member(window, group, topic_filter, options)

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        """See `api.Broker.leave`."""
        self._shares.leave(window, group, topic_filter)

    def open(self, window: Window, ready: bool) -> None:
        """See `api.Broker.open`."""
        if not ready:
            self._cursors.detached(window)
        self._shares.ready(window, ready)

    def moved(self, topic_filter: bytes) -> None:
        """A subscriber of the filter speaks another version of its protocol now."""
        self._subscriptions.forget(topic_filter)

    def send_retained(
        self, window: Window, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        """See `api.Broker.send_retained`."""
        self._fetches.ask(window, topic_filter, options, kept)

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """See `api.Broker.at`."""
        return self.timers.at(when_ms, callback)

    # ------------------------------------------------------------------ the turn

    def start(self, nodes: Mapping[int, Life] | None = None) -> None:
        """Begin, with the sessions of the last life restored: tell what they want, and hear it.

        Until all the others have told what they want nothing is appended here: somebody may be
        owed it. `nodes` are the live nodes, if the cluster is known by now (see `update`).
        """
        if nodes and self._placement.node in nodes:
            self._placement.update(nodes)
        # First: these say how logs are opened, and what is asked to be kept.
        self._catalog.restore(self.state)
        self._deposits.restore()
        self._retained.restore()
        self._shares.restore()
        self.estates.restore()
        self.legacies.restore(self._cursors.durable_windows())
        self._cursors.restore()
        self._router.later = lambda ask: self.at(self.turn.now_ms + self._storage.retry_ms, ask)
        self._router.restore()
        self._delayed.restore()
        self.logs.restore()
        self._taps.restore()
        self._lives.start()
        self.estates.begin()

    def forget(self, node: int) -> None:
        """A node has left the cluster for good: another with its number begins with nothing."""

        def is_there(source: int) -> bool:
            return node_of(source) == node

        self._deposits.forget(is_there)
        self._handovers.forget(is_there)
        self.legacies.forget(is_there)
        self.logs.forget(is_there)

    def replicate(self, replication: Replication) -> None:
        """Retain by the groups of the cluster, from now on; to be said before `start`."""
        self._router.replicate(
            Proposals(replication, self._placement.number_of(self._core)),
        )
        self._copies = Copies(self._retained, self.state, replication.groups)
        self._scans.reached = self._copies.reached
        self._fetches.of_groups = True

    def applied(
        self,
        group: int,
        index: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        *,
        is_whole: bool = False,
        is_last: bool = True,
    ) -> None:
        """Learn what a group has changed of the retained topics of this core, by topic.

        With the last of several calls all is told up to `index`. With `is_whole` they name all
        that there is: what is not named is gone.
        """
        assert self._copies is not None, "nobody has proposed anything"
        self._copies.apply(group, index, rows, is_whole=is_whole, is_last=is_last)

    def update(self, nodes: Mapping[int, Life]) -> None:
        """Learn which nodes are live, whenever that has changed.

        The links must know of those that are new already. Cores of nodes that are not live any
        more have departed: what they had to answer counts as answered. While this node is not
        among them nothing is appended here, and when it is again, or in another incarnation, not
        before all the others have told what they want.
        """
        self._lives.update(nodes)

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        busy = self._scans.busy or self._router.busy or self._inbox.busy
        busy = busy or self._cursors.busy or self._delayed.busy or self.logs.busy
        busy = busy or self._taps.busy or self.partitions.busy
        return busy or self._leads.busy or self._handovers.busy

    def run_turn(self) -> None:
        """Everything that is done once a turn: batches, then pages of retained messages."""
        self._delayed.run()
        self._handovers.run()
        self._taps.run()
        self._router.flush()
        self._leads.run()
        self._shares.report()
        self._wants.answer_late()
        self._scans.run()

    def commit(self) -> None:
        """After `run_turn`: write what was put, and do what waits for it to be durable.

        Nothing may leave for a socket or another core between the two.
        """
        if self._inbox.busy:
            self._inbox.run()
        dropped = self.logs.run()
        self._put_notes()
        # Most turns of live messages have nothing to write.
        is_active = self.state.is_active or self._cursors.is_active or self.logs.is_active
        if dropped or is_active or self._shares.is_active:
            self._commit()
        if self.partitions.is_woken:
            self.partitions.run()
        if self.turn.acknowledged and self._noting is None:
            when_ms = self.turn.now_ms + self._storage.cursor_interval_ms
            self._noting = self.timers.at(when_ms, self._note)

    def _commit(self) -> None:
        for _ in range(_COMMITS):
            if self._committer.commit():
                self._committer.completed()
            followed = self.state.settle()
            self._cursors.settle()
            self._shares.settle()
            followed |= self.logs.settle()
            self._put_notes()
            if not (followed or self.state.is_midway):
                break

    def _put_notes(self) -> None:
        self._cursors.note_exchanges()
        self._delayed.note()
        self._deposits.note()
        self._handovers.note()

    def _note(self) -> None:
        self._noting = None
        self._cursors.note()

    def close(self) -> None:
        """The core stops: note what else would be sent again after the restart."""
        self._cursors.note()
        self.commit()
        self.logs.close()
        self.commit()

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame from another core (or from this one)."""
        if source < FIRST_REMOTE or self._placement.is_live(source):
            self._handlers[frame[0]](source, frame)

    def replaced(self, core: int) -> None:
        """Core `core` was replaced: say again what its predecessor knew or had not answered."""
        self._lives.replaced(core)

    def _send(self, core: int, frame: bytes) -> None:
        # What concerns deliveries keeps their order, and those for this core take no detour.
        if core == self._core:
            self.receive(core, frame)
        else:
            self._fabric.send(core, frame)

    # ------------------------------------------------------------------ frames

    def _on_store(self, source: int, frame: bytes) -> None:
        number, is_owed, batch = frames.read_store(frame)
        refused = self._deposits.judge(source, number, is_owed)
        if refused is not None and refused is not REPEATED:
            self.turn.row[metrics.MESSAGES_DROPPED_REFUSED] += count_of(batch)
            self._confirming(source, number.call)(refused.code)
            return
        if refused is None:
            before = self._inbox.next_position + self._handovers.handed
            self._subscriptions.deliver(source, batch)
            kept = self._inbox.next_position + self._handovers.handed != before
            self._deposits.took(source, number, kept)
        self._confirm_kept(source, number.call, batch)

    def _on_retain(self, source: int, frame: bytes) -> None:
        call, position, is_late, batch = frames.read_retain(frame)
        self._scans.arrived(source, position)
        refusal = self.state.refusal
        if refusal is not None:
            self.turn.row[metrics.RETAINED_REFUSED] += count_of(batch)
            self._confirming(source, call)(refusal.code)
            return
        self._retained.apply(batch, source, position, is_late)
        self._confirm_kept(source, call, batch)

    def _confirm_kept(self, source: int, call: int, batch: bytes) -> None:
        """Confirm when what was put is durable; refuse when writing fails before that."""
        confirm = self._confirming(source, call)

        def give_up(code: int) -> None:
            if max_qos(batch) == 2:
                # It may still be written, so nobody may be told to publish it a second time.
                self.state.then(partial(confirm, 0))
            else:
                confirm(code)

        self.state.then(partial(confirm, 0), give_up)

    def _confirming(self, source: int, call: int) -> Callable[[int], None]:
        return partial(self._confirm, source, self._fabric.epoch(source), call)

    def _confirm(self, core: int, life: int, call: int, code: int) -> None:
        if core == self._core:
            self._router.confirmed(core, call, code)
        elif self._fabric.epoch(core) == life:
            # The next life of that core numbers its calls anew.
            self._fabric.send(core, frames.confirm(call, code))

    def _on_confirm(self, source: int, frame: bytes) -> None:
        self._router.confirmed(source, *frames.read_confirm(frame))

    def _on_deliver(self, source: int, frame: bytes) -> None:
        self._subscriptions.deliver(source, frame[1:])

    def _on_scan(self, source: int, frame: bytes) -> None:
        self._scans.ask(source, *frames.read_scan(frame))
