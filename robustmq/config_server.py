"""The configuration of MQTT's listeners: `[mqtt_runtime.server]`."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Struct

from robustmq.config_bounds import GIB, between

ListenerName: TypeAlias = Literal["tcp", "tls", "ws", "wss", "quic"]


class MqttServer(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.server]`: Where MQTT listens.

    listeners: Those that may be open. What needs a certificate is open once there is one.
    tcp_port: TCP port of MQTT; 0: any free port, which is printed at start.
    handshake_timeout_ms: Milliseconds that a client has for TLS and what else precedes CONNECT.
    relay_window_bytes: Bytes that may be on their way between the core that has a client's
        socket and the one that has its session, each way; plain TCP needs none of it.
    """

    listeners: tuple[ListenerName, ...] = ("tcp", "tls", "ws", "wss", "quic")
    tcp_port: Annotated[int, between(0, 65_535)] = 1883
    handshake_timeout_ms: Annotated[int, between(10, 600_000)] = 10_000
    relay_window_bytes: Annotated[int, between(4_096, GIB)] = 1_048_576
