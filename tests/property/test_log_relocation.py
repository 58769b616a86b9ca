"""Topic logs whose node gets another number of cores, again and again.

All cores are killed at once, their logs are moved, and new cores go on with them: what was
acknowledged is there, nothing is there twice, and own logs have the offsets that they had.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.broker.departure import Target
from robustmq.broker.log_relocation import Depots
from robustmq.broker.relocation import Relocation
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.memory_table import MemoryTable
from robustmq.workers.relocation import MqttSessions
from tests.fabric import Fabric, Limits
from tests.held_logs import HeldLogs
from tests.property.test_topic_logs import RULES, TOPICS, Published, World, operations

LIMITS = Limits(topic_rules=RULES)
moves = st.tuples(st.just("move"), st.integers(1, 4))
steps = st.lists(st.one_of(operations, operations, operations, moves), min_size=20, max_size=80)


class Movers(World):
    """A world whose number of cores changes."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.moves = 0
        self.owed: set[int] = set()
        """What a core had on its disk, to be kept once, when it was killed."""

    def publish(self, core: int, topic: str, qos: int) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        answer = node.publish(topic, str(len(self.published)), qos)
        life = self.moves << 32 | node.links.life
        self.published.append(Published(node.index, life, topic, qos, answer))

    def move(self, count: int) -> None:
        """Kill all, and go on with `count` cores."""
        old = [node.table.crash() for node in self.fabric.nodes]
        held = [node.held.crash() for node in self.fabric.nodes]
        new = [MemoryTable() for _ in range(count)]
        shelves = [HeldLogs() for _ in new]
        before = own_logs(held, old)
        for table in old:
            for _, batch in table.walk(b"O", b"P"):
                self.owed.update(int(value or b"") for *_, value, _ in records(batch))
        Relocation(
            old,
            [Target(table, table.commit) for table in new],
            sessions=MqttSessions(),
            depots=Depots(held, shelves),
            rules=TopicRules(RULES),
            progress=lambda *_: None,
        ).run()
        assert own_logs(held, old) == before
        self.moves += 1
        self.fabric = Fabric(count, LIMITS)
        for core, table in enumerate(new):
            node = self.fabric.nodes[core]
            node.table, node.held = table, shelves[core]
            self.fabric.replace(core)
        after = own_logs([node.held for node in self.fabric.nodes], new)
        for name, content in before.items():
            assert after[name][: len(content)] == content
        self.settle()


def own_logs(held: list[HeldLogs], tables: list[MemoryTable]) -> dict[bytes, list[object]]:
    """Offset and value of all that logs of topics' own have."""
    found: dict[bytes, list[object]] = {}
    for table, store in zip(tables, held, strict=True):
        for key, value in table.walk(b"Qt", b"Qu"):
            log = store.logs[int.from_bytes(value[:4], "big")]
            assert key not in found
            found[key] = [
                (base + number, value)
                for base, _, data in log.read(log.start_offset, 1 << 30)
                for number, (_, _, _, _, value, _) in enumerate(records(data))
            ]
    return found


@settings(max_examples=200)
@given(st.integers(1, 3), steps)
def test_a_move_loses_nothing_that_logs_have(count: int, steps: list[tuple[object, ...]]) -> None:
    world = Movers(count)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()
    kept = world.kept()
    for topic in TOPICS:
        numbers = Counter(number for log in kept[topic] for number in log)
        assert not [number for number, times in numbers.items() if times > 1], "once"
        for number, published in enumerate(world.published):
            if published.topic != topic:
                continue
            if [code for code, _ in published.answer.got] == [0] or number in world.owed:
                assert numbers[number] == 1, f"{number} is lost"
        for log in kept[topic]:
            last: dict[tuple[int, int], int] = {}
            for number in log:
                core, life, _, _, answer = world.published[number]
                if [code for code, _ in answer.got] == [0]:
                    assert last.get((core, life), -1) < number
                    last[core, life] = number
