"""A session's outgoing messages, in flight and then queued: readable twin."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final

from robustmq._kernel.pure.alias import ALIAS_GROWTH, with_alias
from robustmq._kernel.pure.run import IDS, Run
from robustmq.metrics import (
    MESSAGES_DROPPED_EXPIRED,
    MESSAGES_DROPPED_QUEUE,
    MESSAGES_DROPPED_SLOW,
    MESSAGES_DROPPED_TOO_LARGE,
    MESSAGES_SENT,
    PACKETS_SENT,
)

if TYPE_CHECKING:
    from robustmq._kernel.pure.outbox import Outbox
    from robustmq._kernel.pure.turn import Turn

__all__ = ["Run", "Window"]

PUBREL: Final = b"\x62\x02"


class _Piece:
    """Consecutive packets of a run: `count` from `first` on."""

    __slots__ = ("count", "first", "run")

    def __init__(self, run: Run, first: int, count: int) -> None:
        self.run = run
        self.first = first
        self.count = count

    def position(self) -> int:
        """Return the inbox's position of the first packet; 0 when the run is not stored."""
        return self.run.position + self.first if self.run.position else 0

    def ids(self, count: int) -> list[int]:
        """Return the identifiers of the first `count` packets."""
        return [self.run._packet_id(self.first + i) for i in range(count)]

    def take(self, count: int) -> _Piece:
        """Cut the first `count` packets off and return them."""
        taken = _Piece(self.run, self.first, count)
        self.first += count
        self.count -= count
        return taken


