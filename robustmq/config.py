"""The configuration: TOML, environment and command line become immutable structs.

Later sources win: embedded defaults, the file, `ROBUST_MQ_SERVER_<SECTION>_<KEY>` variables, then
`--set section.key=value`. Names are those of RobustMQ. The description beside each key is the
manual; `manual()` writes it out as the commented file that `config/server.toml` holds. A key that
nobody reads is an error, never ignored. Rules for topics and users are in the file alone.
"""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from robustmq.errors import ConfigError
from robustmq.settings.access import AccessRule
from robustmq.settings.admin import Admin
from robustmq.settings.bounds import CENTURY_MS, GIB, I64_MAX, TIB, between
from robustmq.settings.cluster import Cluster
from robustmq.settings.file import Key, Row, Schema, Setting, refused, toml
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.limits import Ban, PublishLimit
from robustmq.settings.meta import MetaRuntime
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.place import NODE_MAX, Place
from robustmq.settings.place import faults as place_faults
from robustmq.settings.topics import wrong_filter
from robustmq.settings.users import User, repeated

Role: TypeAlias = Literal["meta", "broker", "engine"]
Flush: TypeAlias = Literal["always", "interval", "os"]
Engine: TypeAlias = Literal["memory", "rocksdb", "segment"]
Timestamps: TypeAlias = Literal["create", "append"]
Compression: TypeAlias = Literal["producer", "none", "gzip", "snappy", "lz4", "zstd"]

WORKERS_MAX: Final = 64

UPSTREAM_ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(
    {"EngineMemory": "memory", "EngineRocksDB": "rocksdb", "EngineSegment": "segment"}
)
"""RobustMQ's names of the engines, which are understood too."""


class Runtime(Struct, frozen=True, kw_only=True):
    """`[runtime]`: The processes of this node and the memory between them.

    workers: Workers, 1 to 64, or "auto": one per core that the supervisor may run on.
    pin: Keep each worker on a core of its own when there are enough; switch it off where other
        programs are busy on the same cores.
    ring_bytes: Bytes of the ring from one core to another, a power of two from 64 KiB; 0: 256 MiB
        divided by the number of rings, at least 256 KiB, at most 4 MiB.
    heartbeat_timeout_ms: Milliseconds without a sign of life until a process is replaced.
    start_timeout_ms: Milliseconds that a new process may do nothing, not even use the processor,
        until its first sign of life.
    drain_timeout_ms: Milliseconds that workers may take to stop; then they are killed.
    restart_backoff_ms: Milliseconds until a process that ended is restarted; doubled each time.
    restart_backoff_max_ms: Milliseconds that the wait before a restart never exceeds.
    max_batch_bytes: Bytes of one record batch; a turn that has more makes several.
    pressure_bytes: Bytes waiting for another core at which its publishers are paused.
    turn_frames_bytes: Bytes of frames that a core takes from one ring in a turn.
    """

    workers: Literal["auto"] | Annotated[int, between(1, WORKERS_MAX)] = "auto"
    pin: bool = True
    ring_bytes: Annotated[int, between(0, GIB)] = 0
    heartbeat_timeout_ms: Annotated[int, between(200, 600_000)] = 5_000
    start_timeout_ms: Annotated[int, between(200, 600_000)] = 30_000
    drain_timeout_ms: Annotated[int, between(0, 600_000)] = 5_000
    restart_backoff_ms: Annotated[int, between(1, 60_000)] = 200
    restart_backoff_max_ms: Annotated[int, between(1, 600_000)] = 10_000
    max_batch_bytes: Annotated[int, between(4_096, GIB)] = 1_048_576
    pressure_bytes: Annotated[int, between(65_536, GIB)] = 8_388_608
    turn_frames_bytes: Annotated[int, between(65_536, GIB)] = 4_194_304


