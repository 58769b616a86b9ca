"""Settings of topics and brokers by Kafka's requests."""

from robustmq.broker.api import Principal
from robustmq.config import Config, TopicRule
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResponse,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)
from robustmq.policy.access import Access
from tests.kafka_topics import ALICE, ROOT, Bureau

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def made(*names: str, config: Config | None = None, access: Access | None = None) -> Bureau:
    bureau = Bureau(config, access)
    for name in names:
        bureau.made.create(name)
    return bureau


def shown(
    bureau: Bureau,
    name: str,
    kind: int = TOPIC,
    keys: list[str] | None = None,
    who: Principal = ROOT,
) -> DescribeConfigsResult:
    asked = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
    request = DescribeConfigsRequest(
        resources=[asked], include_synonyms=True, include_documentation=True
    )
    response = bureau.ask(ApiKey.DESCRIBE_CONFIGS, 4, request, DescribeConfigsResponse, who)
    return response.results[0]


def value(bureau: Bureau, name: str, key: str) -> tuple[str | None, int]:
    (found,) = shown(bureau, name, keys=[key]).configs
    return found.value, found.config_source


def stepped(
    bureau: Bureau, name: str, *steps: tuple[str, int, str | None], kind: int = TOPIC
) -> tuple[int, str | None]:
    configs = [
        IncrementalAlterableConfig(name=key, config_operation=step, value=text)
        for key, step, text in steps
    ]
    resource = IncrementalAlterConfigsResource(
        resource_type=kind, resource_name=name, configs=configs
    )
    request = IncrementalAlterConfigsRequest(resources=[resource])
    response = bureau.ask(
        ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request, IncrementalAlterConfigsResponse
    )
    return response.responses[0].error_code, response.responses[0].error_message


def test_settings_are_shown_with_where_they_come_from() -> None:
    rule = TopicRule(filter="plant", engine="rocksdb", retention_ms=5)
    bureau = made("plant", config=Config(topic_rules=(rule,)))
    assert stepped(bureau, "plant", ("max.message.bytes", SET, "7")) == (0, None)
    assert value(bureau, "plant", "max.message.bytes") == ("7", 1)
    assert value(bureau, "plant", "retention.ms") == ("5", 4)
    assert value(bureau, "plant", "segment.ms") == ("604800000", 5)
    (found,) = shown(bureau, "plant", keys=["max.message.bytes"]).configs
    assert [(each.name, each.value, each.source) for each in found.synonyms] == [
        ("max.message.bytes", "7", 1),
        ("message.max.bytes", "1048588", 5),
    ]
    assert (found.config_type, bool(found.documentation)) == (3, True)
    every = shown(bureau, "plant").configs
    assert [each.name for each in every] == sorted(each.name for each in every)
    assert shown(bureau, "no").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_broker_tells_of_itself_and_is_set_by_its_file() -> None:
    bureau = made()
    found = {each.name: each for each in shown(bureau, "1", BROKER).configs}
    assert found["num.partitions"].value == "1"
    assert found["log.retention.ms"].value == "604800000"
    assert all(each.read_only for each in found.values())
    assert shown(bureau, "", BROKER).configs == []
    assert shown(bureau, "7", BROKER).error_code == ErrorCode.INVALID_REQUEST
    assert shown(bureau, "x", 8).error_code == ErrorCode.INVALID_REQUEST
    code, sentence = stepped(bureau, "1", ("num.partitions", SET, "3"), kind=BROKER)
    assert (code, "configuration file" in (sentence or "")) == (ErrorCode.INVALID_REQUEST, True)


def test_incremental_changes_set_delete_append_and_subtract() -> None:
    bureau = made("a")
    assert stepped(bureau, "a", ("cleanup.policy", APPEND, "compact"))[0] == 0
    assert value(bureau, "a", "cleanup.policy") == ("delete,compact", 1)
    assert bureau.made.topic("a").rule.compact
    assert bureau.made.topic("a").rule.retention_ms > 0
    assert stepped(bureau, "a", ("cleanup.policy", SUBTRACT, "delete"))[0] == 0
    assert bureau.made.topic("a").rule.retention_ms == 0
    assert stepped(bureau, "a", ("cleanup.policy", DELETE, None), ("flush.ms", SET, "0"))[0] == 0
    rule = bureau.made.topic("a").rule
    assert (rule.compact, rule.flush) == (False, "always")


