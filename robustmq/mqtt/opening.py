"""How a client that is who it says gets its session: what refuses it, where it is, its CONNACK."""

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from robustmq._kernel.intake import ADMISSION
from robustmq.broker.api import Principal
from robustmq.errors import Refusal, Refused
from robustmq.mqtt import codec, connect
from robustmq.mqtt.authentication import Seal
from robustmq.mqtt.packets import Connect
from robustmq.mqtt.passage import Introduction
from robustmq.mqtt.reasons import CONNECTION_REFUSALS
from robustmq.mqtt.registry import head_for
from robustmq.mqtt.seeker import Newcomer
from robustmq.mqtt.session import OWN_CLIENTS

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection

_UNKEPT = Refused(
    Refusal.UNAVAILABLE,
    "the cluster cannot keep the session now, a majority of its nodes is out of reach: try again",
)


class Opening:
    """One CONNECT, from its acceptance to its CONNACK; `seal` is the end of a proof by AUTH."""

    __slots__ = ("_connection", "_expiry", "_newcomer", "_packet", "_principal", "_seal")

    def __init__(
        self, connection: "Connection", packet: Connect, principal: Principal, seal: Seal | None
    ) -> None:
        self._connection = connection
        self._packet = packet
        self._principal = principal
        self._seal = seal
        self._expiry = connect.expiry(packet, connection.mqtt.limits)
        self._newcomer: Newcomer | None = None

    def begin(self) -> None:
        """Give the client its session, unless something refuses it."""
        connection, packet, principal = self._connection, self._packet, self._principal
        mqtt = connection.mqtt
        roaming = mqtt.roaming
        refused = roaming.refusal if roaming is not None else None
        refused = refused or mqtt.admit(principal)
        refused = refused or connect.will_refusal(packet.will, principal, connection.broker)
        refused = refused or mqtt.sessions.refusal(
            principal.identity, packet.clean_start, self._expiry
        )
        if refused is not None:
            self._refuse(refused)
            return
        connection.version = packet.version
        connection.is_bridge = packet.is_bridge
        if roaming is None or not packet.client_id or packet.client_id.startswith(OWN_CLIENTS):
            # Nobody else can have a session of this client.
            self._enter(0)
            return
        connection.intake.hold(ADMISSION)
        self._newcomer = Newcomer(
            principal.identity,
            packet.client_id.encode(),
            packet.clean_start,
            head_for(principal, self._expiry, packet.will, packet.version),
            self._enter,
            self._follow,
            self._refuse,
        )
        connection.be_patient()
        roaming.seeker.seek(self._newcomer)

    def abandon(self) -> None:
        """The connection has ended."""
        newcomer, self._newcomer = self._newcomer, None
        roaming = self._connection.mqtt.roaming
        if newcomer is not None and roaming is not None:
            roaming.seeker.abandon(newcomer)

    def _refuse(self, refused: Refused) -> None:
        self._newcomer = None
        self._connection.refuse_connect(
            self._packet.version, CONNECTION_REFUSALS[refused.code], refused.detail
        )

    def _enter(self, generation: int) -> None:
        """The session lives here, in a tenure that has begun if `generation` is not 0."""
        self._newcomer = None
        connection, packet, principal = self._connection, self._packet, self._principal
        mqtt = connection.mqtt
        session, present, waits = mqtt.sessions.open(
            principal,
            packet.clean_start,
            expiry=self._expiry,
            will=packet.will,
            version=packet.version,
            generation=generation,
        )
        session.connection = connection
        connection.serve(session)
        most = mqtt.max_keep_alive(connection.peer.listener)
        greeting = connect.greeting(packet, session, present, mqtt.limits, most)
        if self._seal is not None:
            greeting = greeting._replace(connack=self._seal.put_on(greeting.connack))
        mqtt.opened(connection)
        if waits:
            connection.intake.hold(ADMISSION)
            kept = partial(connection.kept, greeting)
            mqtt.sessions.when_kept(principal.identity, kept, self._unkept)
        else:
            connection.greet(greeting)

    def _unkept(self) -> None:
        if not self._connection.ended:
            self._refuse(_UNKEPT)

    def _follow(self, core: int) -> None:
        """The session lives on a core of another node: the client goes on there."""
        self._newcomer = None
        packet = msgspec.structs.replace(self._packet, password=None)
        self._connection.follow(
            core,
            Introduction(
                self._connection.peer,
                self._principal,
                codec.encode(packet, packet.version),
                self._seal,
            ),
        )
