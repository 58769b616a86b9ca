"""The configuration of MQTT's listeners: `[mqtt_runtime.server]`."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from robustmq.settings.bounds import GIB, TIB, between

ListenerName: TypeAlias = Literal["tcp", "tls", "ws", "wss", "quic"]


class MqttServer(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.server]`: Where MQTT listens.

    listeners: Those that may be open. What needs a certificate is open once there is one.
    tcp_port: TCP port of MQTT; 0: any free port, which is printed at start.
    tls_port: TCP port of MQTT over TLS; 0: any free port.
    websocket_port: TCP port of MQTT over WebSocket; 0: any free port.
    websockets_port: TCP port of MQTT over WebSocket over TLS; 0: any free port.
    unix_path: Path of a Unix socket for MQTT, at most 107 bytes; "": none.
    unix_mode: Its permissions, as chmod takes them.
    proxy_networks: Networks of proxies, such as 10.0.0.0/8. Who comes from there must begin with
        a PROXY header (version 1 or 2) on tcp, tls, ws and wss; from elsewhere none is taken.
    proxy_max_bytes: Bytes of the largest PROXY header.
    proxy_certified_user: Take a client's user from the certificate that its proxy has verified.
    quic_port: UDP port of MQTT over QUIC; 0: any free port.
    handshake_timeout_ms: Milliseconds that a client has for TLS and what else precedes CONNECT.
    refusal_log_interval_ms: Milliseconds in which one client that was turned away by a listener
        is logged; the others are only counted.
    relay_window_bytes: Bytes that may be on their way between the core that has a client's
        socket and the one that has its session, each way; plain TCP needs none of it.
    websocket_path: Path of MQTT on the WebSocket listeners; any other is answered with 404.
    websocket_origins: Pages whose scripts may connect, as "https://example.com"; empty: all.
        A client that is no browser names no origin and is not asked.
    websocket_max_request_size: Bytes of the request that opens a WebSocket, its headers included.
    websocket_max_message_size: Bytes of a client's WebSocket message. It may hold several packets
        and is not kept, so this bounds no memory; max_packet_size bounds packets.
    """

    listeners: tuple[ListenerName, ...] = ("tcp", "tls", "ws", "wss", "quic")
    tcp_port: Annotated[int, between(0, 65_535)] = 1883
    tls_port: Annotated[int, between(0, 65_535)] = 1885
    websocket_port: Annotated[int, between(0, 65_535)] = 8083
    websockets_port: Annotated[int, between(0, 65_535)] = 8085
    unix_path: str = ""
    unix_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = "0660"
    proxy_networks: tuple[str, ...] = ()
    proxy_max_bytes: Annotated[int, between(232, 16_384)] = 4_096
    proxy_certified_user: bool = False
    quic_port: Annotated[int, between(0, 65_535)] = 9083
    handshake_timeout_ms: Annotated[int, between(10, 600_000)] = 10_000
    refusal_log_interval_ms: Annotated[int, between(0, 86_400_000)] = 10_000
    relay_window_bytes: Annotated[int, between(4_096, GIB)] = 1_048_576
    websocket_path: Annotated[str, Meta(pattern=r"^/[!-~]*$")] = "/mqtt"
    websocket_origins: tuple[str, ...] = ()
    websocket_max_request_size: Annotated[int, between(1_024, 65_536)] = 8_192
    websocket_max_message_size: Annotated[int, between(1_024, TIB)] = 268_435_460
