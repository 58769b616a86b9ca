"""What can be set for a topic, in Kafka's names: how each value is read, shown and explained."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from robustmq.config import UPSTREAM_ENGINES, Engine, TopicRule
from robustmq.settings.bounds import CENTURY_MS, GIB, I64_MAX
from robustmq.settings.kafka import KafkaRuntime

Kind: TypeAlias = Literal["boolean", "string", "int", "long", "double", "list"]

ENGINE: Final = "robustmq.engine"
"""Our own setting: the engine in which a topic is kept; it is chosen when a topic is made."""

_TOLERATED: Final = "Kept for tools that set it; it has no effect here."
_MAX_MESSAGE: Final = "max.message.bytes"
_MAX_BYTES: Final = 268_435_460
_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


class Setting(NamedTuple):
    """A setting: its kind of value, what the broker calls it, and what it is for.

    `read` makes fields of a rule of a value, raising ValueError with what it should be; `show`
    says what a rule has.
    """

    kind: Kind
    broker_name: str
    doc: str
    read: Callable[[str], Mapping[str, Any]]
    show: Callable[[TopicRule], str]


def _whole(text: str, low: int, high: int = I64_MAX) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if not low <= value <= high:
        raise ValueError(f"must be {low} to {high}")
    return value


def _number(field: str, low: int, high: int, most: int) -> Callable[[str], Mapping[str, Any]]:
    """A number from `low` to `high`; what is above `most` is as good as that here."""
    return lambda text: {field: min(_whole(text, low, high), most)}


def _bound(field: str, most: int) -> Callable[[str], Mapping[str, Any]]:
    """A bound of retention: -1 is none, and 0 the shortest that there is."""

    def read(text: str) -> Mapping[str, Any]:
        value = _whole(text, -1)
        return {field: 0 if value < 0 else min(max(value, 1), most)}

    return read


def _word(field: str, words: Mapping[str, str]) -> Callable[[str], Mapping[str, Any]]:
    def read(text: str) -> Mapping[str, Any]:
        if text not in words:
            raise ValueError("must be " + " or ".join(words))
        return {field: words[text]}

    return read


def _policy(text: str) -> Mapping[str, Any]:
    words = {word.strip() for word in text.split(",")}
    if not words <= {"compact", "delete"}:
        raise ValueError("must be delete, compact or compact,delete")
    return {"compact": "compact" in words}


def _shown_policy(rule: TopicRule) -> str:
    if not rule.compact:
        return "delete"
    return "compact,delete" if rule.retention_ms or rule.retention_bytes else "compact"


def _flush_messages(text: str) -> Mapping[str, Any]:
    return {"flush": "always"} if _whole(text, 1) == 1 else {}


def _flush_ms(text: str) -> Mapping[str, Any]:
    value = _whole(text, 0)
    if not value:
        return {"flush": "always"}
    return {"interval_ms": min(value, 3_600_000)}


def _field(name: str) -> Callable[[TopicRule], str]:
    return lambda rule: str(getattr(rule, name))


def _shown_bound(name: str) -> Callable[[TopicRule], str]:
    return lambda rule: str(getattr(rule, name) or -1)


ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(
    {**{name: name for name in UPSTREAM_ENGINES.values()}, **UPSTREAM_ENGINES}
)
"""The engines by all names that are understood."""

_TIMES: Final = {"CreateTime": "create", "LogAppendTime": "append"}
_COMPRESSIONS: Final = {"producer": "producer", "uncompressed": "none"} | {
    codec: codec for codec in _CODECS[1:]
}

KNOWN: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "cleanup.policy": Setting(
            "list",
            "log.cleanup.policy",
            "delete: drop what is older or more than the bounds of retention; compact: keep the "
            "latest record of each key; compact,delete: both.",
            _policy,
            _shown_policy,
        ),
        "compression.type": Setting(
            "string",
            "compression.type",
            "How batches are kept: producer as they come, uncompressed, gzip, snappy, lz4 or zstd.",
            _word("compression", _COMPRESSIONS),
            lambda rule: "uncompressed" if rule.compression == "none" else rule.compression,
        ),
        "delete.retention.ms": Setting(
            "long",
            "log.cleaner.delete.retention.ms",
            "Milliseconds that compaction keeps the empty record that deletes a key.",
            _number("tombstone_ms", 0, I64_MAX, CENTURY_MS),
            _field("tombstone_ms"),
        ),
        "flush.messages": Setting(
            "long",
            "log.flush.interval.messages",
            "1: a record is acknowledged when the disk has it; more: see flush.ms.",
            _flush_messages,
            lambda rule: "1" if rule.flush == "always" else str(I64_MAX),
        ),
        "flush.ms": Setting(
            "long",
            "log.flush.interval.ms",
            "Milliseconds after which what was acknowledged is on the disk; 0: before that.",
            _flush_ms,
            lambda rule: "0" if rule.flush == "always" else str(rule.interval_ms),
        ),
        "max.message.bytes": Setting(
            "int",
            "message.max.bytes",
            "Bytes of the largest record batch.",
            _number("max_message_bytes", 0, (1 << 31) - 1, _MAX_BYTES),
            _field("max_message_bytes"),
        ),
        "message.timestamp.after.max.ms": Setting(
            "long",
            "log.message.timestamp.after.max.ms",
            "Milliseconds that the time of a record may lie ahead of the broker's.",
            _number("timestamp_after_ms", 0, I64_MAX, I64_MAX),
            _field("timestamp_after_ms"),
        ),
        "message.timestamp.before.max.ms": Setting(
            "long",
            "log.message.timestamp.before.max.ms",
            "Milliseconds that the time of a record may lie behind the broker's.",
            _number("timestamp_before_ms", 0, I64_MAX, I64_MAX),
            _field("timestamp_before_ms"),
        ),
        "message.timestamp.type": Setting(
            "string",
            "log.message.timestamp.type",
            "CreateTime: the time of a record is what its producer says; LogAppendTime: when it "
            "was appended.",
            _word("timestamps", _TIMES),
            lambda rule: "CreateTime" if rule.timestamps == "create" else "LogAppendTime",
        ),
        "min.compaction.lag.ms": Setting(
            "long",
            "log.cleaner.min.compaction.lag.ms",
            "Milliseconds for which compaction leaves a record alone.",
            _number("compact_lag_ms", 0, I64_MAX, CENTURY_MS),
            _field("compact_lag_ms"),
        ),
        "min.insync.replicas": Setting(
            "int",
            "min.insync.replicas",
            "Replicas that must have a record before it is acknowledged to acks=all.",
            _number("min_insync_replicas", 1, (1 << 31) - 1, 63),
            _field("min_insync_replicas"),
        ),
        "retention.bytes": Setting(
            "long",
            "log.retention.bytes",
            "Bytes of a partition that are kept, the newest; -1: no bound.",
            _bound("retention_bytes", I64_MAX),
            _shown_bound("retention_bytes"),
        ),
        "retention.ms": Setting(
            "long",
            "log.retention.ms",
            "Milliseconds that a record is kept; -1: for ever.",
            _bound("retention_ms", CENTURY_MS),
            _shown_bound("retention_ms"),
        ),
        ENGINE: Setting(
            "string",
            "kafka_runtime.engine",
            "The engine in which the topic is kept: memory, rocksdb or segment.",
            _word("engine", ENGINES),
            _field("engine"),
        ),
        "segment.bytes": Setting(
            "int",
            "log.segment.bytes",
            "Bytes of a file of a partition; old records go by files.",
            _number("segment_bytes", 1_024, (1 << 31) - 1, GIB),
            _field("segment_bytes"),
        ),
        "segment.ms": Setting(
            "long",
            "log.roll.ms",
            "Milliseconds after which a new file is begun anyway.",
            _number("segment_ms", 1, I64_MAX, CENTURY_MS),
            _field("segment_ms"),
        ),
    }
)
"""The settings that mean something here, by name."""


class Configured(NamedTuple):
    """A setting as it holds, and the default; `is_set`: for the topic. `is_fixed`: for its life."""

    name: str
    value: str
    default: str
    is_set: bool
    broker_name: str
    kind: Kind
    doc: str
    is_fixed: bool = False


class Tolerated(NamedTuple):
    """A setting of Kafka's that means nothing here: it is kept for the tools that set it."""

    kind: Kind
    default: str


