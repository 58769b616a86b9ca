"""A worker: one core's broker, its protocols, its sockets, and the turns that drive them."""

import asyncio
import contextlib
import gc
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.broker.assembly import assemble
from robustmq.broker.delayed_view import DelayedView
from robustmq.broker.parts import Parts
from robustmq.broker.placement import Placement
from robustmq.broker.shares import KEY_SHIFT
from robustmq.errors import ConfigError
from robustmq.kafka import coordination
from robustmq.kafka.front import Front
from robustmq.mqtt import seeker
from robustmq.mqtt.announcements import Announcements
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.events import Events
from robustmq.mqtt.headers import describe
from robustmq.mqtt.protocol import Mqtt
from robustmq.mqtt.roaming import Roaming
from robustmq.mqtt.slow_subscribers import SlowSubscribers
from robustmq.net.channel import Channel
from robustmq.net.selector import PollerSelector
from robustmq.shm.region import Phase
from robustmq.workers import heap, log
from robustmq.workers.administration import Administration
from robustmq.workers.admittance import Admittance
from robustmq.workers.answers import answers
from robustmq.workers.bridges import Bridges
from robustmq.workers.certificate_watch import CertificateWatch
from robustmq.workers.data_groups import DataGroups
from robustmq.workers.inheritance import PEER, Inheritance, meta_endpoint
from robustmq.workers.kafka_door import open_kafka
from robustmq.workers.links import Links
from robustmq.workers.offset_groups import OffsetGroups
from robustmq.workers.participation import Participation, meta_link, reach
from robustmq.workers.peers import Peers
from robustmq.workers.reception import Reception
from robustmq.workers.registrar import follow_topics
from robustmq.workers.storage_watch import StorageWatch
from robustmq.workers.stores import open_stores

if TYPE_CHECKING:
    from robustmq.workers.quic import QuicDoor

_log = log.EventLog("worker")

_EXPIRE_MS: Final = 250
_EPOCH_SHIFT: Final = 32
# Nearly all that a turn allocates is freed by reference counts; the collector looks seldom.
_GC_THRESHOLDS: Final = (50_000, 20, 50)
# The bit above marks the numbers of durable sessions.
_EPOCH_MASK: Final = 0x3FFF


