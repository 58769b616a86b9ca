"""The settings of topics and brokers as clients are told of them, in Kafka's numbers."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from robustmq.broker.catalog_api import Catalog, Configured, Topic
from robustmq.settings.kafka import KafkaRuntime

TOPIC_CONFIG: Final = 1
STATIC_CONFIG: Final = 4
DEFAULT_CONFIG: Final = 5
"""Where a value comes from: set for the topic, this node's configuration, the default."""

_KINDS: Final[Mapping[str, int]] = MappingProxyType(
    {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}
)
"""Kinds of values by Kafka's numbers (ConfigType)."""


class Entry(NamedTuple):
    """A setting: `value` holds, which is `default` unless it was set."""

    name: str
    value: str
    default: str
    source: int
    broker_name: str
    kind: int
    doc: str
    is_read_only: bool = False


def topic_entries(catalog: Catalog, topic: Topic) -> Iterator[Entry]:
    """Yield all settings of a topic by name."""
    for each in catalog.settings(topic):
        source = TOPIC_CONFIG if each.is_set else DEFAULT_CONFIG
        if not each.is_set and each.value != each.default:
            # A rule of the configuration, or another setting, says so.
            source = STATIC_CONFIG
        yield _entry(each, source)


def broker_entries(catalog: Catalog, number: int, kafka: KafkaRuntime) -> Iterator[Entry]:
    """Yield the settings of broker `number`; none of them is set by clients."""
    own: list[tuple[str, object, str, str]] = [
        (
            "auto.create.topics.enable",
            str(kafka.auto_create_topics_enable).lower(),
            "boolean",
            _key("auto_create_topics_enable"),
        ),
        ("broker.id", number, "int", "The number of this broker."),
        ("connections.max.idle.ms", kafka.idle_timeout_ms, "long", _key("idle_timeout_ms")),
        ("default.replication.factor", 1, "int", "A partition has one replica."),
        ("delete.topic.enable", "true", "boolean", "Topics can be removed."),
        ("num.partitions", kafka.num_partitions, "int", _key("num_partitions")),
        ("socket.request.max.bytes", kafka.max_request_bytes, "int", _key("max_request_bytes")),
    ]
    for name, value, kind, doc in own:
        shown = str(value)
        yield Entry(name, shown, shown, STATIC_CONFIG, name, _KINDS[kind], doc, True)
    for each in catalog.settings(None):
        yield _entry(each, STATIC_CONFIG)._replace(name=each.broker_name, is_read_only=True)


def _entry(each: Configured, source: int) -> Entry:
    kind = _KINDS[each.kind]
    name, broker_name = each.name, each.broker_name
    return Entry(name, each.value, each.default, source, broker_name, kind, each.doc, each.is_fixed)


def _key(name: str) -> str:
    return f"kafka_runtime.{name} in the configuration of the node."
