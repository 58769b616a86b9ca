"""Reason strings apart from the packets that they stand in: tests compare packets without words."""

import msgspec

from robustmq.mqtt.packets import Packet, Properties


def apart(packet: Packet) -> tuple[Packet, str | None]:
    """Return the packet without its reason string, and the string."""
    properties: Properties | None = getattr(packet, "properties", None)
    if properties is None or properties.reason_string is None:
        return packet, None
    told = properties.reason_string
    left = msgspec.structs.replace(properties, reason_string=None)
    return msgspec.structs.replace(packet, properties=None if left == Properties() else left), told
