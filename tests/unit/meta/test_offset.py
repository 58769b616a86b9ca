"""The machine of the offset groups, and the commits that wait to be flushed."""

from robustmq.errors import Refused
from robustmq.meta import commands, offset
from robustmq.meta.offset import (
    Command,
    Commit,
    Commits,
    DropGroup,
    DropShard,
    Offset,
    Offsets,
    Place,
    Unflushed,
)
from tests.unit.meta.memory_store import MemoryStore


def place(shard: str = "s", group: str = "g") -> Place:
    return Place("default", group, shard)


def do(machine: Offsets, command: Command) -> list[bool]:
    result = commands.outcome(machine.apply(1, offset.encode(command)))
    assert isinstance(result, bytes)
    return offset.outcomes(result) if result else []


def test_plain_and_conditional_commits() -> None:
    machine = Offsets(MemoryStore())
    told = [
        Commit(place(), Offset(5, "n", 9), -1),
        Commit(place(), Offset(6), -1),
        Commit(place(), Offset(7), 5),
        Commit(place("t"), Offset(1)),
    ]
    assert do(machine, Commits(told)) == [True, False, True, True]
    assert machine.offset(place()) == Offset(7)
    assert [*machine.of_group("default", "g")] == [("s", Offset(7)), ("t", Offset(1))]
    assert do(machine, Commits([Commit(place(), None, 6), Commit(place("t"), None, 1)])) == [
        False,
        True,
    ]
    assert machine.offset(place("t")) is None


def test_groups_and_shards_are_dropped() -> None:
    machine = Offsets(MemoryStore())
    places = [place("s", "g"), place("t", "g"), place("s", "gg"), place("ts", "h")]
    do(machine, Commits([Commit(each, Offset(1)) for each in places]))
    do(machine, DropShard("s"))
    assert [machine.offset(each) for each in places] == [None, Offset(1), None, Offset(1)]
    do(machine, DropGroup("default", "g"))
    assert [each for each in places if machine.offset(each)] == [place("ts", "h")]
    assert isinstance(commands.outcome(machine.apply(1, b"")), Refused)


def test_the_latest_of_each_place_waits_for_its_turn() -> None:
    waiting = Unflushed(delay_ms=100, most=3)
    assert (waiting.next_ms, waiting.take(0)) == (None, [])
    waiting.put(place(), Offset(1), 1_000)
    waiting.put(place(), Offset(2), 1_050)
    assert waiting.next_ms == 1_100
    assert waiting.take(1_099) == []
    assert waiting.get(place()) == Offset(2)
    taken = waiting.take(1_100)
    assert taken == [Commit(place(), Offset(2))]
    waiting.put(place("t"), Offset(1), 1_200)
    waiting.put(place(), Offset(3), 1_200)
    waiting.restore(taken, 1_200)
    assert waiting.get(place()) == Offset(3)
    waiting.put(place("u"), Offset(1), 1_210)
    assert waiting.next_ms == 1_210
    assert len(waiting.take(1_210)) == 3
