"""The coordinator of transactions: what it writes, whom it tells, and what it does by itself."""

from typing import Any

import pytest

from robustmq import metrics
from robustmq.broker.partition_api import Fault, Partition
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.transaction import Identity, Status, Transaction
from robustmq.settings.kafka_transactions import KafkaTransactions
from tests.transaction_desk import GONE, Desk

KEY = "txn/default/a"
HERE = frozenset({Partition(b"t", 0), Partition(b"t", 1)})
GROUPS = frozenset({"g"})
NOBODY = frozenset[Any]()


def begun(desk: Desk, key: str = KEY) -> Identity:
    answers: list[Any] = []
    desk.coordinator.initialize(key, None, 60_000, answers.append)
    desk.ledger.run()
    (identity,) = answers
    assert isinstance(identity, Identity)
    return identity


def joined(desk: Desk, identity: Identity) -> None:
    answers: list[ErrorCode] = []
    desk.coordinator.join(KEY, identity, HERE, GROUPS, answers.append)
    desk.ledger.run()
    assert answers == [ErrorCode.NONE]


def ended(desk: Desk, identity: Identity, is_committed: bool = True) -> ErrorCode:
    answers: list[ErrorCode] = []
    desk.coordinator.end(KEY, identity, is_committed, answers.append)
    desk.ledger.run()
    (code,) = answers
    return code


@pytest.mark.parametrize("is_committed", [True, False])
def test_all_who_take_part_hear_of_the_end(is_committed: bool) -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    assert {each.partition for each in desk.partitions.openings} == HERE
    assert ended(desk, identity, is_committed) is ErrorCode.NONE
    assert {each.partition for each in desk.partitions.markers} == HERE
    assert {each.is_committed for each in desk.partitions.markers} == {is_committed}
    (settlement,) = desk.settlements
    assert settlement == ("default", "g", *identity, is_committed, 1)
    status = Status.COMPLETE_COMMIT if is_committed else Status.COMPLETE_ABORT
    assert desk.ledger.known(KEY).status is status
    counted = [desk.row[metrics.KAFKA_TRANSACTIONS_COMMITTED]]
    counted += [desk.row[metrics.KAFKA_TRANSACTIONS_ABORTED]]
    assert counted == [int(is_committed), int(not is_committed)]


def test_nobody_hears_before_it_is_written() -> None:
    desk = Desk()
    identity = begun(desk)
    answers: list[ErrorCode] = []
    desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    assert (answers, desk.partitions.openings) == ([], [])
    desk.ledger.run()
    desk.coordinator.end(KEY, identity, True, answers.append)
    assert (answers, desk.partitions.markers) == ([ErrorCode.NONE], [])
    desk.ledger.run()
    assert answers == [ErrorCode.NONE] * 2
    assert desk.partitions.markers


def test_who_does_not_answer_is_told_again() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    desk.partitions.faults = {1: Fault.UNAVAILABLE}
    desk.is_settled = False
    assert ended(desk, identity) is ErrorCode.NONE
    assert ended(desk, identity) is ErrorCode.CONCURRENT_TRANSACTIONS
    desk.partitions.markers.clear()
    desk.pass_time(100)
    assert [each.partition.number for each in desk.partitions.markers] == [1]
    desk.is_settled = True
    desk.partitions.faults = {}
    desk.pass_time(199)
    assert desk.ledger.known(KEY).status is Status.PREPARE_COMMIT
    desk.pass_time(1)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT
    assert len(desk.settlements) == 3


def test_a_topic_that_is_gone_needs_no_marker() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    desk.partitions.faults = {0: Fault.UNKNOWN, 1: Fault.UNKNOWN}
    ended(desk, identity)
    assert desk.ledger.known(KEY).status is Status.PREPARE_COMMIT
    desk.topics.names.clear()
    desk.pass_time(100)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT


def test_what_is_open_for_too_long_is_aborted_and_its_producer_fenced() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    desk.pass_time(59_999)
    assert not desk.partitions.markers
    desk.pass_time(1)
    assert {each.producer_epoch for each in desk.partitions.markers} == {identity.epoch + 1}
    assert desk.ledger.known(KEY).status is Status.COMPLETE_ABORT
    assert ended(desk, identity) is ErrorCode.PRODUCER_FENCED
    assert desk.row[metrics.KAFKA_TRANSACTIONS_EXPIRED] == 1


