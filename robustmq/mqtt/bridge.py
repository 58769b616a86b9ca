"""A bridge to another broker, without I/O: a client there, and a client's voice here.

    the other broker <-- client --> Bridge <-- as if from a client's socket --> Connection

It stands where a layer of a transport stands (`net.layer`): what the other broker sends comes up
to a connection of ours as the packets of a client, and what that connection says goes down as the
packets of a client over there. So sessions, windows, acknowledgements and what waits on disk are
those of any client, on both sides; a message is acknowledged to one broker when the other has
acknowledged it. Packet identifiers are passed on: each direction has one numbering, its sender's.

No message goes in circles: both subscriptions have no-local (MQTT5 3.8.3.1), a broker of MQTT
3.1.1 is told that this is a bridge (mosquitto's bit in the protocol level), and with MQTT 5 the
nodes that a message has passed are named in a user property.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from robustmq.errors import ProtocolError
from robustmq.message.topic import matches
from robustmq.mqtt import codec
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
)
from robustmq.mqtt.reasons import Reason, is_error
from robustmq.mqtt.session import OWN_CLIENTS
from robustmq.settings.bridges import BridgedTopics

PATH: Final = "robustmq-path"
"""The user property that names the nodes that a message has passed, separated by commas."""

_LARGEST: Final = 268_435_460
_SUBSCRIBE_ID: Final = 1
_LATER: Final = (
    Reason.UNSPECIFIED_ERROR,
    Reason.IMPLEMENTATION_SPECIFIC_ERROR,
    Reason.QUOTA_EXCEEDED,
)
"""Refusals of a message that may succeed later: it must not be acknowledged with them."""


class BridgeTerms(NamedTuple):
    """What a bridge is; `node` names this one among those that a message may pass.

    `max_packet` and `receive_max` are what we take from the other broker, `window` is what one
    of MQTT 3.1.1 is sent at most without acknowledgement.
    """

    name: str
    node: str
    topics: tuple[BridgedTopics, ...]
    connect: Connect
    max_packet: int = _LARGEST
    receive_max: int = 65_535
    window: int = 100
    max_hops: int = 8


class _Dropped:
    """Messages of one direction that go nowhere: their sender is answered here."""

    def __init__(self) -> None:
        self._exchanges: set[int] = set()

    def answer(self, message: Publish) -> Packet | None:
        """Return what the sender of a message is told."""
        if message.qos == 2:
            self._exchanges.add(message.packet_id)
            return Pubrec(message.packet_id)
        return Puback(message.packet_id) if message.qos else None

    def released(self, packet_id: int) -> bool:
        """Say whether a PUBREL is for one of these; its exchange is over then."""
        known = packet_id in self._exchanges
        self._exchanges.discard(packet_id)
        return known


class Bridge:
    """One connection of a bridge. `wake` asks for a `receive(b"")` soon.

    `is_open` when the other broker has accepted us; `has_ended` when it must be tried again, for
    which `ending` has the sentence.
    """

    def __init__(self, terms: BridgeTerms, wake: Callable[[], None]) -> None:
        self._terms = terms
        self._wake = wake
        self._version = terms.connect.version
        self._begun = False
        self._pinged = False
        self._from_remote = b""
        self._from_local = b""
        self._to_remote: list[bytes] = []
        self._to_local: list[bytes] = []
        self._inward = _Dropped()
        self._outward = _Dropped()
        self.is_open = False
        self.has_ended = False
        self.ending = ""
        self.dropped = 0

    # ------------------------------------------------------------------ the other broker

    def receive(self, data: bytes) -> bytes:
        """Take what the other broker sends; return what our connection is told.

        Raises ProtocolError when it breaks the protocol, refuses us or leaves.
        """
        if not self._begun:
            self._begun = True
            self._to_remote.append(self._connect())
        if data:
            packets, self._from_remote = _split(self._from_remote + data, self._terms.max_packet)
            for first_byte, body in packets:
                self._remote_packet(codec.decode(first_byte, body, self._version))
        plain = b"".join(self._to_local)
        self._to_local.clear()
        return plain

    def outgoing(self) -> bytes:
        """Return what the other broker is told by the bridge itself."""
        words = b"".join(self._to_remote)
        self._to_remote.clear()
        return words

    def ping(self) -> bool:
        """Ask the other broker whether it lives; False when it has not answered the last time."""
        if self._pinged:
            return False
        if self.is_open:
            self._pinged = True
            self._to_remote.append(codec.encode(Pingreq(), self._version))
        return True

    def close(self) -> bytes:
        """Return the last words."""
        return codec.encode(Disconnect(), self._version) if self.is_open else b""

    def _connect(self) -> bytes:
        terms = self._terms
        connect = terms.connect
        if self._version == V5:
            properties = connect.properties or Properties()
            connect = msgspec.structs.replace(
                connect,
                properties=msgspec.structs.replace(
                    properties,
                    receive_maximum=terms.receive_max,
                    maximum_packet_size=terms.max_packet,
                ),
            )
        return codec.encode(connect, self._version)

    def _remote_packet(self, packet: Packet) -> None:
        if isinstance(packet, Connack) and not self.is_open:
            self._accepted(packet)
            return
        if not self.is_open:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, "the other broker did not begin with CONNACK"
            )
        match packet:
            case Publish():
                self._come(packet)
            case Pubrel(packet_id=packet_id) if self._inward.released(packet_id):
                self._tell_remote(Pubcomp(packet_id))
            case Puback() | Pubrec() | Pubrel() | Pubcomp():
                self._to_local.append(codec.encode(_bare(packet), V5))
            case Pingresp():
                self._pinged = False
                # Our own connection wants to hear of its client, too.
                self._to_local.append(codec.encode(Pingreq(), V5))
            case Suback(reasons=reasons):
                refused = [reason for reason in reasons if is_error(reason)]
                if refused:
                    raise ProtocolError(
                        refused[0], f"a subscription over there is refused (0x{refused[0]:02x})"
                    )
            case Disconnect(reason=reason):
                raise ProtocolError(reason, f"the other broker ends it (0x{reason:02x})")
            case _:
                raise ProtocolError(
                    Reason.PROTOCOL_ERROR, f"{type(packet).__name__} is not for a server to send"
                )

    def _accepted(self, packet: Connack) -> None:
        """Say to both sides what the bridge wants."""
        if is_error(packet.reason):
            raise ProtocolError(
                packet.reason, f"the other broker refuses the bridge (0x{packet.reason:02x})"
            )
        self.is_open = True
        terms = self._terms
        wanted = [
            Subscription(each.remote + each.pattern, each.qos, *self._options())
            for each in terms.topics
            if each.direction != "out"
        ]
        if wanted:
            self._tell_remote(Subscribe(_SUBSCRIBE_ID, wanted))
        granted = packet.properties or Properties()
        limit = (granted.receive_maximum or 65_535) if self._version == V5 else terms.window
        self._tell_local(
            Connect(
                OWN_CLIENTS + terms.name,
                clean_start=terms.connect.clean_start,
                properties=Properties(
                    session_expiry_interval=0xFFFFFFFF,
                    receive_maximum=limit,
                    maximum_packet_size=granted.maximum_packet_size,
                ),
            )
        )
        offered = [
            Subscription(each.local + each.pattern, each.qos, True, True, 1)
            for each in terms.topics
            if each.direction != "in"
        ]
        if offered:
            self._tell_local(Subscribe(_SUBSCRIBE_ID, offered))

    def _options(self) -> tuple[bool, bool, int]:
        """No local, retain as published, and retained messages for new subscriptions."""
        return (True, True, 1) if self._version == V5 else (False, False, 0)

    def _come(self, message: Publish) -> None:
        """A message for this side."""
        topic = self._named(message.topic, "in")
        path = _path(message)
        if topic is None or self._terms.node in path or len(path) >= self._terms.max_hops:
            self.dropped += 1
            self._tell_remote(self._inward.answer(message))
        else:
            self._to_local.append(codec.encode(self._passed(message, topic, path, V5), V5))

    # ------------------------------------------------------------------ our own connection

    def send(self, data: bytes) -> bytes:
        """Take what our connection says; return what goes to the other broker."""
        sent: list[bytes] = []
        packets, self._from_local = _split(self._from_local + data, _LARGEST)
        for first_byte, body in packets:
            packet = self._local_packet(codec.decode(first_byte, body, V5))
            if packet is not None:
                sent.append(codec.encode(packet, self._version))
        return b"".join(sent)

    def _local_packet(self, packet: Packet) -> Packet | None:
        """Return what becomes of a packet over there; None: it is for the bridge itself."""
        match packet:
            case Publish():
                return self._go(packet)
            case Pubrel(packet_id=packet_id) if self._outward.released(packet_id):
                self._tell_local(Pubcomp(packet_id))
                self._wake()
            case Puback(reason=reason) | Pubrec(reason=reason) if reason in _LATER:
                self._end(f"a message cannot be kept here now (0x{reason:02x})")
            case Puback() | Pubrec() | Pubrel() | Pubcomp():
                return _bare(packet)
            case Suback(reasons=reasons) if any(map(is_error, reasons)):
                self._end("a subscription of the bridge is refused here")
            case Connack(reason=reason) | Disconnect(reason=reason) if is_error(reason):
                self._end(f"the bridge's connection here is refused or ended (0x{reason:02x})")
            case _:
                pass
        return None

    def _go(self, message: Publish) -> Packet | None:
        """A message for the other side."""
        topic = self._named(message.topic, "out")
        path = _path(message)
        if topic is None or self._terms.node in path[:-1] or len(path) >= self._terms.max_hops:
            self.dropped += 1
            answer = self._outward.answer(message)
            if answer is not None:
                self._tell_local(answer)
                self._wake()
            return None
        return self._passed(message, topic, path, self._version)

    def _end(self, sentence: str) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.ending = sentence
            self._wake()

    # ------------------------------------------------------------------ both

    def _named(self, topic: bytes, direction: str) -> bytes | None:
        """Return a topic's name on the other side of the bridge; None: it is not bridged."""
        for each in self._terms.topics:
            if each.direction in {direction, "both"}:
                before, after = each.local.encode(), each.remote.encode()
                if direction == "in":
                    before, after = after, before
                if topic.startswith(before) and matches(before + each.pattern.encode(), topic):
                    return after + topic[len(before) :]
        return None

    def _passed(self, message: Publish, topic: bytes, path: list[str], version: int) -> Publish:
        """Return the message as the next broker gets it."""
        properties = None
        if version == V5:
            known = message.properties or Properties()
            if not path or path[-1] != self._terms.node:
                path = [*path, self._terms.node]
            users = tuple(each for each in known.user_properties if each[0] != PATH)
            properties = msgspec.structs.replace(
                known,
                subscription_identifiers=(),
                topic_alias=None,
                user_properties=(*users, (PATH, ",".join(path))),
            )
        return msgspec.structs.replace(message, topic=topic, properties=properties)

    def _tell_remote(self, packet: Packet | None) -> None:
        if packet is not None:
            self._to_remote.append(codec.encode(packet, self._version))

    def _tell_local(self, packet: Packet) -> None:
        self._to_local.append(codec.encode(packet, V5))


def _path(message: Publish) -> list[str]:
    """Return the nodes that a message has passed."""
    properties = message.properties
    for name, value in properties.user_properties if properties is not None else ():
        if name == PATH:
            return value.split(",")
    return []


def _bare(packet: Puback | Pubrec | Pubrel | Pubcomp) -> Packet:
    """Return an answer without what only one connection understands."""
    return msgspec.structs.replace(packet, properties=None)


def _split(data: bytes, most: int) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the first byte and body of each whole packet, and what is not whole yet."""
    packets = []
    at = 0
    while (found := scan(data, at, most)) is not None:
        first_byte, start, at = found
        packets.append((first_byte, data[start:at]))
    return packets, data[at:]
