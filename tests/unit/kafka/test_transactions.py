"""What idempotent and transactional producers are answered, by each version of their requests."""

from collections.abc import Callable
from typing import Any

import pytest

from robustmq.kafka.api_keys import ApiKey, InnerKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.handlers.transactions import ID_BYTES, Transactions
from robustmq.kafka.messages.inner import CheckedTopic, CheckTransactionRequest
from robustmq.kafka.messages.transactions import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    EndTxnRequest,
    InitProducerIdRequest,
)
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Status
from robustmq.policy.principal import Principal
from tests.transaction_desk import GONE, Desk

ALICE = Principal("alice", username="alice", tenant="acme")
KEY = "txn/acme/a"


class Client:
    """A client of a core that coordinates."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.handlers = Transactions(self.desk.kafka, self.desk.coordinator, self.desk.ids)

    def ask(self, api: int, request: object, version: int = 3, fault: int = 0) -> Any:  # noqa: ANN401
        """Send a request and return what is answered."""
        answers: list[Any] = []
        call: Call[Any] = Call(
            api, version, None, ALICE, request, self.desk.now_ms, answers.append, fault=fault
        )
        handlers: dict[int, Callable[[Call[Any]], None]] = {
            ApiKey.INIT_PRODUCER_ID: self.handlers.initialize,
            ApiKey.ADD_PARTITIONS_TO_TXN: self.handlers.add_partitions,
            ApiKey.ADD_OFFSETS_TO_TXN: self.handlers.add_offsets,
            ApiKey.END_TXN: self.handlers.end,
            InnerKey.CHECK_TRANSACTION: self.handlers.check,
        }
        handlers[api](call)
        self.desk.ledger.run()
        (answer,) = answers
        return answer

    def initialize(self, name: str | None = "a", version: int = 5, **fields: int) -> Any:  # noqa: ANN401
        """InitProducerId."""
        fields = {"transaction_timeout_ms": 60_000, **fields}
        request = InitProducerIdRequest(transactional_id=name, **fields)
        return self.ask(ApiKey.INIT_PRODUCER_ID, request, version)

    def add(self, producer_id: int, epoch: int = 0, version: int = 3, **topics: int) -> list[Any]:
        """AddPartitionsToTxn; returns (topic, partition, code) of each."""
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id="a",
            v3_and_below_producer_id=producer_id,
            v3_and_below_producer_epoch=epoch,
            v3_and_below_topics=[
                AddPartitionsToTxnTopic(name=name, partitions=[0, number])
                for name, number in topics.items()
            ],
        )
        response = self.ask(ApiKey.ADD_PARTITIONS_TO_TXN, request, version)
        return [
            (topic.name, each.partition_index, each.partition_error_code)
            for topic in response.results_by_topic_v3_and_below
            for each in topic.results_by_partition
        ]

    def add_group(self, producer_id: int, group_id: str = "g") -> int:
        """AddOffsetsToTxn."""
        request = AddOffsetsToTxnRequest(
            transactional_id="a", producer_id=producer_id, producer_epoch=0, group_id=group_id
        )
        return int(self.ask(ApiKey.ADD_OFFSETS_TO_TXN, request).error_code)

    def end(self, producer_id: int, epoch: int = 0, version: int = 3, name: str = "a") -> int:
        """EndTxn, to commit."""
        request = EndTxnRequest(
            transactional_id=name, producer_id=producer_id, producer_epoch=epoch, committed=True
        )
        return int(self.ask(ApiKey.END_TXN, request, version).error_code)


def test_an_idempotent_producer_gets_an_id_of_its_own() -> None:
    client = Client()
    first = client.initialize(None, 0, transaction_timeout_ms=0)
    assert (first.error_code, first.producer_id, first.producer_epoch) == (0, 1_000, 0)
    # What it was before does not matter.
    assert client.initialize(None, producer_id=7, producer_epoch=9).producer_id == 1_001
    client.desk.ledger.fault = GONE
    answers = [client.initialize(None) for _ in range(9)]
    last = answers[-1]
    assert (last.error_code, last.producer_id) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1)


def test_a_transaction_from_its_beginning_to_its_end() -> None:
    client = Client()
    number = client.initialize().producer_id
    assert client.add(number, t=2, u=1) == [("t", 0, 0), ("t", 2, 0), ("u", 0, 0), ("u", 1, 0)]
    assert client.add_group(number) == 0
    assert client.end(number) == 0
    assert len(client.desk.partitions.markers) == 4
    assert client.desk.settlements[0].group_id == "g"
    assert client.desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT


@pytest.mark.parametrize(
    ("version", "code"), [(3, ErrorCode.INVALID_PRODUCER_EPOCH), (4, ErrorCode.PRODUCER_FENCED)]
)
def test_older_clients_hear_of_their_epoch_only(version: int, code: ErrorCode) -> None:
    client = Client()
    number = client.initialize().producer_id
    client.initialize()
    fenced = client.initialize(version=version, producer_id=number, producer_epoch=0)
    assert fenced.error_code == code
    assert client.end(number, version=version - 2) == code
    assert client.add(number, version=version - 2, t=0)[0][2] == code


def test_all_partitions_join_or_none() -> None:
    client = Client()
    number = client.initialize().producer_id
    unknown, skipped = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
    assert client.add(number, t=3, v=0) == [
        ("t", 0, skipped),
        ("t", 3, unknown),
        ("v", 0, unknown),
        ("v", 0, unknown),
    ]
    client.desk.denied = {(Operation.WRITE, Resource.TOPIC)}
    assert client.add(number, t=0)[0][2] == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert client.desk.ledger.known(KEY).status is Status.EMPTY


def test_what_is_no_request_is_refused() -> None:
    client = Client()
    long = "x" * (ID_BYTES + 1)
    for name in ("", "a\0b", long):
        assert client.initialize(name).error_code == ErrorCode.INVALID_REQUEST
        assert client.end(5, name=name) == ErrorCode.INVALID_REQUEST
    half = client.initialize(producer_id=5, producer_epoch=-1)
    assert half.error_code == ErrorCode.INVALID_REQUEST
    for timeout_ms in (0, -1, 900_001):
        refused = client.initialize(transaction_timeout_ms=timeout_ms)
        assert refused.error_code == ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert client.add_group(5, "") == ErrorCode.INVALID_GROUP_ID
    assert not client.desk.ledger.pages


def test_who_may_not_use_the_id_or_the_group_is_refused() -> None:
    client = Client()
    number = client.initialize().producer_id
    client.desk.denied = {(Operation.READ, Resource.GROUP)}
    assert client.add_group(number) == ErrorCode.GROUP_AUTHORIZATION_FAILED
    client.desk.denied = {(Operation.WRITE, Resource.TRANSACTIONAL_ID)}
    code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert client.initialize().error_code == code
    assert client.add(number, t=0)[0][2] == code
    assert client.end(number) == code


def test_another_core_coordinates() -> None:
    client = Client()
    fault = ErrorCode.NOT_COORDINATOR
    request = InitProducerIdRequest(transactional_id="a", transaction_timeout_ms=1_000)
    answer = client.ask(ApiKey.INIT_PRODUCER_ID, request, fault=fault)
    assert answer.error_code == fault
    assert not client.desk.ledger.reads


def test_a_core_asks_whether_something_is_part_of_a_transaction() -> None:
    client = Client()
    number = client.initialize().producer_id
    client.add(number, t=1)

    def check(partition: int, epoch: int = 0) -> Any:  # noqa: ANN401
        request = CheckTransactionRequest(
            tenant="acme",
            transactional_id="a",
            producer_id=number,
            producer_epoch=epoch,
            topics=[CheckedTopic(name=b"t", partitions=[partition])],
        )
        return client.ask(InnerKey.CHECK_TRANSACTION, request, 0)

    assert (check(1).error_code, check(1).serial) == (0, 1)
    assert check(2).error_code == ErrorCode.INVALID_TXN_STATE
    assert check(1, 1).error_code == ErrorCode.PRODUCER_FENCED
