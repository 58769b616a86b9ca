"""What the metadata group holds: records by kind and name, and what their values say."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.settings.limits import Ban
from robustmq.settings.users import User

CLUSTER: Final = "cluster"
"""The one record of this kind says what cluster this is; its name is empty."""
NODE: Final = "node"
"""A node; its name is its number."""
BLACKLIST: Final = "blacklist"
USER: Final = "user"
"""A user; its name is `tenant/username`: the name of a tenant holds no slash."""
TENANT: Final = "tenant"
SETTING: Final = "setting"
TOPIC: Final = "topic"
TOPIC_RULE: Final = "topic_rule"
ACL: Final = "acl"
GRANT: Final = "grant"
"""What clients of Kafka call an ACL; its name says nothing."""
SCHEMA: Final = "schema"
SCHEMA_BIND: Final = "schema_bind"
CONNECTOR: Final = "connector"
SCHEDULE: Final = "schedule"
"""Where a connector runs; its name is the connector's."""
CLIENT_QUOTA: Final = "client_quota"
"""How much a user or client may use (`policy.client_quota`)."""
SHARD: Final = "shard"
"""Who has a shard; its name is the shard's."""

NODES: Final = 63
"""Nodes of a cluster at most: their numbers are 0 to 62."""
NAME_BYTES: Final = 1_024
KIND_BYTES: Final = 64
VALUE_BYTES: Final = 1 << 20

State: TypeAlias = Literal["live", "fenced", "leaving"]


class Record(Struct, array_like=True, frozen=True):
    """What is set, or with None gone; `value` is MessagePack, a map by the fields of its kind.

    Values travel and are kept as they are: a node that does not know a kind, or a field of it,
    loses nothing. `changed` is the index of its last change, for `commands.Expectation`; 0 where
    nobody has said so.
    """

    kind: str
    name: str
    value: bytes | None
    changed: int = 0


class Cluster(Struct, frozen=True, kw_only=True):
    """What cluster this is: the id is made once, the name is the configuration's."""

    id: str
    name: str = ""


class Node(Struct, frozen=True, kw_only=True):
    """A node as all others know it.

    `incarnation` is raised by every fence: what a node says as an earlier one is void. `level`
    is the highest level of commands that its version understands. `kafka_ports` are where clients
    of Kafka reach it at `kafka_host`, by the listener: the common port, then those of each core.
    """

    number: int
    store: str
    address: str = ""
    grpc_port: int = 0
    peer_port: int = 0
    http_port: int = 0
    workers: int = 1
    roles: tuple[str, ...] = ("meta", "broker", "engine")
    level: int = 1
    version: str = ""
    incarnation: int = 1
    state: State = "live"
    kafka_host: str = ""
    kafka_ports: dict[str, tuple[int, ...]] = {}

    @property
    def is_broker(self) -> bool:
        """Whether clients are served there, when it is live."""
        return "broker" in self.roles


class Tenant(Struct, frozen=True, kw_only=True):
    """A tenant beside those of the configuration."""

    desc: str = ""
    config: dict[str, Any] = {}


class Setting(Struct, frozen=True, kw_only=True):
    """A setting of the whole cluster, over what a node's configuration says."""

    value: Any


class Topic(Struct, frozen=True, kw_only=True):
    """A topic that was made explicitly: how it is stored.

    Its name is `tenant/topic`. `id` is 16 bytes that no other topic ever has, `config` what was
    set for it, in Kafka's names.
    """

    tenant: str = "default"
    storage_type: str = "rocksdb"
    partition: int = 1
    replication: int = 1
    config: dict[str, Any] = {}
    id: bytes = b""
    created_ms: int = 0


class TopicRule(Struct, frozen=True, kw_only=True):
    """How topics of a filter are kept."""

    topic: str
    config: dict[str, Any] = {}


class Acl(Struct, frozen=True, kw_only=True):
    """A rule of access, in upstream's words."""

    resource_type: str
    resource_name: str
    tenant: str = "default"
    topic: str = ""
    ip: str = "*"
    action: str = "All"
    permission: str = "Deny"
    desc: str = ""


class Schema(Struct, frozen=True, kw_only=True):
    """What a payload must look like."""

    schema_type: str
    schema: str
    tenant: str = "default"
    desc: str = ""


class SchemaBind(Struct, frozen=True, kw_only=True):
    """The topic whose payloads a schema is for."""

    schema_name: str
    resource_name: str
    tenant: str = "default"


class Connector(Struct, frozen=True, kw_only=True):
    """A connector to a system beside us."""

    connector_type: str
    topic_name: str
    tenant: str = "default"
    config: dict[str, Any] = {}
    failure_strategy: dict[str, Any] = {}


class Schedule(Struct, frozen=True, kw_only=True):
    """Where a connector runs: a node, as one incarnation of it."""

    node: int
    incarnation: int


