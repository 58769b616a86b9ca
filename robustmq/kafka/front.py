"""What the connections of a core share: who may come in, what is offered, and how much at once."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from robustmq import metrics
from robustmq.broker.api import Gate, Logins, Peer, Principal
from robustmq.errors import ProtocolError, Refused
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.connection import Connection, Slot
from robustmq.kafka.coordination import Coordination
from robustmq.kafka.coordinator_keys import COORDINATED
from robustmq.kafka.dispatch import ADMINISTRATIVE, Handler
from robustmq.kafka.messages.connection import (
    ApiVersionsRequest,
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
)
from robustmq.kafka.messages.produce import ProduceRequest
from robustmq.kafka.produce_route import ProduceRoutes
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.sasl import Dialogue
from robustmq.kafka.schema import Message
from robustmq.kafka.versions import OWN, Versions
from robustmq.message.tenancy import DEFAULT_TENANT, named_tenant


class Allowance(Protocol):
    """What one user or client may use of this core in a second."""

    def take(self, produced: int, consumed: int, busy_ns: int, now_ms: int) -> int:
        """Take bytes and time of a request; return the ms that its client has to wait."""


class Quotas(Protocol):
    """How much clients may use."""

    version: int
    """Another number whenever others hold."""

    def of(self, principal: Principal, client_id: str | None) -> Allowance | None:
        """Return the allowance of a client; None where there is no limit."""


class Front:
    """The shared state of the connections of one core.

    `handlers` by API key; `complain(connection, why)` hears about clients that are sent away;
    `clock_ns` tells how long something took, for quotas of time; `tenants` are those that a name
    may begin with (`acme@alice`); more than `pressure_bytes` of requests under way stop reading.
    """

    def __init__(
        self,
        kafka: Kafka,
        handlers: Mapping[int, Handler],
        coordination: Coordination,
        quotas: Quotas,
        *,
        logins: Logins,
        gate: Gate,
        tenants: Collection[str],
        is_certified: Callable[[Peer], bool],
        complain: Callable[[Connection, str], None],
        clock_ns: Callable[[], int],
        pressure_bytes: int,
    ) -> None:
        self.kafka = kafka
        self.logins = logins
        self.tenants = tenants
        self.is_certified = is_certified
        self.complain = complain
        self.connections: set[Connection] = set()
        self._known = 0
        self._handlers = handlers
        self._versions = Versions(handlers)
        self.coordination = coordination
        self._gate = gate
        self._quotas = quotas
        self._clock_ns = clock_ns
        self._pressure_bytes = pressure_bytes
        self._held = 0
        self._unfinished = 0
        self._waiting: list[Connection] = []
        self._turn = kafka.broker.turn
        # An earlier life of this core may have ended with some.
        self._turn.row[metrics.KAFKA_CONNECTIONS] = 0

    @property
    def patience_ms(self) -> int:
        """How long a client may take to say who it is."""
        return self.kafka.settings.sasl.timeout_ms

    def connection(self, peer: Peer) -> Connection:
        """A new connection."""
        connection = Connection(self, peer)
        self.connections.add(connection)
        return connection

    # ------------------------------------------------------------------ who comes

    def tenant_of(self, name: str) -> str:
        """The tenant that a name begins with, or that of everybody else."""
        named = named_tenant(name, self.tenants)
        return named[0] if named else DEFAULT_TENANT

    def admit(self, principal: Principal) -> Principal | Refused:
        """Ask whether a client that is who it says may come in."""
        refused = self._gate.admit(principal, self._turn.now_ms, replaces=False, has_many=True)
        return refused if refused is not None else principal

    def opened(self, connection: Connection) -> None:
        """A client has come in."""
        self._gate.opened(connection.peer)
        self._count(1)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        if connection.principal is not None:
            self._gate.closed(connection.peer)
            self._count(-1)

    def _count(self, amount: int) -> None:
        self._known += amount
        self._turn.row[metrics.KAFKA_CONNECTIONS] = self._known

    def banned(self) -> None:
        """Somebody was banned: whoever is here and may not be is sent away."""
        for connection in list(self.connections):
            if connection.principal is None:
                continue
            refused = self._gate.banned(connection.principal, self._turn.now_ms)
            if refused is not None:
                self._turn.row[metrics.CONNECTIONS_EXPELLED] += 1
                connection.fail(refused.detail)

    def shut_down(self) -> None:
        """Take no more requests: this core stops."""
        for connection in list(self.connections):
            connection.finish()

    # ------------------------------------------------------------------ requests

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Another value whenever topics, leaders, rights or quotas are other than they were."""
        return self.kafka.catalog.version, self.kafka.rules, self._quotas.version

    def check(self, api: int, version: int) -> None:
        """Raise ProtocolError for a request that is not offered in this version."""
        if not self._versions.takes(api, version):
            raise ProtocolError(0, f"{self._versions.name(api)} version {version} is not offered")

    def start(
        self, connection: Connection, slot: Slot, header: codec.RequestHeader, frame: bytes
    ) -> None:
        """Let a request be handled; its slot is answered. Raises ProtocolError."""
        api, version = header.api, header.version
        if api == ApiKey.API_VERSIONS and not self._versions.takes(api, version):
            slot.version = 0
            slot.answer(self._versions.unsupported())
            return
        settings = self.kafka.settings
        most = settings.max_request_elements
        if api in ADMINISTRATIVE:
            most = min(most, settings.max_admin_elements)
        request = codec.decode_request(api, version, frame, header.body_at, most)
        if api in OWN:
            self._answer(connection, slot, header, request)
        else:
            self._handle(connection, slot, header, frame, request)

    def _answer(
        self, connection: Connection, slot: Slot, header: codec.RequestHeader, request: Message
    ) -> None:
        """Answer what concerns the connection alone."""
        if isinstance(request, SaslHandshakeRequest | SaslAuthenticateRequest):
            if connection.dialogue is None:
                connection.dialogue = Dialogue(connection)
            connection.dialogue.take(slot, header.client_id or "", request)
        elif isinstance(request, ApiVersionsRequest):
            slot.answer(self._versions.answer(header.version, request))

    def _handle(
        self,
        connection: Connection,
        slot: Slot,
        header: codec.RequestHeader,
        frame: bytes,
        request: Message,
    ) -> None:
        principal = connection.principal
        assert principal is not None
        call: Call[Any] = Call(
            header.api,
            header.version,
            header.client_id,
            principal,
            request,
            self._turn.now_ms,
            slot.answer,
            listener=connection.peer.listener,
            size=len(frame),
        )
        call.hang_up = connection.fail
        slot.call = call
        slot.allowance = self._quotas.of(principal, header.client_id)
        slot.begun_ns = self._clock_ns() if slot.allowance is not None else 0
        key_of = COORDINATED.get(header.api)
        key = key_of(principal.tenant, request) if key_of is not None else None
        if key is None:
            self._handlers[header.api](call)
            if header.api == ApiKey.PRODUCE and slot.allowance is None:
                self._learn(connection, header, frame, request)
        else:
            self.coordination.pass_on(key, call, memoryview(frame), slot.settle)
        if slot.begun_ns:
            slot.busy_ns = self._clock_ns() - slot.begun_ns
            slot.begun_ns = 0

    def _learn(
        self,
        connection: Connection,
        header: codec.RequestHeader,
        frame: bytes,
        request: Message,
    ) -> None:
        """Remember the way of a Produce that nothing limits."""
        assert isinstance(request, ProduceRequest)
        if connection.ended or not ProduceRoutes.suits(request):
            return
        if connection.routes is None:
            connection.routes = ProduceRoutes(connection, self.kafka)
        connection.routes.learn(header, frame, request)

    def charge(self, slot: Slot, pieces: list[bytes] | None) -> int:
        """Take what a request has used from its client's allowance; return the ms to wait."""
        assert slot.allowance is not None
        produced = slot.size if slot.api == ApiKey.PRODUCE else 0
        consumed = sum(map(len, pieces)) if pieces and slot.api == ApiKey.FETCH else 0
        busy_ns = self._clock_ns() - slot.begun_ns if slot.begun_ns else slot.busy_ns
        return slot.allowance.take(produced, consumed, busy_ns, self._turn.now_ms)

    # ------------------------------------------------------------------ pressure

    def keep_unfinished(self, size: int) -> bool:
        """Count bytes of requests that are not whole; say whether there may be so many."""
        self._unfinished += size
        return self._unfinished <= self.kafka.settings.max_unfinished_bytes

    def hold(self, connection: Connection, size: int) -> bool:
        """Count a request that is under way; say whether its connection has to pause."""
        self._held += size
        if self._held <= self._pressure_bytes:
            return False
        self._waiting.append(connection)
        return True

    def release(self, connection: Connection, size: int) -> None:
        """Count one that is answered; who was paused goes on when there is room."""
        del connection
        self._held -= size
        if self._waiting and self._held <= self._pressure_bytes:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.released()
