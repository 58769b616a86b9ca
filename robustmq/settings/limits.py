"""The configuration of limits: who may not connect, how many may, and how much they may publish."""

import ipaddress
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from robustmq.settings.bounds import TIB, U32_MAX, between
from robustmq.settings.topics import wrong_filter

BanKind: TypeAlias = Literal["ClientId", "User", "Ip", "ClientIdMatch", "UserMatch", "IPCIDR"]


class Ban(Struct, frozen=True, kw_only=True):
    """`[[blacklist]]`: Who may not connect, one table for each; the API adds others.

    A client that is on the list is answered "banned" (MQTT 5: 0x8A, MQTT 3: 5).

    blacklist_type: What resource_name is: ClientId, User or Ip: exactly that one; ClientIdMatch
        or UserMatch: a pattern, in which * stands for any characters and ? for one; IPCIDR: a
        network such as 10.0.0.0/8.
    resource_name: The client identifier, user, address, pattern or network.
    tenant: The tenant that the client identifier or user belongs to; "*": any. Of an address and
        a network, nobody asks for the tenant.
    name: The name of the ban, by which it is deleted.
    end_time: When it ends, in seconds since 1970; 0: never.
    desc: Why; the client is told.
    """

    blacklist_type: Annotated[BanKind, Meta(examples=["ClientId"])]
    resource_name: Annotated[str, Meta(min_length=1, max_length=65_535, examples=["device-7"])]
    tenant: Annotated[str, Meta(min_length=1, max_length=256)] = "default"
    name: Annotated[str, Meta(max_length=256)] = ""
    end_time: Annotated[int, between(0, U32_MAX)] = 0
    desc: Annotated[str, Meta(max_length=1_024)] = ""

    def __post_init__(self) -> None:
        try:
            if self.blacklist_type == "Ip":
                ipaddress.ip_address(self.resource_name)
            elif self.blacklist_type == "IPCIDR":
                ipaddress.ip_network(self.resource_name)
        except ValueError as error:
            raise ValueError(
                f"its resource_name is not what {self.blacklist_type} needs: {error}"
            ) from None


class MqttFlappingDetect(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.flapping_detect]`: Clients that connect again and again are banned.

    The same client identifier in two tenants is two clients.

    enable: Whether they are.
    window_time: Minutes in which the connections of a client identifier are counted.
    max_client_connections: Connections within the window from which on it is banned.
    ban_time: Minutes that the ban lasts.
    max_clients: Client identifiers that a core counts at once; the oldest gives way.
    """

    enable: bool = False
    window_time: Annotated[int, between(1, 10_080)] = 1
    max_client_connections: Annotated[int, between(2, 1_000_000)] = 15
    ban_time: Annotated[int, between(1, 525_600)] = 5
    max_clients: Annotated[int, between(1, 100_000_000)] = 100_000


class MqttLimitCluster(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.limit.cluster]`: What this node takes in all; 0: no such limit.

    max_connections_per_node: Clients that are connected at once; one more is refused (0x97).
    max_connections_per_address: Likewise, of one IP address.
    max_connection_rate: Clients that connect in a second; one more is refused (0x9F).
    """

    max_connections_per_node: Annotated[int, between(0, 1_000_000_000)] = 0
    max_connections_per_address: Annotated[int, between(0, 1_000_000_000)] = 0
    max_connection_rate: Annotated[int, between(0, 10_000_000)] = 0


class MqttLimitClient(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.limit.client]`: What one client may publish; 0: no such limit.

    A client that publishes more is read more slowly; nothing is dropped.

    max_publish_rate: Messages in a second.
    max_publish_bytes: Bytes of PUBLISH packets in a second.
    """

    max_publish_rate: Annotated[int, between(0, 1_000_000_000)] = 0
    max_publish_bytes: Annotated[int, between(0, TIB)] = 0


class MqttLimit(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.limit]`: Connections and rates; those of a listener stand with it."""

    cluster: MqttLimitCluster = field(default_factory=MqttLimitCluster)
    client: MqttLimitClient = field(default_factory=MqttLimitClient)


class PublishLimit(Struct, frozen=True, kw_only=True):
    """`[[publish_limits]]`: What all clients together may publish to some topics of this node.

    The first table whose filter matches a topic holds for it. Clients that publish more are read
    more slowly; nothing is dropped.

    filter: The topics, as an MQTT topic filter.
    max_publish_rate: Messages in a second; 0: no such limit.
    max_publish_bytes: Bytes of PUBLISH packets in a second; 0: no such limit.
    """

    filter: Annotated[str, Meta(min_length=1, examples=["telemetry/#"])]
    max_publish_rate: Annotated[int, between(0, 1_000_000_000)] = 0
    max_publish_bytes: Annotated[int, between(0, TIB)] = 0

    def __post_init__(self) -> None:
        if reason := wrong_filter(self.filter):
            raise ValueError(f"its filter {reason}")
