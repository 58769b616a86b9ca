"""Batches of transactions whose partition has forgotten that it is part of one."""

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmq.broker.partition_api import Appended, Fault, Partition
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.inner import CheckTransactionRequest, CheckTransactionResponse
from robustmq.kafka.transactional_append import TransactionalAppends

HERE = Partition(b"t", 1)


def batch(number: int) -> bytes:
    return bytes(43) + struct.pack(">qhi", 5, 3, number) + bytes(4)


class Way:
    """A partition that answers when it is let, and a coordinator."""

    def __init__(self) -> None:
        self.appended: list[tuple[bytes, Callable[[Appended], None]]] = []
        self.asked: list[tuple[CheckTransactionRequest, Callable[[object], None]]] = []
        self.answers: list[tuple[int, int]] = []
        self.place: tuple[int, int] | None = (1, 0)
        kafka = SimpleNamespace(
            partitions=SimpleNamespace(
                append=lambda _where, data, reply: self.appended.append((data, reply))
            ),
            coordination=SimpleNamespace(
                ask=lambda *asked: self.asked.append((asked[4], asked[5]))
            ),
            coordinator_of=lambda _key: self.place,
        )
        self.appends = TransactionalAppends(cast("Any", kafka))

    def append(self, number: int) -> None:
        self.appends.append(
            "acme", "a", HERE, batch(number), lambda done: self.answers.append((number, done.fault))
        )

    def answer(self, fault: int, index: int = 0) -> bytes:
        data, reply = self.appended.pop(index)
        reply(Appended(fault))
        return data

    def say(self, code: int) -> None:
        _, reply = self.asked.pop(0)
        reply(CheckTransactionResponse(error_code=code, serial=1))


def test_what_is_known_is_appended_without_a_question() -> None:
    way = Way()
    way.append(0)
    way.answer(0)
    way.append(1)
    way.answer(Fault.FENCED_PRODUCER)
    assert way.answers == [(0, 0), (1, Fault.FENCED_PRODUCER)]
    assert not way.asked


def test_what_the_partition_has_forgotten_is_appended_in_order() -> None:
    way = Way()
    for number in range(3):
        way.append(number)
    way.answer(Fault.INVALID_TRANSACTION)
    way.append(3)
    way.answer(Fault.INVALID_TRANSACTION)
    way.answer(Fault.INVALID_TRANSACTION)
    ((request, _),) = way.asked
    assert (request.transactional_id, request.producer_id, request.producer_epoch) == ("a", 5, 3)
    assert [(each.name, each.partitions) for each in request.topics] == [(b"t", [1])]
    assert not way.appended
    way.say(0)
    assert [way.answer(0) for _ in range(4)] == [batch(number) for number in range(4)]
    assert way.answers == [(number, 0) for number in range(4)]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (ErrorCode.INVALID_TXN_STATE, Fault.INVALID_TRANSACTION),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, Fault.INVALID_TRANSACTION),
        (ErrorCode.PRODUCER_FENCED, Fault.FENCED_PRODUCER),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, Fault.UNAVAILABLE),
        (ErrorCode.CONCURRENT_TRANSACTIONS, Fault.UNAVAILABLE),
    ],
)
def test_what_is_part_of_no_transaction_is_refused(code: ErrorCode, fault: Fault) -> None:
    way = Way()
    way.append(0)
    way.answer(Fault.INVALID_TRANSACTION)
    way.say(code)
    assert way.answers == [(0, fault)]
    way.append(1)
    assert len(way.appended) == 1


def test_a_partition_that_forgets_again_is_tried_again_by_the_producer() -> None:
    way = Way()
    way.append(0)
    way.answer(Fault.INVALID_TRANSACTION)
    way.say(0)
    way.answer(Fault.INVALID_TRANSACTION)
    assert way.answers == [(0, Fault.UNAVAILABLE)]


def test_without_a_coordinator_the_producer_tries_again() -> None:
    way = Way()
    way.append(0)
    way.answer(Fault.INVALID_TRANSACTION)
    _, reply = way.asked.pop()
    reply(None)
    way.place = None
    way.append(1)
    way.answer(Fault.INVALID_TRANSACTION)
    assert way.answers == [(0, Fault.UNAVAILABLE), (1, Fault.UNAVAILABLE)]


def test_what_is_no_batch_is_refused_by_the_partition() -> None:
    way = Way()
    way.appends.append("acme", "a", HERE, b"", lambda done: way.answers.append((0, done.fault)))
    way.answer(Fault.CORRUPT)
    assert way.answers == [(0, Fault.CORRUPT)]
