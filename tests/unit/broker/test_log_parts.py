"""What is kept of a batch: which core, which log, under which key, with which headers."""

from array import array
from typing import NamedTuple

import pytest

from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.catalog_api import Topic
from robustmq.broker.log_parts import LogPart, LogParts
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Placement
from robustmq.config import TopicRule
from robustmq.message.crossing import partition_of
from robustmq.message.record import NO_HEADERS, PUBLISHER, header_block, read_headers
from robustmq.message.tenancy import qualified
from robustmq.metrics import CELLS
from robustmq.policy.topic_rules import TopicRules

OWN = TopicRule(filter="own/#", own_shard=True)
SHARED = TopicRule(filter="shared/#", retention_records=1_000)
RULES = TopicRules([OWN, SHARED])
NOW = 1_700_000_000_000


class Topics:
    """A catalog of topics with so many partitions each; partition p is on core p unless gone."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = {f"own/{name}".encode(): number for name, number in partitions.items()}
        self.gone: set[int] = set()

    def of(self, topic: bytes) -> Topic | None:
        if topic not in self.partitions:
            return None
        return Topic(name=topic, id=bytes(16), partitions=self.partitions[topic], rule=OWN)

    def core_of(self, partition: Partition) -> int | None:
        return None if partition.number in self.gone else partition.number


class Kept(NamedTuple):
    core: int | None
    name: bytes
    keys: list[bytes | None]


def batch_of(*messages: tuple[bytes, bytes, bytes]) -> bytes:
    """A batch of (topic, payload, headers)."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * CELLS))), 0, 1 << 30, None)
    for topic, payload, headers in messages:
        builder.append(topic, payload, headers, 1, NOW)
    return builder.take()[0]


def keyed(key: str) -> bytes:
    return header_block([(b"key", key.encode())])


def parts_of(core: int, topics: Topics | None = None) -> LogParts:
    return LogParts(RULES, Placement(2), core, topics)


def kept(parts: list[LogPart]) -> list[Kept]:
    return [Kept(core, name, [each[3] for each in records(batch)]) for core, name, batch in parts]


def test_a_topic_without_a_catalog_has_one_log_where_its_hash_says() -> None:
    (part,) = parts_of(1).parts(batch_of((b"own/a", b"1", NO_HEADERS)), 1, 1)
    assert part[:2] == (Placement(2).log_core(b"own/a"), b"town/a")


@pytest.mark.parametrize("core", [0, 1, 5])
def test_without_a_key_all_of_a_core_goes_to_one_partition(core: int) -> None:
    batch = batch_of(*[(b"own/a", b"%d" % i, NO_HEADERS) for i in range(5)])
    name = b"town/a\0%d" % (core % 3) if core % 3 else b"town/a"
    found = kept(parts_of(core, Topics(a=3)).parts(batch, 1, 1))
    assert found == [Kept(core % 3, name, [b"own/a"] * 5)]


def test_a_key_says_the_partition_as_producers_of_kafka_would() -> None:
    keys = [f"key-{i}" for i in range(20)]
    batch = batch_of(*[(b"own/a", b"", keyed(key)) for key in keys])
    found = kept(parts_of(0, Topics(a=4)).parts(batch, 1, 1))
    assert sum(len(part.keys) for part in found) == 20
    assert len(found) == 4
    for core, name, of_part in found:
        assert name == (b"town/a\0%d" % core if core else b"town/a")
        assert all(key is not None and partition_of(key, 4) == core for key in of_part)


def test_where_topics_share_a_log_the_topic_is_the_key_and_the_core_its_own() -> None:
    batch = batch_of((b"shared/a", b"1", keyed("k")), (b"shared/b", b"2", NO_HEADERS))
    assert kept(parts_of(1).parts(batch, 1, 1)) == [
        Kept(1, b"rshared/#", [b"shared/a", b"shared/b"])
    ]


def test_readers_see_neither_tenants_nor_what_is_ours() -> None:
    topic = qualified("acme", b"own/a")
    headers = header_block([(PUBLISHER, bytes(8)), (b"x", b"1")])
    (part,) = parts_of(0).parts(batch_of((topic, b"1", headers)), 1, 1)
    ((_, _, _, key, value, block),) = records(part.batch)
    assert (key, value, list(read_headers(block))) == (b"own/a", b"1", [(b"x", b"1")])
    assert part.name == b"t" + topic


def test_tenants_share_no_log() -> None:
    topics = [b"shared/a", qualified("acme", b"shared/a"), qualified("acme", b"shared/b")]
    batch = batch_of(*[(topic, b"1", NO_HEADERS) for topic in topics])
    found = kept(parts_of(0).parts(batch, 1, 1))
    of_acme = b"r" + qualified("acme", b"shared/#")
    assert found == [
        Kept(0, b"rshared/#", [b"shared/a"]),
        Kept(0, of_acme, [b"shared/a", b"shared/b"]),
    ]
    assert RULES.of_log(of_acme) == SHARED


def test_a_partition_that_nobody_leads_has_no_core() -> None:
    topics = Topics(a=2)
    parts = parts_of(0, topics)
    assert parts.is_led(b"own/a", NO_HEADERS)
    topics.gone = {0}
    assert not parts.is_led(b"own/a", NO_HEADERS)
    led = next(key for key in map(str, range(99)) if partition_of(key.encode(), 2) == 1)
    assert parts.is_led(b"own/a", keyed(led))
    assert parts.is_led(b"other", NO_HEADERS)
    assert parts.is_led(b"shared/a", NO_HEADERS)
    (part,) = parts.parts(batch_of((b"own/a", b"1", NO_HEADERS)), 1, 1)
    assert part.core is None
    assert parts.core_of_log(part) is None
    topics.gone = set()
    assert parts.core_of_log(part) == 0


def test_cores_of_several_nodes_number_their_batches_apart() -> None:
    producers = []
    for node in (1, 2):
        parts = LogParts(RULES, Placement(1), 0, node=node)
        (part,) = parts.parts(batch_of((b"own/a", b"1", NO_HEADERS)), 1, 1)
        producers.append(int.from_bytes(part.batch[43:51], "big"))
    assert len(set(producers)) == 2
    assert all(producer >> 62 == 1 for producer in producers)
