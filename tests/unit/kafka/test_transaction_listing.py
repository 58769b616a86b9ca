"""Transactions as administrators see them."""

from typing import Any

from robustmq.broker.partition_api import Partition
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.handlers.transaction_listing import TransactionListing
from robustmq.kafka.messages.transaction_listing import (
    DescribeTransactionsRequest,
    ListTransactionsRequest,
)
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Status, Transaction
from robustmq.policy.principal import Principal
from tests.transaction_desk import GONE, Desk

ALICE = Principal("alice", username="alice", tenant="acme")


def with_transactions(count: int = 2) -> Desk:
    desk = Desk()
    places = frozenset({Partition(b"t", 1), Partition(b"t", 0), Partition(b"gone", 0)})
    started_ms = desk.now_ms - 5_000
    desk.ledger.put(
        "txn/acme/open", Transaction(5, 3, Status.ONGOING, 1_000, places, started_ms=started_ms)
    )
    for number in range(1, count):
        desk.ledger.put(f"txn/acme/idle{number}", Transaction(5 + number, 0))
    desk.ledger.put("txn/other/x", Transaction(99, 0))
    return desk


def asked(desk: Desk, request: object) -> Any:  # noqa: ANN401
    answers: list[Any] = []
    listing = TransactionListing(desk.kafka)
    call: Call[Any] = Call(0, 1, None, ALICE, request, desk.now_ms, answers.append)
    if isinstance(request, ListTransactionsRequest):
        call.api = ApiKey.LIST_TRANSACTIONS
        listing.list(call)
    else:
        listing.describe(call)
    desk.ledger.run()
    (answer,) = answers
    return answer


def names(answer: Any) -> set[str]:  # noqa: ANN401
    return {each.transactional_id for each in answer.transaction_states}


def test_a_transaction_is_described() -> None:
    desk = with_transactions()
    answer = asked(
        desk, DescribeTransactionsRequest(transactional_ids=["open", "none", "open", ""])
    )
    open_, none, nameless = answer.transaction_states
    assert (open_.transaction_state, open_.producer_id, open_.producer_epoch) == ("Ongoing", 5, 3)
    assert open_.transaction_start_time_ms == desk.now_ms - 5_000
    assert [(each.topic, each.partitions) for each in open_.topics] == [("t", [0, 1])]
    assert none.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert nameless.error_code == ErrorCode.INVALID_REQUEST


def test_what_cannot_be_described_says_why() -> None:
    desk = with_transactions()
    request = DescribeTransactionsRequest(transactional_ids=["open"])
    desk.denied = {(Operation.DESCRIBE, Resource.TRANSACTIONAL_ID)}
    (state,) = asked(desk, request).transaction_states
    assert state.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert not asked(desk, ListTransactionsRequest()).transaction_states
    desk.denied.clear()
    desk.ledger.fault = GONE
    (state,) = asked(desk, request).transaction_states
    assert state.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert asked(desk, ListTransactionsRequest()).error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    desk.is_ours = False
    (state,) = asked(desk, request).transaction_states
    assert state.error_code == ErrorCode.NOT_COORDINATOR


def test_those_of_the_tenant_are_listed_however_many() -> None:
    desk = with_transactions(150)
    assert len(names(asked(desk, ListTransactionsRequest()))) == 150
    assert names(asked(desk, ListTransactionsRequest(state_filters=["Ongoing"]))) == {"open"}
    assert names(asked(desk, ListTransactionsRequest(producer_id_filters=[6]))) == {"idle1"}
    assert names(asked(desk, ListTransactionsRequest(duration_filter=4_999))) == {"open"}
    assert names(asked(desk, ListTransactionsRequest(duration_filter=5_000))) == set()
    answer = asked(desk, ListTransactionsRequest(state_filters=["Ongoing", "Lost"]))
    assert answer.unknown_state_filters == ["Lost"]
