"""Strategies of shared groups under random operations: each record to one ready member, by law."""

from collections import Counter
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from robustmq.settings.topics import Strategy
from robustmq.shard.share_group import ShareGroup
from robustmq.shard.share_strategy import make

MEMBERS = 5
CORES = 3

steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, MEMBERS - 1), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, MEMBERS - 1)),
        st.tuples(
            st.just("share"),
            st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), min_size=1, max_size=6),
            st.integers(-1, CORES - 1),
        ),
        st.tuples(st.just("read"), st.integers(0, MEMBERS - 1), st.integers(0, 5)),
    ),
    max_size=60,
)


class Model:
    """What is known of a group from outside."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        numbers = iter(range(1_000_000))
        self.group = ShareGroup(1_000, make(strategy, lambda n: next(numbers) * 7 % n))
        self.ready: dict[int, bool] = {}
        self.given: Counter[int] = Counter()
        self.acknowledged: Counter[int] = Counter()
        self.last_sticky: int | None = None
        self.owner: dict[bytes, int] = {}
        self.number = 0

    def able(self) -> list[int]:
        return [member for member, is_ready in self.ready.items() if is_ready]

    def join(self, member: int, ready: bool) -> None:
        if self.ready.get(member, False) != ready:
            self.owner = {}
        self.group.join(member, ready, member % CORES)
        self.ready[member] = ready
        self.check_sticky()

    def leave(self, member: int) -> None:
        if self.ready.pop(member, False):
            self.owner = {}
        self.group.leave(member)
        self.given[member] = self.acknowledged[member] = 0
        self.check_sticky()

    def check_sticky(self) -> None:
        if self.last_sticky not in self.able():
            self.last_sticky = None

    def read(self, member: int, count: int) -> None:
        """A member acknowledges some, and its core reports at once."""
        if member in self.ready:
            left = self.given[member] - self.acknowledged[member]
            self.acknowledged[member] += min(count, left)
            load = self.given[member] - self.acknowledged[member]
            self.group.strategy.report(member, self.given[member], load)

    def share(self, keys: list[bytes], home: int) -> None:
        raws = [b"%d" % (self.number + i) for i in range(len(keys))]
        self.number += len(keys)
        able = self.able()
        before = {each: self.given[each] - self.acknowledged[each] for each in able}
        shares = self.group.share(b"batch", raws, keys, home)
        if not able:
            assert shares == {}
            return
        taken = [raw for share in shares.values() for raw in share]
        assert sorted(taken, key=int) == raws
        assert set(shares) <= set(able)
        for member, share in shares.items():
            assert share == sorted(share, key=int)
            self.given[member] += len(share)
        getattr(self, f"judge_{self.strategy}")(shares, dict(zip(raws, keys, strict=True)), home)
        if self.strategy == "least_inflight":
            after = {each: self.given[each] - self.acknowledged[each] for each in able}
            risen = [after[each] for each in able if after[each] > before[each]]
            assert max(risen) <= min(after.values()) + 1

    def judge_round_robin(
        self, shares: dict[int, list[bytes]], keys: dict[bytes, bytes], home: int
    ) -> None:
        sizes = [len(shares.get(member, ())) for member in self.able()]
        assert max(sizes) - min(sizes) <= 1

    def judge_random(
        self, shares: dict[int, list[bytes]], keys: dict[bytes, bytes], home: int
    ) -> None:
        assert shares

    judge_least_inflight = judge_random

    def judge_sticky(
        self, shares: dict[int, list[bytes]], keys: dict[bytes, bytes], home: int
    ) -> None:
        (member,) = shares
        assert self.last_sticky in {None, member}
        self.last_sticky = member

    def judge_hash_topic(
        self, shares: dict[int, list[bytes]], keys: dict[bytes, bytes], home: int
    ) -> None:
        for member, share in shares.items():
            for raw in share:
                assert self.owner.setdefault(keys[raw], member) == member

    judge_hash_clientid = judge_hash_topic

    def judge_local(
        self, shares: dict[int, list[bytes]], keys: dict[bytes, bytes], home: int
    ) -> None:
        near = [member for member in self.able() if member % CORES == home]
        assert not near or set(shares) <= set(near)
        sizes = [len(shares.get(member, ())) for member in near or self.able()]
        assert max(sizes) - min(sizes) <= 1


@given(st.sampled_from(get_args(Strategy)), steps)
def test_each_record_is_taken_by_one_ready_member_as_the_strategy_says(
    strategy: Strategy, done: list[tuple[object, ...]]
) -> None:
    model = Model(strategy)
    for name, *arguments in done:
        getattr(model, str(name))(*arguments)
        assert len(model.group) == len(model.ready)
        assert model.group.has_ready == bool(model.able())
