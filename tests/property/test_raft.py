"""Laws of Raft's parts: frames come back, a log is a list, two logs soon agree."""

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.errors import ProtocolError
from robustmq.raft.log import UNKNOWN, ReplicaLog
from robustmq.raft.message import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    Snapshot,
    decode,
    encode,
)
from robustmq.raft.ready import Stored
from robustmq.settings.raft import Raft
from tests.simulation.raft_disk import Disk
from tests.unit.raft.group import Group

NUMBERS = st.integers(0, (1 << 63) - 1)
SMALL = st.integers(0, 1_000)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    index, term = draw(SMALL), draw(SMALL)
    terms = list(accumulate(draw(st.lists(st.integers(0, 2), max_size=5)), initial=term))[1:]
    sent = tuple(
        Entry(index + at, each, EntryKind.COMMAND, draw(st.binary(max_size=20)))
        for at, each in enumerate(terms, 1)
    )
    members = Membership(tuple(draw(st.lists(NUMBERS, max_size=3))), ())
    return Message(
        draw(st.sampled_from(MessageKind)),
        draw(NUMBERS),
        draw(NUMBERS),
        draw(NUMBERS),
        draw(st.integers(terms[-1] if terms else term, 5_000)),
        index,
        term,
        draw(NUMBERS),
        draw(st.booleans()),
        draw(NUMBERS),
        draw(NUMBERS),
        sent,
        Snapshot(draw(NUMBERS), draw(NUMBERS), members),
    )


@given(st.lists(messages(), max_size=4))
def test_frames_come_back(said: list[Message]) -> None:
    assert decode(encode(said), 1 << 20) == said


@given(st.lists(messages(), min_size=1, max_size=2), st.data())
def test_a_damaged_frame_is_a_frame_or_an_error_of_the_peer(
    said: list[Message], data: st.DataObject
) -> None:
    frame = bytearray(encode(said))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(frame, 1 << 20)
    except ProtocolError:
        return
    assert all(isinstance(each, Message) for each in found)


def command(index: int, term: int) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, b"%d.%d" % (index, term))


class Model:
    """A log as a list, and the log itself with a journal that syncs when it is told to."""

    def __init__(self, cache_bytes: int) -> None:
        self.disk = Disk(Snapshot(0, 0, Membership((0, 1))))
        self.stored = Stored(
            start=self.disk.start, hard_state=HardState(), applied=0, entries=self.disk
        )
        self.log = ReplicaLog(self.stored, cache_bytes)
        self.terms = [0]
        self.handed: list[Entry] = []
        self.flying: list[tuple[int, Sequence[Entry]]] = []
        self.term = 1

    def merge(self, back: int, count: int, raise_by: int, repeat: bool) -> None:
        """A leader's entries come; those that are there may be repeated."""
        self.term += raise_by
        last = len(self.terms) - 1
        prev = max(self.log.commit, self.log.start.index, last - back)
        terms = [self.term] * count
        if repeat:
            terms = [*self.terms[prev + 1 : prev + 1 + count]]
        sent = [command(prev + at, each) for at, each in enumerate(terms, 1)]
        assert self.log.merge(sent)
        for entry in sent:
            if entry.index == len(self.terms):
                self.terms.append(entry.term)
            elif self.terms[entry.index] != entry.term:
                self.terms[entry.index :] = [entry.term]

    def write(self) -> None:
        entries = self.log.take_unwritten()
        if entries:
            self.flying.append((self.log.fly(), entries))

    def sync(self) -> None:
        if self.flying:
            number, entries = self.flying.pop(0)
            del self.disk.entries[entries[0].index - 1 - self.disk.start.index :]
            self.disk.entries += entries
            self.log.persisted(number)

    def commit(self, by: int) -> None:
        self.log.commit_to(self.log.commit + by)

    def hand(self, most: int) -> None:
        self.handed += self.log.take_committed(most)

    def compact(self, by: int) -> None:
        index = min(self.log.start.index + by, self.log.handed, self.log.stable)
        self.log.compact(index)
        self.disk.compact(self.log.start)

    def check(self) -> None:
        log, start = self.log, self.log.start
        last = len(self.terms) - 1
        assert (log.last_index, log.last_term) == (last, self.terms[-1])
        assert start.term == self.terms[start.index]
        for index in range(start.index, last + 1):
            assert log.term_at(index) == self.terms[index]
        assert log.term_at(last + 1) == log.term_at(start.index - 1) == UNKNOWN
        assert [each.index for each in self.handed] == list(range(1, len(self.handed) + 1))
        for each in self.handed:
            assert each.term == self.terms[each.index]
        for term in range(self.terms[-1] + 2):
            below = [at for at in range(start.index, last + 1) if self.terms[at] <= term]
            assert log.latest_up_to(last, term) == (below[-1] if below else start.index)
        index = start.index + 1
        while index <= last:
            for entry in log.read(index, last, 64):
                assert (entry.index, entry.term) == (index, self.terms[index])
                index += 1


STEPS = st.one_of(
    st.tuples(
        st.just("merge"), st.integers(0, 6), st.integers(0, 6), st.integers(0, 1), st.booleans()
    ),
    st.tuples(st.just("write")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("commit"), st.integers(0, 5)),
    st.tuples(st.just("hand"), st.sampled_from([1, 50, 10_000])),
    st.tuples(st.just("compact"), st.integers(0, 10)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0, 100, 10_000]), st.lists(STEPS, max_size=40))
def test_a_log_is_a_list(cache_bytes: int, steps: list[tuple[object, ...]]) -> None:
    model = Model(cache_bytes)
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
        model.check()
    while model.flying or model.log.written < model.log.last_index:
        model.write()
        model.sync()
    model.check()
    assert model.disk.last_index == len(model.terms) - 1
    again = ReplicaLog(
        Stored(
            start=model.disk.start,
            hard_state=HardState(model.term, 0, model.log.commit),
            applied=model.log.handed,
            entries=model.disk,
        ),
        cache_bytes,
    )
    assert (again.last_index, again.last_term) == (model.log.last_index, model.log.last_term)
    for index in range(again.start.index, again.last_index + 1):
        assert again.term_at(index) == model.terms[index]


RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), RUNS, RUNS)
def test_two_logs_agree_after_a_round_trip_per_term(
    common: int, ours: list[tuple[int, int]], theirs: list[tuple[int, int]]
) -> None:
    """Whatever followed what two replicas have in common; the terms of the two tails differ."""
    group = Group(2, settings=Raft())
    for number, tail, odd in ((0, ours, 1), (1, theirs, 0)):
        terms, term = [1] * common, 1
        for step, count in tail:
            term += 2 * step + (term + odd) % 2
            terms += [term] * count
        disk = group.disks[number]
        disk.entries = [command(at, each) for at, each in enumerate(terms, 1)]
        disk.hard_state = HardState(terms[-1])
        group.start(number)
    group.advance(10_000)
    leader = group.leader
    assert leader >= 0
    rejected = [each for each in group.log if each.kind is MessageKind.APPEND_REPLY]
    assert sum(each.rejected for each in rejected) <= len(ours) + len(theirs) + 1
    assert group.nodes[0].last_index == group.nodes[1].last_index == group.nodes[1].commit
    assert group.applied[0] == group.applied[1]


def test_the_model_sees_a_difference() -> None:
    model = Model(0)
    model.merge(0, 3, 0, False)
    model.terms[2] = 9
    with pytest.raises(AssertionError):
        model.check()
