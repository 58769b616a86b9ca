"""What the simulation of Raft would find: rules are broken on purpose, and it must say so."""

from collections.abc import Callable, Sequence

import pytest

from robustmq.raft.leader import Leader
from robustmq.raft.log import ReplicaLog
from robustmq.raft.message import Entry
from robustmq.raft.replica import Replica
from robustmq.raft.rounds import Rounds
from tests.simulation.raft_truth import Broken
from tests.simulation.raft_world import World

SEEDS = 60
"""Histories in which a broken rule has to be found."""

Break = Callable[[pytest.MonkeyPatch], None]


def a_minority_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("robustmq.raft.leader.agreed", max)


def acknowledge_early(patch: pytest.MonkeyPatch) -> None:
    """What says that something is durable does not wait for the disk."""
    patch.setattr(ReplicaLog, "flying", property(lambda _: 0))


def apply_early(patch: pytest.MonkeyPatch) -> None:
    """Entries are handed out before they are durable."""
    take = ReplicaLog.take_committed

    def early(self: ReplicaLog, most_bytes: int) -> Sequence[Entry]:
        self.stable = self.last_index
        return take(self, most_bytes)

    patch.setattr(ReplicaLog, "take_committed", early)


def vote_for_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplicaLog, "is_behind", lambda *_: True)


def raise_the_term_unasked(patch: pytest.MonkeyPatch) -> None:
    """There is no pre-vote."""
    campaign = Replica._campaign

    def rash(self: Replica, *, asks_first: bool, context: int = 0) -> None:
        campaign(self, asks_first=False, context=context)

    patch.setattr(Replica, "_campaign", rash)


def replace_leaders_that_live(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "_is_led", lambda _: False)


def lead_without_a_majority(patch: pytest.MonkeyPatch) -> None:
    """A leader that hears nobody stays."""
    patch.setattr(Leader, "contact_ms", lambda _, now_ms: now_ms)


def truncate_what_matches(patch: pytest.MonkeyPatch) -> None:
    """Whatever is behind an append's start is replaced (defect D)."""

    def merge(self: ReplicaLog, entries: Sequence[Entry]) -> bool:
        if entries:
            if entries[0].index <= self.last_index:
                self._truncate(entries[0].index)
            self.append(entries)
        return True

    patch.setattr(ReplicaLog, "merge", merge)


def read_the_past(patch: pytest.MonkeyPatch) -> None:
    """Reads are answered with less than what was committed when they came."""
    begin = Rounds.begin
    patch.setattr(Rounds, "begin", lambda self, index: begin(self, index - 1))


def found() -> str:
    """The first thing that is seen to be wrong; nothing when nothing is."""
    for seed in range(SEEDS):
        try:
            World(seed).run()
        except (Broken, AssertionError) as error:
            return f"{seed}: {error!r}"
    return ""


@pytest.mark.parametrize(
    "break_it",
    [
        a_minority_commits,
        acknowledge_early,
        apply_early,
        vote_for_anybody,
        raise_the_term_unasked,
        replace_leaders_that_live,
        lead_without_a_majority,
        truncate_what_matches,
        read_the_past,
    ],
    ids=lambda break_it: break_it.__name__,
)
def test_a_broken_rule_is_found(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    assert found()
