"""Delayed publish: messages that wait on disk until they are due, and one timer for the next.

Rows: `D` due, number -> the batch of one record; due in ms since 1970 and number are u64,
big-endian, so that their order is that in which they go out. `D` alone -> how many there are.

When a message is due it is as if it were published then, to the topic that its publisher meant:
its timestamp is that time, a retained one is retained from then on, an empty retained one clears.
Only its expiry counts from when it came: the time that it waits here is time that it waits in
the server (MQTT5 3.3.2.3.3), so one that lives shorter than its delay is never delivered.

The row of a QoS 2 message goes in the commit that makes it a batch to be delivered once. That of
a QoS 1 message goes when whoever owes the message to a durable session has it: it may be sent
again after a crash, and is never lost. What another core refuses (its disk is full) is tried again
later, also at QoS 2; a core that has taken it then gets it twice.
"""

import struct
from array import array
from collections.abc import Callable
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.router import Router
from robustmq.broker.state import State
from robustmq.broker.timers import Alarm
from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.message.delay import Delay, read_delay
from robustmq.message.record import QOS_BITS, RETAIN_BIT, Record, expires_at
from robustmq.policy.admission import Admission
from robustmq.policy.principal import Principal
from robustmq.settings.mqtt import MqttDelayed

KEY: Final = struct.Struct(">cQQ")
"""The key of a row: `D`, when it is due, its number."""
_COUNT: Final = struct.Struct(">Q")
_COUNT_KEY: Final = b"D"
FIRST: Final = b"D\0"
STOP: Final = b"E"
_BUDGET: Final = 1_000
"""Messages that are published in one turn."""
_BUDGET_BYTES: Final = 1 << 20
"""Bytes of messages at which a turn publishes no more of them."""


