"""One connection of a Kafka client: its requests, the order of its answers, and its end.

Requests are started in the order in which they come, finished in any, and answered in order.
Nothing is read while there is a reason to pause: too much is under way, or the client
does not take its answers, is throttled (KIP-219) or is being authenticated.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from robustmq import metrics
from robustmq._kernel.framing import Framing
from robustmq._kernel.outbox import Outbox
from robustmq.broker.api import Login, Peer, Principal, Timer
from robustmq.errors import ProtocolError, Refused
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.schema import Message

if TYPE_CHECKING:
    from robustmq.kafka.front import Allowance, Front
    from robustmq.kafka.produce_route import BatchSlot, ProduceRoutes
    from robustmq.kafka.sasl import Dialogue

_SIZE_BYTES: Final = 4
_SASL: Final = frozenset({ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE})
# Each may be answered with megabytes: the next one waits until this is.
_LARGE: Final = ApiKey.FETCH


# Why nothing is read from a client, in bits.
_INFLIGHT: Final = 1
"""As many of its requests are under way as may be."""
_BACKLOG: Final = 2
"""It does not take its answers."""
_THROTTLED: Final = 4
_LOGIN: Final = 8
"""Somebody looks at its password."""
_PRESSURE: Final = 16
"""The core has too much to do."""
_TURN: Final = 32
"""The next request has to wait for the one before."""
_FAILED: Final = 64
"""It has not proved who it is, and has been told."""
_ENDED: Final = 128


class Stream(Protocol):
    """What carries a connection."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Send what waits, then end."""

    def abort(self) -> None:
        """End at once."""


class Slot:
    """The place of one request in the order of answers."""

    __slots__ = (
        "_connection",
        "allowance",
        "api",
        "begun_ns",
        "busy_ns",
        "call",
        "correlation_id",
        "is_done",
        "pieces",
        "size",
        "version",
    )

    def __init__(self, connection: "Connection", header: codec.RequestHeader, size: int) -> None:
        self._connection = connection
        self.api = header.api
        self.version = header.version
        self.correlation_id = header.correlation_id
        self.size = size
        self.call: Call[Any] | None = None
        self.allowance: Allowance | None = None
        self.begun_ns = 0
        self.busy_ns = 0
        self.pieces: list[bytes] | None = None
        self.is_done = False

    @property
    def is_parked(self) -> bool:
        """Say whether it waits for something that may not come for long."""
        return not self.is_done and self.call is not None and self.call.abandoned is not None

    def answer(self, response: Message | None) -> None:
        """Take the answer as a message; None: nothing is sent."""
        pieces, wait_ms = None, 0
        if response is not None:
            pieces = self._encoded(response)
        if self.allowance is not None:
            wait_ms = self._connection.front.charge(self, pieces)
            if wait_ms and response is not None and hasattr(response, "throttle_time_ms"):
                response.throttle_time_ms = wait_ms
                pieces = self._encoded(response)
        self.settle(pieces, wait_ms)

    def _encoded(self, response: Message) -> list[bytes]:
        return codec.encode_response(self.api, self.version, self.correlation_id, response)

    def settle(self, pieces: list[bytes] | None, wait_ms: int = 0) -> None:
        """Take the answer as it goes out, without its size; the client is then muted a while."""
        if not self.is_done:
            self.is_done = True
            self.pieces = pieces
            self._connection.settled(self, wait_ms)


