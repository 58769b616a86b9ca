"""One MQTT connection's input: framing, runs of PUBLISH, acknowledgements in order.

The readable twin.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from robustmq._kernel.pure.turn import AckTarget
from robustmq.metrics import (
    BYTES_RECEIVED,
    MESSAGES_RECEIVED,
    PACKETS_RECEIVED,
    PACKETS_SENT,
    PUBLISHERS_PAUSED,
    PUBLISHERS_THROTTLED,
)

if TYPE_CHECKING:
    from robustmq._kernel.pure.batch import BatchBuilder
    from robustmq._kernel.pure.meter import Meter
    from robustmq._kernel.pure.outbox import Outbox
    from robustmq._kernel.pure.turn import Turn
    from robustmq._kernel.pure.window import Window

PUBLISH_FAST: Final = frozenset({0x30, 0x32, 0x3A})
"""First bytes of a PUBLISH of QoS 0 or 1, with DUP or not, that is not retained."""
PUBLISH: Final = 3
"""Packet type of a PUBLISH."""
PUBACK: Final = 0x40
MAX_HANDLES: Final = 1024
MALFORMED: Final = 0x81
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
PACKET_TOO_LARGE: Final = 0x95
_BLOCKED: Final = 1
_STARVED: Final = 2
_SPENT: Final = 4
_ZERO_ID: Final = "a packet identifier of 0"


class Handle:
    """What was decided for one publisher and topic: the builder that takes its records.

    `topic` is what the records are for; it may differ from what the publisher calls it. Once
    `stale` it is not used again; the connection is asked anew.
    """

    __slots__ = ("builder", "meter", "stale", "topic")

    def __init__(self, topic: bytes, builder: BatchBuilder) -> None:
        self.topic = topic
        self.builder = builder
        self.meter: Meter | None = None
        self.stale = False


class Receiver(Protocol):
    """What an intake asks and tells: the MQTT connection."""

    def on_packet(self, first_byte: int, body: bytes) -> object:
        """Take a whole packet: its first byte, and what follows the remaining length."""

    def on_route(self, topic: bytes) -> Handle | None:
        """Say where plain messages of `topic` go; with None they come to `on_packet`."""

    def on_malformed(self, reason: int, detail: str) -> object:
        """Learn that the peer broke the protocol; nothing more is read."""

    def settled(self, kind: int, packet_id: int, code: int, matched: bool) -> int | bytes:
        """Return the reason code for an answer when `code` is not 0 or nothing matched.

        In MQTT 5 it may be the whole answer instead, with a reason string.
        """


class _Owed:
    """An acknowledgement that we owe: PUBACK or PUBREC (`kind`) for a packet identifier."""

    __slots__ = ("done", "kind", "packet_id", "reason")

    def __init__(self, packet_id: int, kind: int) -> None:
        self.packet_id = packet_id
        self.kind = kind
        self.done = False
        self.reason: int | bytes = 0


class Intake(AckTarget):
    """Bytes in; records into builders, packets to `connection`, acknowledgements to `outbox`.

    While `open`, PUBLISH packets of QoS 0 and 1 without retain and properties go straight to
    the builder of their topic's Handle, and plain PUBACKs to `window` if there is one; all
    other packets go to `connection.on_packet`. `version` is 3, 4 or 5 and may be set late.
    A packet of more than `max_packet` bytes ends the connection (0x95), as does a QoS 1
    message beyond `receive_max` unanswered ones in MQTT 5 (0x93); in MQTT 3, which knows no
    such limit, reading pauses. After `on_malformed` the intake is closed. It may be held for
    several reasons at once, each a bit of `reasons`, and goes on when all have let go: 1 until
    the core takes more, 2 until an answer goes out, 4 until a meter grants more, 8 and above
    as `hold` says. `last_read_ms` is when bytes came last, `max_handles` how many topics'
    handles are kept.
    """

    __slots__ = (
        "_connection", "_handles", "_owed", "_owed_first", "_scanning", "_tail",
        "_turn", "closed", "last_read_ms", "max_handles", "max_packet", "meters", "open", "outbox",
        "reasons", "receive_max", "version", "window",
    )  # fmt: skip

    def __init__(self, turn: Turn, outbox: Outbox, connection: Receiver, max_packet: int) -> None:
        self._turn = turn
        self._handles: dict[bytes, Handle] = {}
        self._owed: deque[_Owed] = deque()
        self._owed_first = 0
        self._tail = bytearray()
        self._scanning = False
        self.outbox = outbox
        self._connection: Receiver | None = connection
        self.window: Window | None = None
        self.version = 0
        self.open = False
        self.closed = False
        self.reasons = 0
        self.meters: list[Meter] | None = None
        self.max_packet = max_packet
        self.receive_max = 65535
        self.max_handles = MAX_HANDLES
        self.last_read_ms = 0

    @property
    def paused(self) -> bool:
        """Whether it takes nothing now."""
        return self.reasons != 0

    @property
    def throttled(self) -> bool:
        """Whether a meter has nothing left for it."""
        return self.reasons & _SPENT != 0

    @property
    def outstanding(self) -> int:
        """PUBLISH packets of QoS 1 and 2 that are not answered yet."""
        return len(self._owed)

    def feed(self, data: bytes) -> None:
        """Take what the socket gave; everything complete is handled before this returns.

        Within a callback of this intake it is only kept, and handled after what came before.
        """
        if self.closed:
            return
        self._turn.row[BYTES_RECEIVED] += len(data)
        if data:
            self.last_read_ms = self._turn.now_ms
        if self.reasons or self._scanning:
            self._tail += data
            return
        self._scanning = True
        try:
            self._handle_input(data)
        finally:
            self._scanning = False

    def resume(self) -> None:
        """The core takes more: go on with what was kept first, if nothing else holds it."""
        self.reasons &= ~_BLOCKED
        if not (self.reasons or self._scanning):
            self.feed(b"")

    def hold(self, reason: int) -> None:
        """Stop handling packets until `let_go` of the same reason, a bit from 8 to 128."""
        self.reasons |= reason

    def let_go(self, reason: int) -> None:
        """Go on in this turn, if it was held for this and nothing else holds it."""
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons:
                self._turn.resumes.append(self)

    def block(self) -> None:
        """Stop handling packets until the core takes more."""
        self.reasons |= _BLOCKED
        self._turn.row[PUBLISHERS_PAUSED] += 1
        self._turn.resumes.append(self)

    def throttle(self) -> None:
        """Stop handling packets until `release`: a meter has nothing left."""
        self.reasons |= _SPENT
        self._turn.row[PUBLISHERS_THROTTLED] += 1

    def release(self) -> None:
        """Go on in this turn, if nothing else holds it."""
        self.let_go(_SPENT)

    def forget(self) -> None:
        """Learn that what was decided for this publisher's topics is void."""
        self._handles = {}

    def _receiver(self) -> Receiver:
        assert self._connection is not None, "an intake that is closed asks nothing"
        return self._connection

    def close(self) -> None:
        """Take nothing more; what is still to be acknowledged is forgotten."""
        self.closed = True
        self.open = False
        self.forget()
        self.window = None
        # A connection and its intake know each other: the memory of both comes back at once.
        self._connection = None
        self._tail = bytearray()
        self._owed_first += len(self._owed)
        self._owed.clear()

    def admit(self, packet_id: int, kind: int) -> int:
        """Return a ticket for a PUBLISH handled elsewhere; `kind` is the answer's first byte.

        One that reaches the receive maximum of MQTT 3 pauses reading until an answer goes out.
        """
        self._owed.append(_Owed(packet_id, kind))
        if self.version < 5 and len(self._owed) >= self.receive_max:
            self._starve()
        return self._owed_first + len(self._owed) - 1

    def settle(self, ticket: int, code: int, matched: bool) -> None:
        """Learn that `ticket` is decided, and answer in the order of the PUBLISH packets.

        MQTT5 4.6. `code` is 0 or a Refusal. Unknown and repeated tickets are passed over.
        """
        owed = self._find(ticket)
        if owed is None or owed.done:
            return
        owed.done = True
        if code or not matched:
            reason = self._receiver().settled(owed.kind, owed.packet_id, code, matched)
            owed.reason = reason
        if self._owed and ticket == self._owed_first:
            self._pay()

    def _find(self, ticket: int) -> _Owed | None:
        index = ticket - self._owed_first
        return self._owed[index] if 0 <= index < len(self._owed) else None

    def _handle_input(self, data: bytes) -> None:
        """Handle what was kept and then `data`; keep what is not complete, or came meanwhile."""
        while True:
            buffer: bytes | bytearray = data
            if self._tail:
                buffer, self._tail = self._tail, bytearray()
                buffer += data
            used = self._scan(buffer)
            if self.closed:
                return
            meanwhile = bool(self._tail)
            if isinstance(buffer, bytearray):
                del buffer[:used]
                buffer += self._tail
                self._tail = buffer
            elif used < len(buffer):
                self._tail = bytearray(buffer[used:]) + self._tail
            if not meanwhile or self.reasons:
                return
            data = b""

    def _scan(self, buffer: bytes | bytearray) -> int:
        """Handle the complete packets in `buffer`; returns how many bytes they are."""
        at = packets = 0
        acknowledged = False
        while len(buffer) - at >= 2 and not (self.reasons or self.closed):
            framed = self._frame(buffer, at)
            if framed is None:
                break
            body, end = framed
            first = buffer[at]
            packets += 1
            if self.open and first in PUBLISH_FAST:
                used = self._publish_run(buffer, at, body, end)
                if used is not None:
                    packets -= not used
                    at += used
                    continue
            elif self.open and first == PUBACK and end - body == 2 and self.window is not None:
                packet_id = int.from_bytes(buffer[body:end], "big")
                if not packet_id:
                    self._malformed(MALFORMED, _ZERO_ID)
                    break
                self.window._acknowledge(packet_id, 1)
                acknowledged = True
                at = end
                continue
            if self.meters is not None and first >> 4 == PUBLISH and self._is_spent(None):
                packets -= 1
                break
            if not self.closed:
                self._receiver().on_packet(first, bytes(buffer[body:end]))
                if self.meters is not None and first >> 4 == PUBLISH:
                    self._charge(None, 1, end - at)
                at = end
        self._turn.row[PACKETS_RECEIVED] += packets
        if acknowledged and self.window is not None:
            self.window.pump()
        return at

    def _frame(self, buffer: bytes | bytearray, at: int) -> tuple[int, int] | None:
        """Return where the body of the packet at `at` begins and ends; None when not complete."""
        size = shift = 0
        body = at + 1
        while True:
            if body == len(buffer):
                return None
            byte = buffer[body]
            size |= (byte & 127) << shift
            shift += 7
            body += 1
            if byte < 128:
                break
            if shift == 28:
                self._malformed(MALFORMED, "the remaining length has over 4 bytes")
                return None
        if body - at + size > self.max_packet:
            self._malformed(PACKET_TOO_LARGE, "the packet exceeds the maximum packet size")
            return None
        return (body, body + size) if body + size <= len(buffer) else None

    def _publish_run(self, buffer: bytes | bytearray, at: int, body: int, end: int) -> int | None:
        """Take PUBLISH packets that begin alike, from `at` on: the bytes handled, or None.

        Alike is: the same fixed header and topic, QoS 0 or 1, not retained, no properties.
        """
        topic_end = body + 2 + int.from_bytes(buffer[body : body + 2], "big")
        id_size = 0 if buffer[at] == 0x30 else 2
        fixed = topic_end + id_size + (1 if self.version == 5 else 0)
        if end - body < 2 or topic_end == body + 2 or fixed > end:
            return None
        if self.version == 5 and buffer[fixed - 1]:
            return None
        topic = bytes(buffer[body + 2 : topic_end])
        handle = self._handle(topic)
        if handle is None:
            return None
        head = bytes(buffer[at:topic_end])
        length = end - at
        fixed -= at
        builder = handle.builder
        stop = len(buffer)
        metered = self.meters is not None or handle.meter is not None
        if metered:
            if self._is_spent(handle):
                return 0
            stop = min(stop, at + length * self._allowed(handle, length))
        start = at
        count = 0
        while True:
            if builder.blocked:
                self.block()
                break
            if id_size and not self._owe_puback(buffer, at + len(head)):
                break
            value = bytes(buffer[at + fixed : at + length])
            builder.append(handle.topic, value, b"\0", 1 if id_size else 0, self._turn.now_ms)
            if id_size:
                builder.expect(self, self._owed_first + len(self._owed) - 1)
            builder.settle_if_full()
            count += 1
            at += length
            if self.closed or handle.stale or at + length > stop:
                break
            if not buffer.startswith(head, at) or (self.version == 5 and buffer[at + fixed - 1]):
                break
        self._turn.row[MESSAGES_RECEIVED] += count
        self._turn.row[PACKETS_RECEIVED] += max(count - 1, 0)
        if metered:
            self._charge(handle, count, at - start)
        return at - start

    def _meters_of(self, handle: Handle | None) -> list[Meter]:
        own = list(self.meters or ())
        return [*own, handle.meter] if handle is not None and handle.meter is not None else own

    def _is_spent(self, handle: Handle | None) -> bool:
        """Ask those meters that have nothing left; True when one of them throttles."""
        for meter in self._meters_of(handle):
            meter.check(self)
        return self.throttled

    def _allowed(self, handle: Handle, length: int) -> int:
        """How many packets of a length all meters allow; the last one may exceed the bytes."""
        meters = self._meters_of(handle)
        return min(min(each.messages, -(-each.size // length)) for each in meters)

    def _charge(self, handle: Handle | None, count: int, size: int) -> None:
        for meter in self._meters_of(handle):
            meter.charge(self, count, size)

    def _owe_puback(self, buffer: bytes | bytearray, at: int) -> bool:
        """Owe a PUBACK for the identifier at `at`; False when the packet cannot be taken."""
        packet_id = int.from_bytes(buffer[at : at + 2], "big")
        if not packet_id:
            self._malformed(MALFORMED, _ZERO_ID)
            return False
        if len(self._owed) >= self.receive_max:
            if self.version == 5:
                self._malformed(RECEIVE_MAXIMUM_EXCEEDED, "the receive maximum is exceeded")
            else:
                self._starve()
            return False
        self._owed.append(_Owed(packet_id, PUBACK))
        return True

    def _handle(self, topic: bytes) -> Handle | None:
        """Return the handle of `topic`; the connection is asked once, until it is void."""
        handle = self._handles.get(topic)
        if handle is not None and not handle.stale:
            return handle
        handles = self._handles
        handle = self._receiver().on_route(topic)
        if handle is not None and handles is self._handles:
            if len(handles) >= self.max_handles:
                handles.clear()
            handles[topic] = handle
        return None if self.closed else handle

    def _starve(self) -> None:
        """Stop reading until our own acknowledgements catch up."""
        self.reasons |= _STARVED
        self._turn.row[PUBLISHERS_PAUSED] += 1

    def _malformed(self, reason: int, detail: str) -> None:
        self._receiver().on_malformed(reason, detail)
        self.close()

    def _pay(self) -> None:
        """Answer in the order of the PUBLISH packets as far as decided."""
        sent = 0
        while self._owed and self._owed[0].done:
            owed = self._owed.popleft()
            self._owed_first += 1
            packet_id = owed.packet_id.to_bytes(2, "big")
            if isinstance(owed.reason, bytes):
                self.outbox.put(owed.reason)
            elif self.version == 5 and owed.reason:
                self.outbox.put(bytes((owed.kind, 3)) + packet_id + bytes((owed.reason,)))
            else:
                self.outbox.put(bytes((owed.kind, 2)) + packet_id)
            sent += 1
        self._turn.row[PACKETS_SENT] += sent
        self.let_go(_STARVED)
