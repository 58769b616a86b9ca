"""Quotas of clients and users."""

from robustmq.kafka.schema import Float64, Int8, Int16, Int32, Message


class ComponentData(Message):
    """What an entity of quotas looks like: 0 exactly `match`, 1 the default, 2 any."""

    entity_type: str = ""
    match_type: Int8 = 0
    match: str | None = ""


class DescribeClientQuotasRequest(Message):
    """Ask for the quotas that match."""

    components: list[ComponentData] = []
    strict: bool = False


class EntityData(Message):
    """A part of whom a quota is for; no name: the default."""

    entity_type: str = ""
    entity_name: str | None = ""


class ValueData(Message):
    """A quota."""

    key: str = ""
    value: Float64 = 0.0


class EntryData(Message):
    """The quotas of an entity."""

    entity: list[EntityData] = []
    values: list[ValueData] = []


class DescribeClientQuotasResponse(Message):
    """The quotas."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    entries: list[EntryData] | None = []


class OpData(Message):
    """A quota to set, or to remove."""

    key: str = ""
    value: Float64 = 0.0
    remove: bool = False


class AlterEntryData(Message):
    """What changes for an entity."""

    entity: list[EntityData] = []
    ops: list[OpData] = []


class AlterClientQuotasRequest(Message):
    """Changes of quotas."""

    entries: list[AlterEntryData] = []
    validate_only: bool = False


class AlterEntryResult(Message):
    """What became of the change for an entity."""

    error_code: Int16 = 0
    error_message: str | None = ""
    entity: list[EntityData] = []


class AlterClientQuotasResponse(Message):
    """What became of the changes."""

    throttle_time_ms: Int32 = 0
    entries: list[AlterEntryResult] = []
