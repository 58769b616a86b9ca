"""Transactions as administrators see them: read from their pages, wherever they are coordinated."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from robustmq.broker.ledger_api import Page
from robustmq.errors import Refused
from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import transaction_key
from robustmq.kafka.errors import ErrorCode, coordinator_error
from robustmq.kafka.messages.transaction_listing import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    ListedTransactionState,
    ListTransactionsRequest,
    ListTransactionsResponse,
    TopicData,
    TransactionState,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Status, Transaction, decode

_AT_ONCE: Final = 64
"""Pages that are read at the same time for one request."""


class TransactionListing:
    """Answers DescribeTransactions and ListTransactions."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def describe(self, call: Call[DescribeTransactionsRequest]) -> None:
        """DescribeTransactions 0: any core of the node that coordinates an id knows it."""
        tenant = call.principal.tenant
        states = {each: TransactionState(transactional_id=each) for each in _ids_of(call)}
        keys = {}
        for transactional_id, state in states.items():
            state.error_code = self._describable(call, transactional_id)
            if not state.error_code:
                keys[transaction_key(tenant, transactional_id)] = state

        def take(key: str, page: Page | Refused) -> None:
            self._describe(keys[key], page)

        def done() -> None:
            call.answer(DescribeTransactionsResponse(transaction_states=list(states.values())))

        _Reading(self._kafka, list(keys), take, done).go_on()

    def list(self, call: Call[ListTransactionsRequest]) -> None:
        """ListTransactions 0-1: those that this broker coordinates, and the client may see."""
        prefix = transaction_key(call.principal.tenant, "")
        titles = {status.title for status in Status}
        unknown = [each for each in call.request.state_filters if each not in titles]
        answer = ListTransactionsResponse(unknown_state_filters=unknown)

        def take(key: str, page: Page | Refused) -> None:
            if isinstance(page, Refused):
                answer.error_code = coordinator_error(page.code)
            elif page.value is not None:
                self._list(call, answer, key.removeprefix(prefix), decode(page.value))

        def listed(keys: Sequence[str] | Refused) -> None:
            if isinstance(keys, Refused):
                answer.error_code = coordinator_error(keys.code)
                call.answer(answer)
                return
            own = [key for key in keys if self._is_ours(key)]
            _Reading(self._kafka, own, take, lambda: call.answer(answer)).go_on()

        self._kafka.ledger.keys(prefix, listed)

    def _describable(self, call: Call[Any], transactional_id: str) -> ErrorCode:
        if not self._may_see(call, transactional_id):
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        if not transactional_id or "\0" in transactional_id:
            return ErrorCode.INVALID_REQUEST
        is_ours = self._is_ours(transaction_key(call.principal.tenant, transactional_id))
        return ErrorCode.NONE if is_ours else ErrorCode.NOT_COORDINATOR

    def _may_see(self, call: Call[Any], transactional_id: str) -> bool:
        return self._kafka.may(
            call.principal, Operation.DESCRIBE, Resource.TRANSACTIONAL_ID, transactional_id
        )

    def _is_ours(self, key: str) -> bool:
        """Say whether the broker that the client asks coordinates it."""
        place = self._kafka.coordinator_of(key)
        cluster = self._kafka.cluster
        return place is not None and (
            cluster.broker_id(*place) == cluster.broker_id(cluster.node, self._kafka.core)
        )

    def _describe(self, state: TransactionState, page: Page | Refused) -> None:
        if isinstance(page, Refused):
            state.error_code = coordinator_error(page.code)
            return
        if page.value is None:
            state.error_code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
            return
        known = decode(page.value)
        state.transaction_state = known.status.title
        state.transaction_timeout_ms = known.timeout_ms
        state.transaction_start_time_ms = known.started_ms
        state.producer_id, state.producer_epoch = known.identity
        topics: dict[bytes, list[int]] = {}
        for place in sorted(known.partitions):
            topics.setdefault(place.topic, []).append(place.number)
        for name, numbers in topics.items():
            topic = self._kafka.catalog.of(name)
            if topic is not None:
                written = self._kafka.catalog.written(topic)
                state.topics.append(TopicData(topic=written, partitions=numbers))

    def _list(
        self,
        call: Call[ListTransactionsRequest],
        answer: ListTransactionsResponse,
        transactional_id: str,
        known: Transaction,
    ) -> None:
        request = call.request
        age_ms = call.now_ms - known.started_ms if known.started_ms >= 0 else -1
        if request.state_filters and known.status.title not in request.state_filters:
            return
        if request.producer_id_filters and known.producer_id not in request.producer_id_filters:
            return
        if request.duration_filter >= 0 and age_ms <= request.duration_filter:
            return
        if self._may_see(call, transactional_id):
            answer.transaction_states.append(
                ListedTransactionState(
                    transactional_id=transactional_id,
                    producer_id=known.producer_id,
                    transaction_state=known.status.title,
                )
            )


class _Reading:
    """Reads pages, some at a time; `done` is called when `take` has got all of them."""

    def __init__(
        self,
        kafka: Kafka,
        keys: Sequence[str],
        take: Callable[[str, Page | Refused], None],
        done: Callable[[], None],
    ) -> None:
        self._kafka = kafka
        self._left = list(reversed(keys))
        self._awaited = 0
        self._take = take
        self._done = done
        self._is_going = False

    def go_on(self) -> None:
        """Ask for the next ones."""
        if self._is_going:
            return
        self._is_going = True
        while self._left and self._awaited < _AT_ONCE:
            key = self._left.pop()
            self._awaited += 1
            self._kafka.ledger.read(key, partial(self._read, key))
        self._is_going = False
        if not self._left and not self._awaited:
            self._done()

    def _read(self, key: str, page: Page | Refused) -> None:
        self._awaited -= 1
        self._take(key, page)
        self.go_on()


def _ids_of(call: Call[DescribeTransactionsRequest]) -> Sequence[str]:
    return list(dict.fromkeys(call.request.transactional_ids))
