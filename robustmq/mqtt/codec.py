"""Bytes to packets and back: what MQTT 3.1, 3.1.1 and 5.0 look like on the wire.

This is the definition: runs of plain PUBLISH and PUBACK are handled by a kernel that agrees
with it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from robustmq.errors import ProtocolError
from robustmq.mqtt import properties, wire
from robustmq.mqtt.packets import (
    ANSWER_REASONS,
    BRIDGE_BIT,
    PROTOCOL_NAMES,
    V5,
    V31,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
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
    Unsuback,
    Unsubscribe,
    Will,
    level_of,
)
from robustmq.mqtt.reasons import V3_REASONS, Reason, connack_v3
from robustmq.mqtt.wire import Reader, malformed, text_of

_SHARE: Final = "$share/"
_SHARED: Final = (_SHARE, "$queue/")
_FLAGS: Final[Mapping[int, int]] = {
    packet: 2 if packet in {PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE} else 0
    for packet in PacketType
    if packet != PacketType.PUBLISH
}
_DUP: Final = 0x08


def decode(first_byte: int, body: bytes, version: int) -> Packet:
    """Return the packet whose fixed header begins with `first_byte` and whose rest is `body`.

    `version` is the protocol level of the connection, 3, 4 or 5; a CONNECT carries its own.
    Raises ProtocolError with the reason that MQTT 5 has for what is wrong (MQTT5 2.4, 4.13);
    MQTT 3 closes the connection whatever the reason is. What only one side may send, or only
    in some state of the connection, is not judged here.
    """
    packet_type = first_byte >> 4
    if packet_type == PacketType.PUBLISH:
        return _publish(first_byte, body, version)
    decoder = _DECODERS.get(packet_type)
    if decoder is None or (packet_type == PacketType.AUTH and version < V5):
        raise malformed(f"There is no packet type {packet_type} in this version.")
    flags = first_byte & 0x0F
    if version == V31 and _FLAGS[packet_type]:
        # MQTT 3.1 marks a repeated PUBREL, SUBSCRIBE and UNSUBSCRIBE like a PUBLISH.
        flags &= ~_DUP
    if flags != _FLAGS[packet_type]:
        raise malformed(f"The flags of packet type {packet_type} are {flags:#x}.")
    reader = Reader(body, 0, len(body))
    packet = decoder(reader, version)
    reader.finish("packet")
    return packet


def _properties(reader: Reader, version: int, packet: int) -> Properties | None:
    return properties.decode(reader, packet) if version == V5 else None


def _packet_id(reader: Reader) -> int:
    packet_id = reader.two("packet identifier")
    if not packet_id:
        raise malformed("The packet identifier is 0.")
    return packet_id


def _reason(code: int, packet: PacketType) -> Reason:
    reason = ANSWER_REASONS[packet].get(code)
    if reason is None:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, f"{packet.name} cannot carry the reason 0x{code:02x}."
        )
    return reason


def _publish(first_byte: int, body: bytes, version: int) -> Publish:
    qos = (first_byte >> 1) & 3
    dup = bool(first_byte & _DUP)
    if qos == 3:
        raise malformed("A PUBLISH has QoS 3.")
    if dup and not qos:
        raise malformed("A PUBLISH with QoS 0 is marked as a duplicate.")
    reader = Reader(body, 0, len(body))
    topic = reader.binary("topic name")
    _check_name(topic)
    packet_id = _packet_id(reader) if qos else 0
    block = _properties(reader, version, PacketType.PUBLISH)
    if not topic:
        if version < V5:
            raise ProtocolError(Reason.TOPIC_NAME_INVALID, "The topic name is empty.")
        if block is None or block.topic_alias is None:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, "The topic name is empty and there is no topic alias."
            )
    return Publish(topic, reader.rest(), qos, bool(first_byte & 1), dup, packet_id, block)


def _check_name(topic: bytes) -> None:
    text_of(topic, "topic name")
    if b"+" in topic or b"#" in topic:
        raise ProtocolError(Reason.TOPIC_NAME_INVALID, "A topic name contains a wildcard.")


def _filter(reader: Reader) -> str:
    """Read a topic filter; the same rules as `message.topic.validate_filter`, by test."""
    topic_filter = inner = reader.text("topic filter")
    if topic_filter.startswith(_SHARE):
        group, _, inner = topic_filter[len(_SHARE) :].partition("/")
        if not group or "+" in group or "#" in group:
            raise ProtocolError(
                Reason.TOPIC_FILTER_INVALID, "The group of a shared subscription is not valid."
            )
    if not inner:
        raise ProtocolError(Reason.TOPIC_FILTER_INVALID, "A topic filter is empty.")
    if "#" in inner[:-1] or (inner[-1] == "#" and inner[-2:-1] not in {"", "/"}):
        raise ProtocolError(
            Reason.TOPIC_FILTER_INVALID, "The wildcard # does not stand alone at the end."
        )
    if "+" in inner and any("+" in level and level != "+" for level in inner.split("/")):
        raise ProtocolError(
            Reason.TOPIC_FILTER_INVALID, "The wildcard + does not stand alone in its level."
        )
    return topic_filter


def _connect(reader: Reader, _: int) -> Connect:
    version, is_bridge = _connect_version(reader)
    flags = reader.byte("connect flags")
    qos = (flags >> 3) & 3
    has_will = bool(flags & 0x04)
    if flags & 0x01 and version > V31:
        # MQTT 3.1 does not say that it is 0.
        raise malformed("The reserved connect flag is set.")
    if qos == 3 or (not has_will and flags & 0x38):
        raise malformed("The will flags contradict each other.")
    if version < V5 and flags & 0xC0 == 0x40:
        raise malformed("There is a password without a user name.")
    keep_alive = reader.two("keep alive")
    block = _properties(reader, version, PacketType.CONNECT)
    client_id = reader.text("client identifier")
    will = None
    if has_will:
        will_block = _properties(reader, version, properties.WILL)
        topic = reader.binary("will topic")
        _check_name(topic)
        if not topic:
            raise ProtocolError(Reason.TOPIC_NAME_INVALID, "The will topic is empty.")
        payload = reader.binary("will payload")
        will = Will(topic, payload, qos, bool(flags & 0x20), will_block)
    username = password = None
    # In MQTT 3.1 the remaining length has the last word on whether these fields are there.
    if flags & 0x80 and (version > V31 or reader.at < reader.end):
        username = reader.text("user name")
    if flags & 0x40 and (version > V31 or reader.at < reader.end):
        password = reader.binary("password")
    clean_start = bool(flags & 0x02)
    return Connect(
        client_id, version, clean_start, keep_alive, username, password, will, block, is_bridge
    )


def _connect_version(reader: Reader) -> tuple[int, bool]:
    """Read the protocol; return its version, and whether a bridge speaks it."""
    versions = PROTOCOL_NAMES.get(reader.binary("protocol name"))
    if versions is None:
        raise ProtocolError(Reason.UNSUPPORTED_PROTOCOL_VERSION, "The protocol is not MQTT.")
    level = reader.byte("protocol version")
    version = level_of(level)
    if version not in versions:
        raise ProtocolError(
            Reason.UNSUPPORTED_PROTOCOL_VERSION, f"The protocol version is {level}."
        )
    return version, level != version


def _connack(reader: Reader, version: int) -> Connack:
    flags = reader.byte("acknowledge flags")
    if flags > 1:
        raise malformed("A reserved acknowledge flag is set.")
    code = reader.byte("reason code")
    if version == V5:
        reason = _reason(code, PacketType.CONNACK)
    elif code < len(V3_REASONS):
        reason = V3_REASONS[code]
    else:
        raise malformed(f"There is no return code {code}.")
    return Connack(reason, bool(flags), _properties(reader, version, PacketType.CONNACK))


def _acknowledgement(
    packet: PacketType, shape: Callable[[int, Reason, Properties | None], Packet]
) -> Callable[[Reader, int], Packet]:
    def decoder(reader: Reader, version: int) -> Packet:
        packet_id = _packet_id(reader)
        if version < V5 or reader.at == reader.end:
            return shape(packet_id, Reason.SUCCESS, None)
        return shape(packet_id, *_optional_reason(reader, packet))

    return decoder


def _optional_reason(reader: Reader, packet: PacketType) -> tuple[Reason, Properties | None]:
    """Read a reason and properties, both of which MQTT 5 lets a packet leave out."""
    if reader.at == reader.end:
        return Reason.SUCCESS, None
    reason = _reason(reader.byte("reason code"), packet)
    if reader.at == reader.end:
        return reason, None
    return reason, properties.decode(reader, packet)


def _subscribe(reader: Reader, version: int) -> Subscribe:
    packet_id = _packet_id(reader)
    block = _properties(reader, version, PacketType.SUBSCRIBE)
    subscriptions: list[Subscription] = []
    while reader.at < reader.end:
        topic_filter = _filter(reader)
        subscriptions.append(_subscription(topic_filter, reader.byte("options"), version))
    if not subscriptions:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "A SUBSCRIBE has no topic filter.")
    return Subscribe(packet_id, subscriptions, block)


def _subscription(topic_filter: str, options: int, version: int) -> Subscription:
    qos = options & 3
    if version < V5:
        if options > 2:
            raise malformed(f"The requested QoS is {options:#x}.")
        return Subscription(topic_filter, qos)
    handling = (options >> 4) & 3
    no_local = bool(options & 0x04)
    if options & 0xC0:
        raise malformed("A reserved subscription option is set.")
    if qos == 3 or handling == 3:
        raise ProtocolError(Reason.PROTOCOL_ERROR, f"Subscription options {options:#x} mean 3.")
    if no_local and topic_filter.startswith(_SHARED):
        raise ProtocolError(Reason.PROTOCOL_ERROR, "A shared subscription has No Local.")
    return Subscription(topic_filter, qos, no_local, bool(options & 0x08), handling)


def _suback(reader: Reader, version: int) -> Suback:
    packet_id = _packet_id(reader)
    block = _properties(reader, version, PacketType.SUBACK)
    reasons = [_reason(code, PacketType.SUBACK) for code in reader.rest()]
    if not reasons:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "A SUBACK has no reason code.")
    if version < V5 and any(reason > Reason.UNSPECIFIED_ERROR for reason in reasons):
        raise malformed("A SUBACK has a return code of MQTT 5.")
    return Suback(packet_id, reasons, block)


def _unsubscribe(reader: Reader, version: int) -> Unsubscribe:
    packet_id = _packet_id(reader)
    block = _properties(reader, version, PacketType.UNSUBSCRIBE)
    filters: list[str] = []
    while reader.at < reader.end:
        filters.append(_filter(reader))
    if not filters:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "An UNSUBSCRIBE has no topic filter.")
    return Unsubscribe(packet_id, filters, block)


def _unsuback(reader: Reader, version: int) -> Unsuback:
    packet_id = _packet_id(reader)
    if version < V5:
        return Unsuback(packet_id)
    block = properties.decode(reader, PacketType.UNSUBACK)
    reasons = [_reason(code, PacketType.UNSUBACK) for code in reader.rest()]
    if not reasons:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "An UNSUBACK has no reason code.")
    return Unsuback(packet_id, reasons, block)


def _disconnect(reader: Reader, version: int) -> Disconnect:
    if version < V5:
        return Disconnect()
    return Disconnect(*_optional_reason(reader, PacketType.DISCONNECT))


def _auth(reader: Reader, _: int) -> Auth:
    return Auth(*_optional_reason(reader, PacketType.AUTH))


_DECODERS: Final[Mapping[int, Callable[[Reader, int], Packet]]] = {
    PacketType.CONNECT: _connect,
    PacketType.CONNACK: _connack,
    PacketType.PUBACK: _acknowledgement(PacketType.PUBACK, Puback),
    PacketType.PUBREC: _acknowledgement(PacketType.PUBREC, Pubrec),
    PacketType.PUBREL: _acknowledgement(PacketType.PUBREL, Pubrel),
    PacketType.PUBCOMP: _acknowledgement(PacketType.PUBCOMP, Pubcomp),
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.SUBACK: _suback,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.UNSUBACK: _unsuback,
    PacketType.PINGREQ: lambda _reader, _version: Pingreq(),
    PacketType.PINGRESP: lambda _reader, _version: Pingresp(),
    PacketType.DISCONNECT: _disconnect,
    PacketType.AUTH: _auth,
}


def encode(packet: Packet, version: int) -> bytes:
    """Return a whole packet for a peer of protocol level 3, 4 or 5; CONNECT has its own.

    What MQTT 3 has no room for (properties, reasons) is left out there. Raises ValueError for
    what MQTT cannot say, such as a field that is too long or a property in a packet that may
    not carry it: both are bugs of the caller.
    """
    first_byte, parts = _ENCODERS[type(packet)](packet, version)
    body = b"".join(parts)
    return bytes((first_byte,)) + wire.varint(len(body)) + body


_Encoded = tuple[int, tuple[bytes, ...]]


def _block(packet: Properties | None, version: int, packet_type: int) -> bytes:
    return properties.encode(packet, packet_type) if version == V5 else b""


def _two(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _encode_connect(packet: Connect, _: int) -> _Encoded:
    version, will = packet.version, packet.will
    flags = packet.clean_start << 1
    level = version | BRIDGE_BIT if packet.is_bridge else version
    name = b"\0\6MQIsdp" if version == V31 else b"\0\4MQTT"
    block = _block(packet.properties, version, PacketType.CONNECT)
    tail = [wire.text(packet.client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        tail.append(_block(will.properties, version, properties.WILL))
        tail += (wire.binary(will.topic), wire.binary(will.payload))
    if packet.username is not None:
        flags |= 0x80
        tail.append(wire.text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        tail.append(wire.binary(packet.password))
    return 0x10, (name, bytes((level, flags)), _two(packet.keep_alive), block, *tail)


def _encode_connack(packet: Connack, version: int) -> _Encoded:
    code = packet.reason if version == V5 else connack_v3(packet.reason)
    block = _block(packet.properties, version, PacketType.CONNACK)
    return 0x20, (bytes((packet.session_present, code)), block)


def _encode_publish(packet: Publish, version: int) -> _Encoded:
    first_byte = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    packet_id = _two(packet.packet_id) if packet.qos else b""
    block = _block(packet.properties, version, PacketType.PUBLISH)
    return first_byte, (wire.binary(packet.topic), packet_id, block, packet.payload)


def _encode_acknowledgement(
    packet_type: PacketType,
) -> Callable[[Puback | Pubrec | Pubrel | Pubcomp, int], _Encoded]:
    first_byte = packet_type << 4 | _FLAGS[packet_type]

    def encoder(packet: Puback | Pubrec | Pubrel | Pubcomp, version: int) -> _Encoded:
        tail = _encode_reason(packet.reason, packet.properties, version, packet_type)
        return first_byte, (_two(packet.packet_id), tail)

    return encoder


def _encode_reason(
    reason: int, block: Properties | None, version: int, packet_type: PacketType
) -> bytes:
    """Encode what `_optional_reason` reads, in the shortest form."""
    if version < V5:
        return b""
    encoded = properties.encode(block, packet_type)
    if encoded != b"\0":
        return bytes((reason,)) + encoded
    return bytes((reason,)) if reason else b""


def _encode_subscribe(packet: Subscribe, version: int) -> _Encoded:
    block = _block(packet.properties, version, PacketType.SUBSCRIBE)
    parts = [_two(packet.packet_id), block]
    for one in packet.subscriptions:
        options = one.qos
        if version == V5:
            options |= one.no_local << 2 | one.retain_as_published << 3 | one.retain_handling << 4
        parts += (wire.text(one.filter), bytes((options,)))
    return 0x82, tuple(parts)


def _encode_suback(packet: Suback, version: int) -> _Encoded:
    block = _block(packet.properties, version, PacketType.SUBACK)
    codes = packet.reasons if version == V5 else [min(code, 0x80) for code in packet.reasons]
    return 0x90, (_two(packet.packet_id), block, bytes(codes))


def _encode_unsubscribe(packet: Unsubscribe, version: int) -> _Encoded:
    block = _block(packet.properties, version, PacketType.UNSUBSCRIBE)
    return 0xA2, (_two(packet.packet_id), block, *map(wire.text, packet.filters))


def _encode_unsuback(packet: Unsuback, version: int) -> _Encoded:
    if version < V5:
        return 0xB0, (_two(packet.packet_id),)
    block = properties.encode(packet.properties, PacketType.UNSUBACK)
    return 0xB0, (_two(packet.packet_id), block, bytes(packet.reasons))


def _encode_disconnect(packet: Disconnect, version: int) -> _Encoded:
    tail = _encode_reason(packet.reason, packet.properties, version, PacketType.DISCONNECT)
    return 0xE0, (tail,)


def _encode_auth(packet: Auth, version: int) -> _Encoded:
    if version < V5:
        raise ValueError("MQTT 3 has no AUTH")
    return 0xF0, (_encode_reason(packet.reason, packet.properties, version, PacketType.AUTH),)


_ENCODERS: Final[Mapping[type, Callable[[Any, int], _Encoded]]] = {
    Connect: _encode_connect,
    Connack: _encode_connack,
    Publish: _encode_publish,
    Puback: _encode_acknowledgement(PacketType.PUBACK),
    Pubrec: _encode_acknowledgement(PacketType.PUBREC),
    Pubrel: _encode_acknowledgement(PacketType.PUBREL),
    Pubcomp: _encode_acknowledgement(PacketType.PUBCOMP),
    Subscribe: _encode_subscribe,
    Suback: _encode_suback,
    Unsubscribe: _encode_unsubscribe,
    Unsuback: _encode_unsuback,
    Pingreq: lambda _packet, _version: (0xC0, ()),
    Pingresp: lambda _packet, _version: (0xD0, ()),
    Disconnect: _encode_disconnect,
    Auth: _encode_auth,
}