def test_what_cannot_be_set_is_refused_in_words() -> None:
    bureau = made("a")
    wrong: list[tuple[list[tuple[str, int, str | None]], str]] = [
        ([("retention", SET, "1")], "no topic setting retention"),
        ([("retention.ms", SET, "-2")], "must be"),
        ([("retention.ms", SET, None)], "has no value"),
        ([("retention.ms", APPEND, "1")], "is no list"),
        ([("retention.ms", 9, "1")], "is no operation"),
        ([("retention.ms", SET, "1"), ("retention.ms", SET, "2")], "named twice"),
        ([("robustmq.engine", SET, "memory")], "make another topic"),
        ([("cleanup.policy", SET, "burn")], "must be delete"),
        ([("min.cleanable.dirty.ratio", SET, "much")], "min.cleanable"),
        ([("preallocate", SET, "maybe")], "true or false"),
    ]
    for steps, words in wrong:
        code, sentence = stepped(bureau, "a", *steps)
        assert (code, words in (sentence or "")) == (ErrorCode.INVALID_CONFIG, True), sentence
    assert bureau.made.topic("a").settings == {}


def test_a_whole_set_replaces_what_was_set() -> None:
    bureau = made("a")
    stepped(bureau, "a", ("retention.ms", SET, "5"), ("segment.index.bytes", SET, "6"))
    resource = AlterConfigsResource(
        resource_type=TOPIC,
        resource_name="a",
        configs=[
            AlterableConfig(name="compression.type", value="zstd"),
            AlterableConfig(name="retention.ms", value=None),
        ],
    )
    request = AlterConfigsRequest(resources=[resource], validate_only=True)
    bureau.ask(ApiKey.ALTER_CONFIGS, 2, request, AlterConfigsResponse)
    assert bureau.made.topic("a").settings["retention.ms"] == "5"
    request.validate_only = False
    response = bureau.ask(ApiKey.ALTER_CONFIGS, 0, request, AlterConfigsResponse)
    assert response.responses[0].error_code == 0
    assert bureau.made.topic("a").settings == {"compression.type": "zstd"}
    assert bureau.made.topic("a").rule.compression == "zstd"


def test_a_change_is_tried_again_when_another_came_first() -> None:
    bureau = made("a")
    plain, times = bureau.group.change, 0

    def late(*arguments: object) -> None:
        nonlocal times
        times += 1
        if times == 1:
            # Somebody else changes the topic while the request is on its way.
            bureau.made.catalog.configure(
                bureau.made.topic("a"), {"segment.ms": "9"}, lambda _: None
            )
        plain(*arguments)  # type: ignore[arg-type]

    bureau.group.change = late  # type: ignore[method-assign,assignment]
    assert stepped(bureau, "a", ("retention.ms", SET, "5")) == (0, None)
    assert bureau.made.topic("a").settings == {"retention.ms": "5", "segment.ms": "9"}


def test_who_may_not_see_or_change_settings_does_not() -> None:
    bureau = made("a", access=Access((), "Deny"))
    assert shown(bureau, "a", who=ALICE).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert shown(bureau, "1", BROKER, who=ALICE).error_code == 31
    resource = AlterConfigsResource(resource_type=TOPIC, resource_name="a", configs=[])
    request = AlterConfigsRequest(resources=[resource])
    response = bureau.ask(ApiKey.ALTER_CONFIGS, 2, request, AlterConfigsResponse, ALICE)
    assert response.responses[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED


def test_what_has_settings_is_listed() -> None:
    bureau = made("a")

    def listed(version: int, *kinds: int) -> list[tuple[str, int]]:
        request = ListConfigResourcesRequest(resource_types=[*kinds])
        response = bureau.ask(
            ApiKey.LIST_CONFIG_RESOURCES, version, request, ListConfigResourcesResponse
        )
        return [(each.resource_name, each.resource_type) for each in response.config_resources]

    assert listed(1) == [("a", 2), ("1", 4), ("2", 4)]
    assert listed(1, 2) == [("a", 2)]
    assert listed(0) == []
