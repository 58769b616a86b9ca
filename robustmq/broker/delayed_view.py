"""The delayed messages of a core as an administrator sees them: lists in pages, and one removed."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from robustmq._kernel.batch import records
from robustmq.broker.delayed import FIRST, KEY, STOP, Delayed
from robustmq.broker.state import State
from robustmq.message.record import QOS_BITS, RETAIN_BIT
from robustmq.message.tenancy import local, tenant_of

_SHIFT: Final = 20
"""Bits of a position that count the messages which are due in the same millisecond."""
_COUNT_MAX: Final = (1 << _SHIFT) - 1
_DUE_MAX: Final = (1 << 42) - 1
_PLACES: Final = 16
"""Ends of pages that are remembered, so that the next page begins there at once."""


class DelayedView:
    """Shows what waits on core `core` and can be read; what came in this turn cannot yet."""

    def __init__(self, state: State, delayed: Delayed, core: int) -> None:
        self._state = state
        self._delayed = delayed
        self._core = core
        self._places: dict[int, bytes] = {}

    def walk(
        self, start: int, _arguments: Mapping[str, Any]
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield (the position behind it, a message), in the order in which they are due.

        A position is a time in ms and how many messages that are due then were passed.
        """
        due_ms, passed = start >> _SHIFT, start & _COUNT_MAX
        place = self._places.pop(start, None)
        first = min(due_ms, _DUE_MAX)
        rows = self._state.walk(place or max(FIRST, KEY.pack(b"D", first, 0)), STOP)
        skip, key = 0 if place else passed, b""
        position = start
        try:
            for key, batch in rows:
                row_due_ms, number = KEY.unpack(key)[1:]
                if row_due_ms == due_ms and skip:
                    skip -= 1
                    continue
                passed = passed + 1 if row_due_ms == due_ms else 1
                due_ms = row_due_ms
                position = due_ms << _SHIFT | min(passed, _COUNT_MAX)
                waits = self._delayed.waits(key)
                yield position, self._entry(due_ms, number, batch) if waits else None
        finally:
            if key:
                self._places[position] = key + b"\0"
                while len(self._places) > _PLACES:
                    del self._places[next(iter(self._places))]

    def _entry(self, due_ms: int, number: int, batch: bytes) -> dict[str, Any]:
        ((attributes, timestamp, _, topic, value, _),) = records(batch)
        assert topic is not None
        return {
            "id": f"{self._core}-{due_ms}-{number}",
            "tenant": tenant_of(topic),
            "topic": local(topic).decode(),
            "qos": attributes & QOS_BITS,
            "retain": bool(attributes & RETAIN_BIT),
            "publish_at": timestamp,
            "due_at": due_ms,
            "payload_bytes": len(value or b""),
        }

    def delete(self, arguments: Mapping[str, Any]) -> bool:
        """Remove the message (`due_ms`, `number`); False when there is none.

        Raises ValueError when nothing can be written now.
        """
        if (refusal := self._state.refusal) is not None:
            raise ValueError(refusal.detail)
        try:
            key = KEY.pack(b"D", int(arguments["due_ms"]), int(arguments["number"]))
        except struct.error:
            return False
        return self._delayed.cancel(key)
