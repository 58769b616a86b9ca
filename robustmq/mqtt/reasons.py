"""The reason codes of MQTT 5, and what other vocabularies mean in them."""

import enum
from collections.abc import Mapping
from typing import Final

from robustmq.errors import Refusal


class Reason(enum.IntEnum):
    """A reason code (MQTT5 2.4); 0x80 and above is a failure.

    Codes that have several names in the specification are aliases of the first.
    """

    SUCCESS = 0x00
    NORMAL_DISCONNECTION = 0x00
    GRANTED_QOS_0 = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


FIRST_ERROR: Final = 0x80

# A refusal in each answer's own codes: CONNACK, PUBACK and PUBREC, SUBACK.
# A code that an answer may not carry gives way to the nearest that it may.
_REFUSALS: Final = (
    (
        Refusal.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
    ),
    (
        Refusal.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
    ),
    (
        Refusal.TOPIC_INVALID,
        Reason.TOPIC_NAME_INVALID,
        Reason.TOPIC_NAME_INVALID,
        Reason.TOPIC_FILTER_INVALID,
    ),
    (
        Refusal.TOO_LARGE,
        Reason.PACKET_TOO_LARGE,
        Reason.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
    ),
    (
        Refusal.UNAVAILABLE,
        Reason.SERVER_BUSY,
        Reason.IMPLEMENTATION_SPECIFIC_ERROR,
        Reason.IMPLEMENTATION_SPECIFIC_ERROR,
    ),
    (
        Refusal.BUSY,
        Reason.SERVER_BUSY,
        Reason.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
    ),
    (
        Refusal.PAYLOAD_INVALID,
        Reason.PAYLOAD_FORMAT_INVALID,
        Reason.PAYLOAD_FORMAT_INVALID,
        Reason.IMPLEMENTATION_SPECIFIC_ERROR,
    ),
    (
        Refusal.INTERNAL,
        Reason.UNSPECIFIED_ERROR,
        Reason.UNSPECIFIED_ERROR,
        Reason.UNSPECIFIED_ERROR,
    ),
    (
        Refusal.BAD_CREDENTIALS,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
    ),
    (
        Refusal.BANNED,
        Reason.BANNED,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED,
    ),
    (
        Refusal.RATE_EXCEEDED,
        Reason.CONNECTION_RATE_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
        Reason.QUOTA_EXCEEDED,
    ),
    (
        Refusal.CONFLICT,
        Reason.SERVER_BUSY,
        Reason.IMPLEMENTATION_SPECIFIC_ERROR,
        Reason.IMPLEMENTATION_SPECIFIC_ERROR,
    ),
)

CONNECTION_REFUSALS: Final[Mapping[Refusal, Reason]] = {row[0]: row[1] for row in _REFUSALS}
"""What a refusal is in CONNACK (MQTT5 3.2.2.2)."""

LOGIN_REFUSALS: Final[Mapping[Refusal, Reason]] = {
    **CONNECTION_REFUSALS,
    Refusal.BAD_CREDENTIALS: Reason.BAD_USER_NAME_OR_PASSWORD,
}
"""What a refusal is in a CONNACK, which has words of its own for who may not come."""

PUBLISH_REFUSALS: Final[Mapping[Refusal, Reason]] = {row[0]: row[2] for row in _REFUSALS}
"""What a refusal is in PUBACK and PUBREC (MQTT5 3.4.2.1, 3.5.2.1)."""

SUBSCRIBE_REFUSALS: Final[Mapping[Refusal, Reason]] = {row[0]: row[3] for row in _REFUSALS}
"""What a refusal is in SUBACK (MQTT5 3.9.3)."""

SENTENCES: Final[Mapping[Refusal, str]] = {
    Refusal.NOT_AUTHORIZED: "this client may not do that",
    Refusal.QUOTA_EXCEEDED: "a limit of the server is reached",
    Refusal.TOPIC_INVALID: "the topic is not one that this server takes",
    Refusal.TOO_LARGE: "it is larger than the server takes",
    Refusal.UNAVAILABLE: "the server cannot store it now: try again later",
    Refusal.BUSY: "the server is too busy: try again later",
    Refusal.PAYLOAD_INVALID: "the payload is not what its format indicator says",
    Refusal.INTERNAL: "the server failed",
    Refusal.BAD_CREDENTIALS: "the user name or the password is wrong",
    Refusal.BANNED: "this client is banned",
    Refusal.RATE_EXCEEDED: "too many came at once: try again later",
    Refusal.CONFLICT: "somebody else has changed it meanwhile: try again",
}
"""A refusal in words, where no more than its code has come from another core."""

UNKNOWN_PACKET_ID: Final = "no exchange has this packet identifier"

V3_ACCEPTED: Final = 0
V3_UNACCEPTABLE_VERSION: Final = 1
V3_IDENTIFIER_REJECTED: Final = 2
V3_SERVER_UNAVAILABLE: Final = 3
V3_BAD_USER_NAME_OR_PASSWORD: Final = 4
V3_NOT_AUTHORIZED: Final = 5

_V3_RETURN_CODES: Final[Mapping[int, int]] = {
    Reason.SUCCESS: V3_ACCEPTED,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: V3_UNACCEPTABLE_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: V3_IDENTIFIER_REJECTED,
    Reason.BAD_USER_NAME_OR_PASSWORD: V3_BAD_USER_NAME_OR_PASSWORD,
    Reason.BAD_AUTHENTICATION_METHOD: V3_BAD_USER_NAME_OR_PASSWORD,
    Reason.NOT_AUTHORIZED: V3_NOT_AUTHORIZED,
    Reason.BANNED: V3_NOT_AUTHORIZED,
}

V3_REASONS: Final[tuple[Reason, ...]] = (
    Reason.SUCCESS,
    Reason.UNSUPPORTED_PROTOCOL_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID,
    Reason.SERVER_UNAVAILABLE,
    Reason.BAD_USER_NAME_OR_PASSWORD,
    Reason.NOT_AUTHORIZED,
)
"""The reason that each return code of MQTT 3 stands for, by return code."""


def is_error(reason: int) -> bool:
    """Say whether a reason code is a failure (MQTT5 2.4)."""
    return reason >= FIRST_ERROR


def connack_v3(reason: int) -> int:
    """Return the CONNACK return code 0..5 of MQTT 3 for a reason (MQTT311 3.2.2.3).

    What MQTT 3 has no word for is `server unavailable`. MQTT 3 has no answer at all to a
    malformed CONNECT (MQTT311 [MQTT-3.2.2-6]): the connection is closed without a CONNACK.
    """
    return _V3_RETURN_CODES.get(reason, V3_SERVER_UNAVAILABLE)