TOLERATED: Final[Mapping[str, Tolerated]] = MappingProxyType(
    {
        "file.delete.delay.ms": Tolerated("long", "60000"),
        "index.interval.bytes": Tolerated("int", "4096"),
        "max.compaction.lag.ms": Tolerated("long", str(I64_MAX)),
        "min.cleanable.dirty.ratio": Tolerated("double", "0.5"),
        "preallocate": Tolerated("boolean", "false"),
        "segment.index.bytes": Tolerated("int", "10485760"),
        "segment.jitter.ms": Tolerated("long", "0"),
        "unclean.leader.election.enable": Tolerated("boolean", "false"),
    }
)

_COUNTS: Final = {"int": (1 << 31) - 1, "long": I64_MAX}


def faults(settings: Mapping[str, str]) -> list[str]:
    """Say in sentences what is wrong with settings; [] when all can be used."""
    found = [sentence for name, value in settings.items() if (sentence := _fault(name, value))]
    if found or ENGINE not in settings or "cleanup.policy" not in settings:
        return found
    rule = rule_of(TopicRule(filter="#"), settings)
    if rule.compact and rule.engine == "memory":
        return [f"{ENGINE} = memory keeps no topic with cleanup.policy = compact: choose another"]
    return []


def _fault(name: str, value: str) -> str | None:
    known = KNOWN.get(name)
    try:
        if known is not None:
            known.read(value)
        elif (tolerated := TOLERATED.get(name)) is None:
            near = difflib.get_close_matches(name, [*KNOWN, *TOLERATED], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"there is no topic setting {name[:100]}{hint}"
        elif tolerated.kind == "boolean" and value not in {"true", "false"}:
            raise ValueError("must be true or false")
        elif tolerated.kind == "double":
            float(value)
        elif tolerated.kind in _COUNTS:
            _whole(value, 0, _COUNTS[tolerated.kind])
    except ValueError as error:
        return f"{name} = {value[:100]!r} {error}"
    return None


def rule_of(start: TopicRule, settings: Mapping[str, str]) -> TopicRule:
    """Return how a topic is kept: as `start` says where `settings`, which hold, say nothing.

    With cleanup.policy = compact alone nothing goes by age or amount.
    """
    fields: dict[str, Any] = {}
    for name in sorted(settings):
        if name in KNOWN:
            fields |= KNOWN[name].read(settings[name])
    policy = {word.strip() for word in settings.get("cleanup.policy", "").split(",")}
    if policy == {"compact"}:
        fields |= {"retention_ms": 0, "retention_bytes": 0, "retention_records": 0}
    return msgspec.structs.replace(start, own_shard=True, kafka_topic="", **fields)


def start_of(file: TopicRule, kafka: KafkaRuntime, is_default: bool) -> TopicRule:
    """Return how a topic is kept for which nothing is set.

    `file` is the rule that the configuration has for it; when that is the one for all others
    (`is_default`), [kafka_runtime] says more.
    """
    if not is_default:
        return msgspec.structs.replace(file, own_shard=True, kafka_topic="")
    return msgspec.structs.replace(
        file,
        own_shard=True,
        engine=kafka.engine,
        retention_ms=max(kafka.retention_ms, 0),
        retention_bytes=max(kafka.retention_bytes, 0),
    )


def configured(
    settings: Mapping[str, str], rule: TopicRule, start: TopicRule, kafka: KafkaRuntime
) -> Iterator[Configured]:
    """Yield all settings by name: `settings` were set, which has made `rule` of `start`."""
    for name in sorted([*KNOWN, *TOLERATED]):
        if name in KNOWN:
            known = KNOWN[name]
            kind, broker_name, doc = known.kind, known.broker_name, known.doc
            default, value = known.show(start), known.show(rule)
        else:
            kind, default = TOLERATED[name]
            broker_name, doc, value = name, _TOLERATED, default
        if name == _MAX_MESSAGE:
            unless = str(kafka.max_message_bytes)
            default, value = (unless if each == "0" else each for each in (default, value))
        is_set = name in settings
        value = settings.get(name, value)
        yield Configured(name, value, default, is_set, broker_name, kind, doc, name == ENGINE)
