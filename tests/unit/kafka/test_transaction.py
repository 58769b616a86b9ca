"""The transaction: which request leads where, and what is refused (KIP-98, KIP-360)."""

from typing import Any

import msgspec
import pytest

from robustmq.broker.partition_api import Marker, Opening, Partition
from robustmq.errors import Corrupt
from robustmq.kafka import transaction
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.transaction import LAST_EPOCH, Identity, Status, Transaction

HERE = frozenset({Partition(b"t", 0)})
BOTH = frozenset({Partition(b"t", 0), Partition(b"t", 1)})
NOBODY = frozenset[Any]()
NEW = Transaction(producer_id=5, epoch=3, timeout_ms=60_000, updated_ms=100)
OPEN = msgspec.structs.replace(NEW, status=Status.ONGOING, partitions=HERE, started_ms=200)
ENDS = (Status.PREPARE_COMMIT, Status.PREPARE_ABORT)


def at(status: Status) -> Transaction:
    return msgspec.structs.replace(OPEN, status=status)


def test_a_new_id_begins_with_a_new_producer() -> None:
    assert transaction.needs_id(None, None)
    known = transaction.initialized(None, None, 1_000, 7, 42)
    assert isinstance(known, Transaction)
    assert known.identity == (42, 0)
    assert known.status is Status.EMPTY
    assert (known.timeout_ms, known.updated_ms) == (1_000, 7)


def test_a_new_id_may_expect_anything() -> None:
    # @platformatic/kafka says that it is producer 0 of epoch 0.
    known = transaction.initialized(None, Identity(0, 0), 1_000, 7, 42)
    assert isinstance(known, Transaction)
    assert known.identity == (42, 0)


@pytest.mark.parametrize("status", [Status.EMPTY, Status.COMPLETE_COMMIT, Status.COMPLETE_ABORT])
def test_who_begins_again_fences_who_was_before(status: Status) -> None:
    known = transaction.initialized(at(status), None, 1_000, 7)
    assert isinstance(known, Transaction)
    assert known.identity == (5, 4)
    assert known.last_epoch == -1
    assert transaction.joined(known, Identity(5, 3), HERE, NOBODY, 8) is ErrorCode.PRODUCER_FENCED


def test_what_is_open_is_aborted_first() -> None:
    known = transaction.initialized(OPEN, None, 1_000, 7)
    assert isinstance(known, Transaction)
    assert known.status is Status.PREPARE_ABORT
    assert known.identity == (5, 4)
    assert known.partitions == HERE
    assert known.serial == OPEN.serial + 1


@pytest.mark.parametrize("status", ENDS)
def test_nothing_begins_while_an_end_is_told(status: Status) -> None:
    known = at(status)
    identity = known.identity
    assert transaction.initialized(known, None, 1, 7) is ErrorCode.CONCURRENT_TRANSACTIONS
    joined = transaction.joined(known, identity, BOTH, NOBODY, 7)
    assert joined is ErrorCode.CONCURRENT_TRANSACTIONS


def test_a_producer_goes_on_with_the_next_epoch_and_may_ask_twice() -> None:
    known = transaction.initialized(NEW, NEW.identity, 1_000, 7)
    assert isinstance(known, Transaction)
    assert (known.identity, known.last_epoch) == ((5, 4), 3)
    again = transaction.initialized(known, NEW.identity, 1_000, 8)
    assert isinstance(again, Transaction)
    assert again.identity == (5, 4)
    fenced = transaction.initialized(known, Identity(5, 2), 1_000, 8)
    assert fenced is ErrorCode.PRODUCER_FENCED
    stranger = transaction.initialized(known, Identity(6, 4), 1_000, 8)
    assert stranger is ErrorCode.PRODUCER_FENCED


@pytest.mark.parametrize("expected", [None, Identity(5, LAST_EPOCH)])
def test_a_spent_producer_id_is_replaced(expected: Identity | None) -> None:
    spent = msgspec.structs.replace(NEW, epoch=LAST_EPOCH)
    assert transaction.needs_id(spent, expected)
    known = transaction.initialized(spent, expected, 1_000, 7, 42)
    assert isinstance(known, Transaction)
    assert (known.identity, known.last_producer_id) == ((42, 0), 5)
    again = transaction.initialized(known, Identity(5, LAST_EPOCH), 1_000, 8)
    if expected is None:
        assert again is ErrorCode.PRODUCER_FENCED
    else:
        assert isinstance(again, Transaction)
        assert again.identity == (42, 0)