class Connection:
    """A client of Kafka, without I/O: a sink of bytes, and an `outbox`.

    `stream` is set by whoever carries it, before anything is fed. `principal` is who it is, None
    until that is known.
    """

    def __init__(self, front: "Front", peer: Peer) -> None:
        turn = front.kafka.broker.turn
        self.front = front
        self.peer = peer
        self.principal: Principal | None = None
        self.stream: Stream | None = None
        self.outbox = Outbox(turn)
        self.dialogue: Dialogue | None = None
        self.routes: ProduceRoutes | None = None
        self._turn = turn
        self._pause = 0
        self._is_working = False
        self._is_finishing = False
        settings = front.kafka.settings
        most = settings.max_request_bytes
        if settings.sasl.enabled:
            most = min(most, settings.max_unauthenticated_bytes)
        self.framing = Framing(most)
        """Where what comes is put; whoever does it by itself calls `arrived`."""
        self._unfinished = 0
        self._put_off: bytes | None = None
        self._slots: deque[Slot | BatchSlot] = deque()
        self._large = 0
        self._held = 0
        self._heard_ms = turn.now_ms
        self._muting: Timer | None = None
        self._looking: Timer | None = None
        self._look_at(turn.now_ms + front.patience_ms)

    # ------------------------------------------------------------------ below

    @property
    def paused(self) -> bool:
        """Say whether nothing should be read now."""
        return bool(self._pause)

    @property
    def ended(self) -> bool:
        """Say whether it is over, or about to be."""
        return bool(self._pause & _ENDED)

    def feed(self, data: bytes) -> None:
        """Take what the client has sent."""
        if not self.ended:
            self.framing.feed(data)
        self.arrived(len(data))

    def arrived(self, size: int) -> None:
        """So many bytes have been put into the framing."""
        self._turn.row[metrics.BYTES_RECEIVED] += size
        if self.ended:
            self.framing.clear()
            return
        self._heard_ms = self._turn.now_ms
        self._work()
        if self.framing.held or self._unfinished:
            self._count_unfinished()

    def lost(self) -> None:
        """The client is gone: what it asked for is of no use."""
        self._pause |= _ENDED
        self.framing.clear()
        self._count_unfinished()
        self._put_off = None
        self.stream = None
        self.outbox.close()
        for timer in (self._muting, self._looking):
            if timer is not None:
                timer.cancel()
        self._muting = self._looking = None
        if self.routes is not None:
            self.routes.close()
        slots, self._slots = self._slots, deque()
        for slot in slots:
            slot.is_done = True
            if slot.call is not None:
                slot.call.abandon()
        self.front.release(self, self._held)
        self._held = 0
        self.front.closed(self)

    # ------------------------------------------------------------------ requests

    def _count_unfinished(self) -> None:
        """Count what has come of requests that are not whole; the core bounds what all have."""
        held = self.framing.held
        grown, self._unfinished = held - self._unfinished, held
        if not self.front.keep_unfinished(grown) and grown > 0:
            self.fail("too much has come of requests that are not whole (max_unfinished_bytes)")

    def _work(self) -> None:
        """Start requests for as long as nothing is in the way."""
        if self._is_working:
            return
        self._is_working = True
        framing = self.framing
        try:
            while not self._pause:
                frame, self._put_off = self._put_off or framing.next(), None
                if frame is None:
                    break
                self._take(frame)
        except ProtocolError as error:
            self.fail(error.detail)
        finally:
            self._is_working = False

    def _take(self, frame: bytes) -> None:
        dialogue = self.dialogue
        if dialogue is not None and dialogue.takes_tokens:
            dialogue.token(frame)
            return
        routes = self.routes
        if (
            routes is not None
            and (dialogue is None or not dialogue.is_over(self._turn.now_ms))
            and routes.take(frame)
        ):
            return
        header = codec.decode_request_header(frame)
        if header.api == _LARGE and self._large:
            self._put_off = frame
            self._pause |= _TURN
            return
        self._admit(header)
        if header.api != ApiKey.API_VERSIONS:
            self.front.check(header.api, header.version)
        self._start(header, frame)

    def _admit(self, header: codec.RequestHeader) -> None:
        """Raise ProtocolError when the client may not ask this, or not yet."""
        if self.principal is not None and self.dialogue is None:
            return
        if header.api in _SASL or header.api == ApiKey.API_VERSIONS:
            return
        dialogue = self.dialogue
        if dialogue is not None and dialogue.is_over(self._turn.now_ms):
            raise ProtocolError(0, "it was to authenticate again before anything else")
        if self.principal is not None:
            return
        if dialogue is not None:
            raise ProtocolError(0, "it began to authenticate, and asks for something else")
        self._log_in(header.client_id or "")

    def _log_in(self, client_id: str) -> None:
        """Let a client in that has not said who it is, or raise ProtocolError."""
        front = self.front
        login = Login(self.peer, client_id, tenant=front.tenant_of(client_id))
        if front.kafka.settings.sasl.enabled and not front.is_certified(self.peer):
            raise ProtocolError(0, "it must authenticate by SASL first")
        decided = front.logins.log_in(login, self._never)
        assert decided is not None, "without a password nothing takes long"
        if isinstance(decided, Principal):
            decided = front.admit(decided)
        self.count_login(decided)
        if isinstance(decided, Refused):
            raise ProtocolError(0, decided.detail)
        self.welcome(decided)

    @staticmethod
    def _never(decided: Principal | Refused) -> None:
        raise AssertionError(f"{decided}: it was to be decided at once")

    def _start(self, header: codec.RequestHeader, frame: bytes) -> None:
        slot = Slot(self, header, len(frame))
        self.place(slot)
        if header.api == _LARGE:
            self._large += 1
        try:
            self.front.start(self, slot, header, frame)
        except ProtocolError:
            slot.settle(None)
            raise

    def place(self, slot: "Slot | BatchSlot") -> None:
        """A request is under way, behind those before it."""
        self._turn.row[metrics.KAFKA_REQUESTS] += 1
        self._slots.append(slot)
        if len(self._slots) >= self.front.kafka.settings.max_inflight_requests:
            self._pause |= _INFLIGHT
        self._held += slot.size
        if self.front.hold(self, slot.size):
            self._pause |= _PRESSURE

    # ------------------------------------------------------------------ answers

    def settled(self, slot: "Slot | BatchSlot", wait_ms: int) -> None:
        """A request has its answer: it leaves when those before it have left."""
        self._held -= slot.size
        self.front.release(self, slot.size)
        if slot.api == _LARGE:
            self._large -= 1
            self._lift(_TURN)
        if wait_ms:
            self._mute(wait_ms)
        slots = self._slots
        while slots and slots[0].is_done:
            self._send(slots.popleft().pieces)
        if len(slots) < self.front.kafka.settings.max_inflight_requests:
            self._lift(_INFLIGHT)
        if self._is_finishing and not slots:
            self._close()
        self.resume()

    def _send(self, pieces: list[bytes] | None) -> None:
        if pieces is None or (self.ended and not self._is_finishing):
            return
        size = sum(map(len, pieces))
        self.outbox.put(size.to_bytes(_SIZE_BYTES, "big"))
        for piece in pieces:
            self.outbox.put(piece)
        self._turn.row[metrics.KAFKA_RESPONSE_BYTES] += size
        if self.outbox.size > self.front.kafka.settings.max_backlog_bytes:
            self._pause |= _BACKLOG
            self.outbox.drained = self._drained

    def send_token(self, token: bytes) -> None:
        """Send a token of SASL as it is (SaslHandshake v0)."""
        self._send([token])

    def _drained(self) -> None:
        self.outbox.drained = None
        self._lift(_BACKLOG)
        self.resume()

    def _mute(self, wait_ms: int) -> None:
        """Read nothing for a while: the client was told to wait, too (KIP-219)."""
        self._turn.row[metrics.KAFKA_THROTTLED] += 1
        self._pause |= _THROTTLED
        if self._muting is not None:
            self._muting.cancel()
        self._muting = self.front.kafka.at(self._turn.now_ms + wait_ms, self._unmute)

    def _unmute(self) -> None:
        self._muting = None
        self._lift(_THROTTLED)
        self.resume()

    # ------------------------------------------------------------------ who it is

    def hold_login(self) -> None:
        """Take nothing until `release_login`."""
        self._pause |= _LOGIN

    def release_login(self) -> None:
        """It is decided who the client is."""
        self._lift(_LOGIN)
        self.resume()

    def welcome(self, principal: Principal) -> None:
        """The client is known from now on."""
        is_new = self.principal is None
        self.principal = principal
        if self.routes is not None:
            # What was decided was decided for somebody else.
            self.routes.forget()
        self.framing.most = self.front.kafka.settings.max_request_bytes
        if is_new:
            self.front.opened(self)
            self._look_at(self._turn.now_ms + self.front.kafka.settings.idle_timeout_ms)

    def count_login(self, decided: Principal | Refused) -> None:
        """Count that a client was let in, or not."""
        is_refused = isinstance(decided, Refused)
        cell = metrics.LOGINS_REFUSED if is_refused else metrics.LOGINS_ACCEPTED
        self._turn.row[cell] += 1

    # ------------------------------------------------------------------ life

    def released(self) -> None:
        """The core has less to do."""
        self._lift(_PRESSURE)
        self.resume()

    def resume(self) -> None:
        """Go on if nothing is in the way: with what is here first, then with what comes."""
        if not self._pause and not self._is_working:
            self._work()
            if self._unfinished:
                self._count_unfinished()
            if self.stream is not None and not self.paused:
                self.stream.resume()

    def _lift(self, pause: int) -> None:
        self._pause &= ~pause

    def _look_at(self, when_ms: int) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self.front.kafka.at(when_ms, self._look)

    def _look(self) -> None:
        """Close it when it was silent for too long, or has not said who it is."""
        self._looking = None
        if self.principal is None:
            self.fail("it did not say who it is in time")
            return
        due_ms = self._heard_ms + self.front.kafka.settings.idle_timeout_ms
        if due_ms > self._turn.now_ms or self._slots:
            self._look_at(max(due_ms, self._turn.now_ms + self.front.patience_ms))
        else:
            self.finish()

    def fail(self, why: str) -> None:
        """The client broke the rules, or is not wanted: say so in the log, and end."""
        if not self.ended:
            self._turn.row[metrics.PROTOCOL_ERRORS] += 1
            self.front.complain(self, why)
            self.finish()

    def fail_later(self, why: str, wait_ms: int) -> None:
        """Likewise, after a while: until then nothing that it sends is taken."""
        self._pause |= _FAILED
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self.front.kafka.at(self._turn.now_ms + wait_ms, lambda: self.fail(why))

    def finish(self) -> None:
        """Start nothing more; when what is under way is answered, end.

        Whoever waits for something to come, as a Fetch does, is not waited for.
        """
        if not self.ended:
            self._pause |= _ENDED
            self._is_finishing = True
            self.framing.clear()
            self._count_unfinished()
            if not self._slots or any(slot.is_parked for slot in self._slots):
                self._close()

    def abort(self) -> None:
        """End at once."""
        self._pause |= _ENDED
        stream = self.stream
        if stream is not None:
            stream.abort()

    def _close(self) -> None:
        stream = self.stream
        if stream is not None:
            stream.close()
