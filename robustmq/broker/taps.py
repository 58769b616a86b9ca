"""Taps: what clients of Kafka append to a topic's log is given to MQTT's subscribers of the topic.

A tap is a cursor on the owner's core, behind the last stable offset: it hands on what committed
transactions and plain producers have appended, and passes over what cores of the cluster have,
whose subscribers have it from its publisher's core. A partition has one while somebody subscribes
to its topic; one that has caught up costs nothing until the next append. What it has handed on is
confirmed as that of any publisher; what is refused is handed on again: at least once.

Rows: `G` topic NUL number -> the offset below which all is confirmed. It is durable before anybody
hears that something beyond it is appended, so that a restart goes on from there.
"""

import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.catalog_api import Topic
from robustmq.broker.interests import Interests
from robustmq.broker.partition_api import (
    LATEST,
    Aborted,
    Appended,
    Fault,
    Found,
    Partition,
    Read,
    Sought,
    Wanted,
)
from robustmq.broker.partition_reads import Parked, next_offset
from robustmq.broker.router import Router
from robustmq.broker.state import State
from robustmq.broker.timers import Timers
from robustmq.errors import Corrupt
from robustmq.message.compression import decompressed
from robustmq.message.crossing import from_log
from robustmq.message.tenancy import local
from robustmq.shard.producer_state import is_own

_ROW: Final = b"G"
_ROWS_END: Final = b"H"
_OFFSET: Final = struct.Struct(">Q")
_HEAD: Final = struct.Struct(">q13xh12xqq")
"""Base offset, attributes, newest timestamp, producer id."""
_STAMPED: Final = 0b001000
_TRANSACTIONAL: Final = 0b010000
_CONTROL: Final = 0b100000
_ABORT: Final = b"\0\0"
_ANY_SIZE: Final = 0xFFFFFFFF
_TAPS_PER_TURN: Final = 8

Done = Callable[[Appended], None]


class Source(Protocol):
    """The partitions of this core."""

    def read(self, wanted: Wanted) -> Read:
        """Read what there is now."""

    def park(self, partition: Partition, is_committed: bool, wake: Callable[[], None]) -> Parked:
        """Call `wake` once when there may be more of a partition, or a fault."""

    def find(self, sought: Sought) -> Found:
        """Look for an offset."""


class _Message(NamedTuple):
    """A record for MQTT: what is behind it, and what it is."""

    next_offset: int
    value: bytes
    headers: bytes
    timestamp: int


class _Handed:
    """What was handed on together, from one offset up to another."""

    __slots__ = ("is_done", "start", "stop")

    def __init__(self, start: int, stop: int, is_done: bool) -> None:
        self.start = start
        self.stop = stop
        self.is_done = is_done


class _Tap:
    """One cursor. `coming` batches are appended and not safe; `pending` is left of a page.

    `is_idle`: nothing of Kafka lies beyond `position`. `waiting` hear when its row is durable;
    None: it is.
    """

    __slots__ = (
        "coming", "handed", "is_closed", "is_idle", "parked", "partition", "pending", "position",
        "waiting",
    )  # fmt: skip

    def __init__(self, partition: Partition, position: int) -> None:
        self.partition = partition
        self.position = position
        self.coming = 0
        self.handed: deque[_Handed] = deque()
        self.pending: Iterator[_Message] | None = None
        self.parked: Parked | None = None
        self.is_idle = False
        self.is_closed = False
        self.waiting: list[tuple[Done, Appended]] | None = None

    @property
    def key(self) -> bytes:
        """The key of its row."""
        return b"%b%b\0%d" % (_ROW, *self.partition)


