"""The configuration of MQTT over QUIC: `[mqtt_runtime.quic]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import GIB, between


class MqttQuic(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.quic]`: MQTT over QUIC (RFC 9000), on mqtt_runtime.server.quic_port.

    The certificate is the first of mqtt_runtime.tls; handshake_timeout_ms and connect_timeout_ms
    hold. Clients cannot be asked for theirs: where tls.verify is required, QUIC is not open.

    idle_timeout_ms: Milliseconds without a packet until a connection is given up; MQTT's keep
        alive ends silent clients sooner. A client may ask for less.
    max_streams: Streams of one connection that may be open at once: the control stream and data
        streams.
    stream_window_bytes: Bytes that a client may send on a stream before the server has taken any.
    connection_window_bytes: Bytes that a client may send on all of its streams likewise.
    send_buffer_bytes: Bytes of a stream that may be unacknowledged; what is beyond waits with
        what else there is for the client, bounded as over TCP.
    max_datagram_bytes: Bytes of the largest datagram sent, without the headers of UDP and IP; every
        path to a client must carry it.
    max_handshakes: Handshakes that one worker has under way; who comes beyond that has to wait.
    retry_handshakes: Handshakes under way at which who comes has to show its address first (Retry).
    """

    idle_timeout_ms: Annotated[int, between(1_000, 86_400_000)] = 7_200_000
    max_streams: Annotated[int, between(1, 10_000)] = 64
    stream_window_bytes: Annotated[int, between(4_096, GIB)] = 262_144
    connection_window_bytes: Annotated[int, between(4_096, GIB)] = 1_048_576
    send_buffer_bytes: Annotated[int, between(4_096, GIB)] = 262_144
    max_datagram_bytes: Annotated[int, between(1_200, 65_000)] = 1_200
    max_handshakes: Annotated[int, between(1, 1_000_000)] = 1_000
    retry_handshakes: Annotated[int, between(0, 1_000_000)] = 100
