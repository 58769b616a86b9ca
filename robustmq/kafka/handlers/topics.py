"""Topics made, enlarged and removed."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Final

from robustmq.broker.api import Principal
from robustmq.broker.catalog_api import Topic
from robustmq.errors import Refusal, Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, refusal_error
from robustmq.kafka.gathering import Gathering
from robustmq.kafka.messages.topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import NO_ID
from robustmq.kafka.topic_access import topic_of, topic_with_id
from robustmq.kafka.topic_configs import topic_entries

_REPLICAS: Final = 1
_NO_REPLICAS: Final = (
    "a partition has one replica here: ask for a replication factor of 1, or of -1"
)
_NO_ASSIGNMENTS: Final = (
    "partitions are placed by the cluster: leave the assignment of replicas out, and say how many"
)
_TWICE: Final = "the request names this topic twice: nothing was done to it"

_CREATION: Final[Mapping[Refusal, ErrorCode]] = {
    Refusal.CONFLICT: ErrorCode.TOPIC_ALREADY_EXISTS,
    Refusal.TOPIC_INVALID: ErrorCode.INVALID_TOPIC_EXCEPTION,
    Refusal.PAYLOAD_INVALID: ErrorCode.INVALID_CONFIG,
}
_CHANGE: Final[Mapping[Refusal, ErrorCode]] = {
    Refusal.NOT_AUTHORIZED: ErrorCode.POLICY_VIOLATION,
    Refusal.PAYLOAD_INVALID: ErrorCode.INVALID_PARTITIONS,
    Refusal.QUOTA_EXCEEDED: ErrorCode.INVALID_PARTITIONS,
}


class Topics:
    """The handlers of CreateTopics 2-7, DeleteTopics 1-6 and CreatePartitions 0-3."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    # ------------------------------------------------------------------ made

    def create_topics(self, call: Call[CreateTopicsRequest]) -> None:
        """Make topics, or say only whether they could be made."""
        response = CreateTopicsResponse(topics=[])
        gathering = Gathering(lambda: call.answer(response))
        times = Counter(each.name for each in call.request.topics)
        for topic in {each.name: each for each in call.request.topics}.values():
            result = CreatableTopicResult(name=topic.name, error_message=None, configs=None)
            response.topics.append(result)
            twice = _TWICE if times[topic.name] > 1 else None
            plan = (ErrorCode.INVALID_REQUEST, twice) if twice else self._plan(call, topic)
            if isinstance(plan, tuple):
                result.error_code, result.error_message = plan
            elif call.request.validate_only:
                self._described(call.principal, result, plan)
            else:
                gathering.begin()
                self._create(call.principal, topic, result, gathering)
        gathering.close()

    def _plan(
        self, call: Call[CreateTopicsRequest], topic: CreatableTopic
    ) -> Topic | tuple[ErrorCode, str]:
        """The topic that would be made, or what is wrong with it."""
        kafka, principal = self._kafka, call.principal
        may_create = kafka.may(principal, Operation.CREATE, Resource.CLUSTER)
        if not may_create and not kafka.may(
            principal, Operation.CREATE, Resource.TOPIC, topic.name
        ):
            sentence = "you may not make this topic: it takes CREATE on it or on the cluster"
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED, sentence
        if topic.assignments:
            return ErrorCode.INVALID_REPLICA_ASSIGNMENT, _NO_ASSIGNMENTS
        if topic.replication_factor not in {-1, _REPLICAS}:
            return ErrorCode.INVALID_REPLICATION_FACTOR, _NO_REPLICAS
        most = kafka.settings.max_partitions
        if topic.num_partitions != -1 and not 1 <= topic.num_partitions <= most:
            sentence = f"a topic has 1 to {most} partitions (kafka_runtime.max_partitions)"
            return ErrorCode.INVALID_PARTITIONS, sentence
        nothing = next((each.name for each in topic.configs if each.value is None), None)
        if nothing is not None:
            return ErrorCode.INVALID_CONFIG, f"the setting {nothing[:100]} has no value"
        plan = kafka.catalog.plan(
            principal.tenant, topic.name, topic.num_partitions, _settings(topic)
        )
        return _error(plan, _CREATION) if isinstance(plan, Refused) else plan

    def _create(
        self,
        principal: Principal,
        topic: CreatableTopic,
        result: CreatableTopicResult,
        gathering: Gathering,
    ) -> None:
        def made(made: Topic | Refused) -> None:
            if isinstance(made, Refused):
                result.error_code, result.error_message = _error(made, _CREATION)
            else:
                self._described(principal, result, made)
            gathering.end()

        self._kafka.catalog.create(
            principal.tenant, topic.name, topic.num_partitions, _settings(topic), made
        )

    def _described(
        self,
        principal: Principal,
        result: CreatableTopicResult,
        made: Topic,
    ) -> None:
        """Describe a topic that was made, or would be."""
        kafka = self._kafka
        result.topic_id = made.id
        if not kafka.may(principal, Operation.DESCRIBE_CONFIGS, Resource.TOPIC, result.name):
            result.topic_config_error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            return
        result.num_partitions = made.partitions
        result.replication_factor = _REPLICAS
        result.configs = [
            CreatableTopicConfigs(
                name=entry.name,
                value=entry.value,
                read_only=entry.is_read_only,
                config_source=entry.source,
            )
            for entry in topic_entries(kafka.catalog, made)
        ]

    # ------------------------------------------------------------------ removed

    def delete_topics(self, call: Call[DeleteTopicsRequest]) -> None:
        """Remove topics with all that is in them."""
        response = DeleteTopicsResponse(responses=[])
        gathering = Gathering(lambda: call.answer(response))
        asked = call.request.topics or [
            DeleteTopicState(name=name) for name in call.request.topic_names
        ]
        for each in asked:
            result = DeletableTopicResult(name=each.name, topic_id=each.topic_id)
            response.responses.append(result)
            topic = self._to_be_deleted(call.principal, each)
            if isinstance(topic, ErrorCode):
                result.error_code = topic
                continue
            if each.name is None:
                result.name = self._kafka.catalog.written(topic)
            result.topic_id = topic.id
            gathering.begin()
            self._kafka.catalog.delete(topic, partial(_changed, result, gathering))
        gathering.close()

    def _to_be_deleted(self, principal: Principal, asked: DeleteTopicState) -> Topic | ErrorCode:
        if asked.name is not None and asked.topic_id != NO_ID:
            return ErrorCode.INVALID_REQUEST
        if asked.name is None:
            return topic_with_id(self._kafka, principal, Operation.DELETE, asked.topic_id)
        return topic_of(self._kafka, principal, Operation.DELETE, asked.name)

    # ------------------------------------------------------------------ enlarged

    def create_partitions(self, call: Call[CreatePartitionsRequest]) -> None:
        """Give topics more partitions, or say only whether they could have them."""
        response = CreatePartitionsResponse(results=[])
        gathering = Gathering(lambda: call.answer(response))
        times = Counter(each.name for each in call.request.topics)
        for asked in {each.name: each for each in call.request.topics}.values():
            result = CreatePartitionsTopicResult(name=asked.name)
            response.results.append(result)
            topic = topic_of(self._kafka, call.principal, Operation.ALTER, asked.name)
            if isinstance(topic, ErrorCode):
                result.error_code = topic
            elif times[asked.name] > 1:
                result.error_code, result.error_message = ErrorCode.INVALID_REQUEST, _TWICE
            elif (fault := self._too_few(topic, asked)) is not None:
                result.error_code, result.error_message = fault
            elif not call.request.validate_only:
                gathering.begin()
                done = partial(_changed, result, gathering)
                self._kafka.catalog.grow(topic, asked.count, done)
        gathering.close()

    def _too_few(self, topic: Topic, asked: CreatePartitionsTopic) -> tuple[ErrorCode, str] | None:
        if asked.assignments:
            return ErrorCode.INVALID_REPLICA_ASSIGNMENT, _NO_ASSIGNMENTS
        most = self._kafka.settings.max_partitions
        if topic.partitions < asked.count <= most:
            return None
        sentence = (
            f"the topic has {topic.partitions} partitions; it can have more, and at most {most} "
            "(kafka_runtime.max_partitions)"
        )
        return ErrorCode.INVALID_PARTITIONS, sentence


def _changed(
    result: DeletableTopicResult | CreatePartitionsTopicResult,
    gathering: Gathering,
    refused: Refused | None,
) -> None:
    if refused is not None:
        result.error_code, result.error_message = _error(refused, _CHANGE)
    gathering.end()


def _settings(topic: CreatableTopic) -> dict[str, str]:
    return {each.name: each.value or "" for each in topic.configs}


def _error(refused: Refused, special: Mapping[Refusal, ErrorCode]) -> tuple[ErrorCode, str]:
    return special.get(refused.code) or refusal_error(refused.code), refused.detail