def test_an_id_that_nobody_uses_is_forgotten() -> None:
    desk = Desk(KafkaTransactions(id_expiration_ms=5_000))
    identity = begun(desk)
    desk.pass_time(3_000)
    joined(desk, identity)
    ended(desk, identity)
    desk.pass_time(4_999)
    assert desk.ledger.pages[KEY].value is not None
    desk.pass_time(1)
    assert desk.ledger.pages[KEY].value is None
    assert len(desk.coordinator) == 0
    assert ended(desk, identity) is ErrorCode.INVALID_PRODUCER_ID_MAPPING


@pytest.mark.parametrize("status", [Status.PREPARE_COMMIT, Status.PREPARE_ABORT])
def test_a_coordinator_that_starts_finishes_what_is_decided(status: Status) -> None:
    desk = Desk()
    desk.ledger.put(KEY, Transaction(5, 3, status, 1_000, HERE, GROUPS, 10, 20, serial=4))
    desk.coordinator.moved()
    desk.ledger.run()
    markers = desk.partitions.markers
    assert {(each.coordinator_epoch, each.is_committed) for each in markers} == {
        (4, status is Status.PREPARE_COMMIT)
    }
    assert not desk.ledger.known(KEY).status.is_prepared


def test_a_coordinator_that_starts_aborts_what_is_open_for_too_long() -> None:
    desk = Desk()
    started_ms = desk.now_ms - 500
    desk.ledger.put(KEY, Transaction(5, 3, Status.ONGOING, 1_000, HERE, NOBODY, started_ms, 20))
    desk.coordinator.moved()
    desk.ledger.run()
    assert not desk.partitions.markers
    desk.pass_time(500)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_ABORT


def test_it_looks_again_for_what_its_predecessor_wrote_late() -> None:
    desk = Desk()
    desk.coordinator.moved()
    desk.ledger.run()
    prepared = Transaction(5, 3, Status.PREPARE_COMMIT, 1_000, HERE, NOBODY, 10, 20)
    desk.ledger.put(KEY, prepared)
    desk.pass_time(10_000)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT


def test_when_the_ledger_does_not_answer_it_is_asked_again() -> None:
    desk = Desk()
    desk.ledger.put(KEY, Transaction(5, 3, Status.PREPARE_COMMIT, 1_000, HERE, NOBODY, 10, 20))
    desk.ledger.fault = GONE
    desk.coordinator.moved()
    desk.ledger.run()
    desk.ledger.fault = None
    desk.pass_time(10_000)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT


def test_what_may_have_been_written_is_read_again() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    desk.ledger.fault = GONE
    assert ended(desk, identity) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    # It was written, though nobody said so.
    desk.ledger.fault = None
    known = desk.ledger.known(KEY)
    desk.ledger.put(KEY, Transaction(*identity, Status.PREPARE_COMMIT, 1_000, known.partitions))
    desk.pass_time(10_000)
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT
    assert ended(desk, identity) is ErrorCode.NONE


def test_of_two_coordinators_one_is_refused() -> None:
    desk = Desk()
    identity = begun(desk)
    desk.ledger.put(KEY, Transaction(identity.producer_id, identity.epoch + 1))
    answers: list[ErrorCode] = []
    desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    desk.ledger.run()
    assert answers == [ErrorCode.NOT_COORDINATOR]
    desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    desk.ledger.run()
    assert answers[1:] == [ErrorCode.PRODUCER_FENCED]
    assert not desk.partitions.openings


def test_what_changes_nothing_is_said_by_the_page_as_it_is() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    assert ended(desk, identity) is ErrorCode.NONE
    # Another core has begun the next transaction: that the last has ended says nothing of it.
    desk.ledger.put(KEY, Transaction(*identity, Status.ONGOING, 60_000, HERE, NOBODY, desk.now_ms))
    assert ended(desk, identity) is ErrorCode.NONE
    assert desk.ledger.known(KEY).status is Status.COMPLETE_COMMIT
    assert len(desk.partitions.markers) == 2 * len(HERE)