def test_the_last_epoch_can_still_be_fenced() -> None:
    spent = msgspec.structs.replace(OPEN, epoch=LAST_EPOCH)
    assert not transaction.needs_id(spent, None)
    assert transaction.fenced(spent, 7).epoch == 0x7FFF


def test_partitions_and_groups_join() -> None:
    known = transaction.joined(NEW, NEW.identity, HERE, NOBODY, 7)
    assert isinstance(known, Transaction)
    assert (known.status, known.started_ms) == (Status.ONGOING, 7)
    more = transaction.joined(known, NEW.identity, BOTH, frozenset({"g"}), 9)
    assert isinstance(more, Transaction)
    assert (more.partitions, more.groups, more.started_ms) == (BOTH, frozenset({"g"}), 7)
    assert transaction.joined(more, NEW.identity, HERE, NOBODY, 10) is more
    place = Partition(b"t", 1)
    assert more.openings([place]) == [Opening(place, 5, 3, more.serial + 1)]


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        (Identity(6, 3), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (Identity(5, 2), ErrorCode.PRODUCER_FENCED),
        (Identity(5, 4), ErrorCode.PRODUCER_FENCED),
    ],
)
def test_others_are_refused(identity: Identity, code: ErrorCode) -> None:
    assert transaction.joined(OPEN, identity, HERE, NOBODY, 7) is code
    assert transaction.ended(OPEN, identity, True, 7) is code
    assert transaction.checked(OPEN, identity, HERE, NOBODY) is code


def test_an_id_that_nobody_knows_has_no_producer() -> None:
    identity = Identity(5, 3)
    code = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert transaction.joined(None, identity, HERE, NOBODY, 7) is code
    assert transaction.ended(None, identity, True, 7) is code
    assert transaction.checked(None, identity, HERE, NOBODY) is code


@pytest.mark.parametrize("is_committed", [True, False])
def test_it_ends(is_committed: bool) -> None:
    known = transaction.ended(OPEN, OPEN.identity, is_committed, 7)
    assert isinstance(known, Transaction)
    assert known.status.is_prepared
    assert known.markers() == [Marker(Partition(b"t", 0), 5, 3, is_committed, 1)]
    done = transaction.completed(known, 9)
    assert done.status is (Status.COMPLETE_COMMIT if is_committed else Status.COMPLETE_ABORT)
    assert not done.partitions
    # Its producer may not have heard so.
    again = transaction.ended(known, OPEN.identity, is_committed, 9)
    assert again is ErrorCode.CONCURRENT_TRANSACTIONS
    assert transaction.ended(done, OPEN.identity, is_committed, 9) is done
    for each in (known, done):
        other = transaction.ended(each, OPEN.identity, not is_committed, 9)
        assert other is ErrorCode.INVALID_TXN_STATE


def test_what_has_not_begun_does_not_end() -> None:
    assert transaction.ended(NEW, NEW.identity, True, 7) is ErrorCode.INVALID_TXN_STATE


def test_only_what_is_part_of_an_open_transaction_is() -> None:
    assert transaction.checked(OPEN, OPEN.identity, HERE, NOBODY) is OPEN
    for known, places, groups in (
        (OPEN, BOTH, NOBODY),
        (OPEN, HERE, frozenset({"g"})),
        (at(Status.PREPARE_COMMIT), HERE, NOBODY),
        (NEW, HERE, NOBODY),
    ):
        code = transaction.checked(known, NEW.identity, places, groups)
        assert code is ErrorCode.INVALID_TXN_STATE


def test_deadlines() -> None:
    assert OPEN.deadline_ms(1_000_000) == 60_200
    assert NEW.deadline_ms(1_000_000) == 1_000_100
    assert at(Status.PREPARE_ABORT).deadline_ms(1_000_000) is None


@pytest.mark.parametrize("known", [NEW, OPEN, at(Status.COMPLETE_ABORT)])
def test_a_page_is_read_as_it_was_written(known: Transaction) -> None:
    assert transaction.decode(known.encode()) == known


@pytest.mark.parametrize("page", [b"", b"\xff", OPEN.encode()[:-3]])
def test_what_is_no_page_is_corrupt(page: bytes) -> None:
    with pytest.raises(Corrupt):
        transaction.decode(page)


def test_states_are_called_as_kafka_calls_them() -> None:
    assert [each.title for each in Status] == [
        "Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort",
    ]  # fmt: skip
