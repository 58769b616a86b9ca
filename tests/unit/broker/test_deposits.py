"""What cores ask each other to keep: once, in spite of repeats, refusals and restarts."""

from robustmq.broker.deposits import REPEATED, Deposits
from robustmq.broker.frames import Number
from robustmq.broker.state import State
from robustmq.errors import Refusal, Refused
from robustmq.storage.memory_table import MemoryTable

FULL = Refused(Refusal.QUOTA_EXCEEDED, "full")


def made(table: MemoryTable) -> Deposits:
    deposits = Deposits(State(table))
    deposits.restore()
    return deposits


def ask(deposits: Deposits, source: int, epoch: int, call: int, is_owed: bool = False) -> str:
    """Ask for a part to be kept: "taken", "repeated" or "refused"."""
    number = Number(epoch, call)
    refused = deposits.judge(source, number, is_owed)
    if refused is None:
        deposits.took(source, number, has_rows=True)
        return "taken"
    return "repeated" if refused is REPEATED else "refused"


def test_each_part_is_taken_once_also_after_a_restart() -> None:
    table = MemoryTable()
    deposits = made(table)
    assert [ask(deposits, 0, 1, call) for call in (1, 1, 3, 2, 3)] == [
        "taken",
        "repeated",
        "taken",
        "repeated",
        "repeated",
    ]
    assert ask(deposits, 1, 1, 1) == "taken"
    deposits.note()
    table.commit()
    deposits = made(table.crash())
    assert ask(deposits, 0, 1, 3) == "repeated"
    assert ask(deposits, 0, 1, 4) == "taken"
    assert ask(deposits, 0, 2, 1) == "taken"
    assert ask(deposits, 0, 1, 5) == "repeated"


def test_what_was_sent_before_this_core_wanted_it_is_not_taken_later() -> None:
    table = MemoryTable()
    deposits = made(table)
    deposits.passed(0, Number(1, 5))
    assert [ask(deposits, 0, 1, call) for call in (4, 5, 6)] == ["repeated", "repeated", "taken"]
    deposits.passed(0, Number(1, 2))
    assert ask(deposits, 0, 1, 6) == "repeated"
    table.refuse(FULL)
    assert ask(deposits, 0, 1, 7, is_owed=True) == "refused"
    deposits.passed(0, Number(2, 1))
    table.refuse(None)
    assert ask(deposits, 0, 1, 7, is_owed=True) == "taken"


def test_what_was_refused_and_is_owed_holds_up_what_follows() -> None:
    table = MemoryTable()
    deposits = made(table)
    table.refuse(FULL)
    assert ask(deposits, 0, 1, 7, is_owed=True) == "refused"
    assert ask(deposits, 0, 1, 8, is_owed=True) == "refused"
    table.refuse(None)
    assert ask(deposits, 0, 2, 1) == "refused"
    assert ask(deposits, 1, 1, 1) == "taken"
    assert ask(deposits, 0, 1, 8, is_owed=True) == "refused"
    assert ask(deposits, 0, 1, 7, is_owed=True) == "taken"
    assert ask(deposits, 0, 2, 2) == "refused"
    assert ask(deposits, 0, 1, 8, is_owed=True) == "taken"
    assert ask(deposits, 0, 1, 7, is_owed=True) == "repeated"
    assert ask(deposits, 0, 2, 3) == "taken"


def test_what_was_refused_and_is_not_owed_is_forgotten() -> None:
    table = MemoryTable()
    deposits = made(table)
    table.refuse(FULL)
    assert ask(deposits, 0, 1, 1) == "refused"
    table.refuse(None)
    assert ask(deposits, 0, 1, 2) == "taken"


def test_of_a_disk_that_is_gone_nothing_is_known_also_after_a_restart() -> None:
    table = MemoryTable()
    deposits = Deposits(State(table))
    for source in (1, 2_048, 2_049):
        deposits.took(source, Number(3, 7), has_rows=True)
    deposits.note()
    table.commit()
    deposits.forget(lambda source: source >= 2_048)
    table.commit()
    again = Deposits(State(table))
    again.restore()
    for each in (deposits, again):
        assert each.judge(1, Number(3, 7), False) is REPEATED
        assert each.judge(2_048, Number(1, 1), False) is None
        assert each.judge(2_049, Number(1, 1), False) is None
