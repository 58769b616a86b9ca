"""Metadata and its like: which brokers and topics there are, and who leads which partition."""

from collections.abc import Callable
from typing import Final

import msgspec

from robustmq.broker.api import Principal
from robustmq.broker.catalog_api import Leader, Topic
from robustmq.broker.partition_api import Partition
from robustmq.errors import Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.metadata import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import NO_ID
from robustmq.kafka.topic_access import topic_of, topic_with_id

_TENANTS: Final = 16
"""Tenants whose whole lists of topics are kept ready."""
_AUTO_SETTINGS: Final[dict[str, str]] = {}


class Metadata:
    """The handlers of Metadata 0-13 and DescribeTopicPartitions 0.

    A list of all topics is made once for each version of the catalog.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._lists: dict[str, list[MetadataResponseTopic]] = {}
        self._version: int | None = None
        self._making: dict[tuple[str, str], list[Callable[[], None]]] = {}

    def metadata(self, call: Call[MetadataRequest]) -> None:
        """Describe the brokers and topics; what is not there may be made."""
        asked = call.request.topics
        if asked is not None:
            # A topic that is named often is told of once.
            asked = [*{(each.topic_id, each.name): each for each in asked}.values()]
        if asked is None or (not asked and call.version == 0):
            self._answer(call, self._all(call))
            return
        missing = [each.name for each in asked if each.name and self._is_to_be_made(call, each)]
        owing = len(missing)

        def made() -> None:
            nonlocal owing
            owing -= 1
            if not owing:
                self._answer(call, [self._one(call, each) for each in asked])

        if not missing:
            self._answer(call, [self._one(call, each) for each in asked])
        for name in missing:
            self._make(call.principal.tenant, name, made)

    def _answer(self, call: Call[MetadataRequest], topics: list[MetadataResponseTopic]) -> None:
        kafka, request, principal = self._kafka, call.request, call.principal
        brokers = kafka.cluster.brokers(call.listener)
        response = MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=each.broker_id, host=each.host, port=each.port)
                for each in brokers
            ],
            cluster_id=kafka.cluster.id,
            controller_id=min((each.broker_id for each in brokers), default=-1),
            topics=topics,
        )
        if request.include_topic_authorized_operations:
            response.topics = [self._with_rights(principal, each) for each in topics]
        if request.include_cluster_authorized_operations:
            response.cluster_authorized_operations = kafka.granted(principal, Resource.CLUSTER)
        call.answer(response)

    def _with_rights(
        self, principal: Principal, topic: MetadataResponseTopic
    ) -> MetadataResponseTopic:
        if topic.error_code or not topic.name:
            return topic
        granted = self._kafka.granted(principal, Resource.TOPIC, self._own_name(principal, topic))
        return msgspec.structs.replace(topic, topic_authorized_operations=granted)

    def _own_name(self, principal: Principal, topic: MetadataResponseTopic) -> str:
        """The name of a topic that a client may have written in another way."""
        found = self._kafka.catalog.find(principal.tenant, topic.name or "")
        return topic.name or "" if found is None else self._kafka.catalog.written(found)

    # ------------------------------------------------------------------ topics

    def _all(self, call: Call[MetadataRequest]) -> list[MetadataResponseTopic]:
        """All topics that somebody may describe."""
        catalog, principal = self._kafka.catalog, call.principal
        if catalog.version != self._version or len(self._lists) > _TENANTS:
            self._version = catalog.version
            self._lists.clear()
        known = self._lists.get(principal.tenant)
        if known is None:
            known = [self._described(catalog.written(t), t) for t in catalog.walk(principal.tenant)]
            self._lists[principal.tenant] = known
        may = self._kafka.may
        return [
            each
            for each in known
            if may(principal, Operation.DESCRIBE, Resource.TOPIC, each.name or "")
        ]

    def _one(
        self, call: Call[MetadataRequest], asked: MetadataRequestTopic
    ) -> MetadataResponseTopic:
        kafka, principal = self._kafka, call.principal
        if asked.topic_id != NO_ID:
            found = topic_with_id(kafka, principal, Operation.DESCRIBE, asked.topic_id)
            if isinstance(found, ErrorCode):
                name = None if call.version >= 12 else ""
                return MetadataResponseTopic(error_code=found, name=name, topic_id=asked.topic_id)
            return self._described(kafka.catalog.written(found), found)
        name = asked.name or ""
        found = topic_of(kafka, principal, Operation.DESCRIBE, name)
        if isinstance(found, Topic):
            return self._described(name, found)
        if found is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and kafka.catalog.check(name, {}):
            found = ErrorCode.INVALID_TOPIC_EXCEPTION
        return MetadataResponseTopic(error_code=found, name=name)

    def _described(self, name: str, topic: Topic) -> MetadataResponseTopic:
        return MetadataResponseTopic(
            name=name,
            topic_id=topic.id,
            partitions=[self._partition(topic, number) for number in range(topic.partitions)],
        )

    def _partition(self, topic: Topic, number: int) -> MetadataResponsePartition:
        leader = self._kafka.catalog.leader(Partition(topic.name, number))
        if leader is None:
            error = ErrorCode.LEADER_NOT_AVAILABLE
            return MetadataResponsePartition(error_code=error, partition_index=number, leader_id=-1)
        broker = self._broker(leader)
        return MetadataResponsePartition(
            partition_index=number,
            leader_id=broker,
            leader_epoch=leader.epoch,
            replica_nodes=[broker],
            isr_nodes=[broker],
        )

    def _broker(self, leader: Leader) -> int:
        return self._kafka.cluster.broker_id(leader.node, leader.core)

    # ------------------------------------------------------------------ topics that are made

    def _is_to_be_made(self, call: Call[MetadataRequest], asked: MetadataRequestTopic) -> bool:
        kafka, principal, name = self._kafka, call.principal, asked.name or ""
        if not kafka.settings.auto_create_topics_enable or asked.topic_id != NO_ID:
            return False
        # Before version 4 nobody could say that it is not wanted.
        if not call.request.allow_auto_topic_creation and call.version >= 4:
            return False
        if kafka.catalog.find(principal.tenant, name) is not None or kafka.catalog.check(name, {}):
            return False
        may = kafka.may
        return may(principal, Operation.DESCRIBE, Resource.TOPIC, name) and (
            may(principal, Operation.CREATE, Resource.CLUSTER)
            or may(principal, Operation.CREATE, Resource.TOPIC, name)
        )

    def _make(self, tenant: str, name: str, done: Callable[[], None]) -> None:
        """Make a topic, once for all who ask meanwhile."""
        waiting = self._making.get((tenant, name))
        if waiting is not None:
            waiting.append(done)
            return
        self._making[tenant, name] = [done]

        def made(_topic: Topic | Refused) -> None:
            for each in self._making.pop((tenant, name)):
                each()

        self._kafka.catalog.create(tenant, name, -1, _AUTO_SETTINGS, made)

    # ------------------------------------------------------------------ page by page

    def describe_topic_partitions(self, call: Call[DescribeTopicPartitionsRequest]) -> None:
        """Describe topics in the order of their names, no more partitions than asked for."""
        request, principal = call.request, call.principal
        response = DescribeTopicPartitionsResponse(topics=[])
        catalog = self._kafka.catalog
        names = sorted({each.name for each in request.topics})
        if not names:
            every = (catalog.written(each) for each in catalog.walk(principal.tenant))
            may = self._kafka.may
            names = sorted(
                name for name in every if may(principal, Operation.DESCRIBE, Resource.TOPIC, name)
            )
        most = self._kafka.settings.max_describe_topic_partitions
        room = min(max(request.response_partition_limit, 1), most)
        cursor = request.cursor or Cursor()
        for name in names:
            if name < cursor.topic_name:
                continue
            first = cursor.partition_index if name == cursor.topic_name else 0
            if not room:
                response.next_cursor = Cursor(topic_name=name, partition_index=first)
                break
            told, rest = self._page(principal, name, first, room)
            response.topics.append(told)
            room -= len(told.partitions)
            if rest is not None:
                response.next_cursor = Cursor(topic_name=name, partition_index=rest)
                break
        call.answer(response)

    def _page(
        self, principal: Principal, name: str, first: int, room: int
    ) -> tuple[DescribeTopicPartitionsResponseTopic, int | None]:
        """A topic with partitions from `first` on, and where to go on."""
        found = topic_of(self._kafka, principal, Operation.DESCRIBE, name)
        if isinstance(found, ErrorCode):
            return DescribeTopicPartitionsResponseTopic(error_code=found, name=name), None
        stop = min(found.partitions, first + room)
        granted = self._kafka.granted(principal, Resource.TOPIC, self._kafka.catalog.written(found))
        topic = DescribeTopicPartitionsResponseTopic(
            name=name,
            topic_id=found.id,
            partitions=[_paged(self._partition(found, n)) for n in range(max(first, 0), stop)],
            topic_authorized_operations=granted,
        )
        return topic, stop if stop < found.partitions else None


def _paged(each: MetadataResponsePartition) -> DescribeTopicPartitionsResponsePartition:
    return DescribeTopicPartitionsResponsePartition(
        error_code=each.error_code,
        partition_index=each.partition_index,
        leader_id=each.leader_id,
        leader_epoch=each.leader_epoch,
        replica_nodes=each.replica_nodes,
        isr_nodes=each.isr_nodes,
        eligible_leader_replicas=[],
        last_known_elr=[],
    )
