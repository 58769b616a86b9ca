"""MQTT on one core: what its connections share, and whose connection a new one is."""

from collections.abc import Callable
from typing import Final

from robustmq import metrics
from robustmq.broker.api import Broker, Logins, Peer
from robustmq.config_mqtt import MqttRuntime
from robustmq.errors import ProtocolError
from robustmq.mqtt import wire
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.data_stream import DataStream
from robustmq.mqtt.framing import Peek, connect_client_id, scan
from robustmq.mqtt.packets import PacketType
from robustmq.mqtt.session_table import SessionTable

PEEK_BYTES: Final = 32_768
"""How many bytes of a stream are looked at for the client id; they fit into any receive buffer."""

NOBODY: Final = -1
"""The home of a stream that is to be closed at once."""

Complain = Callable[[Connection, int, str], None]


class Mqtt:
    """The protocol's state on one core.

    `home_of(client id)` names the core of a client's session; `complain` hears about clients
    that break the protocol; `seed` makes assigned client ids differ between lives of a core;
    `logins` says who may connect.
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
    ) -> None:
        self.broker = broker
        self.logins = logins
        self.limits = config.protocol
        self.keep_alive = config.keep_alive
        self._listeners = config.listener
        self.sessions = SessionTable(broker, config.protocol, first_key)
        self.complain = complain
        self._core = core
        self._home_of = home_of
        self._seed = seed
        self._assigned = 0
        self._connections: set[Connection] = set()

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

    def assigned_client_id(self) -> str:
        """A client id that nobody has and whose home is this core (MQTT5 3.1.3.1)."""
        while True:
            self._assigned += 1
            client_id = f"auto-{self._seed}-{self._assigned}"
            if self._home_of(client_id.encode()) == self._core:
                return client_id

    def opened(self, connection: Connection) -> None:
        """A client was accepted."""
        self._connections.add(connection)
        self.broker.turn.row[metrics.CONNECTIONS] = len(self._connections)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self.broker.turn.row[metrics.CONNECTIONS] = len(self._connections)

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._connections)

    def shut_down(self) -> None:
        """Tell every client that the server stops."""
        for connection in list(self._connections):
            connection.shut_down()
