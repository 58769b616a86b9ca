"""What the tests of the data path share: a side of the kernels, small clients, a decoder.

The decoder is independent of the codec and of the kernels: written from MQTT5 2 and 3.3.
"""

import importlib
from array import array
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from robustmq.metrics import CELLS
from tests.kernels import implementations

Kernel: TypeAlias = Any
"""An object of one of the two sides: only the tests treat those as one type."""

MODULES = (
    "turn", "outbox", "batch", "alias", "run", "window", "fanout", "interest", "intake", "poller",
    "meter", "framing",
)  # fmt: skip
SIDES = [str(parameter.id) for parameter in implementations("window")]


class Side:
    """All kernels of the data path on one side: `pure` or `fast`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.modules: dict[str, ModuleType] = {
            name: importlib.import_module(f"robustmq._kernel.{kind}.{name}") for name in MODULES
        }

    def __getattr__(self, name: str) -> Kernel:
        for module in self.modules.values():
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)

    def turn(self, now_ms: int = 1_000_000) -> Kernel:
        """Return a Turn with a row of its own."""
        turn = self.Turn(array("Q", bytes(8 * CELLS)))
        turn.now_ms = now_ms
        return turn


class Publish(NamedTuple):
    """A PUBLISH as it is on the wire."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: bytes


class Answer(NamedTuple):
    """A PUBACK, PUBREC, PUBREL or PUBCOMP: its first byte, identifier and reason code."""

    kind: int
    packet_id: int
    reason: int


def varint(value: int) -> bytes:
    """Encode a variable byte integer (MQTT5 1.5.5)."""
    out = b""
    while True:
        value, low = divmod(value, 128)
        out += bytes((low | (128 if value else 0),))
        if not value:
            return out


def publish(  # noqa: PLR0917
    topic: bytes,
    payload: bytes,
    qos: int = 0,
    packet_id: int = 0,
    version: int = 4,
    properties: bytes = b"",
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    """Encode a PUBLISH (MQTT5 3.3)."""
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += packet_id.to_bytes(2, "big")
    if version == 5:
        body += varint(len(properties)) + properties
    body += payload
    return bytes((0x30 | dup << 3 | qos << 1 | retain,)) + varint(len(body)) + body


def puback(packet_id: int) -> bytes:
    """Encode a PUBACK without a reason."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 28, 7):
        value += (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise AssertionError("a variable byte integer of more than four bytes")


def decode(data: bytes, version: int = 4) -> list[Publish | Answer]:
    """Decode whole packets: PUBLISH and its answers."""
    out: list[Publish | Answer] = []
    at = 0
    while at < len(data):
        first = data[at]
        size, start = _read_varint(data, at + 1)
        at = start + size
        assert at <= len(data), "a packet is cut"
        body = data[start:at]
        if first >> 4 != 3:
            reason = body[2] if len(body) > 2 else 0
            out.append(Answer(first, int.from_bytes(body[:2], "big"), reason))
            continue
        qos = first >> 1 & 3
        assert qos < 3
        topic_end = 2 + int.from_bytes(body[:2], "big")
        rest = body[topic_end:]
        packet_id = 0
        if qos:
            packet_id, rest = int.from_bytes(rest[:2], "big"), rest[2:]
            assert packet_id
        properties = b""
        if version == 5:
            length, begin = _read_varint(rest, 0)
            assert begin + length <= len(rest)
            properties, rest = rest[begin : begin + length], rest[begin + length :]
        topic = body[2:topic_end]
        out.append(
            Publish(topic, rest, qos, bool(first & 1), bool(first & 8), packet_id, properties)
        )
    return out


def published(data: bytes, version: int = 4) -> list[Publish]:
    """Decode the PUBLISH packets among whole packets."""
    return [packet for packet in decode(data, version) if isinstance(packet, Publish)]


def batch_of(side: Side, *records: tuple[Kernel, ...]) -> bytes:
    """Return a batch of `(topic, payload, attributes[, headers])` records."""
    turn = side.turn()
    builder = side.BatchBuilder(turn, None, 1 << 30, None)
    for topic, payload, attributes, *headers in records:
        builder.append(topic, payload, headers[0] if headers else b"\0", attributes, turn.now_ms)
    batch: bytes = builder.take()[0]
    return batch


def run_of(  # noqa: PLR0917
    side: Side,
    turn: Kernel,
    count: int,
    qos: int = 1,
    topic: bytes = b"t",
    size: int = 8,
    version: int = 4,
    **options: int,
) -> Kernel:
    """Return a run of `count` packets with ids from the turn's sequence, as the fan-out does."""
    sequence = turn.sequence + 1 if qos else 0
    if qos:
        turn.sequence += count
    data = b""
    ends = []
    for i in range(count):
        payload = b"%d." % (sequence + i)
        payload += bytes(max(size - len(payload), 0))
        packet_id = (sequence + i) % 65535 + 1
        data += publish(topic, payload, qos, packet_id, version)
        ends.append(len(data))
    return side.Run(data, ends, qos, sequence, **options)
