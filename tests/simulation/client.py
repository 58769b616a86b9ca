"""A client of the simulation: it speaks MQTT bytes, and keeps its half of every exchange.

It keeps what MQTT5 4.1 asks a client to keep, sends it again on the next connection, and forgets
it when the server has no session. Nothing happens by itself: it is told what to do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from robustmq.mqtt import codec
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.reasons import Reason, is_error
from tests.simulation.account import Account, Message
from tests.simulation.machine import Machine
from tests.simulation.wire import Wire

V3_EXPIRY: Final = 40
"""Seconds that the session of an MQTT 3 client outlives its connection."""
_LARGEST: Final = 1 << 28
_FULL: Final = {0x80, 0x83, 0x88, 0x89, 0x97}
"""What a server may answer while its disk is full, or for longer than a client waits."""


class Plan(NamedTuple):
    """How a client connects: `expiry` and `will_delay` in seconds, None: no will."""

    clean: bool
    expiry: int
    will_delay: int | None
    will_qos: int
    receive_maximum: int


@dataclass
class Pending:
    """A message between its PUBLISH and its last acknowledgement."""

    message: Message
    topic: str
    released: bool = False
    repeated: bool = False


@dataclass
class Tie:
    """What a client wants of a filter: to have it, or be rid of it; `asked` is a packet id."""

    qos: int
    wanted: bool = True
    settled: bool = False
    asked: int = 0


@dataclass
class Client:
    """One client id; `wire` is its connection, on which it is `online` since CONNACK."""

    name: str
    version: int
    machine: Machine
    account: Account
    rng: Random
    trace: Callable[[str], None]
    plan: Plan
    wire: Wire | None = None
    online: bool = False
    pending: dict[int, Pending] = field(default_factory=dict)
    ties: dict[str, Tie] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)
    answers: list[Packet] = field(default_factory=list)
    unanswered: set[int] = field(default_factory=set)
    retained: dict[str, bytes] = field(default_factory=dict)
    next_plan: Plan | None = None
    leaving: bool = False
    last_id: int = 0
    since: int = 0
    rest: bytes = b""

    # ------------------------------------------------------------------ connections

    def connect(self) -> None:
        """Connect as planned; the plan stays until a CONNACK has come."""
        if self.next_plan is not None and not self.account.views[self.name].attempts:
            self.plan, self.next_plan = self.next_plan, None
        plan = self.plan
        self.wire = self.machine.connect(self.name)
        self.rest = b""
        self.since = self.account.forgettings
        self.online = self.leaving = False
        self.answers.clear()
        self.unanswered.clear()
        self.account.views.connecting(self.name, plan.expiry)
        will = None
        if plan.will_delay is not None:
            delay = plan.will_delay if self.version == V5 else 0
            number = self.account.wills.make(self.name, delay).number
            properties = Properties(will_delay_interval=delay) if delay else None
            will = Will(
                f"w/{self.name}".encode(), b"w%d" % number, plan.will_qos, False, properties
            )
        properties = None
        if self.version == V5:
            properties = Properties(
                session_expiry_interval=plan.expiry or None,
                receive_maximum=plan.receive_maximum,
            )
        self.trace(f"{self.name} CONNECT {plan} will {will.payload.decode() if will else '-'}")
        self.send(Connect(self.name, self.version, plan.clean, 0, will=will, properties=properties))

    def drop(self) -> None:
        """Lose the connection."""
        if self.wire is not None:
            self.trace(f"{self.name} drops its connection")
            self.wire.drop(self.rng)
            self._off()

    def leave(
        self, reason: Reason = Reason.NORMAL_DISCONNECTION, expiry: int | None = None
    ) -> None:
        """Disconnect, if that can be said already; MQTT 5 may change the session's expiry."""
        if self.wire is None or not self.online:
            return
        self.trace(f"{self.name} DISCONNECT {int(reason):#x} expiry {expiry}")
        properties = None
        if self.version == V5 and expiry is not None and self.plan.expiry:
            properties = Properties(session_expiry_interval=expiry)
            self.account.views.disconnecting(self.name, expiry)
        self.send(Disconnect(reason, properties))
        self.wire.close()
        self._off()

    def _off(self) -> None:
        self.wire = None
        self.online = False
        self.account.views.gone(self.name)
        if not self.plan.expiry:
            self.account.lets_go([self.name])

    def send(self, packet: Packet) -> None:
        """Send a packet; without a connection it is gone."""
        if self.wire is not None:
            self.wire.to_server += codec.encode(packet, self.version)

    @property
    def is_durable(self) -> bool:
        """Whether what is for it is to be on disk."""
        return self.plan.expiry > 0

    # ------------------------------------------------------------------ reading

    def read(self, most: int = 1 << 30) -> bool:
        """Read so many bytes and note what to answer; says whether there was anything."""
        wire = self.wire
        if wire is None:
            return False
        data = self.rest + bytes(wire.to_client[:most])
        del wire.to_client[:most]
        at = 0
        while self.wire is wire and (found := scan(data, at, _LARGEST)) is not None:
            first, start, at = found
            self._take(codec.decode(first, data[start:at], self.version))
        self.rest = data[at:]
        if self.wire is wire and wire.dead:
            self.trace(f"{self.name} finds its connection closed")
            wire.close()
            self._off()
        return at > 0

    def answer(self, most: int = 1 << 30) -> bool:
        """Send so many of the answers that are due, in order; says whether there were any."""
        now, self.answers = self.answers[:most], self.answers[most:]
        for packet in now:
            if isinstance(packet, Puback):
                self.unanswered.discard(packet.packet_id)
            self.send(packet)
        return bool(now)

    def _take(self, packet: Packet) -> None:
        match packet:
            case Connack():
                self._begin(packet)
            case Publish():
                self._take_publish(packet)
            case Pubrel(packet_id=packet_id):
                self.received.discard(packet_id)
                self.unanswered.discard(packet_id)
                self.answers.append(Pubcomp(packet_id))
            case Puback() | Pubrec() | Pubcomp():
                self._take_answer(packet)
            case Suback(packet_id=packet_id, reasons=reasons):
                self._granted(packet_id, reasons[0])
            case Unsuback(packet_id=packet_id):
                for topic_filter in [f for f, tie in self.ties.items() if tie.asked == packet_id]:
                    if not self.ties[topic_filter].wanted:
                        del self.ties[topic_filter]
            case Disconnect(reason=reason):
                self.trace(f"{self.name} is told DISCONNECT {reason!r}")
                self.account.fault(f"{self.name} was told DISCONNECT {reason!r}")
            case _:
                self.account.fault(f"{self.name} was sent {packet}")

    def _begin(self, connack: Connack) -> None:
        plan = self.plan
        present = connack.session_present
        self.trace(f"{self.name} CONNACK {connack.reason!r} present {present}")
        if is_error(connack.reason):
            if connack.reason not in _FULL:
                self.account.fault(f"{self.name} was refused: {connack.reason!r}")
            return
        views = self.account.views
        plain = views.connected(self.name, clean=plan.clean, expiry=plan.expiry, present=present)
        if not present or not plain:
            self.pending.clear()
            self.received.clear()
            for tie in self.ties.values():
                tie.settled = False
            for topic_filter in [f for f, tie in self.ties.items() if not tie.wanted]:
                del self.ties[topic_filter]
            self.account.forgets(self.name)
        if not plain:
            # Which session this is cannot be known; a clean one is.
            self.next_plan = plan._replace(clean=True, expiry=plan.expiry * (self.version == V5))
            self.drop()
            return
        if plan.clean and plan.expiry:
            self.plan = plan._replace(clean=False)
        self.online = True
        self._go_on()

    def _go_on(self) -> None:
        for packet_id, pending in self.pending.items():
            if pending.released:
                pending.repeated = True
                self.send(Pubrel(packet_id))
            else:
                self._send_publish(packet_id, dup=True)
        for topic_filter, tie in self.ties.items():
            if not tie.settled or not tie.wanted:
                self.ask(topic_filter)

    def _take_publish(self, packet: Publish) -> None:
        packet_id, qos = packet.packet_id, packet.qos
        topic = packet.topic.decode()
        self.trace(
            f"{self.name} is given {packet.payload!r} on {topic} QoS {qos} id {packet_id}"
            f"{' dup' if packet.dup else ''}{' retained' if packet.retain else ''}"
        )
        if packet.retain:
            self.retained[topic] = packet.payload
        if qos:
            if packet_id in self.unanswered:
                self.account.fault(f"{self.name}: the identifier {packet_id} is used twice")
            self.unanswered.add(packet_id)
            if len(self.unanswered) > self.plan.receive_maximum and self.version == V5:
                self.account.fault(f"{self.name}: more than its receive maximum")
        if qos == 2 and packet_id in self.received:
            if not packet.dup and not self.account.forgettings:
                self.account.fault(f"{self.name}: the identifier {packet_id} is not free")
        else:
            if qos == 2:
                self.received.add(packet_id)
            self.account.hears(self.name, topic, packet.payload, qos, packet.retain, self.since)
        if qos:
            self.answers.append(Puback(packet_id) if qos == 1 else Pubrec(packet_id))

    # ------------------------------------------------------------------ publishing

    def publish(self, topic: str, message: Message) -> None:
        """Publish a message; it is sent again until it is acknowledged, if its QoS says so."""
        self.account.sends(message)
        self.trace(f"{self.name} PUBLISH {message} to {topic}, promised to {message.promised}")
        if not message.qos:
            self.send(Publish(topic.encode(), message.payload, 0, message.retain))
            return
        packet_id = self._next_id()
        self.pending[packet_id] = Pending(message, topic)
        self._send_publish(packet_id, dup=False)

    def _next_id(self) -> int:
        used = {*self.pending, *(tie.asked for tie in self.ties.values())}
        while True:
            self.last_id = self.last_id % 40 + 1
            if self.last_id not in used:
                return self.last_id

    def _send_publish(self, packet_id: int, *, dup: bool) -> None:
        message, topic = self.pending[packet_id].message, self.pending[packet_id].topic
        message.repeated |= dup
        self.send(
            Publish(topic.encode(), message.payload, message.qos, message.retain, dup, packet_id)
        )

    def _take_answer(self, packet: Puback | Pubrec | Pubcomp) -> None:
        pending = self.pending.get(packet.packet_id)
        expected: type[Packet] = Puback
        if pending is not None and pending.message.qos == 2:
            expected = Pubcomp if pending.released else Pubrec
        if pending is None or not isinstance(packet, expected):
            self.account.fault(f"{self.name} was sent {packet} for {pending}")
            return
        message = pending.message
        self.trace(f"{self.name} {packet} for {message}")
        if isinstance(packet, Pubcomp):
            if packet.reason and not pending.repeated:
                self.account.fault(f"{self.name} was sent {packet} for {message}")
            del self.pending[packet.packet_id]
        elif is_error(packet.reason):
            # What a node was asked to keep that is gone is refused, too.
            may_be_refused = self.account.was_full or self.account.was_moved
            if packet.reason not in _FULL or not may_be_refused:
                self.account.fault(f"{self.name} was sent {packet} for {message}")
            message.refused = True
            del self.pending[packet.packet_id]
        else:
            message.acknowledged = True
            if isinstance(packet, Pubrec):
                pending.released = True
                self.send(Pubrel(packet.packet_id))
            else:
                del self.pending[packet.packet_id]

    # ------------------------------------------------------------------ subscriptions

    def want(self, topic_filter: str, qos: int) -> None:
        """Subscribe, or ask for another QoS."""
        self.ties[topic_filter] = Tie(qos)
        self.ask(topic_filter)

    def unwant(self, topic_filter: str) -> None:
        """Unsubscribe."""
        tie = self.ties[topic_filter]
        tie.wanted = False
        self.account.leaves(self.name, topic_filter)
        self.ask(topic_filter)

    def ask(self, topic_filter: str) -> None:
        """Ask (again) for what is wanted of a filter."""
        if not self.online:
            return
        tie = self.ties[topic_filter]
        tie.asked = 0
        tie.asked = self._next_id()
        self.trace(f"{self.name} asks for {topic_filter}: {tie}")
        if tie.wanted:
            self.account.asks(self.name, topic_filter, tie.qos)
            self.send(Subscribe(tie.asked, [Subscription(topic_filter, tie.qos)]))
        else:
            self.send(Unsubscribe(tie.asked, [topic_filter]))

    def _granted(self, packet_id: int, reason: Reason) -> None:
        for topic_filter, tie in self.ties.items():
            if tie.asked == packet_id and tie.wanted:
                self.trace(f"{self.name} SUBACK {reason!r} for {topic_filter}")
                if is_error(reason) and reason in _FULL and self.account.was_full:
                    tie.asked = 0
                elif reason != tie.qos:
                    self.account.fault(f"{self.name}: SUBACK {reason!r} for {topic_filter}")
                else:
                    tie.settled = True
                    self.account.subscribed(self.name, topic_filter)
                return
        self.account.fault(f"{self.name}: a SUBACK for {packet_id}")

    @property
    def satisfied(self) -> bool:
        """Whether it has nothing to wait for."""
        return (
            self.online
            and not self.pending
            and not self.answers
            and all(tie.settled and tie.wanted for tie in self.ties.values())
        )