class Log(Struct, frozen=True, kw_only=True):
    """`[log]`: What the processes say about themselves, on standard error.

    level: The least that is written: debug, info, warning or error. SIGHUP applies a change.
    format: human, json, or auto: human on a terminal and json elsewhere.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"


class ClusterLimit(Struct, frozen=True, kw_only=True):
    """`[cluster_limit]`: What this node accepts in all.

    max_network_connection: Connections that a worker may hold; 0: as many as the limit of open
        files allows, and those beside them whose sockets other workers have.
    """

    max_network_connection: Annotated[int, between(0, 100_000_000)] = 0


class Storage(Struct, frozen=True, kw_only=True):
    """`[storage]`: How messages are kept on disk; bytes and counts are those of one core.

    flush: When a message counts as stored, so that its publisher is told: always: after the disk
        has it (safe when the power fails; one sync for all that came at once); interval: after the
        operating system has it (safe when the server crashes), and on the disk within interval_ms;
        os: likewise, and on the disk when the operating system likes. Rules for topics may differ.
    interval_ms: Milliseconds after which what was written is on the disk, with flush = "interval".
    cursor_interval_ms: Milliseconds after which it is noted on disk that a client acknowledged a
        QoS 1 message; what was not noted before a crash is delivered again.
    memory_bytes: Memory of RocksDB: write buffers and the cache of what is read, together.
    wal_bytes: RocksDB's write-ahead log, which is read at a start after a crash, grows to this.
    pending_bytes: Bytes that wait for a slow disk beyond which messages to store are refused.
    retry_ms: Milliseconds until writing is tried again when the disk is full or broken.
    retain_budget_bytes: Bytes that one turn of a core spends on dropping and compacting old
        messages; more of them wait for the next turn, so that clients do not.
    open_files: Files of the segment engine that are held open for reading.
    segment_bytes: The segment engine begins a new file at this size; old messages go by files.
    segment_ms: Milliseconds after which it begins a new file anyway; 0: never.
    preallocate_bytes: Bytes of disk that a file of the segment engine takes in advance, at most: as
        much again as it has, at least 64 KiB.
    index_interval_bytes: Bytes between two entries of an index: fewer find faster and take more.
    retain_interval_ms: Milliseconds after which all logs are looked at for such messages again.
    max_topic_logs: Logs that a core keeps for topics whose rule asks for it.
    memory_log_bytes: Bytes of a log with engine = "memory", where its rule has no bound of bytes.
    compact_records: New messages in a compacted log that make another run of compaction worth it.
    compact_keys: Keys that one run of compaction remembers.
    tombstone_ms: Milliseconds that compaction keeps the empty message that deletes a key.
    max_producers: Idempotent producers whose latest batches a log remembers; of more, it forgets
        who was idle longest and has no open transaction.
    producer_expiry_ms: Milliseconds after which an idle one is forgotten; what it repeats is then
        taken for something new.
    """

    flush: Flush = "interval"
    interval_ms: Annotated[int, between(1, 3_600_000)] = 1_000
    cursor_interval_ms: Annotated[int, between(1, 60_000)] = 100
    memory_bytes: Annotated[int, between(1 << 20, TIB)] = 134_217_728
    wal_bytes: Annotated[int, between(1 << 20, TIB)] = 268_435_456
    pending_bytes: Annotated[int, between(65_536, TIB)] = 268_435_456
    retry_ms: Annotated[int, between(10, 600_000)] = 500
    retain_budget_bytes: Annotated[int, between(4_096, GIB)] = 262_144
    open_files: Annotated[int, between(1, 1_000_000)] = 256
    segment_bytes: Annotated[int, between(1_024, GIB)] = 268_435_456
    segment_ms: Annotated[int, between(0, CENTURY_MS)] = 604_800_000
    preallocate_bytes: Annotated[int, between(0, GIB)] = 16_777_216
    index_interval_bytes: Annotated[int, between(64, GIB)] = 4_096
    retain_interval_ms: Annotated[int, between(10, 86_400_000)] = 1_000
    max_topic_logs: Annotated[int, between(0, 1_000_000)] = 10_000
    memory_log_bytes: Annotated[int, between(1_024, TIB)] = 67_108_864
    compact_records: Annotated[int, between(1, 1_000_000_000)] = 10_000
    compact_keys: Annotated[int, between(1, 1_000_000_000)] = 1_000_000
    tombstone_ms: Annotated[int, between(0, CENTURY_MS)] = 86_400_000
    max_producers: Annotated[int, between(1, 100_000_000)] = 10_000
    producer_expiry_ms: Annotated[int, between(1_000, CENTURY_MS)] = 86_400_000


class TopicRule(Struct, frozen=True, kw_only=True):
    """`[[topic_rules]]`: How the messages of some topics are stored, one table for each rule.

    The first rule whose filter matches a topic is the one that holds, in the order of this file; a
    topic that none matches has the defaults below. Without a bound of retention a message is
    stored only as long as a session needs it. Rules are set here, not by variables or --set.

    filter: The topics, as an MQTT topic filter; a rule has to have one. As in MQTT, a filter that
        begins with a wildcard does not match a topic that begins with $.
    engine: memory: gone after a restart; rocksdb: for many topics and the messages of offline
        clients; segment: files, for streams of much data. EngineMemory, EngineRocksDB and
        EngineSegment mean the same.
    flush: As in [storage], for these topics; where a rule has none, it is that of [storage].
    interval_ms: As in [storage], for these topics; where a rule has none, it is that of [storage].
    retention_ms: Milliseconds that a message is kept for readers to come; 0: no such bound.
    retention_bytes: Bytes of a log that are kept, the newest; 0: no such bound.
    retention_records: Messages of a log that are kept, the newest; 0: no such bound.
    compact: Keep the latest message of each key; not with engine = "memory".
    own_shard: Give each of these topics a log of its own; else they share a few.
    store_qos0: Store QoS 0 messages for durable sessions too.
    max_message_bytes: Bytes of the largest message; 0: no other limit than that of packets.
    check_payload_format: Refuse a message that says that it is text (payload format indicator 1,
        MQTT5 3.3.2.3.2) and is not UTF-8; of QoS 0 it is dropped and counted.
    segment_bytes: As in [storage], for these topics; else it is that of [storage].
    segment_ms: As in [storage], for these topics; else it is that of [storage].
    tombstone_ms: As in [storage], for these topics; else it is that of [storage].
    compact_lag_ms: Milliseconds for which compaction leaves a message alone.
    timestamps: What the time of a Kafka client's record is: create: what the client says; append:
        when it was appended.
    timestamp_before_ms: Milliseconds that the time of a Kafka client's record may lie back.
    timestamp_after_ms: Milliseconds that it may lie ahead.
    compression: How batches of Kafka clients are kept: producer: as they come; none, gzip, snappy,
        lz4, zstd: compressed anew where they come otherwise.
    min_insync_replicas: Replicas that must have what is acknowledged to a producer with acks = all.
    partitions: Partitions of a topic that Kafka clients make below this filter without saying how
        many; 0: kafka_runtime.num_partitions.
    kafka_topic: The name by which Kafka clients see the shared logs of this rule as one topic: it
        has one partition for each core, and the MQTT topics are the keys; "": not at all.
    """

    filter: Annotated[str, Meta(min_length=1, examples=["plant/+/alarms"])]
    engine: Engine = "rocksdb"
    flush: Flush = "interval"
    interval_ms: Annotated[int, between(1, 3_600_000)] = 1_000
    retention_ms: Annotated[int, between(0, CENTURY_MS)] = 0
    retention_bytes: Annotated[int, between(0, I64_MAX)] = 0
    retention_records: Annotated[int, between(0, I64_MAX)] = 0
    compact: bool = False
    own_shard: bool = False
    store_qos0: bool = False
    max_message_bytes: Annotated[int, between(0, 268_435_460)] = 0
    check_payload_format: bool = False
    segment_bytes: Annotated[int, between(1_024, GIB)] = 268_435_456
    segment_ms: Annotated[int, between(0, CENTURY_MS)] = 604_800_000
    tombstone_ms: Annotated[int, between(0, CENTURY_MS)] = 86_400_000
    compact_lag_ms: Annotated[int, between(0, CENTURY_MS)] = 0
    timestamps: Timestamps = "create"
    timestamp_before_ms: Annotated[int, between(0, I64_MAX)] = I64_MAX
    timestamp_after_ms: Annotated[int, between(0, I64_MAX)] = 3_600_000
    compression: Compression = "producer"
    min_insync_replicas: Annotated[int, between(1, 63)] = 1
    partitions: Annotated[int, between(0, 10_000)] = 0
    kafka_topic: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]{0,249}$")] = ""


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration; the keys here stand before the first section of the file.

    cluster_name: The cluster that this node belongs to, 1 to 255 characters.
    broker_id: This node's number in the cluster, which no other node has.
    broker_ip: The IPv4 or IPv6 address that every port is bound to; 0.0.0.0: all of IPv4.
    roles: Parts of a node: meta, broker, engine. A node without meta follows what the others
        decide; one without broker takes no clients, and with meta alone there are no workers.
    meta_addrs: The nodes that the cluster begins with and where their grpc_port is, such as
        {1="10.0.0.1:1228", 2="10.0.0.2:1228", 3="10.0.0.3:1228"}, the same on every node; a node
        that is not among them joins later. {}: this node is alone.
    grpc_port: TCP port over which nodes agree; 0: that of this node's entry of meta_addrs, and
        1228 when it has none.
    http_port: TCP port of /metrics and /health; 0: any free port, which is printed at start.
    data_path: The directory of this node's data; made when missing.
    """

    cluster_name: Annotated[str, Meta(min_length=1, max_length=255)] = "robust_mq_cluster_default"
    broker_id: Annotated[int, between(0, NODE_MAX)] = 1
    broker_ip: str = "0.0.0.0"
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)] = ("meta", "broker", "engine")
    meta_addrs: dict[str, str] = field(default_factory=dict)
    grpc_port: Annotated[int, between(0, 65_535)] = 0
    http_port: Annotated[int, between(0, 65_535)] = 58080
    data_path: Annotated[str, Meta(min_length=1)] = "./data"
    runtime: Runtime = field(default_factory=Runtime)
    log: Log = field(default_factory=Log)
    cluster: Cluster = field(default_factory=Cluster)
    cluster_limit: ClusterLimit = field(default_factory=ClusterLimit)
    meta_runtime: MetaRuntime = field(default_factory=MetaRuntime)
    admin: Admin = field(default_factory=Admin)
    storage: Storage = field(default_factory=Storage)
    mqtt_runtime: MqttRuntime = field(default_factory=MqttRuntime)
    kafka_runtime: KafkaRuntime = field(default_factory=KafkaRuntime)
    topic_rules: tuple[TopicRule, ...] = ()
    users: tuple[User, ...] = ()
    acl: tuple[AccessRule, ...] = ()
    blacklist: tuple[Ban, ...] = ()
    publish_limits: tuple[PublishLimit, ...] = ()

    @property
    def place(self) -> Place:
        """Where this node stands in its cluster."""
        return Place(self.broker_id, self.broker_ip, self.meta_addrs, self.cluster)


