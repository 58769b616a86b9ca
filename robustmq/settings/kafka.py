"""The configuration of Kafka: `[kafka_runtime]` and its sections."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from robustmq.settings.bounds import CENTURY_MS, GIB, I64_MAX, TIB, between
from robustmq.settings.kafka_groups import KafkaGroups
from robustmq.settings.kafka_transactions import KafkaTransactions

KafkaListener: TypeAlias = Literal["tcp", "tls"]
Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class KafkaSasl(Struct, frozen=True, kw_only=True):
    """`[kafka_runtime.sasl]`: How clients of Kafka say who they are; the users are in [[users]].

    enabled: Clients must authenticate by SASL before anything else; a client whose certificate
        names its user (mqtt_runtime.auth.certificate_as_username = "alone") need not.
    mechanisms: What is offered. PLAIN sends the password as it is: use it over TLS.
    timeout_ms: Milliseconds that a client has to authenticate.
    failure_delay_ms: Milliseconds between the answer to a client that is not who it says and the
        end of its connection, so that it hears the answer and does not try again at once.
    session_lifetime_ms: Milliseconds after which a client must authenticate again; 0: never,
        but with OAUTHBEARER when its token expires.
    """

    enabled: bool = False
    mechanisms: Annotated[tuple[Mechanism, ...], Meta(min_length=1)] = (
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
    )
    timeout_ms: Annotated[int, between(10, 600_000)] = 10_000
    failure_delay_ms: Annotated[int, between(0, 600_000)] = 100
    session_lifetime_ms: Annotated[int, between(0, 86_400_000)] = 0


class KafkaOauth(Struct, frozen=True, kw_only=True):
    """`[kafka_runtime.oauth]`: Which tokens are believed (OAUTHBEARER): signed JWTs.

    A token must say when it expires; the client must authenticate again by then. SIGHUP applies a
    change, of the files too.

    key_files: Files of the keys that sign tokens: a public key or certificate in PEM (RSA, elliptic
        curve), a JSON Web Key Set, or a secret of at least 32 bytes.
    issuer: What a token must say of its issuer (iss); "": anything.
    audience: For whom a token must be (aud); "": anybody.
    user_claim: The claim that names the user.
    leeway_ms: Milliseconds that clocks may differ.
    """

    key_files: tuple[str, ...] = ()
    issuer: str = ""
    audience: str = ""
    user_claim: Annotated[str, Meta(min_length=1)] = "sub"
    leeway_ms: Annotated[int, between(0, 3_600_000)] = 10_000


class KafkaRuntime(Struct, frozen=True, kw_only=True):
    """`[kafka_runtime]`: The Kafka protocol.

    listeners: Those that may be open; tls is, once mqtt_runtime.tls has a certificate.
    tcp_port: TCP port of Kafka; 0: any free port, which is printed at start.
    tls_port: TCP port of Kafka over TLS; 0: any free port.
    advertise: What clients are told to connect to. node: this node is one broker, with its number
        as the broker's, and any core takes what comes. core: each core is a broker of its own,
        numbered node * 1024 + core, with a port of its own behind the common one (tcp_port + 1 +
        core, tls_port + 1 + core): clients talk to the core that has the partition.
    advertised_host: The name or address that clients are told to connect to; "": broker_ip, and
        where that is all addresses, the name of the machine.
    max_request_bytes: Bytes of the largest request; whoever sends a larger one is disconnected.
    max_unauthenticated_bytes: Likewise, until a client has authenticated.
    max_request_elements: Elements of all arrays of a request together; whoever sends more is
        disconnected.
    max_admin_elements: Likewise, of a request that makes, shows or changes topics, settings, ACLs
        or quotas; tools send more in several requests.
    max_unfinished_bytes: Bytes that a core keeps of requests that are not whole yet, of all its
        connections; whoever sends more than that is disconnected.
    max_inflight_requests: Requests of a connection that may be under way; then it is read no more
        until some are answered.
    max_backlog_bytes: Bytes of answers that a connection does not take, from which on no more of
        its requests are looked at.
    max_throttle_ms: Milliseconds that a client waits at once, at most, when it exceeds a quota.
    idle_timeout_ms: Milliseconds after which a connection without a request is closed.
    max_fetch_bytes: Bytes that one Fetch is answered with, whatever it asks for; 0: no bound but
        that of the client.
    max_fetch_wait_ms: Milliseconds that one Fetch waits at most, whatever it asks for.
    max_fetch_sessions: Incremental fetch sessions of a core; a client without one names all
        partitions each time.
    max_fetch_session_partitions: Partitions in all sessions of a core together.
    fetch_session_idle_ms: Milliseconds without use after which a session makes room for another.
    max_message_bytes: Bytes of the largest record batch, where its topic says nothing else.
    check_compressed: Look into compressed batches that are produced, as into others; without it
        only their checksum is checked, and what cannot be decompressed is kept as it is.
    max_uncompressed_bytes: Bytes that a compressed batch may take once it is decompressed.
    mqtt_qos: The QoS with which subscribers of MQTT get what Kafka clients produce; 0: what is on
        its way to them when a process ends is lost to them.
    auto_create_topics_enable: Make a topic that a client asks for and that there is not.
    num_partitions: Partitions of a topic whose maker does not say how many.
    max_partitions: Partitions of one topic at most.
    max_describe_topic_partitions: Partitions that one DescribeTopicPartitions answers at most.
    engine: Where topics that clients make are kept, as in [[topic_rules]].
    retention_ms: Milliseconds that their records are kept; -1: for ever.
    retention_bytes: Bytes of one of their partitions that are kept, the newest; -1: no such bound.
    topic_separator: What stands for the / of an MQTT topic in the names that clients of Kafka may
        write: with "." a.b finds the topic a/b when there is no topic a.b; "": nothing does.
    """

    listeners: tuple[KafkaListener, ...] = ("tcp", "tls")
    tcp_port: Annotated[int, between(0, 65_535)] = 9092
    tls_port: Annotated[int, between(0, 65_535)] = 9193
    advertise: Literal["node", "core"] = "node"
    advertised_host: Annotated[str, Meta(max_length=255)] = ""
    max_request_bytes: Annotated[int, between(1_024, GIB)] = 104_857_600
    max_unauthenticated_bytes: Annotated[int, between(1_024, GIB)] = 524_288
    max_request_elements: Annotated[int, between(1_000, 100_000_000)] = 250_000
    max_admin_elements: Annotated[int, between(100, 100_000_000)] = 10_000
    max_unfinished_bytes: Annotated[int, between(1_024, TIB)] = 536_870_912
    max_inflight_requests: Annotated[int, between(1, 100_000)] = 64
    max_backlog_bytes: Annotated[int, between(1_024, GIB)] = 8_388_608
    max_throttle_ms: Annotated[int, between(1, 3_600_000)] = 30_000
    idle_timeout_ms: Annotated[int, between(100, 86_400_000)] = 600_000
    max_fetch_bytes: Annotated[int, between(0, GIB)] = 4_194_304
    max_fetch_wait_ms: Annotated[int, between(0, 600_000)] = 60_000
    max_fetch_sessions: Annotated[int, between(0, 1_000_000)] = 1_000
    max_fetch_session_partitions: Annotated[int, between(0, 100_000_000)] = 100_000
    fetch_session_idle_ms: Annotated[int, between(0, 86_400_000)] = 120_000
    max_message_bytes: Annotated[int, between(1_024, GIB)] = 1_048_588
    check_compressed: bool = True
    max_uncompressed_bytes: Annotated[int, between(1_024, GIB)] = 67_108_864
    mqtt_qos: Annotated[int, between(0, 2)] = 1
    auto_create_topics_enable: bool = True
    num_partitions: Annotated[int, between(1, 10_000)] = 1
    max_partitions: Annotated[int, between(1, 10_000)] = 1_000
    max_describe_topic_partitions: Annotated[int, between(1, 1_000_000)] = 2_000
    engine: Literal["memory", "rocksdb", "segment"] = "segment"
    retention_ms: Annotated[int, between(-1, CENTURY_MS)] = 604_800_000
    retention_bytes: Annotated[int, between(-1, I64_MAX)] = -1
    topic_separator: Annotated[str, Meta(pattern=r"^[._-]?$")] = "."
    sasl: KafkaSasl = field(default_factory=KafkaSasl)
    oauth: KafkaOauth = field(default_factory=KafkaOauth)
    groups: KafkaGroups = field(default_factory=KafkaGroups)
    transactions: KafkaTransactions = field(default_factory=KafkaTransactions)
