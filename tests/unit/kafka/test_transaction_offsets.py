"""Offsets that are committed with a transaction: who may, and what the group is told."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmq.broker.ledger_api import Kept
from robustmq.kafka import transaction_link
from robustmq.kafka.api_keys import ApiKey, InnerKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_coordinator import Reader
from robustmq.kafka.handlers.transaction_offsets import TransactionOffsets
from robustmq.kafka.messages.inner import (
    CheckTransactionRequest,
    CheckTransactionResponse,
    SettleOffsetsRequest,
    SettleOffsetsResponse,
)
from robustmq.kafka.messages.transactions import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message
from robustmq.kafka.transaction_end import Settlement
from robustmq.policy.principal import Principal
from tests.transaction_desk import Desk

ALICE = Principal("alice", username="alice", tenant="acme")


class Groups:
    """Remembers what the coordinator of groups is told, and answers `code`."""

    def __init__(self) -> None:
        self.pended: list[tuple[Any, ...]] = []
        self.settled: list[tuple[Any, ...]] = []
        self.code = ErrorCode.NONE

    def pend(  # noqa: PLR0917
        self,
        tenant: str,
        group_id: str,
        reader: Reader,
        producing: tuple[int, int],
        offsets: Mapping[tuple[str, int], Kept],
        then: Callable[[ErrorCode], None],
    ) -> None:
        """See `GroupCoordinator`."""
        self.pended.append((tenant, group_id, reader, producing, offsets))
        then(self.code)

    def settle(
        self,
        tenant: str,
        group_id: str,
        producing: tuple[int, int],
        is_committed: bool,
        then: Callable[[ErrorCode], None],
    ) -> None:
        """See `GroupCoordinator`."""
        self.settled.append((tenant, group_id, producing, is_committed))
        then(self.code)


class Scene:
    """The core of a group, and what the coordinator of the transaction says."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.groups = Groups()
        self.asked: list[Message] = []
        self.says: Message | None = CheckTransactionResponse(serial=7)
        self.desk.kafka.coordination = cast("Any", SimpleNamespace(ask=self._ask))
        self.handlers = TransactionOffsets(self.desk.kafka, cast("Any", self.groups))

    def _ask(  # noqa: PLR0917
        self,
        place: tuple[int, int],
        api: int,
        version: int,
        principal: Principal,
        request: Message,
        reply: Callable[[Message | None], None],
    ) -> None:
        assert (place[1], version, principal.superuser) == (0, 0, True)
        assert api in {InnerKey.CHECK_TRANSACTION, InnerKey.SETTLE_OFFSETS}
        self.asked.append(request)
        reply(self.says)

    def commit(self, fault: int = 0, **topics: str) -> list[int]:
        """TxnOffsetCommit of offset 9 in partition 0 of topics, with notes; returns the codes."""
        request = TxnOffsetCommitRequest(
            transactional_id="a",
            group_id="g",
            producer_id=5,
            producer_epoch=3,
            generation_id=2,
            member_id="m",
            topics=[
                TxnOffsetCommitRequestTopic(
                    name=name,
                    partitions=[
                        TxnOffsetCommitRequestPartition(
                            partition_index=0, committed_offset=9, committed_metadata=note
                        )
                    ],
                )
                for name, note in (topics or {"t": "note"}).items()
            ],
        )
        answers: list[Any] = []
        call = Call(
            ApiKey.TXN_OFFSET_COMMIT,
            3,
            None,
            ALICE,
            request,
            self.desk.now_ms,
            answers.append,
            fault=fault,
        )
        self.handlers.commit(call)
        (answer,) = answers
        return [each.error_code for topic in answer.topics for each in topic.partitions]


def test_offsets_are_kept_under_the_number_of_the_transaction() -> None:
    scene = Scene()
    assert scene.commit() == [ErrorCode.NONE]
    (asked,) = scene.asked
    assert isinstance(asked, CheckTransactionRequest)
    assert (asked.tenant, asked.transactional_id, asked.group_ids) == ("acme", "a", ["g"])
    kept = Kept(9, "note", scene.desk.now_ms, -1)
    reader = Reader("m", None, 2)
    assert scene.groups.pended == [("acme", "g", reader, (5, 7), {("t", 0): kept})]
    scene.groups.code = ErrorCode.ILLEGAL_GENERATION
    assert scene.commit() == [ErrorCode.ILLEGAL_GENERATION]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (ErrorCode.INVALID_TXN_STATE, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
    ],
)
def test_a_group_that_is_no_part_of_the_transaction_keeps_nothing(
    said: ErrorCode, heard: ErrorCode
) -> None:
    scene = Scene()
    scene.says = CheckTransactionResponse(error_code=said)
    assert scene.commit() == [heard]
    assert not scene.groups.pended


def test_a_coordinator_that_is_gone_is_asked_again_by_the_client() -> None:
    scene = Scene()
    scene.says = None
    assert scene.commit() == [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS]
    assert scene.commit(ErrorCode.NOT_COORDINATOR) == [ErrorCode.NOT_COORDINATOR]
    assert len(scene.asked) == 1


def test_what_may_not_be_committed_is_left_out() -> None:
    scene = Scene()
    codes = scene.commit(t="", gone="", u="x" * 5_000)
    assert codes == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OFFSET_METADATA_TOO_LARGE]
    assert list(scene.groups.pended[0][4]) == [("t", 0)]
    assert scene.commit(gone="") == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    for operation, resource, code in (
        (Operation.READ, Resource.TOPIC, ErrorCode.TOPIC_AUTHORIZATION_FAILED),
        (Operation.READ, Resource.GROUP, ErrorCode.GROUP_AUTHORIZATION_FAILED),
        (
            Operation.WRITE,
            Resource.TRANSACTIONAL_ID,
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
    ):
        scene.desk.denied = {(operation, resource)}
        assert scene.commit() == [code]
    assert len(scene.asked) == 1


@pytest.mark.parametrize("is_ours", [True, False])
def test_only_the_coordinator_of_a_group_settles(is_ours: bool) -> None:
    scene = Scene()
    scene.desk.is_ours = is_ours
    request = SettleOffsetsRequest(
        tenant="acme", group_id="g", producer_id=5, serial=7, committed=True
    )
    answers: list[Any] = []
    call = Call(InnerKey.SETTLE_OFFSETS, 0, None, ALICE, request, 0, answers.append)
    scene.handlers.settle(call)
    assert answers[0].error_code == (0 if is_ours else ErrorCode.NOT_COORDINATOR)
    assert scene.groups.settled == ([("acme", "g", (5, 7), True)] if is_ours else [])


@pytest.mark.parametrize(
    ("says", "is_kept"),
    [
        (SettleOffsetsResponse(), True),
        (SettleOffsetsResponse(error_code=ErrorCode.NOT_COORDINATOR), False),
        (None, False),
    ],
)
def test_a_group_is_told_until_it_has_kept_it(says: Message | None, is_kept: bool) -> None:
    scene = Scene()
    scene.says = says
    answers: list[bool] = []
    settlement = Settlement("acme", "g", 5, 3, True, 7)
    transaction_link.settle(scene.desk.kafka, settlement, answers.append)
    assert answers == [is_kept]
    (asked,) = scene.asked
    assert isinstance(asked, SettleOffsetsRequest)
    assert (asked.tenant, asked.group_id, asked.serial, asked.committed) == ("acme", "g", 7, True)
