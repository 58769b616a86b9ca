"""Durable shared groups whose node gets another number of cores, again and again."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.departure import Target
from robustmq.broker.log_relocation import Depots
from robustmq.broker.relocation import Relocation
from robustmq.mqtt.session_rows import SessionRow
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.memory_table import MemoryTable
from robustmq.workers.relocation import MqttSessions
from tests.durable import DurableClient
from tests.fabric import Fabric, Limits
from tests.held_logs import HeldLogs
from tests.property.test_durable_groups import (
    CLEAN,
    DURABLE,
    FILTER,
    GROUP,
    World,
    check_rest,
    drive,
    judge,
)
from tests.property.test_durable_groups import operations as steady

moves = st.tuples(st.just("move"), st.integers(1, 4))
operations = st.one_of(steady, steady, steady, steady, moves)


class Nomads(World):
    """A world whose number of cores changes; the sessions are where their names say."""

    def __init__(self, count: int, limit: int, exact: bool) -> None:
        super().__init__(count, limit, exact)
        place = self.fabric.placement
        homes = [place.home_of(self.name(who)) for who in range(DURABLE)]
        self.leave_all()
        self.durable = [DurableClient(self.fabric, home, limit) for home in homes]
        for client in self.durable:
            client.reads_on = False
        self.join(0, 2)
        self.fabric.settle()

    def leave_all(self) -> None:
        """Nobody is in the group."""
        for client in self.durable:
            client.leave(GROUP, FILTER)
        self.qos.clear()
        self.fabric.settle()

    @staticmethod
    def name(who: int) -> bytes:
        """A client's id."""
        return b"client %d" % who

    def move(self, count: int) -> None:
        """Kill all, and go on with `count` cores."""
        for guest in self.clean:
            self.excuse(guest, 0, 2)
            self.former.append(guest)
        old = [node.table.crash() for node in self.fabric.nodes]
        for who, client in enumerate(self.durable):
            session = SessionRow(client.key, 60, 5, 0, None, None)
            old[client.home].put(b"s" + self.name(who), msgspec.msgpack.encode(session))
        for table in old:
            table.commit()
        new = [MemoryTable() for _ in range(count)]
        Relocation(
            old,
            [Target(table, table.commit) for table in new],
            sessions=MqttSessions(),
            depots=Depots([HeldLogs() for _ in old], [HeldLogs() for _ in new]),
            rules=TopicRules(()),
            progress=lambda *_: None,
        ).run()
        self.fabric = Fabric(count, Limits(max_batch_bytes=200))
        for who, client in enumerate(self.durable):
            client.fabric = self.fabric
            client.home = self.fabric.placement.home_of(self.name(who))
        for core, table in enumerate(new):
            self.fabric.nodes[core].table = table
            self.fabric.crash(core, 0, [c.restore for c in self.durable if c.home == core])
        self.clean = [self.clean_client((i + 1) % count) for i in range(CLEAN)]
        for place in range(CLEAN):
            self.qos.pop(DURABLE + place, None)
        self.fabric.settle()


@settings(max_examples=150)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 60_000]),
    st.booleans(),
    st.lists(operations, min_size=20, max_size=80),
)
def test_a_move_loses_nothing_of_groups(
    count: int, limit: int, exact: bool, steps: list[tuple[object, ...]]
) -> None:
    world = Nomads(count, limit, exact)
    drive(world, steps)
    judge(world)
    check_rest(world)