class Worker:
    """Puts the pieces of one core together and runs them in turns."""

    def __init__(self, inheritance: Inheritance) -> None:
        self._inheritance = inheritance
        self._index = inheritance.index
        self._config = inheritance.config
        self._state = inheritance.region.state(self._index)
        self._cells = inheritance.region.counters(self._index)
        self._turn = Turn(self._cells)
        self._poller = Poller(self._turn, self._end_turn, self._ring_timers, _report)
        self._loop = asyncio.SelectorEventLoop(PollerSelector(self._poller))
        asyncio.set_event_loop(self._loop)
        self._links = Links(inheritance)
        node = self._config.broker_id if inheritance.trust is not None else None
        self._placement = Placement(inheritance.workers, node)
        self._watch = StorageWatch(self._state, self._cells)
        self._stores = open_stores(
            self._config, self._index, self._watch.progress, self._watch_store
        )
        assembly = assemble(
            self._turn,
            self._config,
            core=self._index,
            epoch=self._state.epoch,
            placement=self._placement,
            fabric=self._links,
            table=self._stores.rocksdb.table(),
            committer=self._stores,
            describe=describe,
            chance=random.Random(os.urandom(16)).randrange,
            log_store=self._stores,
        )
        self._core = assembly.core
        parts = assembly.parts
        self._access = parts.admission.access
        self._delayed = DelayedView(parts.state, parts.delayed, self._index)
        self._admittance = Admittance(inheritance, self._core, self._resume_on_loop, self._notify)
        self._mqtt = self._make_mqtt()
        self._announcements = Announcements(self._core)
        if self._config.mqtt_runtime.events.enable:
            mine = (self._config.broker_id, self._config.broker_ip)
            self._mqtt.events = Events(self._announcements, *mine)
        self._slow = SlowSubscribers(
            self._core, self._config.mqtt_runtime.slow_subscribe, self._mqtt.walk
        )
        self._reception = self._make_reception()
        self._relays = self._reception.relays
        self._certificates = CertificateWatch(
            inheritance.certificates,
            self._loop.call_later,
            self._config.mqtt_runtime.tls.check_interval_ms,
        )
        self._bridges = self._make_bridges()
        self._meta = meta_link(inheritance, self._watch_writable, self._turn)
        self._peers = self._link_up()
        self._participation = self._participate()
        offsets = self._config.meta_runtime.offset_raft_group_num
        self._ledger = OffsetGroups(offsets, self._meta)
        self._kafka = self._open_kafka(parts)
        self._administration = self._administer()
        self._admittance.fold(self._meta.image, self._banned)
        follow_topics(self._meta, parts, self._mqtt, self._config.admin.max_records)
        self._administration.follow(self._meta)
        self._draining: asyncio.TimerHandle | None = None

    def _watch_store(self, fd: int) -> None:
        self._poller.watch(fd, self._take_completed)

    def _make_reception(self) -> Reception:
        return Reception(
            self._inheritance,
            self._poller,
            self._core,
            self._mqtt,
            self._links,
            watch_writable=self._watch_writable,
            report=_report,
        )

    def _make_bridges(self) -> Bridges:
        return Bridges(
            self._config,
            lambda client_id: self._placement.home_of(client_id) == self._index,
            self._loop,
            self._poller,
            self._core,
            self._mqtt,
            random.Random(os.urandom(16)).randrange,
        )

    def _open_kafka(self, parts: Parts) -> Front:
        front = open_kafka(
            self._inheritance,
            self._core,
            placement=self._placement,
            links=self._links,
            admittance=self._admittance,
            image=self._meta.image,
            parts=parts,
            ledger=self._ledger,
        )
        self._reception.residents["kafka"] = front.connection
        if self._participation is not None:
            self._participation.departed = front.coordination.replaced
            self._participation.moved = front.kafka.moved
        return front

    def _link_up(self) -> Peers | None:
        """Let the other cores reach this one, and those of other nodes unless this is alone."""
        self._links.handle = self._receive
        self._links.replaced = self._replaced
        chance = random.Random(os.urandom(16)).randrange
        peers = reach(self._inheritance, self._poller, self._loop, self._core, chance)
        if peers is not None:
            self._links.attach(peers)
            self._reception.peers = peers
        return peers

    def _participate(self) -> Participation | None:
        """What this core does as one of a cluster, unless its node is alone."""
        if self._peers is None:
            return None
        meta = self._inheritance.region.state(meta_endpoint(self._inheritance.workers))
        count = self._config.meta_runtime.data_raft_group_num
        self._data_groups = groups = DataGroups(self._config.broker_id, count, self._meta)
        self._core.replicate(groups)
        participation = Participation(
            node=self._config.broker_id,
            groups=count,
            link=self._meta,
            core=self._core,
            placement=self._placement,
            links=self._links,
            peers=self._peers,
            relays=self._relays,
            welcome=self._welcome,
            silent_ms=lambda: (time.monotonic_ns() - meta.heartbeat_ns) // 1_000_000,
            lease_ms=self._config.meta_runtime.lease_ms,
        )
        self._mqtt.roaming = Roaming(
            self._core,
            self._mqtt.sessions,
            self._config.mqtt_runtime,
            cluster=participation,
            registry=groups,
            bring=self._relays.bring,
        )
        participation.join(self._mqtt)
        return participation

    def _make_mqtt(self) -> Mqtt:
        life = (self._state.epoch & _EPOCH_MASK) << _EPOCH_SHIFT
        return Mqtt(
            self._core,
            self._config.mqtt_runtime,
            core=self._index,
            home_of=self._placement.home_of,
            first_key=self._placement.number_of(self._index) << KEY_SHIFT | life,
            seed=os.urandom(6).hex(),
            logins=self._admittance.logins,
            complain=_complain,
            gate=self._admittance.gate,
            rates=self._admittance.rates,
        )

    def _notify(self, kind: str, value: dict[str, Any]) -> None:
        self._administration.notify(kind, value)

    def _banned(self, identity: str | None) -> None:
        self._mqtt.banned(identity)
        self._kafka.banned()

    def _administer(self) -> Administration:
        (end,) = self._inheritance.channels
        channel = Channel(end, lambda: self._watch_writable(end, channel.flush))
        administration = Administration(channel, self._state.epoch)
        administration.answers.update(
            answers(
                self._cells,
                links=self._links,
                mqtt=self._mqtt,
                delayed=self._delayed,
                slow=self._slow,
                announcements=self._announcements,
                bridges=self._bridges,
            )
        )
        return administration

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Take clients from now on."""
        self._beat()
        self._administration.start()
        # The image arrives while this core recovers.
        self._meta.start()
        bell = self._inheritance.doorbells[self._index]
        self._poller.watch(bell.fileno(), self._links.answer_bell)
        handover = self._reception.handover
        self._poller.watch(self._inheritance.handover_in.fileno(), handover.receive)
        self._watch_store(self._stores.rocksdb.fileno())
        self._poller.tick()
        self._mqtt.sessions.restore(self._watch.restoring)
        self._core.start()
        if self._access.denies:
            self._mqtt.permissions_changed()
        self._watch.recovered(self._stores)
        self._links.answer_bell()
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        if self._participation is None:
            # Until the image is there SIGTERM ends this process as it is: it has no clients yet.
            self._await_image()
        self._loop.add_signal_handler(signal.SIGTERM, self.drain)
        self._certificates.start()
        self._slow.start()
        if self._peers is not None:
            listener = self._inheritance.listeners[PEER]
            self._peers.listen(listener, self._reception.handover.send)
        (end,) = self._inheritance.meta_channels
        self._poller.watch(end.fileno(), self._meta.receive)
        (end,) = self._inheritance.channels
        self._poller.watch(end.fileno(), self._administration.receive)
        self._expire()
        if self._participation is None:
            self._welcome()

    def _welcome(self) -> None:
        """Let clients come: it is known whose sessions these are, and time goes on for them."""
        self._mqtt.sessions.resume()
        self._kafka.kafka.moved()
        self._reception.open()
        self._bridges.start()
        self._inheritance.enter(Phase.READY)

    def _expire(self) -> None:
        self._meta.expire()
        if self._participation is not None:
            self._participation.look()
        self._core.at(self._turn.now_ms + _EXPIRE_MS, self._expire)

    def _await_image(self) -> None:
        """Wait for the image: who is banned may not come in before that is known."""
        seconds = self._config.runtime.heartbeat_timeout_ms / 5_000
        while not self._meta.is_informed:
            select.select(self._inheritance.meta_channels, [], [], seconds)
            self._meta.receive()
            self._state.heartbeat_ns = time.monotonic_ns()

    def run(self) -> None:
        """Take turns until SIGTERM has been drained; the loop's wait is the poller's."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._loop.run_forever()
        self._admittance.close()
        self._core.close()
        self._stores.close()
        self._poller.close()
        self._loop.close()

    def drain(self) -> None:
        """Stop: no new clients, tell those that are there, then end (DESIGN part 2)."""
        if self._draining is not None:
            return
        self._inheritance.enter(Phase.DRAINING)
        self._reception.shut()
        self._bridges.shut()
        if self._peers is not None:
            self._peers.shut()
        bound = self._config.runtime.drain_timeout_ms / 1_000 * 0.8
        self._draining = self._loop.call_later(bound, self._loop.stop)
        self._poller.tick()
        self._mqtt.shut_down()
        self._kafka.shut_down()

    def _reload(self) -> None:
        # The supervisor has read the same file and has told what is wrong with it.
        with contextlib.suppress(ConfigError):
            new = self._inheritance.reload()
            log.apply_level(new.log)
            self._admittance.replace(new)
            if self._access.replace(new.acl, new.mqtt_runtime.auth.default_permission):
                self._poller.tick()
                self._mqtt.permissions_changed()
        self._certificates.look()

    def _resume_on_loop(self, callback: Callable[[], None]) -> None:
        def resumed() -> None:
            # What is decided goes out with the turn that begins now.
            self._poller.tick()
            callback()

        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(resumed)

    def _beat(self) -> None:
        self._state.heartbeat_ns = time.monotonic_ns()
        self._watch.count()
        self._loop.call_later(self._config.runtime.heartbeat_timeout_ms / 5_000, self._beat)

    # ------------------------------------------------------------------ turns

    def _end_turn(self) -> bool:
        """What happens once a turn; says whether there is nothing left but to sleep."""
        self._cells[metrics.TURNS] += 1
        core = self._core
        links = self._links
        links.receive()
        core.run_turn()
        if links.receive_own():
            core.run_turn()
        roaming = self._mqtt.roaming
        if roaming is not None:
            roaming.run()
        core.commit()
        self._ledger.flush()
        if roaming is not None:
            roaming.flush()
            self._data_groups.flush()
        self._watch.look()
        self._reception.handover.flush()
        self._relays.flush()
        links.flush()
        self._poller.flush()
        quic = self._reception.quic
        has_sent = quic is None or self._send_datagrams(quic)
        if self._relays.has_sent:
            # What the outboxes of relayed connections held leaves in this turn too.
            self._relays.has_sent = False
            links.flush()
        if self._turn.resumes and not core.blocked:
            self._resume()
            return False
        if self._draining is not None and self._reception.is_idle and links.is_quiet:
            self._loop.stop()
            self._poller.interrupt()
        alarm_ms = core.timers.next_ms or 0
        if quic is not None:
            due_ms = quic.alarm_ms
            alarm_ms = min(alarm_ms, due_ms) if alarm_ms and due_ms else alarm_ms or due_ms
        self._poller.alarm_ms = alarm_ms
        is_busy = core.busy or (roaming is not None and roaming.busy)
        return has_sent and not is_busy and links.sleep()

    def _send_datagrams(self, quic: "QuicDoor") -> bool:
        """Send what QUIC has; False when that has made more to be sent, in another turn."""
        has_sent = quic.flush()
        self._relays.flush()
        return has_sent and not self._turn.outboxes

    def _resume(self) -> None:
        """Read on from the connections that were paused."""
        resumes = self._turn.resumes[:]
        self._turn.resumes.clear()
        for intake in resumes:
            stream = intake.outbox.stream
            if stream is not None:
                stream.resume()

    def _take_completed(self) -> None:
        # What waited for it is settled when the turn commits.
        self._stores.completed()

    def _ring_timers(self) -> None:
        self._core.timers.run(self._turn.now_ms)
        if self._reception.quic is not None:
            self._reception.quic.ring()

    # ------------------------------------------------------------------ the fabric

    def _receive(self, source: int, frame: bytes) -> None:
        kind = frame[0]
        if kind < coordination.FIRST_KIND:
            self._core.receive(source, frame)
        elif kind <= coordination.LAST_KIND:
            self._kafka.coordination.receive(source, frame)
        elif kind < seeker.FIRST_KIND:
            self._relays.receive(source, frame)
        elif self._mqtt.roaming is not None:
            self._mqtt.roaming.receive(source, frame)

    def _replaced(self, core: int) -> None:
        self._core.replaced(core)
        self._relays.replaced(core)
        self._kafka.coordination.replaced(core)
        if self._mqtt.roaming is not None:
            self._mqtt.roaming.replaced(core)

    def _watch_writable(self, sock: socket.socket, callback: Callable[[], None]) -> None:
        def writable() -> None:
            self._loop.remove_writer(sock)
            callback()

        self._loop.add_writer(sock, writable)


def _complain(connection: Connection, reason: int, detail: str) -> None:
    session = connection.session
    _log.info(
        "client broke the protocol",
        client=session.client_id if session is not None else None,
        address=connection.peer.address,
        reason=f"0x{reason:02x}",
        detail=detail,
    )


def _report(error: Exception) -> None:
    """A connection ended by an error of ours: the others go on, and somebody should look."""
    try:
        raise error
    except Exception:
        _log.error("connection aborted")


def run(inheritance: Inheritance) -> None:
    """Live as worker `inheritance.index` until SIGTERM has been drained."""
    heap.keep()
    inheritance.enter(Phase.RECOVERING)
    worker = Worker(inheritance)
    worker.start()
    worker.run()
