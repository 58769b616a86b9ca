"""A PUBLISH packet rewritten to carry a topic alias or other properties: readable twin."""

from __future__ import annotations

ALIAS_BYTES = 3
"""Bytes of the topic alias property (MQTT5 3.3.2.3.4)."""
ALIAS_GROWTH = 5
"""Bytes by which an alias makes a packet longer at most: the property, and two lengths."""


def variable_integer(value: int) -> bytes:
    """Return `value` as a variable byte integer (MQTT5 1.5.5)."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def after_variable_integer(data: bytes | bytearray, at: int) -> int:
    """Return the position behind the variable byte integer at `at`."""
    while data[at] & 128:
        at += 1
    return at + 1


def read_variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable byte integer at `at`, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def with_alias(packet: bytes, alias: int, keep_topic: bool) -> bytes:
    """Return `packet` with topic alias `alias` (MQTT5 3.3.2.3.4).

    `packet` is a well-formed PUBLISH of MQTT 5 without an alias. The topic stays only with
    `keep_topic`: the packet that introduces the alias. The alias is the first property.
    Raises ValueError when `alias` is not in 1 … 65535 or the packet is not a whole PUBLISH.
    """
    if not 1 <= alias <= 65535:
        raise ValueError("a topic alias is a number from 1 to 65535")
    try:
        topic = after_variable_integer(packet, 1)
        tail = topic + 2 + int.from_bytes(packet[topic : topic + 2], "big")
        head = packet[topic:tail] if keep_topic else b"\0\0"
        if packet[0] & 6:
            head += packet[tail : tail + 2]
            tail += 2
        length, tail = read_variable_integer(packet, tail)
    except IndexError:
        raise ValueError("the packet is not a whole PUBLISH of MQTT 5") from None
    if tail + length > len(packet):
        raise ValueError("the packet is not a whole PUBLISH of MQTT 5")
    head += variable_integer(length + ALIAS_BYTES) + b"\x23" + alias.to_bytes(2, "big")
    return b"".join(
        (packet[:1], variable_integer(len(head) + len(packet) - tail), head, packet[tail:])
    )


def with_block(packet: bytes, has_block: bool, block: bytes) -> bytes:
    """Return `packet` with `block` in place of its properties (MQTT5 3.3.2.3).

    `packet` is a well-formed PUBLISH, of MQTT 5 with `has_block`; without, it has no
    properties. `block` has its length before it, and is b"" for MQTT 3. Raises ValueError
    when the packet is not a whole PUBLISH.
    """
    try:
        topic = after_variable_integer(packet, 1)
        tail = topic + 2 + int.from_bytes(packet[topic : topic + 2], "big")
        if packet[0] & 6:
            tail += 2
        rest = tail
        if has_block:
            length, rest = read_variable_integer(packet, tail)
            rest += length
    except IndexError:
        raise ValueError("the packet is not a whole PUBLISH") from None
    if rest > len(packet):
        raise ValueError("the packet is not a whole PUBLISH")
    body = packet[topic:tail] + block + packet[rest:]
    return packet[:1] + variable_integer(len(body)) + body
