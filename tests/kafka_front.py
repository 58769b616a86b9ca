"""Connections of Kafka clients over scripted handlers: what clients send, and what comes back."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, cast

from robustmq._kernel.turn import Turn
from robustmq.broker.api import Broker, Gate, Peer, Principal
from robustmq.broker.catalog_api import Catalog
from robustmq.broker.ledger_api import Ledger
from robustmq.broker.partition_api import Partitions
from robustmq.broker.timers import Timer, Timers
from robustmq.errors import Refused
from robustmq.kafka import codec
from robustmq.kafka.api_keys import APIS, ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.connection import Connection
from robustmq.kafka.coordination import Coordination
from robustmq.kafka.front import Allowance, Front
from robustmq.kafka.protocol import Endpoint, Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message
from robustmq.metrics import CELLS
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.users import MqttAuth, User
from tests.logins import ScriptedLogins

START_MS = 1_700_000_000_000


class _Broker:
    """A clock."""

    def __init__(self) -> None:
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = START_MS
        self.timers = Timers()

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back."""
        return self.timers.at(when_ms, callback)


class Place:
    """A node 1 of several cores, whose coordinators are where the test says."""

    def __init__(self) -> None:
        self.id = "cluster"
        self.node = 1
        self.lives = 0
        self.coordinators: dict[str, tuple[int, int] | None] = {}

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        """Say where; without a word of the test on core 0 of this node."""
        return self.coordinators.get(key, (self.node, 0))

    def brokers(self, listener: str) -> Sequence[Endpoint]:
        """There is nobody to tell."""
        del listener
        return ()

    def broker_id(self, node: int, core: int) -> int:
        """The number of the node."""
        del core
        return node

    def number_of(self, node: int, core: int) -> int:
        """Cores of this node have their index, those of others are above."""
        return core if node == self.node else node * 1_000 + core


class Everybody:
    """A Gate that lets everybody in, unless the test says why not."""

    def __init__(self) -> None:
        self.refusal: Refused | None = None
        self.inside = 0

    def admit(
        self, principal: Principal, now_ms: int, replaces: bool, *, has_many: bool = False
    ) -> Refused | None:
        """Refuse as the test says."""
        assert has_many
        del principal, now_ms, replaces
        return self.refusal

    def banned(self, principal: Principal, now_ms: int) -> Refused | None:
        """Likewise."""
        del principal, now_ms
        return self.refusal

    def opened(self, peer: Peer) -> None:
        """Count."""
        del peer
        self.inside += 1

    def closed(self, peer: Peer) -> None:
        """Count."""
        del peer
        self.inside -= 1


class Desk:
    """The front of one core; what handlers are asked waits in `calls` until it is answered."""

    def __init__(
        self,
        settings: KafkaRuntime | None = None,
        *,
        auth: MqttAuth | None = None,
        users: Sequence[User] = (),
        core: int = 0,
        pressure_bytes: int = 1 << 20,
        place: Place | None = None,
    ) -> None:
        self.broker = _Broker()
        self.calls: list[Call[Any]] = []
        self.said: list[str] = []
        self.sent: list[tuple[int, bytes]] = []
        self.gate = Everybody()
        self.allowance: Allowance | None = None
        self.logins = ScriptedLogins(auth, users)
        self.place = place or Place()
        nothing: Any = None
        self.kafka = Kafka(
            cast("Broker", self.broker),
            settings or KafkaRuntime(),
            core=core,
            cluster=self.place,
            partitions=cast("Partitions", nothing),
            catalog=cast("Catalog", nothing),
            ledger=cast("Ledger", nothing),
            authority=self,
        )
        table = {api: self.calls.append for api in APIS if api != ApiKey.API_VERSIONS}
        self.kafka.coordination = Coordination(
            self.kafka, table, lambda core, frame: self.sent.append((core, frame)), epoch=1
        )
        self.front = Front(
            self.kafka,
            table,
            self.kafka.coordination,
            self,
            logins=self.logins,
            gate=cast("Gate", self.gate),
            tenants=frozenset((auth or MqttAuth()).tenants),
            is_certified=lambda peer: peer.certified is not None,
            complain=lambda _, why: self.said.append(why),
            clock_ns=lambda: 1,
            pressure_bytes=pressure_bytes,
        )

    def of(self, principal: Principal, client_id: str | None) -> Allowance | None:
        """The allowance of everybody."""
        del principal, client_id
        return self.allowance

    version = 0

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Nobody asks."""
        raise AssertionError((principal, operation, resource, name))

    def client(self, peer: Peer | None = None) -> "Client":
        """A client that has connected."""
        return Client(self, peer or Peer("192.0.2.1", "kafka_tcp"))

    def wait(self, passed_ms: int) -> None:
        """Let time pass."""
        self.broker.turn.now_ms += passed_ms
        self.broker.timers.run(self.broker.turn.now_ms)

    def cell(self, number: int) -> int:
        """Return a counter."""
        return int(self.broker.turn.row[number])


class Client:
    """A client: it sends requests, and reads what has come back. Also its connection's stream."""

    def __init__(self, desk: Desk, peer: Peer) -> None:
        self.connection: Connection = desk.front.connection(peer)
        self.connection.stream = self
        self.connection.outbox.stream = self
        self.closed = False
        self.resumed = 0
        self._last = 0
        self._apis: dict[int, tuple[int, int]] = {}
        self._received = b""

    # As a stream.

    def resume(self) -> None:
        """Count."""
        self.resumed += 1

    def flush(self) -> None:
        """The client takes when it reads."""

    def close(self) -> None:
        """The server has ended it."""
        self.closed = True

    def abort(self) -> None:
        """Likewise."""
        self.closed = True

    # As a client.

    def bytes_of(self, api: int, version: int, request: Message) -> bytes:
        """A request as it travels."""
        self._last += 1
        self._apis[self._last] = (api, version)
        data = b"".join(codec.encode_request(api, version, self._last, "me", request))
        return len(data).to_bytes(4, "big") + data

    def send(self, api: int, version: int, request: Message) -> None:
        """Send a request."""
        self.connection.feed(self.bytes_of(api, version, request))

    def frames(self) -> list[bytes]:
        """Return all that was answered since the last look, without sizes."""
        outbox = self.connection.outbox
        self._received += outbox.take()
        if outbox.drained is not None:
            outbox.drained()
            self._received += outbox.take()
        found = []
        while self._received:
            size = int.from_bytes(self._received[:4], "big")
            found.append(self._received[4 : 4 + size])
            self._received = self._received[4 + size :]
        return found

    def read(self) -> list[tuple[int, Any]]:
        """Return the answers since the last look: the number of the request, and the message."""
        answers = []
        for data in self.frames():
            number = int.from_bytes(data[:4], "big")
            api, version = self._apis.pop(number)
            answers.append(codec.decode_response(api, version, data))
        return answers

    def ask(self, api: int, version: int, request: Message) -> Any:  # noqa: ANN401
        """Send a request that is answered at once; return the message."""
        self.send(api, version, request)
        ((number, answer),) = self.read()
        assert number == self._last
        return answer