class Shard(Struct, frozen=True, kw_only=True):
    """Who has a shard: its replicas, who of them leads, and those that have all (`isr`).

    `leader` is None while nobody can lead: none that has all is live. `high_watermark` is the
    offset below which every replica of `isr` had all when the leader last changed.
    """

    topic: str
    number: int = 0
    replication: int = 1
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()
    leader: int | None = None
    leader_epoch: int = 0
    high_watermark: int = 0


class ClientQuota(Struct, frozen=True, kw_only=True):
    """How much clients may use in a second, in Kafka's words.

    `entity` says whom it is for: `user` and `client-id`, by name or, with None, all others.
    """

    entity: dict[Literal["user", "client-id"], str | None]
    quotas: dict[str, float]


class Grant(Struct, frozen=True, kw_only=True):
    """What a user of a tenant may do, or may not, in Kafka's words and numbers.

    `resource`: 2 topics, 3 groups, 4 the cluster, 5 transactional ids, and `name`, of exactly that
    one (`pattern` 3; "*": of all) or of all whose names begin so (4). `user`: a name, or "*": all.
    `host`: an address, or "*": any. `operation`: 2 for all of them; `permission`: 2 deny, 3 allow.
    """

    tenant: str
    resource: int
    name: str
    pattern: int
    user: str
    host: str
    operation: int
    permission: int


def _ban(name: str, value: bytes) -> object:
    return msgspec.convert({**decoded(value), "name": name}, Ban)


def _user(name: str, value: bytes) -> object:
    tenant, _, username = name.partition("/")
    return msgspec.convert({**decoded(value), "tenant": tenant, "username": username}, User)


def _struct(type_: type[Struct]) -> Callable[[str, bytes], object]:
    decoder = msgspec.msgpack.Decoder(type_)
    return lambda _name, value: decoder.decode(value)


_READERS: Final[Mapping[str, Callable[[str, bytes], object]]] = {
    CLUSTER: _struct(Cluster),
    NODE: _struct(Node),
    BLACKLIST: _ban,
    USER: _user,
    TENANT: _struct(Tenant),
    SETTING: _struct(Setting),
    TOPIC: _struct(Topic),
    TOPIC_RULE: _struct(TopicRule),
    ACL: _struct(Acl),
    SCHEMA: _struct(Schema),
    SCHEMA_BIND: _struct(SchemaBind),
    CONNECTOR: _struct(Connector),
    SCHEDULE: _struct(Schedule),
    SHARD: _struct(Shard),
    CLIENT_QUOTA: _struct(ClientQuota),
    GRANT: _struct(Grant),
}

_encoder: Final = msgspec.msgpack.Encoder()
_map: Final = msgspec.msgpack.Decoder(dict[str, Any])
_node: Final = msgspec.msgpack.Decoder(Node)
_shard: Final = msgspec.msgpack.Decoder(Shard)


def encoded(value: Struct | Mapping[str, Any]) -> bytes:
    """Return the value of a record as bytes."""
    return _encoder.encode(value)


def decoded(value: bytes) -> dict[str, Any]:
    """Return the value of a record as a dict; raises msgspec.MsgspecError when it is none."""
    return _map.decode(value)


def node_of(value: bytes) -> Node:
    """Read the value of a node's record."""
    return _node.decode(value)


def shard_of(value: bytes) -> Shard:
    """Read the value of a shard's record."""
    return _shard.decode(value)


def decoded_quota(value: Mapping[str, Any]) -> ClientQuota:
    """Read the decoded value of a quota's record; raises msgspec.ValidationError."""
    return msgspec.convert(value, ClientQuota)


def node_record(node: Node) -> Record:
    """Return the record of a node."""
    return Record(NODE, str(node.number), encoded(node))


def check(record: Record) -> str | None:
    """Say in a sentence what is wrong with a record that somebody wants to set; None: nothing.

    For who proposes it. A machine folds what was proposed without asking this: what a version of
    ours takes for wrong must not depend on the node that folds it.
    """
    if not 0 < len(record.kind.encode()) <= KIND_BYTES or "\0" in record.kind:
        return f"a kind of records has 1 to {KIND_BYTES} bytes, and not U+0000"
    if len(record.name.encode()) > NAME_BYTES:
        return f"the name of a {record.kind} has {NAME_BYTES} bytes at most"
    if record.value is None:
        return None
    if len(record.value) > VALUE_BYTES:
        return f"the {record.kind} {record.name} exceeds {VALUE_BYTES} bytes"
    reader = _READERS.get(record.kind)
    if reader is None:
        return None
    try:
        reader(record.name, record.value)
    except (msgspec.MsgspecError, ValueError) as error:
        return f"the {record.kind} {record.name} cannot be used: {error}"
    return None
