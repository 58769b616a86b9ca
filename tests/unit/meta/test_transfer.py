import msgspec
import pytest

from robustmq.meta.peer_message import Chunk
from robustmq.meta.store import OWN, GroupStore, Position
from robustmq.meta.transfer import Incoming, Outgoing
from robustmq.raft.message import Membership, Snapshot
from tests.simulation.host_disk import Fuse, FusedDisk, MemoryDatabases

SNAPSHOT = Snapshot(40, 3, Membership((1, 2)))
FIRST = Chunk(0, 3, 77, SNAPSHOT, 0, b"", 0, 0, False)


def store_with(rows: int) -> GroupStore:
    store = GroupStore(FusedDisk(Fuse()), MemoryDatabases(Fuse()), "/d/s/g")
    for number in range(rows):
        store.put(b"%06d" % number, bytes(100))
    store.accept()
    store.write(Position(40, rows))
    return store


class Bench:
    """A sender and a receiver."""

    def __init__(self, rows: int = 100, part_bytes: int = 1_000, window: int = 3) -> None:
        self.sender = store_with(rows)
        self.receiver = store_with(0)
        self.outgoing = Outgoing(
            2, FIRST, self.sender.view(), 0, window=window, part_bytes=part_bytes
        )
        self.incoming = Incoming(self.receiver, FIRST, 1)

    def carry(self) -> int:
        parts = 0
        while not self.outgoing.has_arrived:
            for part in self.outgoing.parts(0):
                parts += 1
                reply = self.incoming.take(part)
                assert not reply.refused
                self.outgoing.arrived(reply.expected, 0)
        return parts


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 100, 511, 512, 513, 1_200])
@pytest.mark.parametrize("part_bytes", [1, 1_060, 1 << 20])
def test_what_arrives_is_what_was_sent(rows: int, part_bytes: int) -> None:
    bench = Bench(rows, part_bytes)
    bench.sender.put(b"later", b"")
    bench.sender.accept()
    bench.sender.write(Position(41, rows))
    bench.carry()
    assert bench.incoming.is_whole
    bench.receiver.make_current(bench.incoming.staged)
    bench.receiver.switch(bench.incoming.staged)
    found = dict(bench.receiver.walk(b""))
    assert b"later" not in found
    assert len(found) == rows + 1
    assert bench.receiver.position == Position(40, rows)
    bench.outgoing.close()


def test_defect_l_every_row_travels_whosever_it_is() -> None:
    bench = Bench(rows=3)
    bench.carry()
    bench.receiver.make_current(bench.incoming.staged)
    bench.receiver.switch(bench.incoming.staged)
    found = dict(bench.receiver.walk(b""))
    assert found == dict(bench.sender.walk(b""))
    assert any(key.startswith(OWN) for key in found)


def test_no_more_than_the_window_is_under_way() -> None:
    bench = Bench()
    first = bench.outgoing.parts(0)
    assert [part.number for part in first] == [0, 1, 2]
    assert bench.outgoing.parts(0) == []
    bench.outgoing.arrived(2, 5)
    assert [part.number for part in bench.outgoing.parts(6)] == [3, 4]
    assert bench.outgoing.progress_ms == 5
    assert [part.number for part in bench.outgoing.again(7)] == [2, 3, 4]


def test_a_part_that_is_missing_is_waited_for_and_one_that_comes_again_is_not_taken() -> None:
    bench = Bench()
    zero, one, two = bench.outgoing.parts(0)
    assert bench.incoming.take(zero).expected == 1
    assert bench.incoming.take(two) == bench.incoming.reply(0)
    assert bench.incoming.take(zero).expected == 1
    assert bench.incoming.take(one).expected == 2
    assert bench.incoming.take(two).expected == 3
    bench.outgoing.arrived(3, 0)
    bench.carry()
    assert bench.incoming.is_whole


@pytest.mark.parametrize("field", ["rows", "crc", "total"])
def test_a_part_that_is_not_what_was_sent_is_refused(field: str) -> None:
    bench = Bench()
    part = bench.outgoing.parts(0)[0]
    value = part.rows[:-1] + b"\1" if field == "rows" else getattr(part, field) ^ 1
    assert bench.incoming.take(msgspec.structs.replace(part, **{field: value})).refused


def test_a_whole_that_is_another_state_is_refused() -> None:
    bench = Bench(rows=1)
    other = msgspec.structs.replace(FIRST, snapshot=Snapshot(41, 3, SNAPSHOT.membership))
    incoming = Incoming(bench.receiver, other, 1)
    assert incoming.take(bench.outgoing.parts(0)[0]).refused
    assert not incoming.is_whole
