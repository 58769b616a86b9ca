"""Why something was refused, in words, for clients that want to hear it (MQTT5 4.13)."""

from typing import Final

import msgspec

from robustmq.mqtt import codec
from robustmq.mqtt.packets import (
    V5,
    Auth,
    Connack,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
)

REASON_CHARACTERS: Final = 256
"""Characters of a reason string; a sentence that repeats what the client wrote may be longer."""

Explained = Connack | Puback | Pubrec | Pubrel | Pubcomp | Suback | Unsuback | Disconnect | Auth
_ALWAYS: Final = (Connack, Disconnect)
_NO_PROPERTIES: Final = Properties()


class Wording:
    """What one client may be told: its version, its limit, and whether it wants to hear reasons.

    `max_packet` is in bytes, 0: no limit. Without `wanted` a reason string stands in CONNACK and
    DISCONNECT only ([MQTT-3.1.2-29]).
    """

    __slots__ = ("max_packet", "version", "wanted")

    def __init__(self, version: int, max_packet: int = 0, wanted: bool = True) -> None:
        self.version = version
        self.max_packet = max_packet
        self.wanted = wanted

    def encode(self, packet: Explained, sentence: str) -> bytes:
        """A whole packet with the sentence, or without it where it would be too large."""
        plain = codec.encode(packet, self.version)
        if self.version < V5 or not sentence or not (self.wanted or isinstance(packet, _ALWAYS)):
            return plain
        properties = msgspec.structs.replace(
            packet.properties or _NO_PROPERTIES, reason_string=sentence[:REASON_CHARACTERS]
        )
        worded = codec.encode(msgspec.structs.replace(packet, properties=properties), V5)
        return worded if self.takes(worded) else plain

    def takes(self, encoded: bytes) -> bool:
        """Say whether the client takes a packet as large as this one."""
        return not 0 < self.max_packet < len(encoded)
