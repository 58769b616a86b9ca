"""The property block of MQTT 5: one table says what may stand where, how often and how."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from robustmq.errors import ProtocolError
from robustmq.mqtt import wire
from robustmq.mqtt.packets import PacketType, Properties
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.wire import Reader, malformed

WILL: Final = 0
"""Stands for the will among packet types: its properties have a block of their own."""

_CONNECT = PacketType.CONNECT
_CONNACK = PacketType.CONNACK
_PUBLISH = PacketType.PUBLISH
_SUBSCRIBE = PacketType.SUBSCRIBE
_DISCONNECT = PacketType.DISCONNECT
_AUTH = PacketType.AUTH
_MESSAGE = (_PUBLISH, WILL)
_ANSWERS = (
    _CONNACK,
    PacketType.PUBACK,
    PacketType.PUBREC,
    PacketType.PUBREL,
    PacketType.PUBCOMP,
    PacketType.SUBACK,
    PacketType.UNSUBACK,
    _DISCONNECT,
    _AUTH,
)
_ALL = (*_ANSWERS, *_MESSAGE, _CONNECT, _SUBSCRIBE, PacketType.UNSUBSCRIBE)


class Kind(NamedTuple):
    """A data type: how it is read, with a name for messages, and written."""

    read: Callable[[Reader, str], Any]
    write: Callable[[Any], bytes]


class Rule(NamedTuple):
    """A row of the table (MQTT5 2.2.2.2).

    `name` is the field of Properties, `packets` the types that may carry it, `lowest` and
    `highest` the bounds of a number, `fault` the reason when it is out of them.
    """

    identifier: int
    name: str
    kind: Kind
    packets: tuple[int, ...]
    lowest: int = 0
    highest: int = 0xFFFFFFFF
    fault: Reason = Reason.PROTOCOL_ERROR


def _read_pair(reader: Reader, what: str) -> tuple[str, str]:
    return reader.text(what), reader.text(what)


def _write_pair(pair: tuple[str, str]) -> bytes:
    return wire.text(pair[0]) + wire.text(pair[1])


def _read_topic(reader: Reader, what: str) -> str:
    topic = reader.text(what)
    if not topic or "+" in topic or "#" in topic:
        raise ProtocolError(Reason.TOPIC_NAME_INVALID, f"The {what} is not a topic name.")
    return topic


_BYTE = Kind(Reader.byte, lambda value: value.to_bytes(1, "big"))
_TWO = Kind(Reader.two, lambda value: value.to_bytes(2, "big"))
_FOUR = Kind(Reader.four, lambda value: value.to_bytes(4, "big"))
_VARINT = Kind(Reader.varint, wire.varint)
_TEXT = Kind(Reader.text, wire.text)
_TOPIC = Kind(_read_topic, wire.text)
_BINARY = Kind(Reader.binary, wire.binary)
_PAIR = Kind(_read_pair, _write_pair)

TABLE: Final[tuple[Rule, ...]] = (
    Rule(0x01, "payload_format", _BYTE, _MESSAGE, highest=1),
    Rule(0x02, "message_expiry_interval", _FOUR, _MESSAGE),
    Rule(0x03, "content_type", _TEXT, _MESSAGE),
    Rule(0x08, "response_topic", _TOPIC, _MESSAGE),
    Rule(0x09, "correlation_data", _BINARY, _MESSAGE),
    Rule(0x0B, "subscription_identifiers", _VARINT, (_PUBLISH, _SUBSCRIBE), lowest=1),
    Rule(0x11, "session_expiry_interval", _FOUR, (_CONNECT, _CONNACK, _DISCONNECT)),
    Rule(0x12, "assigned_client_id", _TEXT, (_CONNACK,)),
    Rule(0x13, "server_keep_alive", _TWO, (_CONNACK,)),
    Rule(0x15, "authentication_method", _TEXT, (_CONNECT, _CONNACK, _AUTH)),
    Rule(0x16, "authentication_data", _BINARY, (_CONNECT, _CONNACK, _AUTH)),
    Rule(0x17, "request_problem_information", _BYTE, (_CONNECT,), highest=1),
    Rule(0x18, "will_delay_interval", _FOUR, (WILL,)),
    Rule(0x19, "request_response_information", _BYTE, (_CONNECT,), highest=1),
    Rule(0x1A, "response_information", _TEXT, (_CONNACK,)),
    Rule(0x1C, "server_reference", _TEXT, (_CONNACK, _DISCONNECT)),
    Rule(0x1F, "reason_string", _TEXT, _ANSWERS),
    Rule(0x21, "receive_maximum", _TWO, (_CONNECT, _CONNACK), lowest=1),
    Rule(0x22, "topic_alias_maximum", _TWO, (_CONNECT, _CONNACK)),
    Rule(0x23, "topic_alias", _TWO, (_PUBLISH,), lowest=1, fault=Reason.TOPIC_ALIAS_INVALID),
    Rule(0x24, "maximum_qos", _BYTE, (_CONNACK,), highest=1),
    Rule(0x25, "retain_available", _BYTE, (_CONNACK,), highest=1),
    Rule(0x26, "user_properties", _PAIR, _ALL),
    Rule(0x27, "maximum_packet_size", _FOUR, (_CONNECT, _CONNACK), lowest=1),
    Rule(0x28, "wildcard_subscription_available", _BYTE, (_CONNACK,), highest=1),
    Rule(0x29, "subscription_identifiers_available", _BYTE, (_CONNACK,), highest=1),
    Rule(0x2A, "shared_subscription_available", _BYTE, (_CONNACK,), highest=1),
)
"""Every property of MQTT 5 (MQTT5 table 2-4)."""


_RULES: Final[Mapping[int, Mapping[int, Rule]]] = {
    packet: {rule.identifier: rule for rule in TABLE if packet in rule.packets}
    for packet in (WILL, *_ALL)
}


def decode(reader: Reader, packet: int) -> Properties | None:
    """Read a property block with its length (MQTT5 2.2.2); None when it is empty.

    `packet` is the type of the packet, or WILL. Raises ProtocolError: 0x81 for an identifier
    that is unknown or not for this packet and for fields that do not parse, 0x82 for a
    property twice and for a value out of bounds, 0x90 for a response topic that is no topic
    name, 0x94 for topic alias 0.
    """
    length = reader.varint("property length")
    if not length:
        return None
    block = Reader(reader.data, reader.at, reader.at + length)
    if block.end > reader.end:
        raise wire.Truncated("The property block is truncated.")
    reader.at = block.end
    rules = _RULES[packet]
    values: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while block.at < block.end:
        identifier = block.varint("property identifier")
        rule = rules.get(identifier)
        if rule is None:
            raise malformed(f"Property 0x{identifier:02x} does not belong to this packet.")
        name = rule.name
        value = rule.kind.read(block, name)
        if name == "user_properties":
            users.append(value)
            continue
        if isinstance(value, int) and not rule.lowest <= value <= rule.highest:
            raise ProtocolError(rule.fault, f"The {name} cannot be {value}.")
        if name == "subscription_identifiers" and (packet == _PUBLISH or not identifiers):
            identifiers.append(value)
            continue
        if name in values or name == "subscription_identifiers":
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"The {name} occurs twice.")
        values[name] = value
    if "authentication_data" in values and "authentication_method" not in values:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "There is authentication data without a method.")
    return Properties(
        user_properties=tuple(users), subscription_identifiers=tuple(identifiers), **values
    )


def encode(properties: Properties | None, packet: int) -> bytes:
    """Return the property block with its length (MQTT5 2.2.2), in order of the identifiers.

    Raises ValueError for a property that the packet may not carry.
    """
    if properties is None:
        return b"\0"
    parts: list[bytes] = []
    for rule in TABLE:
        value = getattr(properties, rule.name)
        if value is None or value == ():
            continue
        if packet not in rule.packets:
            raise ValueError(f"packet type {packet} cannot carry {rule.name}")
        mark = bytes((rule.identifier,))
        for one in value if isinstance(value, tuple) else (value,):
            parts += (mark, rule.kind.write(one))
    block = b"".join(parts)
    return wire.varint(len(block)) + block
