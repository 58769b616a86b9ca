"""Settings of topics, shown and changed; those of a broker are shown, its file says them."""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from robustmq.broker.api import Principal
from robustmq.broker.catalog_api import Configured, Topic
from robustmq.errors import Refusal, Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, refusal_error
from robustmq.kafka.gathering import Gathering
from robustmq.kafka.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    ConfigResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResponse,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.topic_access import topic_of
from robustmq.kafka.topic_configs import (
    DEFAULT_CONFIG,
    TOPIC_CONFIG,
    Entry,
    broker_entries,
    topic_entries,
)

_ATTEMPTS: Final = 3
"""Times that a change is tried when others change the same topic meanwhile."""

_NOT_HERE: Final = (
    "this is set in the configuration file of the node (config/server.toml), not by clients"
)

Change = Callable[[Mapping[str, Configured]], Mapping[str, str] | str]
"""Makes what is to be set for a topic of what it has, or says in a sentence why not."""


class Kind(enum.IntEnum):
    """What has settings (Kafka's ConfigResource.Type)."""

    TOPIC = 2
    BROKER = 4


class Step(enum.IntEnum):
    """What an incremental change does (AlterConfigOp.OpType)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Configs:
    """The handlers of DescribeConfigs 1-4, AlterConfigs 0-2, IncrementalAlterConfigs 0-1.

    And of ListConfigResources 0-1.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    # ------------------------------------------------------------------ shown

    def describe_configs(self, call: Call[DescribeConfigsRequest]) -> None:
        """Say how topics and brokers are set, and why."""
        resources = call.request.resources
        named = {(each.resource_type, each.resource_name): each for each in resources}
        results = [self._described(call, each) for each in named.values()]
        call.answer(DescribeConfigsResponse(results=results))

    def _described(
        self, call: Call[DescribeConfigsRequest], asked: DescribeConfigsResource
    ) -> DescribeConfigsResult:
        result = DescribeConfigsResult(
            resource_type=asked.resource_type, resource_name=asked.resource_name, error_message=None
        )
        found = self._entries(call.principal, asked)
        if isinstance(found, tuple):
            result.error_code, result.error_message = found
            return result
        keys = asked.configuration_keys
        result.configs = [
            _shown(entry, call.request) for entry in found if keys is None or entry.name in keys
        ]
        return result

    def _entries(
        self, principal: Principal, asked: DescribeConfigsResource
    ) -> list[Entry] | tuple[ErrorCode, str | None]:
        kafka = self._kafka
        if asked.resource_type == Kind.TOPIC:
            operation = Operation.DESCRIBE_CONFIGS
            topic = topic_of(kafka, principal, operation, asked.resource_name)
            if isinstance(topic, ErrorCode):
                return topic, None
            return [*topic_entries(kafka.catalog, topic)]
        if asked.resource_type != Kind.BROKER:
            return ErrorCode.INVALID_REQUEST, "topics (2) and brokers (4) have settings here"
        if not kafka.may(principal, Operation.DESCRIBE_CONFIGS, Resource.CLUSTER):
            return ErrorCode.CLUSTER_AUTHORIZATION_FAILED, None
        if not asked.resource_name:
            # What was set for all brokers at once: nothing can be.
            return []
        number = kafka.cluster.broker_id(kafka.cluster.node, kafka.core)
        if asked.resource_name != str(number):
            return ErrorCode.INVALID_REQUEST, f"this is broker {number}: ask the one that you mean"
        return [*broker_entries(kafka.catalog, number, kafka.settings)]

    def list_config_resources(self, call: Call[ListConfigResourcesRequest]) -> None:
        """Name the topics and brokers; before version 1 only what clients' metrics are set for."""
        kafka, principal = self._kafka, call.principal
        if not kafka.may(principal, Operation.DESCRIBE_CONFIGS, Resource.CLUSTER):
            error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            call.answer(ListConfigResourcesResponse(error_code=error))
            return
        types = call.request.resource_types
        found: list[ConfigResource] = []
        if call.version and (not types or Kind.TOPIC in types):
            topics = (kafka.catalog.written(each) for each in kafka.catalog.walk(principal.tenant))
            found += (ConfigResource(resource_name=n, resource_type=Kind.TOPIC) for n in topics)
        if call.version and (not types or Kind.BROKER in types):
            brokers = kafka.cluster.brokers(call.listener)
            found += (
                ConfigResource(resource_name=str(each.broker_id), resource_type=Kind.BROKER)
                for each in brokers
            )
        call.answer(ListConfigResourcesResponse(config_resources=found))

    # ------------------------------------------------------------------ changed

    def alter_configs(self, call: Call[AlterConfigsRequest]) -> None:
        """Let these be all settings of topics."""
        response = AlterConfigsResponse(responses=[])
        gathering = Gathering(lambda: call.answer(response))
        for each in call.request.resources:
            change = partial(_replaced, each.configs)
            slot = self._alter(call.principal, each, change, gathering, call.request.validate_only)
            response.responses.append(slot)
        gathering.close()

    def incremental_alter_configs(self, call: Call[IncrementalAlterConfigsRequest]) -> None:
        """Change some settings of topics (KIP-339)."""
        response = IncrementalAlterConfigsResponse(responses=[])
        gathering = Gathering(lambda: call.answer(response))
        for each in call.request.resources:
            change = partial(_stepped, each.configs)
            slot = self._alter(call.principal, each, change, gathering, call.request.validate_only)
            response.responses.append(slot)
        gathering.close()

    def _alter(
        self,
        principal: Principal,
        asked: AlterConfigsResource | IncrementalAlterConfigsResource,
        change: Change,
        gathering: Gathering,
        validate_only: bool,
    ) -> AlterConfigsResourceResponse:
        slot = AlterConfigsResourceResponse(
            resource_type=asked.resource_type, resource_name=asked.resource_name, error_message=None
        )
        if asked.resource_type != Kind.TOPIC:
            slot.error_code, slot.error_message = ErrorCode.INVALID_REQUEST, _NOT_HERE
            if not self._kafka.may(principal, Operation.ALTER_CONFIGS, Resource.CLUSTER):
                slot.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            return slot
        name = asked.resource_name
        topic = topic_of(self._kafka, principal, Operation.ALTER_CONFIGS, name)
        if isinstance(topic, ErrorCode):
            slot.error_code = topic
            return slot
        gathering.begin()
        self._configure(topic, change, slot, gathering.end, 0 if validate_only else _ATTEMPTS)
        return slot

    def _configure(
        self,
        topic: Topic,
        change: Change,
        slot: AlterConfigsResourceResponse,
        done: Callable[[], None],
        attempts: int,
    ) -> None:
        settings = change({each.name: each for each in self._kafka.catalog.settings(topic)})
        wrong = settings if isinstance(settings, str) else self._fault(topic, settings)
        if wrong is not None:
            slot.error_code, slot.error_message = ErrorCode.INVALID_CONFIG, wrong
        if isinstance(settings, str) or wrong is not None or not attempts:
            done()
            return

        def configured(refused: Refused | None) -> None:
            again = self._kafka.catalog.of(topic.name)
            is_late = refused is not None and refused.code is Refusal.CONFLICT
            if is_late and attempts > 1 and again is not None and again.id == topic.id:
                self._configure(again, change, slot, done, attempts - 1)
                return
            if refused is not None:
                slot.error_code, slot.error_message = _error(refused), refused.detail
            done()

        self._kafka.catalog.configure(topic, settings, configured)

    def _fault(self, topic: Topic, settings: Mapping[str, str]) -> str | None:
        refused = self._kafka.catalog.judge(topic, settings)
        return None if refused is None else refused.detail


