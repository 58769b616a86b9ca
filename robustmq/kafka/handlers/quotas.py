"""Quotas of users and of what clients call themselves: listed and set (KIP-546)."""

import math
from collections.abc import Mapping
from typing import Final, Literal, cast

from robustmq.broker.api import Principal
from robustmq.broker.rights_api import ClientQuota
from robustmq.errors import Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, refusal_error
from robustmq.kafka.messages.quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    AlterEntryData,
    AlterEntryResult,
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    EntryData,
    ValueData,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.message.tenancy import DEFAULT_TENANT

Entity = Mapping[Literal["user", "client-id"], str | None]

_TYPES: Final = ("user", "client-id")
_EXACT: Final = 0
_DEFAULT: Final = 1
_ANY: Final = 2


class Quotas:
    """The handlers of DescribeClientQuotas and AlterClientQuotas 0-1."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def describe_client_quotas(self, call: Call[DescribeClientQuotasRequest]) -> None:
        """List the quotas of whom all components match."""
        request = call.request
        response = DescribeClientQuotasResponse(error_message=None, entries=None)
        if not self._may(call.principal, Operation.DESCRIBE_CONFIGS):
            response.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        elif wrong := _wrong(request.components):
            response.error_code, response.error_message = ErrorCode.INVALID_REQUEST, wrong
        else:
            response.entries = [
                _entry(quota)
                for quota in self._kafka.rights.quotas()
                if _matches(request, quota.entity)
            ]
        call.answer(response)

    def alter_client_quotas(self, call: Call[AlterClientQuotasRequest]) -> None:
        """Set and remove quotas: those that can be, together."""
        results: list[AlterEntryResult] = []
        may_alter = self._may(call.principal, Operation.ALTER_CONFIGS)
        wanted: list[ClientQuota] = []
        slots: list[AlterEntryResult] = []
        for entry in call.request.entries:
            result = AlterEntryResult(error_message=None, entity=entry.entity)
            results.append(result)
            changed = self._changed(entry)
            if not may_alter:
                result.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            elif isinstance(changed, str):
                result.error_code, result.error_message = ErrorCode.INVALID_REQUEST, changed
            else:
                wanted.append(changed)
                slots.append(result)

        def done(refused: Refused | None) -> None:
            if refused is not None:
                for slot in slots:
                    slot.error_code = refusal_error(refused.code)
                    slot.error_message = refused.detail
            call.answer(AlterClientQuotasResponse(entries=results))

        if wanted and not call.request.validate_only:
            self._kafka.rights.limit(wanted, done)
        else:
            done(None)

    def _may(self, principal: Principal, operation: Operation) -> bool:
        """Quotas are the whole cluster's: no tenant sets those of another."""
        is_own = principal.superuser or principal.tenant == DEFAULT_TENANT
        return is_own and self._kafka.may(principal, operation, Resource.CLUSTER)

    def _changed(self, entry: AlterEntryData) -> ClientQuota | str:
        """The quotas as they are to be, or what is wrong with the change."""
        rights = self._kafka.rights
        named = {part.entity_type: part.entity_name for part in entry.entity}
        if not named or len(named) < len(entry.entity) or not set(named) <= set(_TYPES):
            return "quotas are for a user, for a client-id, or for both"
        entity = cast("dict[Literal['user', 'client-id'], str | None]", named)
        quotas = dict(rights.limits_of(ClientQuota(entity=entity, quotas={})))
        for op in entry.ops:
            if op.key not in rights.quota_keys:
                return f"there is no quota {op.key[:100]}, only {', '.join(rights.quota_keys)}"
            if op.remove:
                quotas.pop(op.key, None)
            elif not math.isfinite(op.value) or op.value <= 0:
                return f"{op.key} must be above 0"
            else:
                quotas[op.key] = op.value
        return ClientQuota(entity=entity, quotas=quotas)


def _wrong(components: list[ComponentData]) -> str | None:
    types = [each.entity_type for each in components]
    if not set(types) <= set(_TYPES):
        return "quotas are for a user, for a client-id, or for both"
    if len(set(types)) < len(types):
        return "a kind of entity is named twice"
    if any(each.match_type not in {_EXACT, _DEFAULT, _ANY} for each in components):
        return "a kind of match is unknown: exact is 0, default 1 and any 2"
    return None


def _matches(request: DescribeClientQuotasRequest, entity: Entity) -> bool:
    known = cast("Mapping[str, str | None]", entity)
    for each in request.components:
        if each.entity_type not in known:
            return False
        name = known[each.entity_type]
        if each.match_type == _EXACT and (name is None or name != each.match):
            return False
        if each.match_type == _DEFAULT and name is not None:
            return False
    return not request.strict or len(known) == len(request.components)


def _entry(quota: ClientQuota) -> EntryData:
    return EntryData(
        entity=[
            EntityData(entity_type=kind, entity_name=name) for kind, name in quota.entity.items()
        ],
        values=[ValueData(key=key, value=value) for key, value in quota.quotas.items()],
    )
