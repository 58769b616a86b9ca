"""Numbers of a core: none is given twice, whatever dies."""

from robustmq.broker.state import State
from robustmq.storage.memory_table import MemoryTable


def test_numbers_ascend_from_one_and_are_set_aside_some_at_a_time() -> None:
    table = MemoryTable()
    state = State(table)
    assert [state.next_number(b"a", 3) for _ in range(3)] == [1, 2, 3]
    table.commit()
    assert table.get(b"Na") == (4).to_bytes(8, "big")
    assert state.next_number(b"b", 3) == 1
    assert state.next_number(b"a", 3) == 4
    table.commit()
    assert table.get(b"Na") == (7).to_bytes(8, "big")


def test_after_a_restart_what_was_set_aside_is_skipped() -> None:
    table = MemoryTable()
    numbers = State(table).numbers(b"a", 10)
    assert numbers.take(25) == 1
    assert numbers.next == 26
    table.commit()
    numbers = State(table.crash()).numbers(b"a", 10)
    assert numbers.next > 25
    first = numbers.take(2)
    assert numbers.take() == first + 2
