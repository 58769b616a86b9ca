"""The configuration of what nodes of a cluster say to each other: `[cluster]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import GIB, between


class Cluster(Struct, frozen=True, kw_only=True):
    """`[cluster]`: How the nodes of a cluster trust and reach each other.

    Between nodes nothing is listened for beyond loopback without a secret or certificates. The
    secret shows who belongs to the cluster; against readers and forgers on the way it needs TLS.

    secret: What all nodes of the cluster know and nobody else, at least 16 characters; "": none.
    secret_file: A file that holds the secret, which others than its owner may not read; "": none.
    tls_cert: PEM file of this node's certificate with its chain, shown to other nodes; "": no TLS.
    tls_key: PEM file of its private key, unencrypted.
    tls_ca: PEM file of the authority of the cluster: whoever has a certificate of it is a node.
    bind_ip: The address that grpc_port and peer_port are bound to; "": loopback when this node's
        own entry of meta_addrs is there, else broker_ip.
    advertised_host: The name or address by which other nodes reach this one; "": that of its own
        entry of meta_addrs, else broker_ip.
    call_timeout_ms: Milliseconds that a node may take to answer on grpc_port when it is called, and
        one that calls to show who it is.
    call_retry_min_ms: Milliseconds until a node that could not be reached there is called again;
        doubled each time.
    call_retry_max_ms: Milliseconds that this wait never exceeds.
    max_call_bytes: Bytes of one message on grpc_port.
    max_call_backlog_bytes: Bytes that wait there for a slow node; Raft's messages beyond that are
        dropped, and it says again what matters.
    max_callers: Connections to grpc_port that have not shown yet who they are.
    peer_port: TCP port on which the cores of other nodes reach the cores of this one.
    peer_keepalive_ms: Milliseconds of silence after which a core tells another that it is there.
    peer_timeout_ms: Milliseconds without a sign of life until a connection is made anew; what was
        not acknowledged is sent again.
    peer_handshake_timeout_ms: Milliseconds that a connection has to show whose it is.
    peer_reconnect_min_ms: Milliseconds until a lost connection is tried again; doubled each time.
    peer_reconnect_max_ms: Milliseconds that this wait never exceeds.
    peer_write_bytes: Bytes that are given to a connection's socket in advance; what is behind them
        can still be overtaken by acknowledgements.
    peer_record_bytes: Bytes of frames that are sent as one, with one checksum.
    """

    secret: str = ""
    secret_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    bind_ip: str = ""
    advertised_host: str = ""
    call_timeout_ms: Annotated[int, between(10, 600_000)] = 3_000
    call_retry_min_ms: Annotated[int, between(1, 60_000)] = 50
    call_retry_max_ms: Annotated[int, between(1, 600_000)] = 1_000
    max_call_bytes: Annotated[int, between(1_048_576, GIB)] = 33_554_432
    max_call_backlog_bytes: Annotated[int, between(65_536, GIB)] = 67_108_864
    max_callers: Annotated[int, between(1, 65_535)] = 128
    peer_port: Annotated[int, between(0, 65_535)] = 1229
    peer_keepalive_ms: Annotated[int, between(10, 600_000)] = 500
    peer_timeout_ms: Annotated[int, between(50, 600_000)] = 2_500
    peer_handshake_timeout_ms: Annotated[int, between(50, 600_000)] = 5_000
    peer_reconnect_min_ms: Annotated[int, between(1, 600_000)] = 100
    peer_reconnect_max_ms: Annotated[int, between(1, 600_000)] = 2_000
    peer_write_bytes: Annotated[int, between(65_536, GIB)] = 1_048_576
    peer_record_bytes: Annotated[int, between(4_096, 16_777_216)] = 262_144
