"""Every fault and refusal has a code, and those that pass have one that clients try again."""

import pytest

from robustmq.broker.partition_api import Fault
from robustmq.errors import Refusal
from robustmq.kafka.errors import (
    ErrorCode,
    coordinator_error,
    read_error,
    refusal_error,
    write_error,
)


def test_no_fault_is_no_error() -> None:
    assert read_error(0) == write_error(0) == ErrorCode.NONE


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_an_error_of_its_own(fault: Fault) -> None:
    unknown = fault is Fault.INTERNAL
    assert (write_error(fault) == ErrorCode.UNKNOWN_SERVER_ERROR) == unknown
    assert (read_error(fault) == ErrorCode.UNKNOWN_SERVER_ERROR) == unknown


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_is_an_error_of_its_own(refusal: Refusal) -> None:
    unknown = refusal is Refusal.INTERNAL
    assert (refusal_error(refusal) == ErrorCode.UNKNOWN_SERVER_ERROR) == unknown
    assert (coordinator_error(refusal) == ErrorCode.UNKNOWN_SERVER_ERROR) == unknown


def test_a_lost_core_may_have_written_and_is_looked_for_by_readers() -> None:
    assert write_error(Fault.UNAVAILABLE) == ErrorCode.REQUEST_TIMED_OUT
    assert read_error(Fault.UNAVAILABLE) == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_coordinator_that_was_overtaken_is_none() -> None:
    assert coordinator_error(Refusal.CONFLICT) == ErrorCode.NOT_COORDINATOR
