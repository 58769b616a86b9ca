"""Settings of topics in Kafka's names: read, shown, refused."""

import msgspec
import pytest

from robustmq.config import TopicRule
from robustmq.policy.topic_settings import (
    ENGINE,
    KNOWN,
    TOLERATED,
    configured,
    faults,
    rule_of,
    start_of,
)
from robustmq.settings.kafka import KafkaRuntime

START = TopicRule(filter="#", own_shard=True, engine="segment", retention_ms=604_800_000)
KAFKA = KafkaRuntime()
VALUES = {
    "cleanup.policy": "compact,delete",
    "compression.type": "zstd",
    "delete.retention.ms": "5",
    "flush.messages": "1",
    "flush.ms": "250",
    "max.message.bytes": "1000",
    "message.timestamp.after.max.ms": "7",
    "message.timestamp.before.max.ms": "8",
    "message.timestamp.type": "LogAppendTime",
    "min.compaction.lag.ms": "9",
    "min.insync.replicas": "2",
    "retention.bytes": "4096",
    "retention.ms": "10",
    ENGINE: "rocksdb",
    "segment.bytes": "2048",
    "segment.ms": "11",
}


def test_there_is_a_value_for_every_setting() -> None:
    assert set(VALUES) == set(KNOWN)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_what_is_set_is_what_is_shown(name: str) -> None:
    rule = rule_of(START, {name: VALUES[name]})
    assert rule != START
    assert KNOWN[name].show(rule) == VALUES[name]
    assert KNOWN[name].show(START) != VALUES[name]
    assert faults({name: VALUES[name]}) == []


def test_numbers_that_mean_something_of_their_own() -> None:
    assert rule_of(START, {"retention.ms": "-1", "retention.bytes": "-1"}).retention_ms == 0
    assert rule_of(START, {"retention.ms": "0"}).retention_ms == 1
    assert rule_of(START, {"flush.ms": "0"}).flush == "always"
    assert rule_of(START, {"flush.messages": "10000"}) == START
    assert rule_of(START, {"segment.bytes": str((1 << 31) - 1)}).segment_bytes == 1 << 30
    assert rule_of(START, {"retention.ms": str((1 << 63) - 1)}).retention_ms < 1 << 62
    assert rule_of(START, {"cleanup.policy": "compact"}).retention_ms == 0
    assert rule_of(START, {"cleanup.policy": "delete"}).retention_ms == START.retention_ms


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"retention.ms": "x"}, "must be a whole number"),
        ({"retention.ms": "-2"}, "must be -1 to"),
        ({"segment.bytes": "10"}, "must be 1024 to"),
        ({"cleanup.policy": "delete,burn"}, "must be delete, compact or compact,delete"),
        ({"compression.type": "lzma"}, "must be producer or uncompressed"),
        ({"cleanup.polcy": "delete"}, "did you mean cleanup.policy?"),
        ({"zzz": "1"}, "there is no topic setting zzz"),
        ({ENGINE: "memory", "cleanup.policy": "compact"}, "choose another"),
        ({"index.interval.bytes": "-1"}, "must be 0 to"),
    ],
)
def test_what_cannot_be_set_is_told(settings: dict[str, str], words: str) -> None:
    (sentence,) = faults(settings)
    assert words in sentence


def test_all_settings_are_told_with_their_defaults() -> None:
    settings = {"retention.ms": "5", "preallocate": "true"}
    rule = rule_of(START, settings)
    found = {each.name: each for each in configured(settings, rule, START, KAFKA)}
    assert list(found) == sorted([*KNOWN, *TOLERATED])
    assert [name for name, each in found.items() if each.is_set] == sorted(settings)
    assert found["retention.ms"][1:3] == ("5", "604800000")
    assert found["preallocate"][1:3] == ("true", "false")
    assert found["max.message.bytes"].value == str(KAFKA.max_message_bytes)
    assert [name for name, each in found.items() if each.is_fixed] == [ENGINE]


def test_a_topic_for_which_nothing_is_set_is_kept_as_the_configuration_says() -> None:
    file = TopicRule(filter="a/#", retention_records=5, kafka_topic="k")
    assert start_of(file, KAFKA, False) == msgspec.structs.replace(
        file, own_shard=True, kafka_topic=""
    )
    kafka = KafkaRuntime(engine="rocksdb", retention_ms=-1, retention_bytes=9)
    start = start_of(TopicRule(filter="#"), kafka, True)
    assert (start.engine, start.retention_ms, start.retention_bytes) == ("rocksdb", 0, 9)
