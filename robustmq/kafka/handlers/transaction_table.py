"""Which handler answers which request about transactions."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from robustmq.kafka.api_keys import ApiKey, InnerKey
from robustmq.kafka.call import Call
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.handlers.transaction_listing import TransactionListing
from robustmq.kafka.handlers.transaction_offsets import TransactionOffsets
from robustmq.kafka.handlers.transactions import Transactions
from robustmq.kafka.producer_ids import ProducerIds
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.transaction_coordinator import TransactionCoordinator
from robustmq.kafka.transaction_link import settle


def transaction_handlers(
    kafka: Kafka, groups: GroupCoordinator
) -> Mapping[int, Callable[[Call[Any]], None]]:
    """Make the handlers of a core, which has the coordinator of its transactions from now on."""
    ids = ProducerIds(kafka.ledger)
    coordinator = TransactionCoordinator(kafka, ids, partial(settle, kafka))
    kafka.coordinators.append(coordinator.moved)
    transactions = Transactions(kafka, coordinator, ids)
    offsets, listing = TransactionOffsets(kafka, groups), TransactionListing(kafka)
    return {
        ApiKey.INIT_PRODUCER_ID: transactions.initialize,
        ApiKey.ADD_PARTITIONS_TO_TXN: transactions.add_partitions,
        ApiKey.ADD_OFFSETS_TO_TXN: transactions.add_offsets,
        ApiKey.END_TXN: transactions.end,
        ApiKey.TXN_OFFSET_COMMIT: offsets.commit,
        ApiKey.DESCRIBE_TRANSACTIONS: listing.describe,
        ApiKey.LIST_TRANSACTIONS: listing.list,
        InnerKey.CHECK_TRANSACTION: transactions.check,
        InnerKey.SETTLE_OFFSETS: offsets.settle,
    }
