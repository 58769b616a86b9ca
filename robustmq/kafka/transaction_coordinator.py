"""The coordinator of transactions on one core: it decides, keeps it, and then says so.

What is decided of a transactional id is written into its page in the ledger first. When a page
says that the end of a transaction is decided, all who take part are told until all have heard,
and the page says that it is complete. A coordinator that starts reads the pages that are its own,
and goes on there: it finishes what is decided, and aborts what is open for too long.

Requests for one transactional id wait for each other. Of two cores that take themselves for the
coordinator the ledger refuses one, which reads the page anew.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq.broker.api import Timer
from robustmq.broker.ledger_api import Page
from robustmq.broker.partition_api import Fault, Partition
from robustmq.errors import Refused
from robustmq.kafka import transaction
from robustmq.kafka.errors import ErrorCode, coordinator_error
from robustmq.kafka.producer_ids import ProducerIds
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.transaction import Identity, Status, Transaction
from robustmq.kafka.transaction_end import Ending, Settle

_COMPLETED: Final = {
    Status.COMPLETE_COMMIT: metrics.KAFKA_TRANSACTIONS_COMMITTED,
    Status.COMPLETE_ABORT: metrics.KAFKA_TRANSACTIONS_ABORTED,
}

PREFIX: Final = "txn/"
"""What the keys of all pages begin with (`coordinator_keys.transaction_key`)."""


class _Request(NamedTuple):
    """Something that is to be done with a transaction, or the error why it cannot be done now."""

    run: Callable[["_Case"], None]
    refuse: Callable[[ErrorCode], None]


class _Case:
    """A transactional id as this core knows it: its page, and what is under way."""

    __slots__ = (
        "ending",
        "failures",
        "is_busy",
        "is_fresh",
        "is_loaded",
        "key",
        "known",
        "timer",
        "version",
        "waiting",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.known: Transaction | None = None
        self.version = 0
        self.is_loaded = False
        self.is_fresh = False
        self.is_busy = False
        self.waiting: deque[_Request] = deque()
        self.ending: Ending | None = None
        self.timer: Timer | None = None
        self.failures = 0

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.key.removeprefix(PREFIX).partition("/")[0]

    def stop(self) -> None:
        """Nothing is done with it by itself any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.forget_ending()

    def forget_ending(self) -> None:
        """Nobody is told of its end any more: it is complete, or not known."""
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None


