"""What transactions ask of other cores: whether something is part of one, and to settle offsets."""

from collections.abc import Callable, Iterable
from functools import partial

from robustmq.broker.api import SERVER
from robustmq.broker.partition_api import Partition
from robustmq.kafka.api_keys import InnerKey
from robustmq.kafka.coordinator_keys import group_key, transaction_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.inner import (
    CheckedTopic,
    CheckTransactionRequest,
    CheckTransactionResponse,
    SettleOffsetsRequest,
    SettleOffsetsResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.schema import Message
from robustmq.kafka.transaction import Identity
from robustmq.kafka.transaction_end import Settlement

_VERSION = 0


def check(  # noqa: PLR0917
    kafka: Kafka,
    tenant: str,
    transactional_id: str,
    identity: Identity,
    partitions: Iterable[Partition],
    group_ids: Iterable[str],
    reply: Callable[[ErrorCode, int], None],
) -> None:
    """Ask the coordinator whether all these are part of the producer's open transaction.

    Answers NONE and the number that its end will have, or why not.
    """
    place = kafka.coordinator_of(transaction_key(tenant, transactional_id))
    if place is None:
        reply(ErrorCode.COORDINATOR_NOT_AVAILABLE, 0)
        return
    topics: dict[bytes, list[int]] = {}
    for topic, number in partitions:
        topics.setdefault(topic, []).append(number)
    request = CheckTransactionRequest(
        tenant=tenant,
        transactional_id=transactional_id,
        producer_id=identity.producer_id,
        producer_epoch=identity.epoch,
        topics=[CheckedTopic(name=name, partitions=each) for name, each in topics.items()],
        group_ids=list(group_ids),
    )

    def answered(response: Message | None) -> None:
        if isinstance(response, CheckTransactionResponse):
            reply(ErrorCode(response.error_code), response.serial)
        else:
            reply(ErrorCode.COORDINATOR_NOT_AVAILABLE, 0)

    kafka.coordination.ask(place, InnerKey.CHECK_TRANSACTION, _VERSION, SERVER, request, answered)


def settle(kafka: Kafka, settlement: Settlement, reply: Callable[[bool], None]) -> None:
    """Tell a group how a transaction has ended (`transaction_end.Settle`)."""
    place = kafka.coordinator_of(group_key(settlement.tenant, settlement.group_id))
    if place is None:
        reply(False)
        return
    request = SettleOffsetsRequest(
        tenant=settlement.tenant,
        group_id=settlement.group_id,
        producer_id=settlement.producer_id,
        serial=settlement.serial,
        committed=settlement.is_committed,
    )
    kafka.coordination.ask(
        place, InnerKey.SETTLE_OFFSETS, _VERSION, SERVER, request, partial(_settled, reply)
    )


def _settled(reply: Callable[[bool], None], response: Message | None) -> None:
    reply(isinstance(response, SettleOffsetsResponse) and not response.error_code)
