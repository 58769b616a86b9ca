"""The memory log equals a list under random operations, within its bounds."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from robustmq.storage.memory_log import MemoryLog

operations = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5), st.integers(0, 30), st.integers(0, 50)),
    st.tuples(st.just("append"), st.integers(1, 5), st.integers(0, 30), st.integers(0, 50)),
    st.tuples(st.just("trim"), st.integers(0, 60)),
    st.tuples(st.just("truncate"), st.integers(0, 60)),
)
bounds = st.sampled_from([0, 0, 1, 10, 40])


class Entry(NamedTuple):
    """A batch in the model."""

    base: int
    records: int
    data: bytes
    at_ms: int


class Model:
    """The log as a list."""

    def __init__(self, max_records: int, max_bytes: int, max_age_ms: int) -> None:
        self.bounds = (max_records, max_bytes, max_age_ms)
        self.entries: list[Entry] = []
        self.end = 0
        self.now_ms = 0

    def append(self, count: int, data: bytes) -> None:
        self.entries.append(Entry(self.end, count, data, self.now_ms))
        self.end += count
        while len(self.entries) > 1 and self._is_over():
            del self.entries[0]

    def _is_over(self) -> bool:
        records, size, age = self.bounds
        return bool(
            (records and sum(entry.records for entry in self.entries) > records)
            or (size and sum(len(entry.data) for entry in self.entries) > size)
            or (age and self.now_ms - self.entries[0].at_ms > age)
        )

    def trim(self, offset: int) -> None:
        while self.entries and self.entries[0].base + self.entries[0].records <= offset:
            del self.entries[0]

    def truncate(self, offset: int) -> None:
        while self.entries and self.entries[-1].base >= offset:
            self.end = self.entries.pop().base


@given(bounds, bounds, bounds, st.lists(operations))
def test_a_log_equals_a_list(
    max_records: int, max_bytes: int, max_age_ms: int, steps: list[tuple[object, ...]]
) -> None:
    log = MemoryLog(max_records, max_bytes, max_age_ms)
    model = Model(max_records, max_bytes, max_age_ms)
    for number, (name, *arguments) in enumerate(steps):
        sizes = [int(str(argument)) for argument in arguments]
        if name == "append":
            count, size, later_ms = sizes
            model.now_ms += later_ms
            data = bytes((number % 256,)) * size
            assert log.append(data, count, model.now_ms) == model.end
            model.append(count, data)
        elif name == "trim":
            log.trim(*sizes)
            model.trim(*sizes)
        else:
            log.truncate(*sizes)
            model.truncate(*sizes)
        check(log, model)


def check(log: MemoryLog, model: Model) -> None:
    """Compare all that can be seen."""
    entries = model.entries
    assert log.end_offset == log.durable_offset == model.end
    assert log.start_offset == (entries[0].base if entries else model.end)
    assert log.size_bytes == sum(len(entry.data) for entry in entries)
    for offset in range(model.end + 2):
        kept = [
            (entry.base, entry.records, entry.data)
            for entry in entries
            if entry.base + entry.records > offset
        ]
        assert [tuple(batch) for batch in log.read(offset, 1 << 30)] == kept
        some = log.read(offset, 20)
        assert [tuple(batch) for batch in some] == kept[: len(some)]
        assert len(some) == min(1, len(kept)) or sum(len(batch.data) for batch in some) <= 20
