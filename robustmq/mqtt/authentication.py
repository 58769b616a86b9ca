"""Enhanced authentication: a client proves by AUTH packets who it is (MQTT5 4.12)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from robustmq.broker.api import Exchange, Login, Principal, Timer
from robustmq.errors import ProtocolError, Refused
from robustmq.mqtt.packets import Auth, Connack, Packet, Properties
from robustmq.mqtt.reasons import Reason

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection


class Seal(NamedTuple):
    """The end of a proof, as CONNACK tells it."""

    method: str
    data: bytes

    def put_on(self, connack: Connack) -> Connack:
        """CONNACK with the method and what the server says last (MQTT5 3.2.2.3.17)."""
        properties = msgspec.structs.replace(
            connack.properties or Properties(),
            authentication_method=self.method,
            authentication_data=self.data,
        )
        return msgspec.structs.replace(connack, properties=properties)


class Authentication:
    """The proof of one client, by the method that its CONNECT names: once, and again later.

    `decided` takes the result of the first one. An exchange that takes longer than a CONNECT may
    ends the connection.
    """

    __slots__ = ("_connection", "_decided", "_exchange", "_login", "_method", "_seal", "_timer")

    def __init__(
        self,
        connection: "Connection",
        method: str,
        login: Login,
        decided: Callable[[Principal | Refused], None],
    ) -> None:
        self._connection = connection
        self._method = method
        self._login = login
        self._decided = decided
        self._exchange: Exchange | None = None
        self._seal = b""
        self._timer: Timer | None = None

    def begin(self, data: bytes | None) -> None:
        """Take what CONNECT brought (MQTT5 3.1.2.11.9). Raises ProtocolError 0x8C."""
        self._start(self._login)
        self._step(data)

    def before_connack(self, packet: Packet) -> None:
        """Take a packet of a client that waits for CONNACK. Raises ProtocolError."""
        if not isinstance(packet, Auth) or packet.reason != Reason.CONTINUE_AUTHENTICATION:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR,
                "before CONNACK a client may send only AUTH to continue, or DISCONNECT",
            )
        if _method_of(packet) != self._method:
            raise ProtocolError(Reason.BAD_AUTHENTICATION_METHOD, "AUTH names another method")
        self._step(_data_of(packet))

    @property
    def seal(self) -> Seal:
        """The method, and what the server says last."""
        return Seal(self._method, self._seal)

    def again(self, packet: Auth, principal: Principal) -> None:
        """Take AUTH of a client that is connected (MQTT5 4.12.1). Raises ProtocolError."""
        begins = packet.reason == Reason.REAUTHENTICATE
        if begins == (self._exchange is not None) or packet.reason == Reason.SUCCESS:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, "this AUTH neither begins a proof nor continues one"
            )
        if _method_of(packet) != self._method:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, f"AUTH must have the method of CONNECT, {self._method}"
            )
        if begins:
            connection = self._connection
            # The user must stay the same.
            self._start(self._login._replace(username=principal.username))
            deadline = connection.broker.turn.now_ms + connection.mqtt.limits.connect_timeout_ms
            self._timer = connection.broker.at(deadline, self._too_late)
            self._decided = self._decided_again
        self._step(_data_of(packet))

    def close(self) -> None:
        """The connection has ended."""
        self._exchange = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, login: Login) -> None:
        self._exchange = self._connection.mqtt.logins.exchange(self._method, login)
        if self._exchange is None:
            raise ProtocolError(
                Reason.BAD_AUTHENTICATION_METHOD,
                f"the authentication method {self._method} is not offered",
            )

    def _step(self, data: bytes | None) -> None:
        assert self._exchange is not None
        step = self._exchange.step(data or b"")
        if isinstance(step, Refused):
            self.close()
            self._decided(step)
        elif step.principal is None:
            self._send(Reason.CONTINUE_AUTHENTICATION, step.data)
        else:
            self._seal = step.data
            self.close()
            self._decided(step.principal)

    def _decided_again(self, decided: Principal | Refused) -> None:
        if isinstance(decided, Refused):
            self._connection.expel(Reason.NOT_AUTHORIZED, decided.detail)
        else:
            self._send(Reason.SUCCESS, self._seal)

    def _too_late(self) -> None:
        self._connection.expel(Reason.NOT_AUTHORIZED, "the proof was not completed in time")

    def _send(self, reason: Reason, data: bytes) -> None:
        properties = Properties(authentication_method=self._method, authentication_data=data)
        self._connection.send(Auth(reason, properties))


def _method_of(packet: Auth) -> str | None:
    return packet.properties.authentication_method if packet.properties else None


def _data_of(packet: Auth) -> bytes | None:
    return packet.properties.authentication_data if packet.properties else None