class Delayed:
    """The delayed messages of a core. None of them is in memory while it waits."""

    def __init__(
        self,
        turn: Turn,
        state: State,
        *,
        admission: Admission,
        router: Router,
        limits: MqttDelayed,
        retry_ms: int,
    ) -> None:
        self._turn = turn
        self._state = state
        self._admission = admission
        self._router = router
        self._limits = limits
        self._retry_ms = retry_ms
        self._scratch = Turn(array("Q", bytes(8 * metrics.CELLS)))
        self._builder = BatchBuilder(self._scratch, 0, 0xFFFFFFFF, None)
        self._count = self._noted = 0
        self._is_due = False
        self._first = FIRST
        """No row before this one is to be published."""
        self._published: set[bytes] = set()
        """The rows that are published or removed and can still be read."""
        self._removed: list[bytes] = []
        self.alarm: Alarm

    def __len__(self) -> int:
        return self._count

    # ------------------------------------------------------------------ publishers

    def admit(
        self, principal: Principal, topic: bytes, size: int = 0, retain: bool = False
    ) -> Delay | Refused:
        """Decide whether this principal may publish `size` bytes to a delayed publish's topic.

        TOPIC_INVALID when it has no such form, is delayed for too long, or the feature is off.
        """
        limits = self._limits
        if not limits.enable:
            return Refused(
                Refusal.TOPIC_INVALID, "delayed publish is off (mqtt_runtime.delayed.enable)"
            )
        now_ms = self._turn.now_ms
        try:
            delay = read_delay(topic, now_ms)
        except ProtocolError as error:
            return Refused(Refusal.TOPIC_INVALID, error.detail)
        if delay.due_ms - now_ms > limits.max_delay_seconds * 1_000:
            return Refused(
                Refusal.TOPIC_INVALID,
                f"the delay is longer than {limits.max_delay_seconds} s "
                "(mqtt_runtime.delayed.max_delay_seconds)",
            )
        return self._admission.publish(principal, delay.topic, size, retain) or delay

    def publish(
        self,
        principal: Principal,
        record: Record,
        reply: Callable[[int, bool], None] | None,
    ) -> Refused | None:
        """Keep a record with such a topic until it is due; `reply(0, True)` when it is durable.

        QUOTA_EXCEEDED when too many are kept; also refused while nothing can be written.
        """
        delay = self.admit(principal, record.key, len(record.value), record.retain)
        if isinstance(delay, Refused):
            return delay
        if self._count >= self._limits.max_messages:
            return Refused(
                Refusal.QUOTA_EXCEEDED,
                f"this core keeps {self._limits.max_messages} delayed messages "
                "(mqtt_runtime.delayed.max_messages)",
            )
        refusal = self._state.refusal
        if refusal is not None:
            return refusal
        self._builder.append(
            delay.topic, record.value, record.headers, record.attributes, record.timestamp
        )
        batch, _ = self._builder.take()
        self._scratch.builders.clear()
        self._put(delay.due_ms, batch, reply)
        return None

    def _put(
        self, due_ms: int, batch: bytes, reply: Callable[[int, bool], None] | None = None
    ) -> None:
        key = KEY.pack(b"D", due_ms, self._state.next_number(b"delayed"))
        self._state.put(key, batch)
        self._count += 1
        # It cannot be found before it is written.
        self._state.then(partial(self._written, key, reply))

    def _written(self, key: bytes, reply: Callable[[int, bool], None] | None) -> None:
        self._first = min(self._first, key)
        self._wake_at(KEY.unpack(key)[1])
        if reply is not None:
            reply(0, True)

    # ------------------------------------------------------------------ what is due

    def restore(self) -> None:
        """After a restart: find out how many there are, and begin with those that are overdue."""
        known = self._state.get(_COUNT_KEY)
        if known is not None:
            self._count = self._noted = _COUNT.unpack(known)[0]
        else:
            self._count = sum(1 for _ in self._state.walk(FIRST, STOP))
        self._turn.row[metrics.DELAYED_MESSAGES] = self._count
        self._is_due = self._count > 0

    @property
    def busy(self) -> bool:
        """Whether there are messages to publish in another turn."""
        return self._is_due and not self._router.blocked

    def run(self) -> None:
        """Publish what is due, in that order, a bounded part of it in one turn."""
        if not self.busy:
            return
        self._is_due = False
        now_ms = self._turn.now_ms
        if self._state.refusal is not None:
            self._wake_at(now_ms + self._retry_ms)
            return
        budget, size = _BUDGET, 0
        for key, batch in self._state.walk(self._first, STOP):
            due_ms = KEY.unpack(key)[1]
            if due_ms > now_ms:
                # Whoever looks next need not pass over all that was removed before it.
                self._first = key
                self._wake_at(due_ms)
                break
            if not budget or size >= _BUDGET_BYTES or self._router.blocked:
                self._is_due = True
                break
            self._first = key + b"\0"
            if key not in self._published:
                budget -= 1
                size += len(batch)
                self._published.add(key)
                self._publish(key, batch)

    def waits(self, key: bytes) -> bool:
        """Say whether the message of a row that can be read is neither published nor removed."""
        return key not in self._published

    def cancel(self, key: bytes) -> bool:
        """Remove a message that is not due yet; False when there is none."""
        if key in self._published or self._state.get(key) is None:
            return False
        self._published.add(key)
        self._remove(key)
        return True

    def note(self) -> None:
        """Before the turn's commit: put what follows from the rows that came and went."""
        if self._removed:
            removed, self._removed = self._removed, []
            self._state.then(partial(self._published.difference_update, removed))
        if self._noted != self._count:
            self._noted = self._turn.row[metrics.DELAYED_MESSAGES] = self._count
            self._state.put(_COUNT_KEY, _COUNT.pack(self._count))

    def _publish(self, key: bytes, batch: bytes) -> None:
        ((attributes, _, _, topic, value, headers),) = records(batch)
        assert topic is not None
        assert value is not None
        deadline = expires_at(headers)
        if deadline and deadline <= self._turn.now_ms:
            self._turn.row[metrics.MESSAGES_DROPPED_EXPIRED] += 1
            self._remove(key)
            return
        self._turn.row[metrics.DELAYED_PUBLISHED] += 1
        qos = attributes & QOS_BITS
        record = Record(
            key=topic,
            value=value,
            headers=headers,
            qos=qos,
            retain=bool(attributes & RETAIN_BIT),
            timestamp=self._turn.now_ms,
        )
        if qos == 1:
            self._router.append(record, partial(self._owed, key, batch))
            return
        self._remove(key)
        if qos == 2:
            self._router.append(record, partial(self._once, batch), once=True)
        else:
            self._router.append(record, None)

    def _owed(self, key: bytes, batch: bytes, code: int, matched: bool) -> None:
        """A QoS 1 message is where it has to be, or was refused with a code."""
        self._remove(key)
        self._once(batch, code, matched)

    def _once(self, batch: bytes, code: int, matched: bool) -> None:
        """A QoS 2 message is where it has to be, or was refused with a code."""
        del matched
        if code:
            self._put(self._turn.now_ms + self._retry_ms, batch)

    def _remove(self, key: bytes) -> None:
        self._state.delete(key)
        self._count -= 1
        self._removed.append(key)

    def _wake_at(self, when_ms: int) -> None:
        if when_ms <= self._turn.now_ms:
            self._is_due = True
        else:
            self.alarm.set(when_ms)

    def wake(self) -> None:
        """The alarm rings: something is due."""
        self._is_due = True
