from collections.abc import Callable

from robustmq.errors import Refusal, Refused
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.outcomes import Result
from robustmq.meta.proposals import COUNTED, Proposals
from robustmq.meta.site import Counters


class Bench:
    """Proposals, and what was answered."""

    def __init__(self, most_bytes: int = 10_000) -> None:
        self.answers: list[tuple[bytes, Outcome]] = []
        self.counters = Counters()
        self.proposals = Proposals(1, 9, most_bytes, lambda answer: answer(), self.counters)

    def add(self, command: bytes, deadline_ms: int = 100) -> None:
        self.proposals.add(command, self._done(command), deadline_ms)

    def _done(self, command: bytes) -> Callable[[Outcome], None]:
        return lambda outcome: self.answers.append((command, outcome))

    def given(self, most_bytes: int = 1_000) -> list[tuple[int, int, tuple[bytes, ...]]]:
        return [(b.floor, b.first, b.commands) for b in self.proposals.batches(most_bytes)]


def test_what_waits_travels_together_once() -> None:
    bench = Bench()
    for command in (b"a", b"b", b"c"):
        bench.add(command)
    assert bench.given() == [(1, 1, (b"a", b"b", b"c"))]
    assert not bench.proposals.has_unsent
    assert bench.given() == []
    bench.add(b"d")
    assert bench.given() == [(1, 4, (b"d",))]


def test_a_batch_is_bounded() -> None:
    bench = Bench()
    for command in (b"a", b"b", b"c"):
        bench.add(command)
    assert bench.given(COUNTED + 2) == [(1, 1, (b"a", b"b")), (1, 3, (b"c",))]


def test_outcomes_answer_and_move_the_floor() -> None:
    bench = Bench()
    for command in (b"a", b"b", b"c"):
        bench.add(command)
    bench.given()
    bench.proposals.folded(1, [Result(7, b"x"), Result(8, None)])
    assert bench.answers[0] == (b"a", Applied(7, b"x"))
    assert isinstance(bench.answers[1][1], Refused)
    assert bench.answers[1][1].code is Refusal.INTERNAL
    assert bench.proposals.floor == 3
    bench.proposals.send_again()
    assert bench.given() == [(3, 3, (b"c",))]
    bench.proposals.known({3: Result(9, b"z")})
    assert bench.answers[2] == (b"c", Applied(9, b"z"))
    assert bench.proposals.floor == 4
    assert not len(bench.proposals)
    assert bench.counters == Counters(proposed=3, answered=2, failed=1)


def test_what_is_late_is_refused_and_given_up() -> None:
    bench = Bench()
    bench.add(b"a", 50)
    bench.add(b"b", 60)
    assert bench.proposals.next_ms == 50
    bench.proposals.expire(49)
    assert bench.counters.failed == 0
    bench.proposals.expire(50)
    assert bench.counters.failed == 1
    outcome = bench.answers[0][1]
    assert isinstance(outcome, Refused)
    assert outcome.code is Refusal.UNAVAILABLE
    assert bench.given() == [(2, 2, (b"b",))]


def test_more_than_may_wait_is_refused_and_never_sent() -> None:
    bench = Bench(most_bytes=COUNTED + 1)
    bench.add(b"a")
    bench.add(b"b")
    outcome = bench.answers[0][1]
    assert isinstance(outcome, Refused)
    assert outcome.code is Refusal.BUSY
    assert bench.given() == [(1, 1, (b"a",))]
    bench.proposals.folded(1, [Result(1, b"")])
    bench.add(b"c")
    assert bench.given() == [(2, 2, (b"c",))]


def test_at_the_end_everything_is_answered() -> None:
    bench = Bench()
    bench.add(b"a")
    bench.add(b"b")
    why = Refused(Refusal.UNAVAILABLE, "ending")
    bench.proposals.refuse_all(why)
    assert bench.answers == [(b"a", why), (b"b", why)]