class Window:
    """In-flight window and queue of one session, by reference into shared runs.

    Packet identifiers are the runs'; they come from one sequence per core, so they clash only
    for a session whose oldest unacknowledged message is 65535 messages behind the core. Then
    its messages are numbered privately: no identifier is ever in flight twice (MQTT5 2.2.1).

    Limits: `limit` messages in flight (the client's receive maximum, MQTT5 3.3.4), `max_packet`
    bytes in a packet (0: any), topic aliases 1 … `alias_max`, `max_queued` messages and
    `max_queued_bytes` waiting, `max_outbox_bytes` unsent beyond which QoS 0 messages are
    dropped and others wait. `key` is the session's number (no local), `session` the owner's
    business. `in_flight`, `queued`, `queued_bytes` and `dropped` count messages and bytes.
    `version` is what all that waits is encoded for (0: as the first connection speaks).

    Stored runs (`Run.position`) come from the session's inbox and are offered in the order of
    their positions. What the window has no room for is not lost: it is then `lagging`, takes
    no stored run, and wants the inbox to be read from position `resume` on (0: from what comes
    next). With a connection and nothing queued it says so in `turn.hungry`. Whoever feeds it
    clears `lagging` and offers what it has read.
    """

    __slots__ = (
        "_aliases", "_flying", "_hungry", "_ids", "_noted", "_redeliver", "_released", "_turn",
        "_waiting", "alias_max", "dropped", "in_flight", "key", "lagging", "limit",
        "max_outbox_bytes", "max_packet", "max_queued", "max_queued_bytes", "outbox", "queued",
        "queued_bytes", "resume", "session", "version",
    )  # fmt: skip

    def __init__(
        self, turn: Turn, max_queued: int, max_queued_bytes: int, max_outbox_bytes: int
    ) -> None:
        self._turn = turn
        self._flying: deque[_Piece] = deque()
        self._waiting: deque[_Piece] = deque()
        self._ids: set[int] = set()
        self._released: dict[int, None] = {}
        self._redeliver = 0
        self._aliases: set[int] = set()
        self.outbox: Outbox | None = None
        self.session: object = None
        self.key = 0
        self.version = 0
        self.limit = 0
        self.max_packet = 0
        self.alias_max = 0
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.max_outbox_bytes = max_outbox_bytes
        self.in_flight = 0
        self.queued = 0
        self.queued_bytes = 0
        self.dropped = 0
        self.lagging = False
        self.resume = 0
        self._hungry = False
        self._noted = False

    @property
    def oldest(self) -> int:
        """The lowest position of a stored message that is in flight or queued; 0: there is none."""
        pieces = chain(self._flying, self._waiting)
        return min((piece.position() for piece in pieces if piece.run.position), default=0)

    def foremost(self, queued: bool) -> Run | None:
        """Return the run of the oldest message that waits, with `queued` of those not in flight."""
        pieces = self._waiting if queued else chain(self._flying, self._waiting)
        return next((piece.run for piece in pieces), None)

    def attach(
        self, outbox: Outbox, version: int, limit: int, max_packet: int, alias_max: int
    ) -> None:
        """Learn that a connection is there: what was in flight goes out again (MQTT5 4.4).

        PUBREL first, then the messages in their order and with DUP, then what is queued. It is
        translated when the session returns in another version.
        """
        self._take_back()
        if self.version and (version == 5) != (self.version == 5):
            self._translate(version)
        self.outbox = outbox
        self.version = version
        self.limit = limit
        self.max_packet = max_packet
        self.alias_max = alias_max
        self._aliases = set()
        self.in_flight = len(self._released)
        for packet_id in self._released:
            outbox.put(PUBREL + packet_id.to_bytes(2, "big"))
        self._turn.row[PACKETS_SENT] += len(self._released)
        self.pump()

    def detach(self) -> None:
        """Learn that the connection is gone: what was in flight waits first in the queue.

        The window lags from now on. Stored messages that were never sent leave the queue, and
        `resume` is the lowest of their positions, or stays what it was when that is lower.
        """
        self.outbox = None
        self._take_back()
        lowest = self._drop_stored()
        if not self.lagging:
            self.lagging = True
            self.resume = lowest
        elif lowest:
            self.resume = min(self.resume or lowest, lowest)

    def clear(self) -> None:
        """Forget everything, the exchanges under way included."""
        self._flying.clear()
        self._waiting.clear()
        self._ids.clear()
        self._released.clear()
        self._redeliver = self.in_flight = self.queued = self.queued_bytes = 0
        self.lagging = False
        self.resume = 0

    def offer(self, run: Run) -> None:
        """Deliver `run`: at once, or queued, or dropped and counted.

        A run of QoS 1 or 2 that exceeds what may be queued is dropped as a whole, unless
        nothing waits and there is a connection. QoS 0 is dropped when there is none. Of a
        stored run nothing is dropped for want of room: the window lags from there.
        """
        if run.position and not self._admits(run):
            return
        if run.qos == 0:
            self._offer_at_most_once(run)
            return
        size = run._ends[-1]
        if (
            self.queued + run.count > self.max_queued
            or self.queued_bytes + size > self.max_queued_bytes
        ) and (self.queued or self.outbox is None):
            self._drop(MESSAGES_DROPPED_QUEUE, run.count)
            return
        self._waiting.append(_Piece(run, 0, run.count))
        self.queued += run.count
        self.queued_bytes += size
        if self.queued == run.count:
            self.pump()

    def pump(self) -> None:
        """Send what the window and the outbox have room for."""
        self._pump()
        self._check_hunger()

    def _pump(self) -> None:
        while self._waiting and self.outbox is not None:
            if self.in_flight >= self.limit or self.outbox.size > self.max_outbox_bytes:
                return
            piece = self._waiting[0]
            run, first = piece.run, piece.first
            again = self._redeliver > 0
            count = min(piece.count, self.limit - self.in_flight)
            if again:
                count = min(count, self._redeliver)
            elif run.deadline and run.deadline <= self._turn.now_ms:
                self._drop_waiting(piece.count, MESSAGES_DROPPED_EXPIRED)
                continue
            if self.max_packet and run.largest > self.max_packet:
                if run._bytes(first, 1) > self.max_packet:
                    self._drop_waiting(1, MESSAGES_DROPPED_TOO_LARGE)
                    continue
                count = 1
            if not (again or self._ids.isdisjoint(piece.ids(count))):
                if not self._renumber(piece):
                    return
                continue
            self._emit(self.outbox, run, first, count, again)
            if run.position and run.qos == 2 and not again:
                self._turn.exact += [
                    (self, run.position + i, run._packet_id(i)) for i in range(first, first + count)
                ]
            if again:
                self._redeliver -= count
            self._ids.update(piece.ids(count))
            self._flying.append(self._unqueue(count))
            self.in_flight += count

    def puback(self, packet_id: int) -> bool:
        """Learn that the client has the QoS 1 message; False when none with that id is in flight.

        Sends what has room now.
        """
        known = self._acknowledge(packet_id, 1)
        self.pump()
        return known

    def pubrec(self, packet_id: int, refused: bool) -> bool:
        """Learn that the client has (or refuses) the QoS 2 message; False when it is not known.

        Its identifier stays in flight until `pubcomp`, unless the client refused (MQTT5 4.3.3).
        A repeated PUBREC is known too.
        """
        if packet_id in self._released:
            return True
        if not self._acknowledge(packet_id, 2):
            return False
        if refused:
            self.pump()
        else:
            self._released[packet_id] = None
            self._ids.add(packet_id)
            self.in_flight += 1
            self._check_hunger()
        return True

    def pubcomp(self, packet_id: int) -> bool:
        """Learn that a QoS 2 exchange is complete and send on; False when none was under way."""
        if packet_id not in self._released:
            return False
        del self._released[packet_id]
        self._ids.discard(packet_id)
        if self.outbox is not None:
            self.in_flight -= 1
        self.pump()
        return True

    def restore(self, run: Run) -> None:
        """Learn that the stored messages of `run` were sent on an earlier connection.

        They come behind what is to be sent again, before what is queued. Raises ValueError when
        there is a connection, or the run is not stored or of QoS 0.
        """
        if self.outbox is not None or not run.position or not run.qos:
            raise ValueError("what is restored was stored, and there is no connection")
        index, earlier = 0, self._redeliver
        while index < len(self._waiting) and earlier >= self._waiting[index].count:
            earlier -= self._waiting[index].count
            index += 1
        if earlier:
            self._waiting.insert(index, self._waiting[index].take(earlier))
            index += 1
        self._waiting.insert(index, _Piece(run, 0, run.count))
        self._redeliver += run.count
        self.queued += run.count
        self.queued_bytes += run._ends[-1]

    def release(self, packet_id: int) -> None:
        """Learn of a QoS 2 exchange that waits for its PUBCOMP: PUBREL goes out on `attach`.

        Raises ValueError when there is a connection, or no such identifier.
        """
        if self.outbox is not None or not 1 <= packet_id <= IDS:
            raise ValueError("an exchange has an identifier, and there is no connection")
        self._released[packet_id] = None
        self._ids.add(packet_id)

    def exchanges(self) -> list[int]:
        """Return the identifiers of the QoS 2 exchanges that wait for their PUBCOMP."""
        return list(self._released)

    def fed(self) -> None:
        """Learn that the window was taken out of `turn.hungry`; it may come again."""
        self._hungry = False

    def noted(self) -> None:
        """Learn that the window was taken out of `turn.acknowledged`; it may come again."""
        self._noted = False

    def withdraw(self, origin: object) -> list[tuple[Run, int]]:
        """Take out what came from `origin` and may go to somebody else: `[(run, index), …]`.

        In order. With a connection, what is in flight stays (MQTT5 3.10.4-3); without one, a
        QoS 2 message that was sent stays (MQTT5 4.8.2).
        """
        taken: list[tuple[Run, int]] = []
        kept: deque[_Piece] = deque()
        earlier = self._redeliver
        for piece in self._waiting:
            sent = min(piece.count, earlier)
            earlier -= sent
            if piece.run.origin is not origin:
                kept.append(piece)
                continue
            if sent and (piece.run.qos == 2 or self.outbox is not None):
                kept.append(piece.take(sent))
            else:
                self._redeliver -= sent
            if piece.count:
                taken += [(piece.run, piece.first + i) for i in range(piece.count)]
                self.queued -= piece.count
                self.queued_bytes -= piece.run._bytes(piece.first, piece.count)
        self._waiting = kept
        self.pump()
        return taken

    def _admits(self, run: Run) -> bool:
        """Say whether there is room for a stored run; the window lags from it when not."""
        if self.lagging:
            return False
        if self.outbox is None:
            full = True
        elif run.qos:
            size = self.queued_bytes + run._ends[-1]
            full = self.queued > 0 and (
                self.queued + run.count > self.max_queued or size > self.max_queued_bytes
            )
        else:
            expired = 0 < run.deadline <= self._turn.now_ms
            full = self.outbox.size > self.max_outbox_bytes and not expired
        if full:
            self.lagging = True
            self.resume = run.position
        return not full

    def _check_hunger(self) -> None:
        if self.lagging and not self._hungry and not self.queued and self.outbox is not None:
            self._hungry = True
            self._turn.hungry.append(self)

    def _progress(self, run: Run) -> None:
        """Messages of `run` are done with: the cursor of the session may move on."""
        if run.position and not self._noted:
            self._noted = True
            self._turn.acknowledged.append(self)

    def _drop_stored(self) -> int:
        """Take what is stored and was never sent out of the queue; return the lowest position."""
        lowest = 0
        kept: deque[_Piece] = deque()
        earlier = self._redeliver
        for piece in self._waiting:
            sent = min(piece.count, earlier)
            earlier -= sent
            if not piece.run.position or sent == piece.count:
                kept.append(piece)
                continue
            if sent:
                kept.append(piece.take(sent))
            lowest = min(lowest or piece.position(), piece.position())
            self.queued -= piece.count
            self.queued_bytes -= piece.run._bytes(piece.first, piece.count)
        self._waiting = kept
        return lowest

    def _offer_at_most_once(self, run: Run) -> None:
        if self.outbox is None:
            return
        if run.deadline and run.deadline <= self._turn.now_ms:
            self._drop(MESSAGES_DROPPED_EXPIRED, run.count)
        elif self.outbox.size > self.max_outbox_bytes:
            self._drop(MESSAGES_DROPPED_SLOW, run.count)
        elif self.max_packet and run.largest > self.max_packet:
            for i in range(run.count):
                if run._bytes(i, 1) > self.max_packet:
                    self._drop(MESSAGES_DROPPED_TOO_LARGE, 1)
                else:
                    self._emit(self.outbox, run, i, 1, False)
        else:
            self._emit(self.outbox, run, 0, run.count, False)
        self._progress(run)

    def _take_back(self) -> None:
        """Put what is in flight at the front of the queue; exchanges under way stay."""
        for piece in self._flying:
            self._redeliver += piece.count
            self.queued += piece.count
            self.queued_bytes += piece.run._bytes(piece.first, piece.count)
        self._waiting.extendleft(reversed(self._flying))
        self._flying.clear()
        self._ids = set(self._released)
        self.in_flight = 0

    def _translate(self, version: int) -> None:
        """Encode everything that waits for another version."""
        done: dict[Run, Run] = {}
        self.queued_bytes = 0
        for piece in self._waiting:
            run = piece.run
            if run not in done:
                done[run] = run._translated(version)
            piece.run = done[run]
            self.queued_bytes += piece.run._bytes(piece.first, piece.count)

    def _acknowledge(self, packet_id: int, qos: int) -> bool:
        """Take the message with `packet_id` out of flight; False when there is none."""
        for position, piece in enumerate(self._flying):
            depth = (packet_id - piece.run._packet_id(piece.first)) % IDS
            if depth >= piece.count or piece.run.qos != qos or not packet_id:
                continue
            if depth:
                self._flying.insert(position, piece.take(depth))
            piece.take(1)
            if not piece.count:
                del self._flying[position + bool(depth)]
            self._ids.discard(packet_id)
            self.in_flight -= 1
            self._progress(piece.run)
            return True
        return False

    def _unqueue(self, count: int) -> _Piece:
        """Take the first `count` packets of the first waiting piece out of the queue."""
        piece = self._waiting[0]
        self.queued -= count
        self.queued_bytes -= piece.run._bytes(piece.first, count)
        taken = piece.take(count)
        if not piece.count:
            self._waiting.popleft()
        return taken

    def _drop(self, cell: int, count: int) -> None:
        self._turn.row[cell] += count
        self.dropped += count

    def _drop_waiting(self, count: int, cell: int) -> None:
        self._redeliver -= min(self._redeliver, count)
        self._progress(self._unqueue(count).run)
        self._drop(cell, count)

    def _renumber(self, piece: _Piece) -> bool:
        """Give a waiting piece the next free identifiers in a private copy; False: none are."""
        start = piece.run._packet_id(piece.first)
        free = 0
        for step in range(IDS + piece.count):
            if (start - 1 + step) % IDS + 1 in self._ids:
                free = 0
                continue
            free += 1
            if free == piece.count:
                first_id = (start + step - piece.count) % IDS + 1
                piece.run = piece.run._renumbered(piece.first, piece.count, first_id)
                piece.first = 0
                return True
        return False

    def _emit(self, outbox: Outbox, run: Run, first: int, count: int, again: bool) -> None:
        """Put the packets `first` … `first + count - 1` into the outbox."""
        self._turn.row[MESSAGES_SENT] += count
        self._turn.row[PACKETS_SENT] += count
        if again or run.deadline:
            outbox.put(run._changed(first, count, again, self._turn.now_ms))
            return
        if 0 < run.alias <= self.alias_max and (
            not self.max_packet or run.largest + ALIAS_GROWTH <= self.max_packet
        ):
            if run.alias not in self._aliases:
                self._aliases.add(run.alias)
                outbox.put(with_alias(run.packet(first), run.alias, True))
                first += 1
                count -= 1
            if not count:
                return
            run = run._without_topic()
        outbox.put_slice(run.data, run._begin(first), run._ends[first + count - 1])