def _error(refused: Refused) -> ErrorCode:
    if refused.code is Refusal.NOT_AUTHORIZED:
        return ErrorCode.POLICY_VIOLATION
    return refusal_error(refused.code)


def _replaced(
    configs: Iterable[AlterableConfig], _before: Mapping[str, Configured]
) -> Mapping[str, str] | str:
    return {each.name: each.value for each in configs if each.value is not None}


def _stepped(
    configs: Sequence[IncrementalAlterableConfig], before: Mapping[str, Configured]
) -> Mapping[str, str] | str:
    after = {name: each.value for name, each in before.items() if each.is_set}
    if len({each.name for each in configs}) < len(configs):
        return "a setting is named twice: say once what it is to be"
    for each in configs:
        step, value = each.config_operation, each.value
        if step == Step.DELETE:
            after.pop(each.name, None)
        elif value is None:
            return f"{each.name[:100]} has no value"
        elif step == Step.SET:
            after[each.name] = value
        elif step not in {Step.APPEND, Step.SUBTRACT}:
            return f"{step} is no operation: set is 0, delete 1, append 2 and subtract 3"
        elif each.name not in before or before[each.name].kind != "list":
            return f"{each.name[:100]} is no list, of which something could be added or removed"
        else:
            after[each.name] = _listed(before[each.name].value, value, step)
    return after


def _listed(before: str, value: str, step: int) -> str:
    words = [word.strip() for word in before.split(",")]
    named = [word.strip() for word in value.split(",")]
    if step == Step.SUBTRACT:
        return ",".join(word for word in words if word not in named)
    return ",".join([*words, *(word for word in named if word not in words)])


def _shown(entry: Entry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    shown = DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.is_read_only,
        config_source=entry.source,
        config_type=entry.kind,
        documentation=entry.doc if request.include_documentation else None,
    )
    if request.include_synonyms:
        shown.synonyms = [
            DescribeConfigsSynonym(
                name=entry.broker_name, value=entry.default, source=DEFAULT_CONFIG
            )
        ]
        if entry.source == TOPIC_CONFIG:
            own = DescribeConfigsSynonym(name=entry.name, value=entry.value, source=TOPIC_CONFIG)
            shown.synonyms.insert(0, own)
    return shown
