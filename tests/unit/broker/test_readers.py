"""Readers of a log: few or many, joining and leaving, and the lowest of their positions."""

from array import array

import pytest

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import cursors
from robustmq.broker.api import Options
from robustmq.broker.cursor import Cursor
from robustmq.broker.readers import FEW, Readers, Sweep, with_reader, without_reader
from tests.durable import DurableClient
from tests.fabric import Fabric


def some(count: int) -> list[Cursor]:
    turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
    return [Cursor(Window(turn, 1, 1, 1), position) for position in range(count)]


def test_few_and_many_are_the_same_set() -> None:
    cursors = some(3 * FEW)
    readers: Readers = ()
    for count, cursor in enumerate(cursors, 1):
        readers = with_reader(readers, cursor)
        assert list(readers) == cursors[:count]
    for count, cursor in enumerate(cursors, 1):
        readers = without_reader(readers, cursor)
        assert list(readers) == cursors[count:]
    readers = without_reader(with_reader((), cursors[0]), cursors[0])
    assert not readers


def test_a_sweep_finds_the_lowest_in_portions() -> None:
    cursors = some(10)
    sweep = Sweep(dict.fromkeys(reversed(cursors)), 0)
    portions = []
    while portion := sweep.take(4):
        portions.append(len(portion))
        for cursor in portion:
            sweep.look(cursor.position + 5)
    assert portions == [4, 4, 2]
    assert sweep.lowest == 5


def test_a_log_with_many_readers_is_trimmed_when_all_have_been_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cursors, "_AT_ONCE", 3)
    fabric = Fabric(1)
    node = fabric.nodes[0]
    clients = [DurableClient(fabric, 0) for _ in range(10)]
    for client in clients:
        client.connect()
        client.subscribe("t", Options(1))
    fabric.settle()
    node.publish("t", "x", 1)
    fabric.settle()

    def rows() -> int:
        return len(list(node.table.walk(b"L", b"M")))

    def tick() -> None:
        node.turn.now_ms += 1_000
        node.core.timers.run(node.turn.now_ms)
        fabric.settle()

    for client in clients[1:]:
        client.read()
    tick()
    assert rows() == 1
    clients[0].read()
    tick()
    assert rows() == 0
