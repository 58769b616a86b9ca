"""The inbox of a core equals a naive queue per session, whatever is kept, read, trimmed, restarted.

The model has one list of messages per filter, each with its position; a session reads those
from where it stands. Limits are out of the way here, `tests/unit/broker/test_inbox.py` has them.
"""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.inbox import Inbox
from robustmq.broker.state import State
from robustmq.message.batch import HEADER
from robustmq.message.record import NO_HEADERS
from robustmq.settings.mqtt import MqttInbox
from robustmq.storage.memory_table import MemoryTable

FILTERS = [b"a", b"a/+", b"#"]
NOW_MS = 1_700_000_000_000

filters = st.integers(0, len(FILTERS) - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.sets(filters, min_size=1), st.integers(1, 4)),
        st.tuples(st.just("many"), filters, st.integers(250, 300)),
        st.tuples(st.just("trim"), filters, st.floats(0, 1)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("remove"), filters),
    ),
    min_size=15,
    max_size=50,
)


def run_of(payloads: list[bytes]) -> bytes:
    """A batch of records of one topic."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * metrics.CELLS))), 0, 1 << 30, None)
    for payload in payloads:
        builder.append(b"topic", payload, NO_HEADERS, 1, NOW_MS)
    return builder.take()[0]


class World:
    """An inbox on a disk in memory, and the queues that it must equal."""

    def __init__(self) -> None:
        self.table = MemoryTable()
        self.model: dict[int, list[tuple[int, bytes]]] = {number: [] for number in range(3)}
        self.low = [0] * 3
        self.count = 0
        self.open()

    def open(self) -> None:
        turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
        turn.now_ms = NOW_MS
        self.state = State(self.table)
        self.inbox = Inbox(turn, self.state, MqttInbox())
        for name in FILTERS:
            self.inbox.log(name)
        self.inbox.remove_strays()

    def turn(self) -> None:
        self.table.commit()
        self.table.completed()
        self.inbox.run()

    def keep(self, wanted: set[int], count: int) -> None:
        payloads = [str(self.count + i).encode() for i in range(count)]
        self.count += count
        batch = run_of(payloads)
        logs = [self.inbox.log(FILTERS[number]) for number in sorted(wanted)]
        row = self.inbox.keep(logs, batch, HEADER, len(batch), count)
        assert row is not None
        for number in wanted:
            self.model[number] += [(row.position + i, p) for i, p in enumerate(payloads)]

    def many(self, number: int, count: int) -> None:
        for _ in range(count):
            self.keep({number}, 1)
        self.turn()

    def trim(self, number: int, part: float) -> None:
        rows = self.model[number]
        position = self.inbox.next_position if part == 1 else 0
        if rows and part < 1:
            position = rows[int(part * len(rows))][0]
        self.low[number] = max(self.low[number], position)
        self.inbox.trim(self.inbox.log(FILTERS[number]), self.low[number])

    def remove(self, number: int) -> None:
        self.inbox.remove(FILTERS[number])
        self.model[number] = []
        self.low[number] = 0
        self.inbox.log(FILTERS[number])

    def restart(self) -> None:
        self.turn()
        self.table = self.table.crash()
        self.open()

    def check(self) -> None:
        self.turn()
        for number, name in enumerate(FILTERS):
            log = self.inbox.log(name)
            owed = [entry for entry in self.model[number] if entry[0] >= self.low[number]]
            for start in {self.low[number], *(position for position, _ in owed[::7])}:
                found: list[tuple[int, bytes]] = []
                for row in self.inbox.read(log, start, self.inbox.next_position):
                    values = [record[4] or b"" for record in records(row.batch)]
                    found += [(row.position + i, value) for i, value in enumerate(values)]
                assert [entry for entry in found if entry[0] >= start] == [
                    entry for entry in owed if entry[0] >= start
                ]


@settings(max_examples=80, deadline=None)
@given(steps)
def test_the_inbox_equals_a_queue_per_filter(operations: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in operations:
        getattr(world, str(name))(*arguments)
    world.check()
    for number in range(len(FILTERS)):
        world.trim(number, 1)
    while world.inbox.busy:
        world.turn()
    world.turn()
    world.check()
    for prefix in b"LBK":
        assert not list(world.table.walk(bytes((prefix,)), bytes((prefix + 1,))))