S = TypeVar("S", bound=Struct)

_SCHEMA: Final = Schema(Config)
KEYS: Final = _SCHEMA.keys
SECTIONS: Final = _SCHEMA.sections
VARIABLES: Final = _SCHEMA.variables
_RULES: Final = ("topic_rules",)
_NO_TENANT: Final = "is not one of mqtt_runtime.auth.tenants: add it there"


def load(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read, merge and check the configuration.

    `path` is a TOML file, None for the embedded defaults alone; `overrides` are the texts of
    `--set`, "section.key=value"; `environment` is os.environ unless given. Raises ConfigError with
    one sentence that names the place, the key and what to do.
    """
    settings: dict[Key, Setting] = {}
    sources = (
        _SCHEMA.from_file(Path(path)) if path is not None else (),
        _SCHEMA.from_variables(os.environ if environment is None else environment),
        _SCHEMA.from_overrides(overrides),
    )
    for source in sources:
        settings.update((setting.key, setting) for setting in source)
    rows = settings.pop(_RULES, None)
    config = _build(Config, (), {key: _SCHEMA.checked(each) for key, each in settings.items()})
    _check_together(config, settings)
    if rows is None:
        return config
    return msgspec.structs.replace(config, topic_rules=_rules(rows, config.storage))


def changed_keys(old: Config, new: Config) -> list[str]:
    """Name the keys whose values differ, as "section.key", in the order of the file."""
    names = (*KEYS, *_SCHEMA.tables)
    return [".".join(key) for key in names if _value(old, key) != _value(new, key)]


def manual() -> str:
    """Write the embedded defaults as a commented TOML file, the text of config/server.toml."""
    return _SCHEMA.manual(
        (
            "The configuration of a node: every key with its default.",
            "A variable ROBUST_MQ_SERVER_<SECTION>_<KEY> wins over this file, and",
            "--set section.key=value wins over both. Unknown keys are refused.",
        )
    )


def default_rule(storage: Storage) -> TopicRule:
    """Return the rule of every topic that no other matches."""
    return TopicRule(
        filter="#",
        flush=storage.flush,
        interval_ms=storage.interval_ms,
        segment_bytes=storage.segment_bytes,
        segment_ms=storage.segment_ms,
        tombstone_ms=storage.tombstone_ms,
    )


def _build(struct: type[S], at: Key, values: Mapping[Key, object]) -> S:
    arguments: dict[str, object] = {}
    for info in msgspec.structs.fields(struct):
        key = (*at, info.name)
        if key in SECTIONS:
            arguments[info.name] = _build(SECTIONS[key], key, values)
        elif key in values:
            arguments[info.name] = values[key]
    return struct(**arguments)


def _check_together(config: Config, settings: Mapping[Key, Setting]) -> None:
    """Check what a type cannot say and what concerns more than one key."""
    runtime, protocol = config.runtime, config.mqtt_runtime.protocol
    proxies = config.mqtt_runtime.server.proxy_networks
    ring, raft = runtime.ring_bytes, config.meta_runtime.raft
    faults: list[tuple[bool, str, str]] = [
        (not _is_address(config.broker_ip), "broker_ip", "is not an IPv4 or IPv6 address"),
        (len(set(config.roles)) < len(config.roles), "roles", "names a role twice"),
        (
            not all(map(_is_network, proxies)),
            "mqtt_runtime.server.proxy_networks",
            "holds what is no network such as 10.0.0.0/8",
        ),
        ("\0" in config.data_path, "data_path", "holds a zero byte"),
        (
            not all(map(_is_network, config.admin.trusted_networks)),
            "admin.trusted_networks",
            "names what is neither an address nor a network",
        ),
        (
            ring != 0 and (ring < 65_536 or ring & (ring - 1) != 0),
            "runtime.ring_bytes",
            "is neither 0 nor a power of two from 65536",
        ),
        (
            runtime.restart_backoff_max_ms < runtime.restart_backoff_ms,
            "runtime.restart_backoff_max_ms",
            "is below runtime.restart_backoff_ms",
        ),
        (
            2 * raft.heartbeat_interval_ms > raft.election_timeout_ms,
            "meta_runtime.raft.heartbeat_interval_ms",
            "is above half of meta_runtime.raft.election_timeout_ms: no leader would stay",
        ),
        (
            protocol.default_session_expiry_interval > protocol.max_session_expiry_interval,
            "mqtt_runtime.protocol.default_session_expiry_interval",
            "is above mqtt_runtime.protocol.max_session_expiry_interval",
        ),
    ]
    kafka = config.kafka_runtime
    faults.append(
        (
            "OAUTHBEARER" in kafka.sasl.mechanisms and not kafka.oauth.key_files,
            "kafka_runtime.sasl.mechanisms",
            "names OAUTHBEARER, for which kafka_runtime.oauth.key_files must name a key",
        )
    )
    faults += place_faults(config.place, config.roles)
    tenants = {"", "default", *config.mqtt_runtime.auth.tenants}
    listeners = config.mqtt_runtime.listener
    for listener in msgspec.structs.fields(listeners):
        tenant = listeners.named(listener.name).tenant
        name = f"mqtt_runtime.listener.{listener.name}.tenant"
        faults.append((tenant not in tenants, name, _NO_TENANT))
    if strangers := [user.username for user in config.users if user.tenant not in tenants]:
        place = settings["users",].place
        raise ConfigError(f"{place}: the tenant of the user {strangers[0]} {_NO_TENANT}")
    foreign = (rule.tenant for rule in config.acl if rule.tenant not in {"*", *tenants})
    if stranger := next(foreign, None):
        place = settings["acl",].place
        raise ConfigError(f"{place}: the tenant {stranger} of a rule of access {_NO_TENANT}")
    if twice := repeated(config.users):
        place = settings["users",].place
        raise ConfigError(f"{place}: there are two users {twice}; remove one of the two")
    for wrong, name, sentence in faults:
        if wrong:
            key = tuple(name.split("."))
            place = settings[key].place if key in settings else "the default"
            raise refused(Setting(key, _value(config, key), place), sentence)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _rules(setting: Setting, storage: Storage) -> tuple[TopicRule, ...]:
    """Make the rules; what one does not say is taken from [storage] or is the default."""
    rows = setting.value
    assert isinstance(rows, tuple)
    rules: list[TopicRule] = []
    places: dict[str, str] = {}
    names: dict[str, str] = {}
    for row in rows:
        rule = _rule(row, storage)
        if rule.filter in places:
            raise ConfigError(
                f"{row.place}: no topic is left for this rule: {places[rule.filter]} has the same "
                f"filter, {toml(rule.filter)}"
            )
        places[rule.filter] = row.place
        if rule.kafka_topic and rule.kafka_topic in names:
            raise ConfigError(
                f"{row.place}: {names[rule.kafka_topic]} has the same kafka_topic, "
                f"{toml(rule.kafka_topic)}: choose another"
            )
        names[rule.kafka_topic] = row.place
        rules.append(rule)
    return tuple(rules)


def _rule(row: Row, storage: Storage) -> TopicRule:
    given = {setting.key[-1]: setting for setting in row.settings}
    engine = given.get("engine")
    if engine is not None and isinstance(engine.value, str):
        value = UPSTREAM_ENGINES.get(engine.value, engine.value)
        given["engine"] = engine._replace(value=value)
    checked = {name: _SCHEMA.checked(setting) for name, setting in given.items()}
    rule = msgspec.structs.replace(default_rule(storage), **checked)
    if reason := wrong_filter(rule.filter):
        raise refused(given["filter"], reason)
    if rule.compact and rule.engine == "memory":
        raise refused(given["compact"], 'has no effect with engine = "memory"; leave one out')
    if rule.kafka_topic and rule.own_shard:
        reason = "is for rules whose topics share logs; leave own_shard out"
        raise refused(given["kafka_topic"], reason)
    bounds = rule.retention_ms or rule.retention_bytes or rule.retention_records
    if rule.kafka_topic and not (bounds or rule.compact):
        reason = "is kept nowhere without a bound of retention: set retention_ms, or another one"
        raise refused(given["kafka_topic"], reason)
    return rule


def _value(config: Struct, key: Key) -> object:
    value: object = config
    for part in key:
        value = getattr(value, part)
    return value