class TransactionCoordinator:
    """Every call is answered once; keys are those of `coordinator_keys.transaction_key`."""

    def __init__(self, kafka: Kafka, ids: ProducerIds, settle: Settle) -> None:
        self._kafka = kafka
        self._ids = ids
        self._settle = settle
        self._settings = kafka.settings.transactions
        self._cases: dict[str, _Case] = {}
        self._unread: deque[str] = deque()
        self._reading = 0
        self._is_asking = False
        self._round = 0
        self._failures = 0

    def __len__(self) -> int:
        return len(self._cases)

    def initialize(
        self,
        key: str,
        expected: Identity | None,
        timeout_ms: int,
        reply: Callable[[Identity | ErrorCode], None],
    ) -> None:
        """A producer begins, or goes on (`transaction.initialized`)."""
        ids: list[int] = []

        def decide(known: Transaction | None) -> Transaction | ErrorCode:
            fresh = ids[0] if ids else transaction.NO_PRODUCER
            return transaction.initialized(known, expected, timeout_ms, self._kafka.now_ms, fresh)

        def run(case: _Case) -> None:
            if case.known is None and len(self._cases) > self._settings.max_ids:
                reply(ErrorCode.THROTTLING_QUOTA_EXCEEDED)
            elif not ids and transaction.needs_id(case.known, expected):
                case.is_busy = True
                self._ids.take(partial(with_id, case))
            else:
                self._decide(case, decide, begun, reply)

        def with_id(case: _Case, fresh: int | Refused) -> None:
            case.is_busy = False
            if isinstance(fresh, Refused):
                reply(coordinator_error(fresh.code))
            else:
                ids.append(fresh)
                case.waiting.appendleft(_Request(run, reply))
            self._advance(case)

        def begun(known: Transaction) -> None:
            # An open transaction is aborted first: its producer asks again.
            is_open = known.status.is_prepared
            reply(ErrorCode.CONCURRENT_TRANSACTIONS if is_open else known.identity)

        self._ask(key, _Request(run, reply))

    def join(
        self,
        key: str,
        identity: Identity,
        partitions: frozenset[Partition],
        groups: frozenset[str],
        reply: Callable[[ErrorCode], None],
    ) -> None:
        """Partitions and groups become part of a transaction; partitions hear of it."""

        def decide(known: Transaction | None) -> Transaction | ErrorCode:
            joined = transaction.joined(known, identity, partitions, groups, self._kafka.now_ms)
            if isinstance(joined, ErrorCode):
                return joined
            count = len(joined.partitions) + len(joined.groups)
            return joined if count <= self._settings.max_partitions else ErrorCode.POLICY_VIOLATION

        def then(known: Transaction) -> None:
            self._begin(known, partitions, reply)

        self._ask(key, _Request(lambda case: self._decide(case, decide, then, reply), reply))

    def check(
        self,
        key: str,
        identity: Identity,
        partitions: frozenset[Partition],
        groups: frozenset[str],
        reply: Callable[[Transaction | ErrorCode], None],
    ) -> None:
        """Say whether all these are part of it; a partition that has forgotten it hears of it."""

        def decide(known: Transaction | None) -> Transaction | ErrorCode:
            return transaction.checked(known, identity, partitions, groups)

        def then(known: Transaction) -> None:
            self._begin(known, partitions, lambda code: reply(code or known))

        self._ask(key, _Request(lambda case: self._decide(case, decide, then, reply), reply))

    def end(
        self, key: str, identity: Identity, is_committed: bool, reply: Callable[[ErrorCode], None]
    ) -> None:
        """Its producer ends it; answered when that is decided for ever."""

        def decide(known: Transaction | None) -> Transaction | ErrorCode:
            return transaction.ended(known, identity, is_committed, self._kafka.now_ms)

        def then(_known: Transaction) -> None:
            reply(ErrorCode.NONE)

        self._ask(key, _Request(lambda case: self._decide(case, decide, then, reply), reply))

    def moved(self) -> None:
        """The core starts, or nodes and cores have come or gone: see which ids are its own now.

        Their pages are read, and read once more a little later: whoever coordinated before may not
        have heard yet that it does not, and write another one.
        """
        for case in list(self._cases.values()):
            if not self._kafka.coordinates(case.key):
                waiting, case.waiting = case.waiting, deque()
                for request in waiting:
                    request.refuse(ErrorCode.NOT_COORDINATOR)
                self._advance(case)
        self._round += 1
        self._list(self._round)
        self._list_later(self._settings.look_again_ms)

    def _list_later(self, after_ms: int) -> None:
        self._kafka.at(self._kafka.now_ms + after_ms, partial(self._list, self._round))

    def _wait_ms(self, failures: int) -> int:
        """How long to wait for a ledger that has refused so many times."""
        return min(self._settings.retry_ms << min(failures, 16), self._settings.max_retry_ms)

    def _list(self, number: int) -> None:
        if number == self._round:
            self._kafka.ledger.keys(PREFIX, partial(self._listed, number))

    def _listed(self, number: int, keys: Sequence[str] | Refused) -> None:
        if number != self._round:
            return
        if isinstance(keys, Refused):
            self._failures += 1
            self._list_later(self._wait_ms(self._failures))
            return
        self._failures = 0
        self._unread = deque(key for key in keys if self._kafka.coordinates(key))
        self._read_on()

    def _read_on(self) -> None:
        if self._is_asking:
            return
        self._is_asking = True
        request = _Request(self._was_read, self._was_read)
        while self._unread and self._reading < self._settings.load_at_once:
            self._reading += 1
            key = self._unread.popleft()
            self._ask(key, _Request(partial(_look_anew, request), request.refuse))
        self._is_asking = False

    def _was_read(self, _: object) -> None:
        # One that cannot be read is tried again by itself (`_rest`).
        self._reading -= 1
        self._read_on()

    def _ask(self, key: str, request: _Request) -> None:
        case = self._cases.get(key)
        if case is None:
            if len(self._cases) >= 2 * self._settings.max_ids:
                request.refuse(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
                return
            case = self._cases[key] = _Case(key)
        if len(case.waiting) >= self._settings.max_waiting:
            request.refuse(ErrorCode.CONCURRENT_TRANSACTIONS)
            return
        case.waiting.append(request)
        self._advance(case)

    def _advance(self, case: _Case) -> None:
        """Do what waits, one after another; then what is to be done by itself."""
        while case.waiting and not case.is_busy:
            if not case.is_loaded:
                case.is_busy = True
                self._kafka.ledger.read(case.key, partial(self._loaded, case))
                continue
            case.waiting.popleft().run(case)
            case.is_fresh = False
        if not case.is_busy:
            self._rest(case)

    def _loaded(self, case: _Case, page: Page | Refused) -> None:
        case.is_busy = False
        if isinstance(page, Refused):
            waiting, case.waiting = case.waiting, deque()
            self._rest(case)
            for request in waiting:
                request.refuse(coordinator_error(page.code))
            return
        if page.version != case.version:
            case.forget_ending()
        case.is_loaded = case.is_fresh = True
        case.failures = 0
        case.version = page.version
        case.known = None if page.value is None else transaction.decode(page.value)
        self._advance(case)

    def _rest(self, case: _Case) -> None:
        """Nothing waits: tell of an end that is decided, or wait for what is due."""
        if not self._kafka.coordinates(case.key):
            self._drop(case)
        elif not case.is_loaded:
            # What is under way is not known: the page is read again with the next request, or
            # a little later, as the end of a transaction may be decided there.
            case.failures += 1
            self._wake(case, self._kafka.now_ms + self._wait_ms(case.failures))
        elif case.known is None:
            self._drop(case)
        elif case.known.status.is_prepared:
            if case.ending is None:
                done = partial(self._finish, case)
                case.ending = Ending(self._kafka, self._settle, case.tenant, case.known, done)
                case.ending.send()
        else:
            deadline_ms = case.known.deadline_ms(self._settings.id_expiration_ms)
            assert deadline_ms is not None, "only the end of a transaction has no time"
            self._wake(case, deadline_ms)

    def _wake(self, case: _Case, when_ms: int) -> None:
        """Look at it by itself, if nothing comes before; what is set for earlier may ring first."""
        if case.timer is not None:
            if case.timer.when_ms <= when_ms:
                return
            case.timer.cancel()

        def ring() -> None:
            case.timer = None
            case.waiting.append(_Request(self._look, lambda _code: None))
            self._advance(case)

        case.timer = self._kafka.at(when_ms, ring)

    def _look(self, case: _Case) -> None:
        """Abort what is open for too long; forget an id that nobody has used."""
        known, now_ms = case.known, self._kafka.now_ms
        if known is None:
            return
        deadline_ms = known.deadline_ms(self._settings.id_expiration_ms)
        if deadline_ms is None or now_ms < deadline_ms:
            return
        if known.status is Status.ONGOING:
            self._kafka.broker.turn.row[metrics.KAFKA_TRANSACTIONS_EXPIRED] += 1
            after: Transaction | None = transaction.fenced(known, now_ms)
        else:
            after = None
        self._write(case, after, lambda: None, lambda _code: None)

    def _finish(self, case: _Case) -> None:
        """All have heard of the end of the transaction."""

        def run(case: _Case) -> None:
            known = case.known
            if known is not None and known.status.is_prepared:
                after = transaction.completed(known, self._kafka.now_ms)
                cell = _COMPLETED[after.status]
                row = self._kafka.broker.turn.row

                def count() -> None:
                    row[cell] += 1

                self._write(case, after, count, lambda _code: None)

        # If it cannot be done now all are told again, and it is asked for again.
        case.waiting.append(_Request(run, lambda _code: case.forget_ending()))
        self._advance(case)

    def _decide(
        self,
        case: _Case,
        decide: Callable[[Transaction | None], Transaction | ErrorCode],
        then: Callable[[Transaction], None],
        refuse: Callable[[ErrorCode], None],
    ) -> None:
        """Write what is decided. What changes nothing is decided by a page that was just read.

        A core that does not know yet that another one coordinates is refused when it writes; but
        it must not say either that a transaction has ended, or is not there, as it last was.
        """
        outcome = decide(case.known)
        if outcome is ErrorCode.CONCURRENT_TRANSACTIONS:
            refuse(outcome)
        elif isinstance(outcome, Transaction) and outcome is not case.known:
            self._write(case, outcome, partial(then, outcome), refuse)
        elif not case.is_fresh:
            again = partial(self._decide, decide=decide, then=then, refuse=refuse)
            _look_anew(_Request(again, refuse), case)
        elif isinstance(outcome, ErrorCode):
            refuse(outcome)
        else:
            then(outcome)

    def _write(
        self,
        case: _Case,
        known: Transaction | None,
        done: Callable[[], None],
        refuse: Callable[[ErrorCode], None],
    ) -> None:
        """Write the page; then it is so, and `done` is called."""
        case.is_busy = True
        value = None if known is None else known.encode()

        def written(version: int | Refused) -> None:
            case.is_busy = False
            case.forget_ending()
            if isinstance(version, Refused):
                # Whether it was written is not known, or somebody else has.
                case.is_loaded = False
                refuse(coordinator_error(version.code))
            else:
                case.version, case.known = version, known
                done()
            self._advance(case)

        self._kafka.ledger.write(case.key, value, case.version, written)

    def _begin(
        self,
        known: Transaction,
        partitions: Iterable[Partition],
        reply: Callable[[ErrorCode], None],
    ) -> None:
        """Tell partitions that they are part of it; one that cannot hear it asks (`check`)."""
        openings = known.openings(partitions)
        if openings:
            self._kafka.partitions.begin(openings, lambda faults: reply(_worst(faults)))
        else:
            reply(ErrorCode.NONE)

    def _drop(self, case: _Case) -> None:
        case.stop()
        if self._cases.get(case.key) is case:
            del self._cases[case.key]


def _look_anew(request: _Request, case: _Case) -> None:
    """Read the page, unless that was just done, and go on with the request."""
    if case.is_fresh:
        request.run(case)
    else:
        case.is_loaded = False
        case.waiting.appendleft(request)


def _worst(faults: Sequence[int]) -> ErrorCode:
    """Say whether partitions take part; those that are not there now will ask."""
    return ErrorCode.PRODUCER_FENCED if Fault.FENCED_PRODUCER in faults else ErrorCode.NONE
