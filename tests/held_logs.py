"""The logs of a core as a test has them: what is durable is decided by hand, and survives."""

from collections.abc import Collection

from robustmq.config import Engine, TopicRule
from robustmq.errors import Refused
from robustmq.storage.log import Log, Stable, Unwritable
from robustmq.storage.memory_log import MemoryLog


class HeldLog(MemoryLog):
    """A log whose end is durable when its store says so."""

    def __init__(self, store: "HeldLogs", rule: TopicRule) -> None:
        super().__init__()
        self.rule = rule
        self._store = store
        self._durable = 0

    @property
    def durable_offset(self) -> int:
        if not self._store.hold:
            self._durable = self.end_offset
        return self._durable

    @property
    def is_fetching(self) -> bool:
        return self._store.cold

    def warm(self, offset: int, max_bytes: int) -> bool:
        del offset, max_bytes
        return not self._store.cold

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:
        if self._store.refused is not None:
            raise Unwritable(self._store.refused)
        return super().append(data, count, timestamp_ms)

    def retain(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:
        del now_ms, stable
        self._store.retained.append(budget)
        most = self.rule.retention_records
        if most and self.end_offset - self.start_offset > most:
            self.trim(self.end_offset - most)
        return False


class HeldLogs:
    """A `LogStore` that can `hold` what is appended, refuse it, be `cold`, and crash."""

    def __init__(self) -> None:
        self.hold = False
        self.cold = False
        self.refused: Refused | None = None
        self.logs: dict[int, HeldLog] = {}
        self.media: dict[int, Engine] = {}
        self.retained: list[int] = []

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        if engine == "memory":
            return MemoryLog(rule.retention_records, rule.retention_bytes, rule.retention_ms)
        if self.refused is not None:
            raise Unwritable(self.refused)
        assert self.media.setdefault(number, engine) == engine
        log = self.logs.setdefault(number, HeldLog(self, rule))
        log.rule = rule
        return log

    def configure(self, log: Log, rule: TopicRule) -> None:
        if isinstance(log, HeldLog):
            log.rule = rule

    def remove(self, number: int, engine: Engine) -> None:
        assert self.media.pop(number) == engine
        del self.logs[number]

    def prune(self, listed: Collection[tuple[int, Engine]]) -> None:
        for number in [each for each in self.media.items() if each not in listed]:
            self.remove(*number)

    def release(self, number: int, engine: Engine, *, was_changed: bool) -> None:
        """What is kept here stays."""
        del was_changed
        assert self.media[number] == engine

    def refusal(self, engine: Engine) -> Refused | None:
        del engine
        return self.refused

    def crash(self) -> "HeldLogs":
        """Lose what is not durable; what is left is found by the next life."""
        for log in self.logs.values():
            log.truncate(log.durable_offset)
        self.hold = False
        self.refused = None
        return self
