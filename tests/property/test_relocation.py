"""Durable sessions whose node gets another number of cores, again and again.

All cores are killed at once, their rows are moved, and new cores go on with them: what was
acknowledged before arrives, in order, at QoS 2 once, as if nothing had happened.
"""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Heir
from robustmq.broker.departure import Target
from robustmq.broker.log_relocation import Depots
from robustmq.broker.relocation import Relocation, check_kinds
from robustmq.errors import Corrupt
from robustmq.mqtt.session_rows import SessionRow, SubscriptionRow, decode_subscription
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.memory_table import MemoryTable
from robustmq.workers.relocation import MqttSessions
from tests.durable import DurableClient
from tests.fabric import Fabric, Limits
from tests.held_logs import HeldLogs
from tests.property.test_durable import CLIENTS, World, judge, operations

LEFT = b"LBXOKM"
moves = st.tuples(st.just("move"), st.integers(1, 4), st.booleans())
steps = st.lists(st.one_of(operations, operations, operations, moves), min_size=20, max_size=80)


def rows_of(table: MemoryTable) -> list[tuple[bytes, bytes]]:
    """Everything that a table has."""
    return list(table.walk(b"", b"\xff" * 20))


class Nomads(World):
    """A world whose number of cores changes; the clients' sessions are where their names say."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(count, limit)
        placement = self.fabric.placement
        homes = [placement.home_of(self.name(who)) for who in range(CLIENTS)]
        self.clients = [DurableClient(self.fabric, home, limit) for home in homes]
        for client in self.clients:
            client.reads_on = False
        self.moves = 0

    @staticmethod
    def name(who: int) -> bytes:
        """A client's id."""
        return b"client %d" % who

    def move(self, count: int, settles: bool = True) -> None:
        """Kill all, and go on with `count` cores, one by one when nothing `settles`."""
        old = [node.table.crash() for node in self.fabric.nodes]
        for table in old:
            self.note_taken(table)
        for who, client in enumerate(self.clients):
            self._put_rows(who, client, old[client.home])
        for table in old:
            table.commit()
        before = [rows_of(table) for table in old]
        new = [MemoryTable() for _ in range(count)]
        Relocation(
            old,
            [Target(table, table.commit) for table in new],
            sessions=MqttSessions(),
            depots=Depots([HeldLogs() for _ in old], [HeldLogs() for _ in new]),
            rules=TopicRules(()),
            progress=lambda *_: None,
        ).run()
        assert [rows_of(table) for table in old] == before
        self.moves += 1
        self.lives = [1_000 * self.moves] * count
        self.fabric = Fabric(count, Limits(max_batch_bytes=200))
        for who, client in enumerate(self.clients):
            client.fabric = self.fabric
            client.home = self.fabric.placement.home_of(self.name(who))
            self._take_rows(who, client, new[client.home])
        for core, table in enumerate(new):
            self.fabric.nodes[core].table = table
            self.fabric.crash(core, 0, [c.restore for c in self.clients if c.home == core])
        if settles:
            self.fabric.settle()

    def _put_rows(self, who: int, client: DurableClient, table: MemoryTable) -> None:
        session = SessionRow(client.key, 60, 5, 0, None, None)
        table.put(b"s" + self.name(who), msgspec.msgpack.encode(session))
        prefix = b"t" + client.key.to_bytes(8, "big")
        for name, (options, start) in client.subscriptions.items():
            table.put(
                prefix + name, msgspec.msgpack.encode(SubscriptionRow(options.qos, start, b""))
            )
        table.put(prefix + b"$share/g/a/#", msgspec.msgpack.encode(SubscriptionRow(1, 7, b"")))
        table.put(prefix + b"live", msgspec.msgpack.encode(SubscriptionRow(0, 7, b"")))
        table.put(b"u" + client.key.to_bytes(8, "big") + b"\0\7", b"")

    def _take_rows(self, who: int, client: DurableClient, table: MemoryTable) -> None:
        known = table.get(b"s" + self.name(who))
        assert known is not None
        assert msgspec.msgpack.decode(known, type=SessionRow).number == client.key
        number = client.key.to_bytes(8, "big")
        assert [key for key, _ in table.walk(b"u" + number, b"u" + number + b"\xff")] == [
            b"u" + number + b"\0\7"
        ]
        rows = dict(table.walk(b"t" + number, b"t" + number + b"\xff" * 20))
        found = {key[9:]: decode_subscription(key[9:], value) for key, value in rows.items()}
        assert found.pop(b"$share/g/a/#").start == found.pop(b"live").start == 7
        assert found.keys() == client.subscriptions.keys()
        for name, subscribed in found.items():
            known_as = client.subscriptions[name]
            assert subscribed.options == known_as.options
            client.subscriptions[name] = known_as._replace(start=subscribed.start)


