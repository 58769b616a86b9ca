"""One MQTT connection: its states, its packets, and every way in which it ends.

    waiting -- CONNECT --> kept -- CONNACK --> open -- DISCONNECT, error, take-over, loss --> ended

Between CONNECT and CONNACK the client proves who it is, by its password or by AUTH, and the session
is written; what the client says meanwhile is not looked at, but for AUTH and DISCONNECT.
Bytes come in by `intake`, broker events by the session's window; what goes out is collected in
`outbox`. No method waits or touches a socket: `stream` is what the shell gave to be closed.
"""

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from robustmq import metrics
from robustmq._kernel.intake import ADMISSION, Handle, Intake
from robustmq._kernel.outbox import Outbox
from robustmq.broker.api import Broker, Peer, Timer
from robustmq.errors import ProtocolError
from robustmq.mqtt import codec
from robustmq.mqtt.arrival import Arrival
from robustmq.mqtt.connect import Greeting
from robustmq.mqtt.explanation import Explained, Wording
from robustmq.mqtt.packets import (
    V5,
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from robustmq.mqtt.passage import Introduction, Passage
from robustmq.mqtt.publisher import Publisher
from robustmq.mqtt.reasons import (
    UNKNOWN_PACKET_ID,
    Reason,
    is_error,
)
from robustmq.mqtt.session import Session
from robustmq.mqtt.subscriber import Subscriber

if TYPE_CHECKING:
    from robustmq.mqtt.data_stream import DataStream
    from robustmq.mqtt.protocol import Mqtt


_TAKEN_OVER: Final = "another client has connected with this client identifier"
_UNHEARD: Final = "the answer exceeds the client's maximum packet size"
_WITHOUT_CONNACK: Final = frozenset(
    {
        Reason.MALFORMED_PACKET,
        Reason.PROTOCOL_ERROR,
        Reason.TOPIC_NAME_INVALID,
        Reason.PACKET_TOO_LARGE,
    }
)
"""What MQTT 3 has no return code for: its connection ends without CONNACK (MQTT311 3.2.2.3)."""


class Stream(Protocol):
    """What a connection may ask of its transport."""

    def close(self) -> None:
        """Send what waits, then end."""

    def abort(self) -> None:
        """End at once."""


class Connection:
    """The automaton of one client's connection, from its first byte to its end."""

    __slots__ = (
        "_arrival",
        "_greeted",
        "_keep_alive_ms",
        "_parting",
        "_passage",
        "_publisher",
        "_subscriber",
        "_timer",
        "_unheard",
        "broker",
        "data_streams",
        "ended",
        "greeted_ms",
        "intake",
        "is_bridge",
        "mqtt",
        "outbox",
        "peer",
        "session",
        "stream",
        "version",
        "wording",
    )

    def __init__(self, mqtt: "Mqtt", peer: Peer) -> None:
        self.mqtt = mqtt
        self.broker: Broker = mqtt.broker
        self.peer = peer
        self.outbox = Outbox(self.broker.turn)
        self.intake = Intake(
            self.broker.turn,
            self.outbox,
            self,
            min(mqtt.limits.max_connect_size, mqtt.limits.max_packet_size),
        )
        self.stream: Stream | None = None
        self.session: Session | None = None
        self.version = 0
        self.wording = Wording(0)
        self.ended = False
        self.is_bridge = False
        # Further streams of the same client, on transports that have them.
        self.data_streams: list[DataStream] | None = None
        self._arrival: Arrival | None = Arrival(self)
        self._publisher: Publisher | None = None
        self._subscriber: Subscriber | None = None
        self._greeted = False
        # When it was told that it is connected.
        self.greeted_ms = 0
        self._parting = False
        self._passage: Passage | None = None
        self._unheard = False
        self._keep_alive_ms = 0
        self._timer: Timer | None = self.broker.at(
            self.broker.turn.now_ms + mqtt.limits.connect_timeout_ms, self._connect_timeout
        )

    # ------------------------------------------------------------------ the intake's questions

    def on_packet(self, first_byte: int, body: bytes) -> None:
        """A packet that the kernel did not handle by itself."""
        try:
            if self._passage is not None:
                self._passage.packet(first_byte, body)
            elif self.session is None:
                assert self._arrival is not None
                self._arrival.packet(first_byte, body)
            else:
                self._packet(codec.decode(first_byte, body, self.version))
        except ProtocolError as error:
            self.fail(error.reason, error.detail)

    def on_route(self, topic: bytes) -> Handle | None:
        """Where plain messages to a topic go."""
        try:
            return self._publisher.route(topic) if self._publisher is not None else None
        except ProtocolError as error:
            self.fail(error.reason, error.detail)
            return None

    def on_malformed(self, reason: int, detail: str) -> None:
        """The kernel could not make a packet of the bytes."""
        self.fail(reason, detail)

    def settled(self, kind: int, packet_id: int, code: int, matched: bool) -> int | bytes:
        """The reason to answer a PUBLISH with, or the whole answer."""
        assert self._publisher is not None
        return self._publisher.settled(kind, packet_id, code, matched)

    # ------------------------------------------------------------------ CONNECT

    def serve(self, session: Session) -> None:
        """Whose packets these are is known now."""
        self.session = session
        self._publisher = Publisher(self, session)
        self._subscriber = Subscriber(self, session)
        limits = self.mqtt.limits
        intake = self.intake
        intake.version = self.version
        intake.max_packet = limits.max_packet_size
        intake.receive_max = limits.receive_max
        intake.max_handles = limits.publisher_route_cache
        if self.mqtt.rates is not None:
            # A data stream has those of its client.
            owner = session.connection or self
            of_client = owner.intake.meters if owner is not self else None
            intake.meters = of_client or self.mqtt.rates.meters(self.peer)

    def kept(self, greeting: Greeting) -> None:
        """The session is safe; the connection may be gone."""
        if self._parting:
            self.send(greeting.connack)
            if self.version == V5:
                self.refuse(Disconnect(Reason.SESSION_TAKEN_OVER), _TAKEN_OVER)
            self._leave()
        elif not self.ended:
            self.greet(greeting)

    def greet(self, greeting: Greeting) -> None:
        """Tell the client that it is connected, and let messages flow."""
        session = self.session
        assert session is not None
        if not self.wording.takes(codec.encode(greeting.connack, self.version)):
            self.refuse_connect(self.version, Reason.PACKET_TOO_LARGE, _UNHEARD)
            return
        self._greeted = True
        self.greeted_ms = self.broker.turn.now_ms
        self.count(metrics.CONNECTIONS_OPENED)
        self.send(greeting.connack)
        self._watch(greeting.keep_alive)
        self.mqtt.greeted(self, session, greeting.keep_alive)
        moved = session.window.version != self.version
        session.window.attach(
            self.outbox, self.version, greeting.limit, greeting.max_packet, greeting.alias_max
        )
        self.outbox.drained = partial(self.broker.pump, session.window)
        if moved:
            for subscribed in session.subscriptions:
                self.broker.moved(subscribed.topic_filter)
        self.broker.open(session.window, True)
        self.intake.window = session.window
        self.intake.open = True
        self.intake.let_go(ADMISSION)
        for stream in self.data_streams or ():
            stream.begin()
        if self._subscriber is not None:
            self._subscriber.subscribe_automatically()

    def introduce(self, introduction: Introduction) -> None:
        """The client has connected to another node, and its session lives here."""
        assert self._arrival is not None
        self._arrival.introduced(introduction)

    def follow(self, core: int, introduction: Introduction) -> None:
        """The session lives on a core of another node: let the client go on there."""
        assert self.mqtt.roaming is not None
        self._stop_timer()
        self._passage = Passage(self)
        self.intake.max_packet = self.mqtt.limits.max_packet_size
        self.mqtt.roaming.passages.add(self)
        self.mqtt.roaming.bring(core, self._passage, introduction)
        self.outbox.drained = self._passage.endpoint.drained
        self.intake.let_go(ADMISSION)

    @property
    def is_greeted(self) -> bool:
        """Whether the client was told that it is connected."""
        return self._greeted and not self.ended

    def refuse_connect(self, version: int, reason: Reason, sentence: str) -> None:
        """End with a CONNACK that says why, where the peer's version has one."""
        self.count(metrics.CONNECTIONS_REFUSED)
        if version == V5 or (version and reason not in _WITHOUT_CONNACK):
            self.version = self.wording.version = version
            self.refuse(Connack(reason), sentence)
        self.finish(with_will=False)

    # ------------------------------------------------------------------ packets while open

    def _packet(self, packet: Packet) -> None:
        assert self.session is not None
        assert self._publisher is not None
        assert self._subscriber is not None
        match packet:
            case Publish():
                self._publisher.publish(packet)
            case Puback(packet_id=packet_id):
                self.session.window.puback(packet_id)
            case Pubrec(packet_id=packet_id, reason=reason):
                self._received(packet_id, reason)
            case Pubrel():
                self._publisher.release(packet)
            case Pubcomp(packet_id=packet_id):
                self._completed(packet_id)
            case Subscribe():
                self._subscriber.subscribe(packet)
            case Unsubscribe():
                self._subscriber.unsubscribe(packet)
            case Pingreq():
                self.send(Pingresp())
            case Disconnect():
                self._disconnect(packet)
            case Auth():
                assert self._arrival is not None
                self._arrival.again(packet, self.session.principal)
            case _:
                raise ProtocolError(
                    Reason.PROTOCOL_ERROR, f"{type(packet).__name__} is not for a client to send"
                )

    def _received(self, packet_id: int, reason: Reason) -> None:
        session = self.session
        assert session is not None
        refused = is_error(reason)
        known = session.window.pubrec(packet_id, refused)
        if known:
            tell = self.broker.completed if refused else self.broker.released
            tell(session.window, packet_id)
        if refused and known:
            return
        if known or self.version < V5:
            self.send(Pubrel(packet_id))
        elif not refused:
            self.refuse(Pubrel(packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND), UNKNOWN_PACKET_ID)

    def _completed(self, packet_id: int) -> None:
        session = self.session
        assert session is not None
        if session.window.pubcomp(packet_id):
            self.broker.completed(session.window, packet_id)

    def _disconnect(self, packet: Disconnect) -> None:
        assert self.session is not None
        expiry = packet.properties.session_expiry_interval if packet.properties else None
        if expiry is not None:
            if self.session.expiry == 0 and expiry:
                raise ProtocolError(
                    Reason.PROTOCOL_ERROR, "DISCONNECT cannot revive a session that ends with it"
                )
            self.session.expiry = min(expiry, self.mqtt.limits.max_session_expiry_interval)
        is_normal = packet.reason == Reason.NORMAL_DISCONNECTION
        why = "normal_disconnection" if is_normal else packet.reason.name.lower()
        self.finish(not is_normal, why)

    @property
    def keep_alive_ms(self) -> int:
        """How long the client may be silent; 0: for ever."""
        return self._keep_alive_ms

    def send(self, packet: Packet) -> None:
        """Queue a packet for the client; one that it cannot take ends the connection."""
        self._put(codec.encode(packet, self.version))

    def refuse(self, packet: Explained, sentence: str) -> None:
        """Queue an answer with the reason in words, as far as the client wants and takes it."""
        self._put(self.wording.encode(packet, sentence))

    def _put(self, encoded: bytes) -> None:
        """Queue a packet that is no PUBLISH: those are the window's."""
        if self.wording.takes(encoded):
            self.count(metrics.PACKETS_SENT)
            self.outbox.put(encoded)
        elif not self.ended and not self._unheard:
            # It cannot be said ([MQTT-3.1.2-24]), and its sense cannot be left out.
            self._unheard = True
            self._close(Reason.PACKET_TOO_LARGE, _UNHEARD, with_will=True)

    def send_if_open(self, packet: Packet) -> None:
        """Queue a packet that had to wait, unless the connection has ended meanwhile."""
        if not self.ended:
            self.send(packet)

    def forget_routes(self) -> None:
        """What was decided for the topics that this client publishes to is void."""
        self.intake.forget()
        for stream in self.data_streams or ():
            stream.intake.forget()

    # ------------------------------------------------------------------ keep alive

    def _watch(self, keep_alive: int) -> None:
        self._stop_timer()
        self._keep_alive_ms = int(keep_alive * 1_000 * self.mqtt.keep_alive.default_timeout)
        if self._keep_alive_ms:
            self._look_again(self.broker.turn.now_ms)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def be_patient(self) -> None:
        """The cluster is asked where the session is: the client waits as long again."""
        self._stop_timer()
        until_ms = self.broker.turn.now_ms + self.mqtt.limits.connect_timeout_ms
        self._timer = self.broker.at(until_ms, self._unfound)

    def _unfound(self) -> None:
        self._timer = None
        sentence = "the session could not be stored in time"
        if self.session is None:
            sentence = "the cluster has not said in time where the session is: try again"
        self.refuse_connect(self.version, Reason.SERVER_BUSY, sentence)

    def _look_again(self, last_ms: int) -> None:
        self._timer = self.broker.at(last_ms + self._keep_alive_ms, self._silence)

    def _silence(self) -> None:
        """The client was silent for its keep-alive, unless it was us who did not read."""
        now_ms = self.broker.turn.now_ms
        heard_ms = self.intake.last_read_ms
        for stream in self.data_streams or ():
            heard_ms = max(heard_ms, stream.intake.last_read_ms)
        if self.intake.paused:
            self._look_again(now_ms)
        elif heard_ms + self._keep_alive_ms > now_ms:
            self._look_again(heard_ms)
        else:
            self.count(metrics.KEEPALIVE_TIMEOUTS)
            sentence = f"nothing was heard for {self._keep_alive_ms / 1_000:g} seconds"
            self._close(Reason.KEEP_ALIVE_TIMEOUT, sentence, with_will=True)

    def _connect_timeout(self) -> None:
        self._timer = None
        if self.session is not None:
            # The disk has not taken the session yet: there is a client to be told.
            self._unfound()
        else:
            self.count(metrics.CONNECTIONS_REFUSED)
            self.finish(with_will=False)

    # ------------------------------------------------------------------ endings

    def fail(self, reason: int, detail: str) -> None:
        """The peer broke the protocol: tell it, where its version can be told, and end."""
        if not self.ended:
            self.count(metrics.PROTOCOL_ERRORS)
            self.mqtt.complain(self, reason, detail)
            self._close(Reason(reason), detail, with_will=True)

    def expel(self, reason: Reason, sentence: str) -> None:
        """The client may be here no longer."""
        self._close(reason, sentence, with_will=True)

    def taken_over(self, session_ends: bool) -> None:
        """Another connection has this client id now (MQTT5 3.1.4)."""
        if session_ends and self.session is not None:
            self.session.expiry = 0
        if self._greeted:
            self._close(Reason.SESSION_TAKEN_OVER, _TAKEN_OVER, with_will=True)
        else:
            # It was not told yet that it is connected: it is told both when the first is true.
            self._parting = True
            self.finish(with_will=True)

    def shut_down(self) -> None:
        """The server stops (MQTT5 4.13, reason 0x8B); the session is kept if it may be."""
        session, self.session = self.session, None
        if session is not None:
            self.mqtt.sessions.suspend(session)
        self._close(Reason.SERVER_SHUTTING_DOWN, "the server stops", with_will=False)

    def lost(self) -> None:
        """The stream is gone."""
        self._parting = False
        self.stream = None
        self.finish(with_will=True)

    @property
    def _has_client(self) -> bool:
        """Whether a client is there that knows that it is connected, here or on another node."""
        return self._greeted or self._passage is not None

    def _close(self, reason: Reason, sentence: str, with_will: bool) -> None:
        if not self.ended and self.version == V5 and self._has_client:
            self.refuse(Disconnect(reason), sentence)
        self.finish(with_will, reason.name.lower())

    def finish(self, with_will: bool, why: str = "connection_lost") -> None:
        """End, and let the client have what was said; `why` is for those who watch."""
        if self.ended:
            return
        self.ended = True
        self._stop_timer()
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.close()
        self.intake.close()
        self.outbox.drained = None
        for stream in tuple(self.data_streams or ()):
            stream.end()
        if self._passage is not None:
            self._passage.endpoint.lost()
            assert self.mqtt.roaming is not None
            self.mqtt.roaming.passages.discard(self)
        session, self.session = self.session, None
        if self._greeted:
            self.count(metrics.CONNECTIONS_CLOSED)
        if session is not None:
            self.mqtt.sessions.detach(session, with_will)
            self.mqtt.parted(self, session, why)
        self._publisher = None
        self._subscriber = None
        self.mqtt.closed(self)
        if not self._parting:
            self._leave()

    def _leave(self) -> None:
        """Let the client have what was said, and close the stream."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
            linger_ms = self.mqtt.limits.linger_timeout_ms
            self.broker.at(self.broker.turn.now_ms + linger_ms, stream.abort)

    def count(self, cell: int) -> None:
        """Count one more of something (`metrics`)."""
        self.broker.turn.row[cell] += 1
