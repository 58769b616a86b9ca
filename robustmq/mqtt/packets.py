"""The control packets of MQTT 3.1, 3.1.1 and 5.0 as values."""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from robustmq.mqtt.reasons import Reason

V31: Final = 3
V311: Final = 4
V5: Final = 5
"""Protocol levels as CONNECT carries them (MQTT5 3.1.2.2)."""

BRIDGE_BIT: Final = 0x80
"""What mosquitto adds to the level of MQTT 3 when a broker connects as a bridge."""

PROTOCOL_NAMES: Final[Mapping[bytes, tuple[int, ...]]] = {b"MQIsdp": (V31,), b"MQTT": (V311, V5)}
"""The levels that each protocol name may have (MQTT5 3.1.2.1)."""


def level_of(level: int) -> int:
    """Return a protocol level without the bit that a bridge of MQTT 3 adds to it."""
    plain = level & ~BRIDGE_BIT
    return plain if level != plain and plain < V5 else level


class PacketType(enum.IntEnum):
    """The type of a packet: the upper four bits of its first byte (MQTT5 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


# No packet can be part of a reference cycle, so none of them concerns the collector.
class Properties(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """The properties of a packet or a will (MQTT5 2.2.2); None or empty is absent.

    Expiry intervals, delays and keep alive are in seconds. `user_properties` keeps order and
    repeated names. Only PUBLISH may hold more than one subscription identifier.
    """

    payload_format: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifiers_available: int | None = None
    shared_subscription_available: int | None = None


class Will(msgspec.Struct, gc=False):
    """The message that the server publishes for a client that is gone (MQTT5 3.1.2.5)."""

    topic: bytes
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct, gc=False):
    """CONNECT (MQTT5 3.1); `keep_alive` in seconds, `clean_start` is 3.x clean session.

    `is_bridge`: another broker connects, with MQTT 3, and says so as mosquitto does.
    """

    client_id: str
    version: int = V5
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties | None = None
    is_bridge: bool = False


class Connack(msgspec.Struct, gc=False):
    """CONNACK (MQTT5 3.2); MQTT 3 return codes appear as the reason that they stand for."""

    reason: Reason = Reason.SUCCESS
    session_present: bool = False
    properties: Properties | None = None


class Publish(msgspec.Struct, gc=False):
    """PUBLISH (MQTT5 3.3); `packet_id` is 0 at QoS 0, `topic` is empty only with an alias."""

    topic: bytes
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties | None = None


class Puback(msgspec.Struct, gc=False):
    """PUBACK (MQTT5 3.4)."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties | None = None


class Pubrec(msgspec.Struct, gc=False):
    """PUBREC (MQTT5 3.5)."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties | None = None


class Pubrel(msgspec.Struct, gc=False):
    """PUBREL (MQTT5 3.6)."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties | None = None


class Pubcomp(msgspec.Struct, gc=False):
    """PUBCOMP (MQTT5 3.7)."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties | None = None


class Subscription(msgspec.Struct, gc=False, frozen=True):
    """A filter of SUBSCRIBE with its options (MQTT5 3.8.3); MQTT 3 has only the QoS."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, gc=False):
    """SUBSCRIBE (MQTT5 3.8); holds at least one subscription."""

    packet_id: int
    subscriptions: list[Subscription]
    properties: Properties | None = None


class Suback(msgspec.Struct, gc=False):
    """SUBACK (MQTT5 3.9); one reason per subscription, MQTT 3 knows one failure, 0x80."""

    packet_id: int
    reasons: list[Reason]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, gc=False):
    """UNSUBSCRIBE (MQTT5 3.10); holds at least one filter."""

    packet_id: int
    filters: list[str]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, gc=False):
    """UNSUBACK (MQTT5 3.11); MQTT 3 carries no reasons."""

    packet_id: int
    reasons: list[Reason] = []
    properties: Properties | None = None


class Pingreq(msgspec.Struct, gc=False):
    """PINGREQ (MQTT5 3.12)."""


class Pingresp(msgspec.Struct, gc=False):
    """PINGRESP (MQTT5 3.13)."""


class Disconnect(msgspec.Struct, gc=False):
    """DISCONNECT (MQTT5 3.14); MQTT 3 knows only the client's, without a reason."""

    reason: Reason = Reason.NORMAL_DISCONNECTION
    properties: Properties | None = None


class Auth(msgspec.Struct, gc=False):
    """AUTH (MQTT5 3.15); not in MQTT 3."""

    reason: Reason = Reason.SUCCESS
    properties: Properties | None = None


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
"""Any control packet."""


def _by_code(*codes: int) -> Mapping[int, Reason]:
    return {code: Reason(code) for code in codes}


_PUBLISH_ANSWER: Final = _by_code(0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
_RELEASE: Final = _by_code(0x00, 0x92)

ANSWER_REASONS: Final[Mapping[PacketType, Mapping[int, Reason]]] = {
    PacketType.CONNACK: _by_code(
        0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F
    ),
    PacketType.PUBACK: _PUBLISH_ANSWER,
    PacketType.PUBREC: _PUBLISH_ANSWER,
    PacketType.PUBREL: _RELEASE,
    PacketType.PUBCOMP: _RELEASE,
    PacketType.SUBACK: _by_code(
        0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2
    ),
    PacketType.UNSUBACK: _by_code(0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91),
    PacketType.DISCONNECT: _by_code(
        0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3)
    ),
    PacketType.AUTH: _by_code(0x00, 0x18, 0x19),
}
"""The reasons that each packet may carry (MQTT5 2.4 and each packet's section)."""