@settings(max_examples=150)
@given(st.integers(1, 3), st.sampled_from([1, 2, 60_000]), steps)
@example(
    count=2,
    limit=60_000,
    actions=[
        *[("subscribe", who, "a", 2) for who in range(CLIENTS)],
        ("move", 3, False),
        ("publish", 0, "a", 2),
        ("turn", 0, 100),
        ("move", 2, True),
    ],
).via("only one core has written anything since the last move")
def test_a_move_loses_nothing(count: int, limit: int, actions: list[tuple[object, ...]]) -> None:
    world = Nomads(count, limit)
    for name, *arguments in actions:
        getattr(world, str(name))(*arguments)
    world.finish()
    judge(world)
    world.tick()
    for who in range(CLIENTS):
        world.go(who)
    world.tick()
    for node in world.fabric.nodes:
        left = [
            key for kind in LEFT for key, _ in node.table.walk(bytes((kind,)), bytes((kind + 1,)))
        ]
        assert not left


@settings(max_examples=50)
@given(st.lists(operations, min_size=20, max_size=60), st.lists(operations, max_size=20))
@example(
    first=[*[("turn", 0, 100)] * 18, ("settle",), ("subscribe", 3, "a", 1)],
    between=[("publish", 0, "a", 1), ("publish", 0, "a", 2), ("come", 3), ("subscribe", 3, "a", 2)],
).via("a subscription gets a higher QoS before what was published has reached it")
def test_several_moves_in_sequence(
    first: list[tuple[object, ...]], between: list[tuple[object, ...]]
) -> None:
    world = Nomads(2, 60_000)
    for actions, count in ((first, 3), (between, 1), ([], 4), (between, 2)):
        for name, *arguments in actions:
            getattr(world, str(name))(*arguments)
        world.move(count)
    world.finish()
    judge(world)


def test_what_a_session_was_owed_on_another_node_moves_with_it() -> None:
    world = Nomads(1, 60_000)
    first, second = world.clients[:2]
    second.subscribe("a")
    world.fabric.settle()
    node = world.fabric.nodes[0]
    for payload in ("1", "2"):
        node.publish("a", payload, 1)
        world.fabric.settle()
    node.core.estates.begin()
    node.core.estates.leave(second.window, Heir("second", 0))
    page, after = node.core.estates.page(second.key, 1 << 20)
    assert after is None
    assert node.core.legacies.take(first.window, 2048, 5, page)
    world.fabric.settle()
    with pytest.raises(Corrupt, match="mqtt_bequests is 0"):
        check_kinds(0, node.table)
    node.core.estates.close(second.key)
    world.fabric.settle()
    for count in (3, 2):
        world.move(count)
    legacies = first.node.core.legacies
    assert legacies.take(first.window, 2048, 5, page)
    world.fabric.settle()
    first.connect()
    world.fabric.settle()
    first.read()
    assert [message.payload for message in first.messages] == [b"1", b"2"]
    legacies.forget(lambda source: source == 2048)
    assert legacies.take(first.window, 2048, 5, page)
    world.fabric.settle()
    first.read()
    assert [message.payload for message in first.messages] == [b"1", b"2"] * 2
