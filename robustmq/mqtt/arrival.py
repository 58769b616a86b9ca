"""How a client comes: its CONNECT, and who it is, until its session may be opened."""

from functools import partial
from typing import TYPE_CHECKING

from robustmq import metrics
from robustmq._kernel.intake import ADMISSION
from robustmq.broker.api import BRIDGE, Login, Principal
from robustmq.errors import ProtocolError, Refused
from robustmq.mqtt import codec, connect
from robustmq.mqtt.authentication import Authentication
from robustmq.mqtt.framing import answer_version, scan
from robustmq.mqtt.opening import Opening
from robustmq.mqtt.packets import V5, Auth, Connect, Disconnect, PacketType
from robustmq.mqtt.passage import Introduction
from robustmq.mqtt.reasons import LOGIN_REFUSALS, Reason
from robustmq.mqtt.session import OWN_CLIENTS

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection


class Arrival:
    """A client on its way in; what its CONNECT says of authentication holds to the end."""

    __slots__ = ("_connection", "authentication", "opening")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.authentication: Authentication | None = None
        self.opening: Opening | None = None

    def again(self, packet: Auth, principal: Principal) -> None:
        """Take AUTH of a client that is connected (MQTT5 4.12.1). Raises ProtocolError."""
        if self.authentication is None:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, "AUTH without an authentication method in CONNECT"
            )
        self.authentication.again(packet, principal)

    def close(self) -> None:
        """The connection has ended."""
        if self.authentication is not None:
            self.authentication.close()
        if self.opening is not None:
            self.opening.abandon()

    def introduced(self, introduction: Introduction) -> None:
        """Another node brings a client whose session is here, and has asked who it is."""
        found = scan(introduction.connect, 0, len(introduction.connect))
        assert found is not None
        first_byte, start, end = found
        packet = codec.decode(first_byte, introduction.connect[start:end], 0)
        assert isinstance(packet, Connect)
        self._connection.wording = connect.wording(packet)
        self.opening = Opening(self._connection, packet, introduction.principal, introduction.seal)
        self.opening.begin()

    def packet(self, first_byte: int, body: bytes) -> None:
        """Take a packet of a client that has no session yet."""
        if self.authentication is not None:
            self._proof(self.authentication, first_byte, body)
            return
        if first_byte >> 4 != PacketType.CONNECT:
            self._connection.count(metrics.PROTOCOL_ERRORS)
            self._connection.finish(with_will=False)
            return
        try:
            packet = codec.decode(first_byte, body, 0)
            assert isinstance(packet, Connect)
            if self._connection.mqtt.is_homeless(body):
                raise ProtocolError(
                    Reason.PACKET_TOO_LARGE, "the client identifier lies too far behind"
                )
            self._connect(packet)
        except ProtocolError as error:
            self._connection.count(metrics.PROTOCOL_ERRORS)
            self._connection.refuse_connect(
                answer_version(body), Reason(error.reason), error.detail
            )

    def _connect(self, packet: Connect) -> None:
        connection = self._connection
        connection.wording = connect.wording(packet)
        client_id = packet.client_id or self._assigned(packet)
        if client_id.startswith(OWN_CLIENTS) and connection.peer.listener != BRIDGE:
            raise ProtocolError(
                Reason.CLIENT_IDENTIFIER_NOT_VALID,
                f"client identifiers that begin with {OWN_CLIENTS} are the server's own",
            )
        tenancy = connection.mqtt.tenant(packet, connection.peer.listener)
        login = Login(connection.peer, client_id, tenancy.username, packet.password, tenancy.tenant)
        asked = packet.properties
        if asked is not None and asked.authentication_method is not None:
            decide = partial(self._decided, packet)
            self.authentication = Authentication(
                connection, asked.authentication_method, login, decide
            )
            connection.version = packet.version
            self.authentication.begin(asked.authentication_data)
            return
        decided = self._connection.mqtt.logins.log_in(login, partial(self._decided_late, packet))
        if decided is None:
            connection.intake.hold(ADMISSION)
        else:
            self._decided(packet, decided)

    def _proof(self, authentication: Authentication, first_byte: int, body: bytes) -> None:
        """A packet between CONNECT and CONNACK: the client proves who it is (MQTT5 4.12)."""
        try:
            packet = codec.decode(first_byte, body, V5)
            if isinstance(packet, Disconnect):
                self._connection.finish(with_will=False)
            else:
                authentication.before_connack(packet)
        except ProtocolError as error:
            self._connection.count(metrics.PROTOCOL_ERRORS)
            self._connection.refuse_connect(V5, Reason(error.reason), error.detail)

    def _decided_late(self, packet: Connect, decided: Principal | Refused) -> None:
        """The client's password was looked at; the connection may be gone."""
        if not self._connection.ended:
            self._decided(packet, decided)

    def _decided(self, packet: Connect, decided: Principal | Refused) -> None:
        if isinstance(decided, Refused):
            self._connection.count(metrics.LOGINS_REFUSED)
            self._connection.refuse_connect(
                packet.version, LOGIN_REFUSALS[decided.code], decided.detail
            )
        else:
            self._connection.count(metrics.LOGINS_ACCEPTED)
            seal = None if self.authentication is None else self.authentication.seal
            self.opening = Opening(self._connection, packet, decided, seal)
            self.opening.begin()

    def _assigned(self, packet: Connect) -> str:
        connect.check_anonymous(packet)
        return self._connection.mqtt.assigned_client_id()
