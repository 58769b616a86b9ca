"""Requests for coordinators: whoever takes one passes it on to the core that coordinates.

A consumer group and a transactional id are coordinated by one core of the cluster. Clients find
its node (FindCoordinator); on that node any core may take the request, and passes it on as it came.
Coordinators ask each other in the same way, also on other nodes (`ask`).

Frames: kind u8, call u64, then of a request the length u32 of its caller (MessagePack), the caller
and the request with its header as it came; of an answer the response as it goes out.
"""

import enum
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from robustmq import metrics
from robustmq.broker.api import Principal
from robustmq.kafka import codec
from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import COORDINATED
from robustmq.kafka.dispatch import Handler
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.schema import Message

FIRST_KIND: Final = 96
LAST_KIND: Final = 127

_REQUEST: Final = struct.Struct(">BQI")
_ANSWER: Final = struct.Struct(">BQ")
_EPOCH_SHIFT: Final = 40


class Kind(enum.IntEnum):
    """The first byte of a frame."""

    PASSED = 96
    """A client's request, for the core that coordinates what it names."""
    ASKED = 97
    """A request of another core, for this one."""
    ANSWERED = 98


class Caller(msgspec.Struct, array_like=True, frozen=True):
    """Whose request it is."""

    principal: Principal
    listener: str


class _Pending(NamedTuple):
    core: int
    answered: Callable[[bytes], None]
    failed: Callable[[], None]


_caller: Final = msgspec.msgpack.Decoder(Caller)
_encoder: Final = msgspec.msgpack.Encoder()


class Coordination:
    """What this core asks of coordinators, and what it is asked as one.

    `send(core, frame)` sends to a core by its number (`message.core_number`). `epoch` is higher
    with every life of this core: an answer to an earlier life is nobody's.
    """

    def __init__(
        self,
        kafka: Kafka,
        handlers: Mapping[int, Handler],
        send: Callable[[int, bytes], None],
        epoch: int,
    ) -> None:
        self._kafka = kafka
        self._handlers = handlers
        self._send = send
        self._last_call = epoch << _EPOCH_SHIFT
        self._pending: dict[int, _Pending] = {}

    def pass_on(
        self,
        key: str,
        call: Call[Any],
        data: memoryview,
        settle: Callable[[list[bytes]], None],
    ) -> None:
        """Let a request be handled by the core that coordinates `key`; `data` is all of it.

        It is answered by `call`, or as bytes that go out as they are, by `settle`.
        """
        place = self._kafka.coordinator_of(key)
        node, core = place or (-1, -1)
        if place is None or node != self._kafka.cluster.node or core == self._kafka.core:
            call.fault = self._fault(place)
            self._handlers[call.api](call)
            return
        pending = _Pending(core, lambda answer: settle([answer]), partial(self._unavailable, call))
        self._kafka.broker.turn.row[metrics.KAFKA_FORWARDED] += 1
        self._request(Kind.PASSED, Caller(call.principal, call.listener), data, pending)

    def _fault(self, place: tuple[int, int] | None) -> int:
        if place is None:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        is_here = place == (self._kafka.cluster.node, self._kafka.core)
        return 0 if is_here else ErrorCode.NOT_COORDINATOR

    def _unavailable(self, call: Call[Any]) -> None:
        if not call.is_answered:
            call.fault = ErrorCode.COORDINATOR_NOT_AVAILABLE
            self._handlers[call.api](call)

    def ask(  # noqa: PLR0917
        self,
        place: tuple[int, int],
        api: int,
        version: int,
        principal: Principal,
        request: Message,
        reply: Callable[[Message | None], None],
    ) -> None:
        """Let core `place` (node, index) handle a request; None is answered when it is gone.

        Whether it was handled then is not known. `version` is one that this node encodes and all
        nodes of the cluster understand.
        """
        cluster = self._kafka.cluster
        if place == (cluster.node, self._kafka.core):
            self._here(api, version, principal, request, reply)
            return
        core = cluster.number_of(*place)

        def answered(answer: bytes) -> None:
            _, response = codec.decode_response(api, version, answer)
            reply(response)

        pending = _Pending(core, answered, lambda: reply(None))
        data = b"".join(codec.encode_request(api, version, 0, None, request))
        self._request(Kind.ASKED, Caller(principal, ""), data, pending)

    def _here(
        self,
        api: int,
        version: int,
        principal: Principal,
        request: Message,
        reply: Callable[[Message | None], None],
    ) -> None:
        now_ms = self._kafka.now_ms
        call = Call(api, version, None, principal, request, now_ms, reply, is_forwarded=True)
        self._handlers[api](call)

    def _request(
        self, kind: Kind, caller: Caller, data: bytes | memoryview, pending: _Pending
    ) -> None:
        self._last_call += 1
        self._pending[self._last_call] = pending
        said = _encoder.encode(caller)
        head = _REQUEST.pack(kind, self._last_call, len(said))
        self._send(pending.core, b"".join((head, said, data)))

    # ------------------------------------------------------------------ the fabric

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame of another core."""
        if frame[0] == Kind.ANSWERED:
            _, number = _ANSWER.unpack_from(frame)
            pending = self._pending.pop(number, None)
            if pending is not None:
                pending.answered(frame[_ANSWER.size :])
            return
        kind, number, length = _REQUEST.unpack_from(frame)
        at = _REQUEST.size + length
        caller = _caller.decode(memoryview(frame)[_REQUEST.size : at])
        header = codec.decode_request_header(frame, at)
        most = self._kafka.settings.max_request_elements
        request = codec.decode_request(header.api, header.version, frame, header.body_at, most)
        call = Call(
            header.api,
            header.version,
            header.client_id,
            caller.principal,
            request,
            self._kafka.now_ms,
            partial(self._answer, source, number, header),
            listener=caller.listener,
            size=len(frame) - at,
            is_forwarded=True,
        )
        if kind == Kind.PASSED:
            key = COORDINATED[header.api](caller.principal.tenant, request)
            if key is not None:
                # The sender may know other nodes than this core does.
                call.fault = self._fault(self._kafka.coordinator_of(key))
        self._handlers[header.api](call)

    def _answer(
        self, source: int, number: int, header: codec.RequestHeader, response: Message | None
    ) -> None:
        assert response is not None, "a coordinator answers every request"
        api, version, correlation_id, *_ = header
        pieces = codec.encode_response(api, version, correlation_id, response)
        self._send(source, b"".join((_ANSWER.pack(Kind.ANSWERED, number), *pieces)))

    def replaced(self, core: int) -> None:
        """A core has begun anew, or is gone: what it was asked is not answered any more."""
        lost = [number for number, pending in self._pending.items() if pending.core == core]
        for number in lost:
            self._pending.pop(number).failed()

    @property
    def waiting(self) -> int:
        """How many requests are with other cores."""
        return len(self._pending)
