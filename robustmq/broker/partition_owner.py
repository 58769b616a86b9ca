"""The partitions that this core leads: appended to, read, searched, trimmed."""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from robustmq._kernel.turn import Turn
from robustmq.broker.catalog_api import Catalog, Topic
from robustmq.broker.partition_api import (
    EARLIEST,
    LATEST,
    NEWEST,
    Aborted,
    Append,
    Appended,
    EpochEnd,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Read,
    Size,
    Sought,
    Wanted,
)
from robustmq.broker.partition_terms import default_terms, terms_of
from robustmq.broker.topic_log import Nowhere, Parking, TopicLog, Waiting
from robustmq.broker.topic_logs import TopicLogs
from robustmq.errors import Corrupt, Refusal
from robustmq.message.batch import Buffer
from robustmq.policy.topic_rules import log_name, own_log
from robustmq.settings.kafka import KafkaRuntime
from robustmq.shard.fault import Fault
from robustmq.shard.marker import Mark
from robustmq.shard.produced import Produced, Terms, Unfit, checked
from robustmq.shard.search import first_since
from robustmq.storage.log import StoredBatch, Unwritable, located

ANYWAY: Final = -1
"""The epoch of somebody who does not say in which he believes the leader to be."""

_FAULTS: Final = {
    Refusal.QUOTA_EXCEEDED: Fault.FULL,
    Refusal.UNAVAILABLE: Fault.FULL,
    Refusal.BUSY: Fault.BUSY,
    Refusal.TOPIC_INVALID: Fault.UNKNOWN,
}


class _Handle(NamedTuple):
    """What is decided for a partition until the catalog changes."""

    topic: Topic
    log: TopicLog
    terms: Terms
    epoch: int


