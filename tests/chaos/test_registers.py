"""The accounts of what a cluster keeps find what is lost, late, or nobody's."""

from tests.chaos.ledger import Ledger
from tests.chaos.registers import Registers
from tests.chaos.wanderer import Wanderer


def registers() -> Registers:
    found = Registers(lambda _: None, (1,))
    found.certain = {"k1": "a", "k2": None, "ban k3": "", "ban k4": None}
    found.possible = {"k5": {None, "b"}}
    return found


def test_what_is_as_it_was_acknowledged_is_no_fault() -> None:
    kept = {"k1": "a", "ban k3": ""}
    assert registers().faults(kept) == []
    assert registers().faults(kept | {"k5": "b"}) == []


def test_what_is_lost_old_not_deleted_or_nobodys_is_found() -> None:
    found = {"k1": "old", "k2": "back", "ban k4": "", "k5": "c", "k6": "d"}
    names = [each.split(" is ")[0] for each in registers().faults(found)]
    assert names == ["k1", "k2", "ban k3", "ban k4", "k5", "k6 was never written"]


def test_a_session_is_held_to_the_subscriptions_that_are_certain() -> None:
    wanderer = Wanderer(Ledger(), "w", 3)
    wanderer.has = {0: True, 1: False, 2: None, 3: True}
    wanderer.heard = {wanderer.topic(1), wanderer.topic(3)}
    assert wanderer.faults() == ["wander/w/0: lost", "wander/w/1: not ended"]
