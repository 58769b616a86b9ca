"""Laws of the metadata: the same on every node, however it came to be there."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from robustmq.meta import commands
from robustmq.meta.commands import (
    Change,
    Command,
    Expectation,
    Fence,
    Forget,
    Found,
    Leave,
    Register,
    SetKey,
)
from robustmq.meta.image import Image
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import Record
from tests.unit.meta.memory_store import MemoryStore

few = st.integers(0, 3)
kinds = st.sampled_from(["blacklist", "user", "of the future"])
names = st.sampled_from(["a", "b", "c"])
records = st.builds(Record, kinds, names, st.none() | st.binary(max_size=3))
expectations = st.builds(Expectation, kinds, names, st.integers(0, 12))
command = st.one_of(
    st.builds(Found, st.sampled_from(["c", "d"])),
    st.builds(Register, few, st.sampled_from(["s", "t"]), st.just("c"), workers=st.integers(1, 2)),
    st.builds(Fence, few, st.integers(1, 3)),
    st.builds(Leave, few),
    st.builds(Forget, few, st.integers(1, 3)),
    st.builds(
        Change,
        st.lists(records, max_size=3),
        st.lists(expectations, max_size=1),
        st.integers(0, 6),
    ),
    st.builds(SetKey, names, st.none() | st.binary(max_size=2), st.none() | few, few),
)
logs = st.lists(command.map(commands.encode) | st.binary(max_size=4), max_size=30)


def image() -> Image:
    return Image(lambda _record, _reason: None)


def content(of: Image) -> list[Record]:
    return sorted(of.all(), key=lambda record: (record.kind, record.name))


@given(logs)
def test_two_machines_say_and_keep_the_same(log: list[bytes]) -> None:
    stores = MemoryStore(), MemoryStore()
    first, second = (Metadata(store) for store in stores)
    for index, data in enumerate(log, start=1):
        if index % 3 == 0:
            second = Metadata(stores[1])
        assert first.apply(index, data) == second.apply(index, data)
    assert stores[0].rows == stores[1].rows


@given(logs, st.integers(0, 30), st.integers(0, 30))
def test_a_snapshot_and_the_rest_is_the_fold_of_all(log: list[bytes], cut: int, late: int) -> None:
    machine = Metadata(MemoryStore())
    every, joined = image(), image()
    every.replace(0, [])
    told: list[tuple[int, int, Sequence[Record]]] = []

    def applied(index: int, changed: Sequence[Record]) -> None:
        told.append((index - 1, index, changed))
        assert every.apply(index - 1, index, changed)

    machine.on_applied = applied
    for index, data in enumerate(log, start=1):
        machine.apply(index, data)
        if index == cut:
            joined.replace(machine.index, list(machine.records()))
    if joined.index is None:
        joined.replace(machine.index, list(machine.records()))
    # What came before the snapshot, or twice, does no harm.
    for before, index, changed in told[late:]:
        if before > joined.index:  # type: ignore[operator]
            break
        assert joined.apply(before, index, changed)
    if joined.index != machine.index:
        assert late > cut
        return
    held = [Record(each.kind, each.name, each.value) for each in machine.records()]
    assert content(joined) == content(every) == held
    assert joined.nodes == every.nodes


def test_a_command_is_written_and_read() -> None:
    every: list[Command] = [
        Found("c"),
        Leave(1),
        SetKey("k", None),
        Change([Record("a", "b", None)]),
    ]
    assert [commands.decode(commands.encode(each)) for each in every] == every
