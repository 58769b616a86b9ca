"""The machine of the offset groups."""

from robustmq.errors import Refused
from robustmq.meta import commands, offset
from robustmq.meta.offset import (
    CONFLICT,
    PRODUCER_IDS,
    Command,
    Commit,
    Deeds,
    Draw,
    Erase,
    Offset,
    Offsets,
    Page,
    Write,
)
from tests.unit.meta.memory_store import MemoryStore


def do(machine: Offsets, index: int, *deeds: Write | Commit | Erase) -> list[int]:
    return told(machine, index, Deeds([*deeds]))


def told(machine: Offsets, index: int, command: Command) -> list[int]:
    result = commands.outcome(machine.apply(index, offset.encode(command)))
    assert isinstance(result, bytes)
    return offset.outcomes(result)


def test_a_page_is_written_by_who_knows_its_version() -> None:
    machine = Offsets(MemoryStore())
    assert machine.page("group/t/g") == Page()
    assert do(machine, 7, Write("group/t/g", 0, b"a"), Write("group/t/g", 0, b"b")) == [7, CONFLICT]
    assert machine.page("group/t/g") == Page(7, b"a")
    assert do(machine, 9, Write("group/t/g", 7, b"c"), Write("group/t/g", 9, None)) == [9, 0]
    assert do(machine, 10, Write("group/t/g", 9, b"d"), Write("group/t/g", 0, b"e")) == [
        CONFLICT,
        10,
    ]


def test_offsets_are_committed_while_the_page_has_a_version() -> None:
    machine = Offsets(MemoryStore())
    plain = Commit("g", 0, {"a/0": Offset(5, "n", 9, 2), "a/1": Offset(1)})
    assert do(machine, 3, plain) == [0]
    do(machine, 4, Write("g", 0, b"x"))
    late = Commit("g", 0, {"a/0": Offset(6)})
    assert do(machine, 5, late, Commit("g", 4, {"a/1": None, "b/0": Offset(8)})) == [CONFLICT, 4]
    assert [*machine.offsets("g")] == [("a/0", Offset(5, "n", 9, 2)), ("b/0", Offset(8))]
    assert [*machine.offsets("g", "b")] == [("b/0", Offset(8))]


def test_a_group_is_erased_with_its_offsets_and_no_other() -> None:
    machine = Offsets(MemoryStore())
    do(machine, 3, Commit("g", 0, {"a": Offset(5)}), Commit("gg", 0, {"a": Offset(6)}))
    do(machine, 4, Write("g", 0, b"x"), Write("gg", 0, b"y"))
    assert do(machine, 5, Erase("g", 3)) == [CONFLICT]
    assert do(machine, 6, Erase("g", 4)) == [0]
    assert ([*machine.offsets("g")], machine.page("g")) == ([], Page())
    assert [*machine.offsets("gg")] == [("a", Offset(6))]
    assert [*machine.keys("g", "")] == ["gg"]


def test_keys_are_listed_by_prefix_from_a_key_on() -> None:
    machine = Offsets(MemoryStore())
    names = ["group/t/a", "group/t/b", "group/u/a", "txn/t/a"]
    do(machine, 1, *(Write(name, 0, b"") for name in names))
    assert [*machine.keys("group/t/", "")] == names[:2]
    assert [*machine.keys("group/", "group/t/b")] == names[1:3]


def test_no_producer_id_is_given_twice() -> None:
    store = MemoryStore()
    machine = Offsets(store)
    assert told(machine, 1, Draw(100)) == [0]
    assert told(machine, 2, Draw(1)) == [100]
    assert told(Offsets(store), 3, Draw(PRODUCER_IDS)) == [101]
    assert told(machine, 4, Draw(1)) == [PRODUCER_IDS]


def test_what_is_not_understood_is_refused() -> None:
    assert isinstance(commands.outcome(Offsets(MemoryStore()).apply(1, b"")), Refused)
