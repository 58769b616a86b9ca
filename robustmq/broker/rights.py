"""Grants and quotas as this core knows them, and how they are changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from robustmq.broker.catalog import Registrar
from robustmq.broker.rights_api import Done
from robustmq.meta.records import CLIENT_QUOTA, GRANT, ClientQuota, Grant, Record, encoded
from robustmq.policy import client_quota
from robustmq.policy.client_quota import ClientQuotas
from robustmq.policy.grants import Grants, record_name


class Rights:
    """A `rights_api.Rights` over the folds of both; `registrar()` is the way to the metadata."""

    def __init__(
        self, grants: Grants, quotas: ClientQuotas, registrar: Callable[[], Registrar]
    ) -> None:
        self._grants = grants
        self._quotas = quotas
        self._registrar = registrar

    def grants(self, tenant: str) -> Iterator[Grant]:
        """See `rights_api.Rights`."""
        return (each for each in self._grants.by_record.values() if each.tenant == tenant)

    def grant(self, grants: Sequence[Grant], reply: Done) -> None:
        """See `rights_api.Rights`."""
        records = [Record(GRANT, record_name(each), encoded(each)) for each in grants]
        self._registrar().change(records, [], reply)

    def revoke(self, grants: Sequence[Grant], reply: Done) -> None:
        """See `rights_api.Rights`."""
        records = [Record(GRANT, record_name(each), None) for each in grants]
        self._registrar().change(records, [], reply)

    def quotas(self) -> Iterator[ClientQuota]:
        """See `rights_api.Rights`."""
        for entity, quotas in self._quotas.by_entity.items():
            yield msgspec.convert({"entity": dict(entity), "quotas": quotas}, ClientQuota)

    @property
    def quota_keys(self) -> Sequence[str]:
        """See `rights_api.Rights`."""
        return client_quota.KEYS

    def limit(self, quotas: Sequence[ClientQuota], reply: Done) -> None:
        """See `rights_api.Rights`."""
        records = [
            Record(
                CLIENT_QUOTA,
                client_quota.record_name(each),
                encoded(each) if each.quotas else None,
            )
            for each in quotas
        ]
        self._registrar().change(records, [], reply)

    def limits_of(self, quota: ClientQuota) -> Mapping[str, float]:
        """See `rights_api.Rights`."""
        return self._quotas.by_entity.get(frozenset(quota.entity.items()), {})
