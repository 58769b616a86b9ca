from robustmq.meta.outcomes import Batch, Outcomes, Result, batches_of, entry_data
from tests.unit.meta.memory_store import MemoryStore


class Bench:
    """Outcomes, and what was folded."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.outcomes = Outcomes(self.store)
        self.folded: list[bytes] = []

    def fold(self, first: int, *commands: bytes, floor: int = 1, life: int = 5) -> tuple[int, int]:
        batch = Batch(2, life, floor, first, commands)
        at, results = self.outcomes.fold(batch, self._one)
        return at, len(results)

    def _one(self, command: bytes) -> Result:
        self.folded.append(command)
        return Result(len(self.folded), b"did " + command)


def test_a_batch_is_its_bytes() -> None:
    batches = [Batch(1, 2, 3, 4, (b"a", b"")), Batch(9, 9, 9, 9, ())]
    assert batches_of(entry_data(batches)) == batches


def test_a_repeated_command_is_not_folded_and_has_its_first_outcome() -> None:
    bench = Bench()
    assert bench.fold(1, b"a", b"b") == (1, 2)
    assert bench.fold(1, b"a", b"b") == (3, 0)
    assert bench.fold(2, b"b", b"c") == (3, 1)
    assert bench.folded == [b"a", b"b", b"c"]
    assert bench.outcomes.known(2, 5) == {
        1: Result(1, b"did a"),
        2: Result(2, b"did b"),
        3: Result(3, b"did c"),
    }


def test_a_command_before_its_turn_is_left_out() -> None:
    bench = Bench()
    assert bench.fold(2, b"b") == (1, 0)
    assert bench.fold(1, b"a", b"b") == (1, 2)
    assert bench.folded == [b"a", b"b"]


def test_what_was_given_up_is_passed_over_and_never_folded_later() -> None:
    bench = Bench()
    assert bench.fold(3, b"c", floor=3) == (3, 1)
    assert bench.fold(1, b"a", b"b") == (4, 0)
    assert bench.folded == [b"c"]


def test_results_are_forgotten_below_the_floor() -> None:
    bench = Bench()
    for number in range(1, 100):
        bench.fold(number, b"%d" % number, floor=max(1, number - 3))
    assert set(bench.outcomes.known(2, 5)) == {96, 97, 98, 99}
    assert len(bench.store.rows) == 5


def test_a_new_life_begins_anew_and_an_old_one_is_void() -> None:
    bench = Bench()
    bench.fold(1, b"a", b"b")
    assert bench.fold(1, b"c", life=6) == (1, 1)
    assert bench.fold(3, b"late") == (3, 0)
    assert bench.folded == [b"a", b"b", b"c"]
    assert bench.outcomes.known(2, 5) == {}
    assert bench.outcomes.known(2, 6) == {1: Result(3, b"did c")}
    assert len(bench.store.rows) == 2


def test_all_of_it_lies_in_the_store() -> None:
    bench = Bench()
    bench.fold(1, b"a", b"b")
    bench.fold(3, b"c", floor=2)
    bench.outcomes = Outcomes(bench.store)
    assert bench.outcomes.known(2, 5)[3] == Result(3, b"did c")
    assert bench.fold(1, b"a", b"b", b"c", b"d", floor=2) == (4, 1)
    assert bench.folded == [b"a", b"b", b"c", b"d"]
