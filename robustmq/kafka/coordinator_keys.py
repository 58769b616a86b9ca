"""Under which keys coordinators are found, and keep their pages."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final, TypeAlias

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.group_offsets import OffsetFetchRequest
from robustmq.kafka.schema import Message


def group_key(tenant: str, group_id: str) -> str:
    """The key of a consumer group's coordinator, and of its page in the ledger."""
    return f"group/{tenant}/{group_id}"


def transaction_key(tenant: str, transactional_id: str) -> str:
    """The key of a transactional id's coordinator, and of its page in the ledger."""
    return f"txn/{tenant}/{transactional_id}"


KeyOf: TypeAlias = Callable[[str, Message], str | None]
"""The key of a request's coordinator, from its client's tenant and the request.

None: the request names none, or several, and is handled where it came in. Then its handler asks
other coordinators by itself (`coordination.Coordination.ask`).
"""


def _named(field: str, make: Callable[[str, str], str]) -> KeyOf:
    """By the name that a field of the request has."""
    read = attrgetter(field)

    def key_of(tenant: str, request: Message) -> str | None:
        name = read(request)
        return None if name is None else make(tenant, name)

    return key_of


def _one_group(tenant: str, request: Message) -> str | None:
    """By its one group: newer versions of OffsetFetch may ask for several."""
    assert isinstance(request, OffsetFetchRequest)
    if not request.groups:
        return group_key(tenant, request.group_id)
    return None if len(request.groups) > 1 else group_key(tenant, request.groups[0].group_id)


_group: Final = _named("group_id", group_key)
_transaction: Final = _named("transactional_id", transaction_key)

COORDINATED: Final[Mapping[int, KeyOf]] = {
    ApiKey.OFFSET_COMMIT: _group,
    ApiKey.OFFSET_FETCH: _one_group,
    ApiKey.JOIN_GROUP: _group,
    ApiKey.HEARTBEAT: _group,
    ApiKey.LEAVE_GROUP: _group,
    ApiKey.SYNC_GROUP: _group,
    ApiKey.INIT_PRODUCER_ID: _transaction,
    ApiKey.ADD_PARTITIONS_TO_TXN: _named("v3_and_below_transactional_id", transaction_key),
    ApiKey.ADD_OFFSETS_TO_TXN: _transaction,
    ApiKey.END_TXN: _transaction,
    ApiKey.TXN_OFFSET_COMMIT: _group,
    ApiKey.OFFSET_DELETE: _group,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: _group,
}
"""The requests for a coordinator."""
