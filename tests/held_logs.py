"""The logs of a core as a test has them: what is durable is decided by hand, and survives."""

from robustmq.broker.topic_logs import Medium
from robustmq.errors import Refused
from robustmq.storage.engine import LogSettings
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.memory_log import MemoryLog


class HeldLog(MemoryLog):
    """A log whose end is durable when its store says so."""

    def __init__(self, store: "HeldLogs", settings: LogSettings) -> None:
        super().__init__()
        self.settings = settings
        self._store = store
        self._durable = 0

    @property
    def durable_offset(self) -> int:
        if not self._store.hold:
            self._durable = self.end_offset
        return self._durable

    def append(self, data: bytes, count: int, timestamp_ms: int) -> int:
        if self._store.refused is not None:
            raise Unwritable(self._store.refused)
        return super().append(data, count, timestamp_ms)

    def retain(self, now_ms: int, budget: int) -> bool:
        del now_ms
        self._store.retained.append(budget)
        most = self.settings.retention_records
        if most and self.end_offset - self.start_offset > most:
            self.trim(self.end_offset - most)
        return False


class HeldLogs:
    """A `LogStore` in memory that can `hold` what is appended, refuse it, and crash."""

    def __init__(self) -> None:
        self.hold = False
        self.refused: Refused | None = None
        self.logs: dict[int, HeldLog] = {}
        self.media: dict[int, Medium] = {}
        self.retained: list[int] = []

    def open(self, number: int, medium: Medium, settings: LogSettings) -> Log:
        if self.refused is not None:
            raise Unwritable(self.refused)
        assert self.media.setdefault(number, medium) == medium
        log = self.logs.setdefault(number, HeldLog(self, settings))
        log.settings = settings
        return log

    def refusal(self, medium: Medium) -> Refused | None:
        del medium
        return self.refused

    def crash(self) -> "HeldLogs":
        """Lose what is not durable; what is left is found by the next life."""
        for log in self.logs.values():
            log.truncate(log.durable_offset)
        self.hold = False
        self.refused = None
        return self