class Taps:
    """The taps of one core.

    Messages go out with `qos`, in batches of about `max_batch_bytes`; a batch of records may take
    `max_records_bytes` when it is decompressed. What was refused is tried again after `retry_ms`.
    """

    def __init__(
        self,
        turn: Turn,
        state: State,
        *,
        router: Router,
        interests: Interests,
        qos: int,
        max_batch_bytes: int,
        max_records_bytes: int,
        retry_ms: int,
    ) -> None:
        self._turn = turn
        self._state = state
        self._router = router
        self._interests = interests
        self._qos = qos
        self._max_batch_bytes = max_batch_bytes
        self._max_records_bytes = max_records_bytes
        self._retry_ms = retry_ms
        self._taps: dict[Partition, _Tap] = {}
        self._ready: dict[_Tap, None] = {}
        self._scratch = Turn(array("Q", bytes(8 * metrics.CELLS)))
        self._builder = BatchBuilder(self._scratch, 0, _ANY_SIZE, None)
        self.timers: Timers
        self.source: Source
        """The partitions; to be set before anything is appended, and before `restore`."""

    def restore(self) -> None:
        """After a restart: go on with what is not confirmed."""
        for key, value in list(self._state.walk(_ROW, _ROWS_END)):
            topic, _, number = key[1:].rpartition(b"\0")
            tap = _Tap(Partition(topic, int(number)), _OFFSET.unpack(value)[0])
            self._taps[tap.partition] = tap
            self._ready[tap] = None

    # ------------------------------------------------------------------ what is appended

    def appending(self, partition: Partition, done: Done) -> Done:
        """A batch of Kafka is about to be appended: returns who is to hear when it is safe."""
        tap = self._taps.get(partition)
        if tap is None or tap.is_idle:
            tap = self._begin(partition, tap)
            if tap is None:
                return done
        tap.coming += 1
        return partial(self._appended, tap, done)

    def _begin(self, partition: Partition, tap: _Tap | None) -> _Tap | None:
        """Have a tap stand at the end, if somebody wants what comes."""
        if not self._is_wanted(partition.topic):
            if tap is not None:
                self._close(tap)
            return None
        found = self.source.find(Sought(partition, LATEST))
        if found.fault:
            return tap
        if tap is None:
            tap = self._taps[partition] = _Tap(partition, found.offset)
            tap.waiting = []
            self._put(tap)
            self._state.then(partial(self._listed, tap))
        elif not tap.handed:
            tap.position = max(tap.position, found.offset)
        tap.is_idle = False
        return tap

    def _is_wanted(self, topic: bytes) -> bool:
        # Who has only begun does not know, and must not miss anything.
        return self._router.is_held or self._interests.wants(topic)

    def _appended(self, tap: _Tap, done: Done, outcome: Appended) -> None:
        tap.coming -= 1
        if not tap.is_closed:
            self._ready[tap] = None
        if tap.waiting is None or outcome.fault:
            done(outcome)
        else:
            tap.waiting.append((done, outcome))

    def _listed(self, tap: _Tap) -> None:
        waiting, tap.waiting = tap.waiting, None
        for done, outcome in waiting or ():
            done(outcome)

    def changed(self, name: bytes, before: Topic | None, after: Topic | None) -> None:
        """A topic is new, other or gone (`Catalog.changed`): another one begins anew."""
        if before is not None and (after is None or after.id != before.id):
            for partition in [each for each in self._taps if each.topic == name]:
                self._close(self._taps[partition])

    def _close(self, tap: _Tap) -> None:
        tap.is_closed = True
        self._ready.pop(tap, None)
        del self._taps[tap.partition]
        self._state.delete(tap.key)
        if tap.parked is not None:
            tap.parked.cancel()

    # ------------------------------------------------------------------ handing on

    @property
    def busy(self) -> bool:
        """Whether there is something to hand on, and those who take it may be given it."""
        return bool(self._ready) and not (self._router.blocked or self._router.is_held)

    def run(self) -> None:
        """Hand on what is readable, of several topics in turn, while there is room for it."""
        if not self._ready:
            return
        for tap in list(islice(self._ready, _TAPS_PER_TURN)):
            if not self.busy:
                return
            del self._ready[tap]
            if not self._interests.wants(tap.partition.topic):
                self._close(tap)
            elif tap.pending is not None or self._read(tap):
                self._hand_on(tap)
                self._ready[tap] = None

    def _read(self, tap: _Tap) -> bool:
        """Read a page; says whether there was anything."""
        wanted = Wanted(tap.partition, tap.position, self._max_batch_bytes, is_committed=True)
        read = self.source.read(wanted)
        if read.fault == Fault.OUT_OF_RANGE:
            # Retention was quicker, or the log is not the one that the row was written for.
            tap.position = read.start_offset if tap.position < read.start_offset else 0
            tap.position = max(tap.position, read.start_offset)
            self._ready[tap] = None
            return False
        if read.fault:
            self._later(tap)
            return False
        if read.batches:
            tap.pending = self._messages(tap, read.batches, read.aborted)
            return True
        if tap.position < read.high_watermark:
            tap.parked = self.source.park(tap.partition, True, partial(self._wake, tap))
        else:
            tap.is_idle = not tap.coming
        return False

    def _wake(self, tap: _Tap) -> None:
        tap.parked = None
        if not tap.is_closed:
            self._ready[tap] = None

    def _later(self, tap: _Tap) -> None:
        self.timers.at(self._turn.now_ms + self._retry_ms, partial(self._wake, tap))

    def _hand_on(self, tap: _Tap) -> None:
        """Hand on a batch of what is pending; all of it is passed when nobody waits for it."""
        assert tap.pending is not None
        builder, topic, start = self._builder, tap.partition.topic, tap.position
        for message in tap.pending:
            tap.position = message.next_offset
            builder.append(topic, message.value, message.headers, self._qos, message.timestamp)
            if builder.size >= self._max_batch_bytes:
                break
        else:
            tap.pending = None
        handed = _Handed(start, tap.position, not builder.count)
        tap.handed.append(handed)
        if builder.count:
            self._turn.row[metrics.KAFKA_TO_MQTT] += builder.count
            builder.expect(partial(self._confirmed, tap, handed), 0)
            batch, acks = builder.take()
            self._scratch.builders.clear()
            self._router.hand_on(batch, acks, self._qos)
        else:
            self._settle(tap)

    def _confirmed(self, tap: _Tap, handed: _Handed, code: int, matched: bool) -> None:
        del matched
        if tap.is_closed or handed not in tap.handed:
            return
        if code:
            # All from there on once more, in its order.
            tap.position = tap.handed[0].start
            tap.handed.clear()
            tap.pending = None
            tap.is_idle = False
            self._ready.pop(tap, None)
            self._later(tap)
        else:
            handed.is_done = True
            self._settle(tap)

    def _settle(self, tap: _Tap) -> None:
        """Write how far all is confirmed."""
        handed = tap.handed
        stop = -1
        while handed and handed[0].is_done:
            stop = handed.popleft().stop
        if stop >= 0:
            self._state.put(tap.key, _OFFSET.pack(stop))

    def _put(self, tap: _Tap) -> None:
        self._state.put(tap.key, _OFFSET.pack(tap.position))

    # ------------------------------------------------------------------ reading batches

    def _messages(
        self, tap: _Tap, batches: Sequence[bytes], aborted: Sequence[Aborted]
    ) -> Iterator[_Message]:
        """Yield what MQTT has of these batches, and leave the tap behind the last of them."""
        begin = tap.position
        ahead = deque(sorted(aborted, key=lambda each: each.first_offset))
        void: set[int] = set()
        for batch in batches:
            _, attributes, newest_ms, producer_id = _HEAD.unpack_from(batch)
            stop = next_offset(batch)
            while ahead and ahead[0].first_offset < stop:
                void.add(ahead.popleft().producer_id)
            if attributes & _CONTROL:
                if _is_abort(batch):
                    void.discard(producer_id)
            elif not is_own(producer_id) and not (
                attributes & _TRANSACTIONAL and producer_id in void
            ):
                stamp = newest_ms if attributes & _STAMPED else None
                yield from self._of_batch(batch, begin, stamp, tap.partition.topic)
            tap.position = stop

    def _of_batch(
        self, batch: bytes, begin: int, stamp: int | None, topic: bytes
    ) -> Iterator[_Message]:
        cells, now_ms, written = self._turn.row, self._turn.now_ms, local(topic)
        try:
            plain = decompressed(batch, self._max_records_bytes)
            for _, timestamp, offset, key, value, headers in records(plain):
                if offset < begin:
                    continue
                time_ms = timestamp if stamp is None else stamp
                if time_ms < 0:
                    time_ms = now_ms
                payload = value or b""
                found = from_log(written, key, payload, headers, time_ms)
                if found.deadline and found.deadline <= now_ms:
                    cells[metrics.MESSAGES_DROPPED_EXPIRED] += 1
                else:
                    yield _Message(offset + 1, payload, found.headers, time_ms)
        except Corrupt:
            cells[metrics.KAFKA_UNREADABLE] += 1


def _is_abort(batch: bytes) -> bool:
    """Whether a control batch ends a transaction that is void."""
    found = records(batch)
    key = found[0][3] if found else None
    return key is not None and key[2:4] == _ABORT
