"""What a CONNECT asks for, and what the client is granted."""

from typing import Final, NamedTuple

from robustmq.broker.api import Broker, Principal
from robustmq.errors import ProtocolError, Refused
from robustmq.message.tenancy import DEFAULT_TENANT, named_tenant
from robustmq.mqtt.explanation import Wording
from robustmq.mqtt.packets import V5, V311, Connack, Connect, Properties, Will
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.session import Session
from robustmq.settings.mqtt import MqttProtocol

_TENANT: Final = "tenant"
_NO_LIMIT: Final = 65_535
_NO_PROPERTIES: Final = Properties()
_DEFAULT_PACKET: Final = 268_435_460


class Greeting(NamedTuple):
    """What follows CONNECT when its session is safe: CONNACK, and how messages go out.

    `keep_alive` is seconds before the multiplier, 0 for ever; `limit` messages in flight.
    """

    connack: Connack
    keep_alive: int
    limit: int
    max_packet: int
    alias_max: int


def check_anonymous(packet: Connect) -> None:
    """Raise ProtocolError 0x85 when a client may not leave its identifier to the server."""
    if packet.version == V311 and not packet.clean_start:
        raise ProtocolError(
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
            "a client without an identifier must ask for a clean session",
        )
    if packet.version < V311:
        raise ProtocolError(
            Reason.CLIENT_IDENTIFIER_NOT_VALID, "MQTT 3.1 wants a client identifier"
        )


class Tenancy(NamedTuple):
    """The tenant that a client belongs to, and its user name within the tenant."""

    tenant: str
    username: str | None


def tenancy(packet: Connect, of_listener: str, tenants: frozenset[str]) -> Tenancy:
    """Who a client is among `tenants` beside the default one.

    By the user property `tenant`, by `tenant@` before the user name or before the client
    identifier, or by the listener. A name before @ that is no tenant's is part of the name. The
    client identifier stays whole. Raises ProtocolError 0x87 for a property that names no tenant.
    """
    username = packet.username
    listed = packet.properties.user_properties if packet.properties is not None else ()
    asked = next((value for name, value in listed if name == _TENANT), None)
    if asked is not None and tenants:
        if asked not in tenants and asked != DEFAULT_TENANT:
            raise ProtocolError(Reason.NOT_AUTHORIZED, f"there is no tenant {asked}")
        return Tenancy(asked, username)
    if username is not None and (named := named_tenant(username, tenants)):
        return Tenancy(*named)
    if named := named_tenant(packet.client_id, tenants):
        return Tenancy(named[0], username)
    return Tenancy(of_listener or DEFAULT_TENANT, username)


def wording(packet: Connect) -> Wording:
    """What the client wants to be told of refusals (MQTT5 3.1.2.11.4, 3.1.2.11.7)."""
    asked = packet.properties or _NO_PROPERTIES
    return Wording(
        packet.version, asked.maximum_packet_size or 0, asked.request_problem_information != 0
    )


def expiry(packet: Connect, limits: MqttProtocol) -> int:
    """Return the seconds that the session outlives the connection (MQTT5 3.1.2.11.2)."""
    asked = (packet.properties or _NO_PROPERTIES).session_expiry_interval or 0
    if packet.version < V5:
        asked = 0 if packet.clean_start else limits.default_session_expiry_interval
    return min(asked, limits.max_session_expiry_interval)


def will_refusal(will: Will | None, principal: Principal, broker: Broker) -> Refused | None:
    """Say why a client's will could not be published as things are; None when it could."""
    if will is None:
        return None
    topic = broker.topics.name(principal, will.topic)
    if isinstance(topic, Refused):
        return topic
    decided = broker.route(principal, topic, will.retain)
    if isinstance(decided, Refused):
        return decided
    is_text = will.properties is not None and will.properties.payload_format == 1
    return broker.topics.payload(topic, will.payload) if is_text else None


def greeting(
    packet: Connect, session: Session, present: bool, limits: MqttProtocol, max_keep_alive: int
) -> Greeting:
    """Return what an accepted client is told, and the limits that both sides keep from then on."""
    properties = packet.properties or _NO_PROPERTIES
    keep_alive = _keep_alive(packet, max_keep_alive)
    connack = Connack(
        Reason.SUCCESS,
        present and packet.version >= V311,  # MQTT 3.1 has no such flag: the byte is reserved.
        _granted(packet, session, keep_alive, limits) if packet.version == V5 else None,
    )
    return Greeting(
        connack,
        keep_alive,
        min(properties.receive_maximum or _NO_LIMIT, limits.max_inflight),
        properties.maximum_packet_size or 0,
        min(properties.topic_alias_maximum or 0, limits.max_server_topic_aliases),
    )


def _keep_alive(packet: Connect, most: int) -> int:
    if packet.version == V5 and not 0 < packet.keep_alive <= most:
        return most
    return packet.keep_alive


def _granted(
    packet: Connect, session: Session, keep_alive: int, limits: MqttProtocol
) -> Properties:
    """What CONNACK says about this connection where it is not the default (MQTT5 3.2.2.3)."""
    properties = packet.properties or _NO_PROPERTIES
    asked = properties.session_expiry_interval or 0
    return Properties(
        session_expiry_interval=session.expiry if session.expiry != asked else None,
        receive_maximum=limits.receive_max if limits.receive_max != _NO_LIMIT else None,
        maximum_packet_size=(
            limits.max_packet_size if limits.max_packet_size < _DEFAULT_PACKET else None
        ),
        assigned_client_id=None if packet.client_id else session.client_id,
        topic_alias_maximum=limits.topic_alias_max or None,
        server_keep_alive=keep_alive if keep_alive != packet.keep_alive else None,
        response_information=(
            _response_information(session, limits.response_information)
            if properties.request_response_information
            else None
        ),
    )


def _response_information(session: Session, configured: str) -> str | None:
    """Where the client's response topics begin (MQTT5 3.2.2.3.14); None when it is not told."""
    told = configured.replace("${clientid}", session.client_id)
    told = told.replace("${username}", session.principal.username or "")
    # What the client has written may be long.
    return told if 0 < len(told.encode()) <= _NO_LIMIT else None
