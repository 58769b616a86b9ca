"""A journal equals a list under random operations, crashes and bit flips."""

import random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.raft.journal import Journal, Journals
from robustmq.raft.message import Entry, EntryKind, HardState, Membership, Snapshot
from tests.unit.storage.disk import Disk, HandWriter

MEMBERS = Membership((1, 2, 3), (4,))


class State(NamedTuple):
    """What a journal holds: where it starts, its entries, its term and vote."""

    start: Snapshot
    entries: tuple[Entry, ...]
    vote: tuple[int, int]


def state_of(journal: Journal) -> State:
    first, last = journal.start.index + 1, journal.last_index
    entries = tuple(journal.read(first, last, 1 << 30)) if first <= last else ()
    hard = journal.hard_state
    return State(journal.start, entries, (hard.term, hard.vote))


class Model:
    """The journal beside a list of all states it has gone through, record by record."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.states = [State(Snapshot(), (), (0, -1))]
        self.batches: dict[int, int] = {}
        """How many states there were when a batch was gathered, by its number."""
        self.durable = self.before = 1
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        self.journals = Journals(self.disk, self.writer, "/raft", 300)
        self.journal = self.journals.open("g")
        self.batches.clear()

    def note(self, state: State) -> None:
        self.states.append(state)
        # All that is gathered is in the batch that is handed over next.
        self.batches[self.journals.next] = len(self.states)

    def append(self, rng: random.Random, count: int, back: int) -> None:
        start, entries, (term, _) = self.states[-1]
        keep = max(0, len(entries) - back)
        if back:
            term += 1
        term = max(term, entries[-1].term if entries else start.term)
        index = start.index + keep
        new = []
        for _ in range(count):
            index += 1
            data = rng.randbytes(rng.choice((0, 10, 100, 400)))
            new.append(Entry(index, term, EntryKind.COMMAND, data))
        self.journal.append(new, None)
        for number in range(1, len(new) + 1):
            whole = (*entries[:keep], *new[:number])
            self.note(State(start, whole, self.states[-1].vote))
        if back:
            self.vote(term)

    def vote(self, term: int) -> None:
        start, entries, _ = self.states[-1]
        self.journal.append([], HardState(term, term % 3 + 1, 0))
        self.note(State(start, entries, (term, term % 3 + 1)))

    def compact(self, share: int) -> None:
        start, entries, vote = self.states[-1]
        place = len(entries) * share // 100
        if place:
            last = entries[place - 1]
            start = Snapshot(last.index, last.term, MEMBERS)
            self.journal.begin(start, anew=False)
            self.note(State(start, entries[place:], vote))

    def install(self, ahead: int) -> None:
        start, entries, (term, vote) = self.states[-1]
        last = entries[-1] if entries else start
        start = Snapshot(last.index + ahead, max(term, last.term), MEMBERS)
        self.journal.begin(start, anew=True)
        self.note(State(start, (), (term, vote)))

    def commit(self) -> None:
        self.journals.commit()

    def work(self) -> None:
        self.writer.run()
        self.journals.collect()
        count = self.batches.get(self.journals.durable)
        if count is not None and count != self.durable:
            self.before, self.durable = self.durable, count

    def crash(self, seed: int, power: bool) -> None:
        if power:
            self.disk.lose_power(random.Random(seed))
        else:
            self.disk.kill()
        self.open()
        found = state_of(self.journal)
        assert found in self.states[self.durable - 1 :]
        assert not self.journal.recovered.cut or power
        self.states = [found]
        # What was found is durable; which part of it was the last batch is not known.
        self.durable = self.before = 1

    def close(self) -> None:
        self.journals.close()


OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("append"), st.integers(1, 3), st.integers(1, 6)),
    st.tuples(st.just("compact"), st.integers(10, 100), st.just(0)),
    st.tuples(st.just("install"), st.integers(1, 5), st.just(0)),
    st.tuples(st.just("vote"), st.just(0), st.just(0)),
    st.tuples(st.just("commit"), st.just(0), st.just(0)),
    st.tuples(st.just("work"), st.just(0), st.just(0)),
    st.tuples(st.just("crash"), st.integers(0, 1 << 30), st.booleans()),
)
HISTORIES = st.lists(OPERATIONS, min_size=1, max_size=40)


def run(model: Model, history: list[tuple[str, int, int]], seed: int, crashes: bool = True) -> None:
    rng = random.Random(seed)
    for name, one, two in history:
        if name == "append":
            model.append(rng, one, two)
        elif name == "compact":
            model.compact(one)
        elif name == "install":
            model.install(one)
        elif name == "vote":
            model.vote(model.states[-1].vote[0] + 1)
        elif name == "commit":
            model.commit()
        elif name == "work":
            model.work()
        elif crashes:
            model.crash(one, bool(two))
        assert state_of(model.journal) == model.states[-1]


@given(HISTORIES, st.integers(0, 1 << 30))
def test_a_journal_is_a_list_through_crashes(
    history: list[tuple[str, int, int]], seed: int
) -> None:
    run(Model(), history, seed)


@given(HISTORIES, st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_a_flipped_bit_is_refused_or_was_in_the_last_batch(
    history: list[tuple[str, int, int]], seed: int, which: int, bit: int
) -> None:
    model = Model()
    run(model, [("vote", 0, 0), ("commit", 0, 0), ("work", 0, 0)], seed)
    run(model, history, seed, crashes=False)
    model.commit()
    model.work()
    model.commit()
    model.work()
    before = model.before
    paths = sorted(path for path in model.disk.names if path.endswith(".journal"))
    path = paths[which % len(paths)]
    model.disk.flip(path, bit % (len(model.disk.names[path].data) * 8))
    try:
        model.open()
    except Corrupt as error:
        refusal = str(error)
    else:
        refusal = ""
        assert state_of(model.journal) in model.states[before - 1 :]
    assert not refusal or "replace the node" in refusal
