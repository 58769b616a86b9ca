"""Settings of topics, brokers and groups."""

from typing import Annotated

from robustmq.kafka.schema import Int8, Int16, Int32, Message, since


class DescribeConfigsResource(Message):
    """A resource whose settings are asked for; None: all of them."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configuration_keys: list[str] | None = []


class DescribeConfigsRequest(Message):
    """Ask how these resources are set."""

    resources: list[DescribeConfigsResource] = []
    include_synonyms: bool = False
    include_documentation: Annotated[bool, since(3)] = False


class DescribeConfigsSynonym(Message):
    """Another place where a setting has a value."""

    name: str = ""
    value: str | None = ""
    source: Int8 = 0


class DescribeConfigsResourceResult(Message):
    """A setting, its value, and where that comes from."""

    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False
    synonyms: list[DescribeConfigsSynonym] = []
    config_type: Annotated[Int8, since(3)] = 0
    documentation: Annotated[str | None, since(3)] = ""


class DescribeConfigsResult(Message):
    """The settings of a resource."""

    error_code: Int16 = 0
    error_message: str | None = ""
    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[DescribeConfigsResourceResult] = []


class DescribeConfigsResponse(Message):
    """The settings."""

    throttle_time_ms: Int32 = 0
    results: list[DescribeConfigsResult] = []


class AlterableConfig(Message):
    """A setting and its new value; None: the default."""

    name: str = ""
    value: str | None = ""


class AlterConfigsResource(Message):
    """A resource and all that is to be set for it."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = []


class AlterConfigsRequest(Message):
    """What is to be set, replacing all that was."""

    resources: list[AlterConfigsResource] = []
    validate_only: bool = False


class AlterConfigsResourceResponse(Message):
    """Whether a resource was set."""

    error_code: Int16 = 0
    error_message: str | None = ""
    resource_type: Int8 = 0
    resource_name: str = ""


class AlterConfigsResponse(Message):
    """What became of the resources."""

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = []


class IncrementalAlterableConfig(Message):
    """A change: 0 set, 1 delete, 2 append, 3 subtract."""

    name: str = ""
    config_operation: Int8 = 0
    value: str | None = ""


class IncrementalAlterConfigsResource(Message):
    """A resource and what changes."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[IncrementalAlterableConfig] = []


class IncrementalAlterConfigsRequest(Message):
    """Changes of settings (KIP-339)."""

    resources: list[IncrementalAlterConfigsResource] = []
    validate_only: bool = False


class IncrementalAlterConfigsResponse(Message):
    """What became of the resources."""

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = []


class ListConfigResourcesRequest(Message):
    """Ask which resources have settings; no types: those of all types."""

    resource_types: Annotated[list[Int8], since(1)] = []


class ConfigResource(Message):
    """A resource that has settings."""

    resource_name: str = ""
    resource_type: Annotated[Int8, since(1)] = 16


class ListConfigResourcesResponse(Message):
    """The resources that have settings."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    config_resources: list[ConfigResource] = []