def test_whoever_coordinates_no_more_says_so_and_forgets() -> None:
    desk = Desk()
    identity = begun(desk)
    answers: list[ErrorCode] = []
    desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    desk.coordinator.end(KEY, identity, True, answers.append)
    desk.is_ours = False
    desk.coordinator.moved()
    assert answers == [ErrorCode.NOT_COORDINATOR]
    desk.ledger.run()
    assert answers == [ErrorCode.NOT_COORDINATOR, ErrorCode.NONE]
    assert len(desk.coordinator) == 0


def test_requests_for_one_id_wait_for_each_other_within_a_bound() -> None:
    desk = Desk(KafkaTransactions(max_waiting=2))
    identity = begun(desk)
    answers: list[ErrorCode] = []
    for _ in range(4):
        desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    assert answers == [ErrorCode.CONCURRENT_TRANSACTIONS]
    desk.ledger.run()
    assert answers[1:] == [ErrorCode.NONE] * 3


def test_there_are_not_more_ids_or_partitions_than_configured() -> None:
    desk = Desk(KafkaTransactions(max_ids=1, max_partitions=1))
    identity = begun(desk)
    answers: list[Any] = []
    desk.coordinator.initialize("txn/default/b", None, 60_000, answers.append)
    desk.coordinator.join(KEY, identity, HERE, NOBODY, answers.append)
    desk.ledger.run()
    assert answers == [ErrorCode.THROTTLING_QUOTA_EXCEEDED, ErrorCode.POLICY_VIOLATION]
    assert len(desk.coordinator) == 1


def test_ids_that_are_only_asked_for_take_no_room() -> None:
    desk = Desk()
    answers: list[ErrorCode] = []
    for number in range(50):
        desk.coordinator.end(f"txn/default/{number}", Identity(1, 0), True, answers.append)
    desk.ledger.run()
    assert answers == [ErrorCode.INVALID_PRODUCER_ID_MAPPING] * 50
    assert len(desk.coordinator) == 0


def test_a_partition_that_has_forgotten_the_transaction_hears_of_it_again() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    desk.partitions.openings.clear()
    answers: list[Any] = []
    one = frozenset({Partition(b"t", 1)})
    desk.coordinator.check(KEY, identity, one, NOBODY, answers.append)
    desk.ledger.run()
    assert [each.partition for each in desk.partitions.openings] == list(one)
    assert answers == [desk.ledger.known(KEY)]
    other = frozenset({Partition(b"u", 0)})
    desk.coordinator.check(KEY, identity, other, NOBODY, answers.append)
    desk.ledger.run()
    assert answers[1:] == [ErrorCode.INVALID_TXN_STATE]


def test_an_open_transaction_is_aborted_before_another_producer_begins() -> None:
    desk = Desk()
    identity = begun(desk)
    joined(desk, identity)
    answers: list[Any] = []
    desk.coordinator.initialize(KEY, None, 60_000, answers.append)
    desk.ledger.run()
    assert answers == [ErrorCode.CONCURRENT_TRANSACTIONS]
    assert not any(each.is_committed for each in desk.partitions.markers)
    later = begun(desk)
    assert later == (identity.producer_id, identity.epoch + 2)


def test_ids_come_in_blocks_and_a_block_is_asked_for_once() -> None:
    desk = Desk()
    answers: list[Any] = []
    for _ in range(15):
        desk.ids.take(answers.append)
    assert len(desk.ledger.calls) == 1
    desk.ledger.run()
    assert answers == list(range(1_000, 1_015))
    desk.ledger.fault = GONE
    for _ in range(6):
        desk.ids.take(answers.append)
    desk.ledger.run()
    assert answers[15:] == [*range(1_015, 1_020), GONE]


def test_pages_are_read_some_at_a_time() -> None:
    desk = Desk(KafkaTransactions(load_at_once=3, max_ids=5))
    for number in range(30):
        desk.ledger.put(f"txn/default/{number}", Transaction(number, 0, updated_ms=desk.now_ms))
    desk.coordinator.moved()
    desk.ledger.run(1)
    assert len(desk.ledger.calls) == 3
    desk.ledger.run()
    # No more than twice as many as new ones may be: others are read when somebody asks.
    assert len(desk.coordinator) == 10
