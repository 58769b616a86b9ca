"""MQTT on one core: what its connections share, and whose connection a new one is."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq.broker.api import Broker, Gate, Logins, Peer, Principal, Rates
from robustmq.errors import ProtocolError, Refused
from robustmq.mqtt import connect, wire
from robustmq.mqtt.connect import Tenancy
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.data_stream import DataStream
from robustmq.mqtt.events import Events
from robustmq.mqtt.framing import Peek, connect_client_id, scan
from robustmq.mqtt.packets import Connect, PacketType
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.roaming import Roaming
from robustmq.mqtt.session import Session
from robustmq.mqtt.session_table import SessionTable
from robustmq.settings.mqtt import MqttRuntime

PEEK_BYTES: Final = 32_768
"""How many bytes of a stream are looked at for the client id; they fit into any receive buffer."""

NOBODY: Final = -1
"""The home of a stream that is to be closed at once."""

JUDGED_AT_ONCE: Final = 500
"""Connections that are judged anew in one turn when somebody is banned."""

Complain = Callable[[Connection, int, str], None]


class Mqtt:
    """The protocol's state on one core.

    `home_of(client id)` names the core of a client's session; `complain` hears about clients
    that break the protocol; `seed` makes assigned client ids differ between lives of a core;
    `logins` says who a client is, `gate` who may connect: without one everybody may; `rates` how
    much may be published, without it as much as there is.
    """

    def __init__(
        self,
        broker: Broker,
        config: MqttRuntime,
        *,
        core: int,
        home_of: Callable[[bytes], int],
        first_key: int,
        seed: str,
        logins: Logins,
        complain: Complain,
        gate: Gate | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.broker = broker
        self.logins = logins
        self.limits = config.protocol
        self.keep_alive = config.keep_alive
        self._listeners = config.listener
        self._tenants = frozenset(config.auth.tenants)
        self.sessions = SessionTable(broker, config.protocol, first_key)
        self.complain = complain
        self._core = core
        self._home_of = home_of
        self._seed = seed
        self._assigned = 0
        self._connections: set[Connection] = set()
        # Who hears what happens to clients; nobody, unless that is wanted.
        self.events: Events | None = None
        # What a node of several must do for its sessions; None on one that is alone.
        self.roaming: Roaming | None = None
        self._gate = gate
        self.rates = rates
        self._to_judge: list[Connection] = []
        self._judge_again = False
        # An earlier life of this core may have ended with some.
        broker.turn.row[metrics.CONNECTIONS] = 0

    def home(self, beginning: bytes) -> int | None:
        """The core for a connection that begins like this; None when more must be seen.

        A CONNECT that is wrong is answered here, and so is a client that wants an id assigned
        and one whose id lies behind everything that may be looked at. What is no CONNECT, or
        larger than one may be, is NOBODY's.
        """
        if beginning[0] >> 4 != PacketType.CONNECT:
            return NOBODY
        client_id = connect_client_id(beginning)
        if client_id is Peek.INCOMPLETE:
            try:
                scan(beginning, 0, min(self.limits.max_connect_size, self.limits.max_packet_size))
            except ProtocolError:
                return NOBODY
            return self._core if len(beginning) >= PEEK_BYTES else None
        if client_id is Peek.NOT_CONNECT or not client_id:
            return self._core
        assert isinstance(client_id, bytes)
        return self._home_of(client_id)

    def is_homeless(self, body: bytes) -> bool:
        """Say whether a client id lies so far behind in its CONNECT that `home` cannot see it.

        Such a client is refused: it may be on the wrong core, where it could not be taken over.
        """
        # The remaining length may have come in four bytes where fewer would do.
        seen = PEEK_BYTES - 3
        if len(body) < seen - 5:
            return False
        beginning = b"\x10" + wire.varint(len(body)) + body
        return connect_client_id(beginning[:seen]) is Peek.INCOMPLETE

    def connection(self, peer: Peer) -> Connection:
        """A new connection, for a stream that belongs to this core."""
        return Connection(self, peer)

    def max_keep_alive(self, listener: str) -> int:
        """Seconds that a client of a listener may ask for, when it can be told otherwise."""
        return self._listeners.named(listener).max_keep_alive or self.keep_alive.max_time

    def data_stream(self, control: Connection) -> DataStream:
        """A further stream of a client whose connection belongs to this core."""
        return DataStream(control)

    def tenant(self, packet: Connect, listener: str) -> Tenancy:
        """The tenant of a client, by its CONNECT or its listener. Raises ProtocolError 0x87."""
        return connect.tenancy(packet, self._listeners.named(listener).tenant, self._tenants)

    def assigned_client_id(self) -> str:
        """A client id that nobody has and whose home is this core (MQTT5 3.1.3.1)."""
        while True:
            self._assigned += 1
            client_id = f"auto-{self._seed}-{self._assigned}"
            if self._home_of(client_id.encode()) == self._core:
                return client_id

    def admit(self, principal: Principal) -> Refused | None:
        """Say why a client may not connect; None when it may."""
        if self._gate is None:
            return None
        known = self.sessions.get(principal.identity)
        replaces = known is not None and known.connection is not None
        return self._gate.admit(principal, self.broker.turn.now_ms, replaces)

    def banned(self, identity: str | None) -> None:
        """Somebody is banned: this client, or with None others, who are looked for bit by bit."""
        if identity is not None:
            session = self.sessions.get(identity)
            if session is not None and session.connection is not None:
                self._judge(session.connection)
        elif self._to_judge:
            self._judge_again = True
        else:
            self._to_judge = list(self._connections)
            self._judge_some()

    def _judge_some(self) -> None:
        some, self._to_judge = (
            self._to_judge[:JUDGED_AT_ONCE],
            self._to_judge[JUDGED_AT_ONCE:],
        )
        for connection in some:
            self._judge(connection)
        if not self._to_judge and self._judge_again:
            self._judge_again = False
            self._to_judge = list(self._connections)
        if self._to_judge:
            self.broker.at(self.broker.turn.now_ms + 1, self._judge_some)

    def _judge(self, connection: Connection) -> None:
        session = connection.session
        if session is None or self._gate is None:
            return
        refused = self._gate.banned(session.principal, self.broker.turn.now_ms)
        if refused is not None:
            self.broker.turn.row[metrics.CONNECTIONS_EXPELLED] += 1
            connection.expel(Reason.ADMINISTRATIVE_ACTION, refused.detail)

    def permissions_changed(self) -> None:
        """Other rules of access hold: routes are decided anew, subscriptions looked at bit by bit.

        To be said after a restart too: the rules may have changed while the node was down.
        """
        self.forget_routes()
        self._revoke_some(deque(self.sessions.walk()))

    def forget_routes(self) -> None:
        """What was decided for the topics that clients publish to is void."""
        for connection in self._connections:
            connection.forget_routes()

    def _revoke_some(self, sessions: deque[Session]) -> None:
        for _ in range(min(len(sessions), JUDGED_AT_ONCE)):
            self.sessions.revoke(sessions.popleft())
        if sessions:
            self.broker.at(self.broker.turn.now_ms + 1, partial(self._revoke_some, sessions))

    def opened(self, connection: Connection) -> None:
        """A client was accepted."""
        self._connections.add(connection)
        if self._gate is not None:
            self._gate.opened(connection.peer)
        self.broker.turn.row[metrics.CONNECTIONS] = len(self._connections)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if self._gate is not None:
            self._gate.closed(connection.peer)
        self.broker.turn.row[metrics.CONNECTIONS] = len(self._connections)

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._connections)

    def greeted(self, connection: Connection, session: Session, keep_alive_s: int) -> None:
        """A client was told that it is connected."""
        if self.events is not None:
            now_ms = self.broker.turn.now_ms
            self.events.connected(session.principal, connection.version, keep_alive_s, now_ms)

    def parted(self, connection: Connection, session: Session, why: str) -> None:
        """The connection of a session has ended."""
        if self.events is not None and connection.greeted_ms:
            self.events.disconnected(session.principal, why, self.broker.turn.now_ms)

    def walk(self) -> Iterable[Connection]:
        """The connections that are open now."""
        return self._connections

    def isolated(self) -> None:
        """The node has lost the cluster: nobody is served here until `Roaming.rejoined`."""
        assert self.roaming is not None
        self.roaming.isolated()
        self._expel_some(deque([*self._connections, *self.roaming.passages]))

    def _expel_some(self, connections: deque[Connection]) -> None:
        for _ in range(min(len(connections), JUDGED_AT_ONCE)):
            connections.popleft().expel(
                Reason.SERVER_SHUTTING_DOWN, "this node has lost the cluster: try another one"
            )
        if connections:
            self.broker.at(self.broker.turn.now_ms + 1, partial(self._expel_some, connections))

    def shut_down(self) -> None:
        """Tell every client that the server stops."""
        passages = self.roaming.passages if self.roaming is not None else ()
        for connection in [*self._connections, *passages]:
            connection.shut_down()