class PartitionOwner:
    """The owner's side of `partition_api.Partitions`, on the owner's core: it never waits."""

    def __init__(
        self,
        turn: Turn,
        *,
        logs: TopicLogs,
        catalog: Catalog,
        settings: KafkaRuntime,
        core: int,
    ) -> None:
        self._turn = turn
        self._logs = logs
        self._catalog = catalog
        self._defaults = default_terms(settings)
        self._core = core
        self._version = catalog.version
        self._handles: dict[Partition, _Handle] = {}

    # ------------------------------------------------------------------ what it has

    def changed(self, name: bytes, before: Topic | None, after: Topic | None) -> None:
        """A topic is new, other or gone: its logs go, or are kept by other settings."""
        self._handles.clear()
        topic = before or after
        assert topic is not None
        is_gone = before is not None and (after is None or after.id != before.id)
        for number in range(topic.partitions):
            log = self._logs.find(log_name(topic.rule, name, number))
            if log is None:
                continue
            if is_gone:
                self._logs.remove(log)
            elif after is not None:
                self._logs.configure(log, after.rule)

    def moved(self) -> None:
        """Other nodes or cores may lead: who waits for a partition that is not led here looks."""
        for log in self._logs.walk():
            own = own_log(log.name) if log.parked else None
            if own is not None and self._catalog.core_of(Partition(*own)) != self._core:
                log.wake_all()

    def _handle(self, partition: Partition) -> _Handle | Fault:
        """Find what serves a partition, and make its log if there is none yet."""
        if self._version != self._catalog.version:
            self._handles.clear()
            self._version = self._catalog.version
        handle = self._handles.get(partition)
        if handle is not None:
            return handle
        topic = self._catalog.of(partition.topic)
        if topic is None or not 0 <= partition.number < topic.partitions:
            return Fault.UNKNOWN
        leader = self._catalog.leader(partition)
        if leader is None or self._catalog.core_of(partition) != self._core:
            return Fault.NOT_LEADER
        try:
            log = self._log(partition, topic)
        except Unwritable as error:
            return _FAULTS.get(error.refused.code, Fault.INTERNAL)
        if log.shard.begin_epoch(leader.epoch):
            self._logs.list_row(log)
        terms = terms_of(topic.rule, self._defaults)
        handle = self._handles[partition] = _Handle(topic, log, terms, leader.epoch)
        return handle

    def _log(self, partition: Partition, topic: Topic) -> TopicLog:
        name = log_name(topic.rule, partition.topic, partition.number)
        log = self._logs.find(name)
        if log is None:
            return self._logs.make(name, topic.rule)
        self._logs.configure(log, topic.rule)
        return log

    def _at(self, partition: Partition, epoch: int) -> _Handle | Fault:
        """As `_handle`, for somebody who believes the leader to be in `epoch`."""
        handle = self._handle(partition)
        if isinstance(handle, Fault) or epoch in {ANYWAY, handle.epoch}:
            return handle
        return Fault.FENCED_LEADER_EPOCH if epoch < handle.epoch else Fault.UNKNOWN_LEADER_EPOCH

    # ------------------------------------------------------------------ appending

    def append(
        self, partition: Partition, batch: Buffer, done: Callable[[Appended], None] | None
    ) -> None:
        """Append a batch as its producer made it; `done` when it may be acknowledged.

        At once when there is a fault, and when it is a repeat of something that is safe.
        """
        done = done or _nobody
        handle = self._handle(partition)
        if isinstance(handle, Fault):
            done(Appended(handle))
            return
        self._append(handle, batch, done)

    def appender(self, partition: Partition) -> Append | None:
        """As `append` to one partition until the catalog is another; None: it is not led here."""
        handle = self._handle(partition)
        return None if isinstance(handle, Fault) else partial(self._append, handle)

    def _append(self, handle: _Handle, batch: Buffer, done: Callable[[Appended], None]) -> None:
        if handle.topic.is_shared:
            sentence = "the topic stands for what MQTT clients publish: publish it there"
            done(Appended(Fault.INVALID_RECORD, detail=sentence))
            return
        try:
            produced = checked(batch, handle.terms, self._turn.now_ms)
            self._produce(handle.log, produced, done)
        except Unfit as error:
            done(Appended(error.fault, detail=error.detail))
        except Unwritable as error:
            fault = _FAULTS.get(error.refused.code, Fault.INTERNAL)
            done(Appended(fault, detail=error.refused.detail))

    def _produce(self, log: TopicLog, produced: Produced, done: Callable[[Appended], None]) -> None:
        outcome = log.shard.produce(produced, self._turn.now_ms)
        if outcome.fault:
            done(Appended(outcome.fault, start_offset=log.shard.start_offset))
            return
        if not outcome.is_new and outcome.end <= log.high_watermark:
            done(Appended(0, outcome.base_offset, outcome.timestamp_ms, log.shard.start_offset))
            return
        appended = Appended(0, outcome.base_offset, outcome.timestamp_ms, log.shard.start_offset)
        waiting = Waiting(outcome.end, partial(_answer, done, appended), once=False)
        self._logs.appended(log, len(produced.data) if outcome.is_new else 0, waiting)

    def begin(self, opening: Opening) -> int:
        """Take transactional batches of a producer from now on; a Fault or 0."""
        handle = self._handle(opening.partition)
        if isinstance(handle, Fault):
            return handle
        _, producer_id, epoch, coordinator_epoch = opening
        return handle.log.shard.begin(producer_id, epoch, coordinator_epoch)

    def end(self, marker: Marker, done: Callable[[int], None]) -> None:
        """End a transaction; `done` gets 0 when that is durable, or the Fault."""
        handle = self._handle(marker.partition)
        if isinstance(handle, Fault):
            done(handle)
            return
        log = handle.log
        mark = Mark(marker.is_committed, marker.coordinator_epoch)
        try:
            outcome = log.shard.end(
                marker.producer_id, marker.producer_epoch, mark, self._turn.now_ms
            )
        except Unwritable as error:
            done(_FAULTS.get(error.refused.code, Fault.INTERNAL))
            return
        if outcome.fault or (not outcome.is_new and outcome.end <= log.high_watermark):
            done(outcome.fault)
            return
        waiting = Waiting(outcome.end, partial(_tell, done), once=False)
        self._logs.appended(log, int(outcome.is_new), waiting)

    # ------------------------------------------------------------------ reading

    def read(self, wanted: Wanted) -> Read:
        """Read what is there now: nothing when the reader has caught up, see `park`.

        Nothing either while it is fetched from a slow disk: then who is parked is woken too.
        """
        handle = self._at(wanted.partition, wanted.leader_epoch)
        if isinstance(handle, Fault):
            return Read(handle)
        log = handle.log
        shard = log.shard
        reached, stable = log.high_watermark, log.stable_offset
        start = shard.start_offset
        if not start <= wanted.offset <= shard.end_offset:
            return Read(Fault.OUT_OF_RANGE, reached, stable, start, leader_epoch=handle.epoch)
        upper = stable if wanted.is_committed else reached
        batches: list[bytes] = []
        aborted: list[Aborted] = []
        if wanted.offset < upper and wanted.max_bytes > 0:
            found = self._read(log, wanted.offset, wanted.max_bytes, upper)
            batches = [located(each, shard.epochs.at(each.base_offset)) for each in found]
            if found and wanted.is_committed:
                below = found[-1].next_offset
                aborted = [
                    Aborted(each.producer_id, each.first)
                    for each in shard.transactions.aborted(wanted.offset, below)
                ]
        return Read(0, reached, stable, start, batches, aborted, handle.epoch)

    def _read(self, log: TopicLog, offset: int, max_bytes: int, upper: int) -> list[StoredBatch]:
        if not self._logs.is_warm(log, offset, max_bytes):
            return []
        while True:
            try:
                return log.shard.read(offset, max_bytes, upper)
            except Corrupt:
                # It has been moved aside and counted; the next read goes on behind it.
                continue

    def park(self, partition: Partition, is_committed: bool, wake: Callable[[], None]) -> Parking:
        """Wake once when the watermark, or the stable offset, moves, or the partition goes.

        A partition that is not here wakes nobody: a read says why.
        """
        handle = self._handle(partition)
        return Nowhere() if isinstance(handle, Fault) else handle.log.park(is_committed, wake)

    def find(self, sought: Sought) -> Found:
        """Find an offset by time, or where what readers see begins and ends."""
        handle = self._at(sought.partition, sought.leader_epoch)
        if isinstance(handle, Fault):
            return Found(handle)
        log = handle.log
        shard = log.shard
        upper = log.stable_offset if sought.is_committed else log.high_watermark
        if sought.time_ms == LATEST:
            return Found(0, upper, -1, handle.epoch)
        if sought.time_ms == EARLIEST:
            start = shard.start_offset
            return Found(0, start, -1, shard.epochs.at(start))
        time_ms = shard.log.newest_ms if sought.time_ms == NEWEST else sought.time_ms
        found = first_since(shard, time_ms, upper)
        if found is None:
            return Found(0)
        return Found(0, found.offset, found.timestamp_ms, shard.epochs.at(found.offset))

    def epoch_end(self, partition: Partition, current: int, epoch: int) -> EpochEnd:
        """Say where an epoch ended, for somebody who believes the leader to be in `current`."""
        handle = self._at(partition, current)
        if isinstance(handle, Fault):
            return EpochEnd(handle)
        shard = handle.log.shard
        found = shard.epochs.end_of(epoch, shard.end_offset)
        return EpochEnd(0) if found is None else EpochEnd(0, *found)

    def trim(self, partition: Partition, offset: int) -> Found:
        """Forget what lies below an offset (-1: the high watermark); says the new start."""
        handle = self._handle(partition)
        if isinstance(handle, Fault):
            return Found(handle)
        log = handle.log
        reached = log.high_watermark
        target = reached if offset == -1 else offset
        if not 0 <= target <= reached:
            return Found(Fault.OUT_OF_RANGE)
        self._logs.trim(log, target)
        return Found(0, log.shard.start_offset, -1, handle.epoch)

    def producers(self, partition: Partition) -> tuple[int, list[Producing]]:
        """Say who produces to a partition, or the Fault."""
        handle = self._handle(partition)
        if isinstance(handle, Fault):
            return handle, []
        shard = handle.log.shard
        return 0, [
            Producing(
                each.producer_id,
                each.epoch,
                each.last_sequence,
                each.last_ms,
                shard.transactions.open_offset(each.producer_id),
                each.coordinator_epoch,
            )
            for each in shard.producers.standings()
        ]

    def sizes(self) -> list[Size]:
        """Say how large the logs of partitions are that this core has."""
        found = []
        for log in self._logs.walk():
            own = own_log(log.name)
            if own is not None and self._catalog.of(own.topic) is not None:
                found.append(Size(Partition(*own), log.shard.log.size_bytes))
        return found


def _answer(done: Callable[[Appended], None], appended: Appended, code: int) -> None:
    """Say what became of a batch, once it is safe, or the disk has refused it (`code`)."""
    done(Appended(_FAULTS.get(Refusal(code), Fault.INTERNAL)) if code else appended)


def _tell(done: Callable[[int], None], code: int) -> None:
    done(_FAULTS.get(Refusal(code), Fault.INTERNAL) if code else 0)


def _nobody(appended: Appended) -> None:
    """Nobody wants to know (acks=0)."""
