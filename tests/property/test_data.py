"""Laws of the data groups: one owner a session, the same on every node, and nothing unheard."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Refused
from robustmq.message.session_record import SessionChange, SessionHead, Verdict
from robustmq.meta import commands, data
from robustmq.meta.data import ALL, Batch, Close, Data, Open, Retained
from tests.unit.meta.memory_store import MemoryStore

HEAD = SessionHead(True, 60, 0, 5)

nodes = st.integers(0, 2)
few = st.integers(0, 4)
identities = st.sampled_from(["a", "b", "c"])
topics = st.sampled_from([b"t", b"u", b"v"])
retained = st.builds(Retained, topics, st.none() | st.binary(max_size=2))
changes = st.builds(
    SessionChange,
    identities,
    nodes,
    st.integers(1, 5),
    st.integers(1, 5),
    st.none() | few,
    st.none() | st.just(HEAD),
)
batches = st.builds(
    Batch, nodes, few, st.lists(changes, max_size=2), st.lists(retained, max_size=2)
)
fences = st.builds(Open, nodes, few) | st.builds(Close, nodes, few)
logs = st.lists((batches | fences).map(data.encode) | st.binary(max_size=3), max_size=30)


@given(logs)
def test_two_machines_say_and_keep_the_same(log: list[bytes]) -> None:
    stores = MemoryStore(), MemoryStore()
    first, second = (Data(store) for store in stores)
    for index, command in enumerate(log, start=1):
        if index % 3 == 0:
            second = Data(stores[1])
        assert first.apply(index, command) == second.apply(index, command)
    assert stores[0].rows == stores[1].rows


@given(logs)
def test_each_session_is_owned_by_who_has_it_and_counted_once(log: list[bytes]) -> None:
    machine = Data(MemoryStore())
    for index, command in enumerate(log, start=1):
        machine.apply(index, command)
    owned = {node: [row.identity for row in machine.owned(node)] for node in range(3)}
    for node, names in owned.items():
        assert names == sorted(set(names))
        rows = [machine.session(name) for name in names]
        assert all(row is not None and row.owner == node for row in rows)
    assert machine.counts[0] == sum(map(len, owned.values()))


@given(st.lists(batches | fences, max_size=30))
def test_only_of_a_node_that_is_fenced_others_take_a_session(
    log: list[Batch | Open | Close],
) -> None:
    machine = Data(MemoryStore())
    for index, command in enumerate(log, start=1):
        if not isinstance(command, Batch) or len(command.sessions) != 1:
            machine.apply(index, data.encode(command))
            continue
        (change,) = command.sessions
        row = machine.session(change.identity)
        is_open = row is not None and machine.fence(row.owner).is_open
        result = commands.outcome(machine.apply(index, data.encode(command)))
        if isinstance(result, Refused) or data.verdicts(result) != [Verdict.DONE]:
            assert machine.session(change.identity) == row
            continue
        assert row is None or row.owner == command.node or (is_open and change.takes)


@given(st.lists(st.lists(retained, max_size=3), max_size=20), st.data())
def test_who_follows_hears_all_that_is_retained(
    log: list[list[Retained]], draw: st.DataObject
) -> None:
    """Read in pages of any size while it changes, from wherever the reader was."""
    machine = Data(MemoryStore())
    known: dict[bytes, bytes] = {}
    wanted: dict[bytes, bytes] = {}
    after = (0, b"")
    for index, rows in enumerate(log, start=1):
        machine.apply(index, data.encode(Batch(0, 0, [], rows)))
        for row in rows:
            wanted.pop(row.topic, None)
            if row.message is not None:
                wanted[row.topic] = row.message
        if draw.draw(st.booleans()):
            page = machine.changes(after, draw.draw(st.integers(1, 3)))
            after = page.after or (index, ALL)
            _learn(known, page.rows)
    while (page := machine.changes(after, 2)).rows:
        _learn(known, page.rows)
        after = page.after or (len(log), ALL)
    assert known == wanted
    assert machine.counts[1] == len(wanted)


def _learn(known: dict[bytes, bytes], rows: list[tuple[int, Retained]]) -> None:
    for _, row in rows:
        known.pop(row.topic, None)
        if row.message is not None:
            known[row.topic] = row.message
