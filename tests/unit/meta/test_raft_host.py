import errno
import random
from collections.abc import Callable

import msgspec
import pytest

from robustmq.errors import Corrupt, ProtocolError, Refusal, Refused
from robustmq.meta.life import begin_life
from robustmq.meta.machine import Applied, Outcome, Store
from robustmq.meta.outcomes import Batch
from robustmq.meta.peer_message import Forward, Parcel, encode
from robustmq.meta.raft_host import Disk, RaftHost
from robustmq.raft import message as raft_message
from robustmq.raft.journal import Fatal
from robustmq.raft.message import Membership, Message, MessageKind
from robustmq.settings.raft import Raft
from tests.simulation.host_disk import Fuse, FusedDisk, MemoryDatabases
from tests.unit.storage.disk import HandWriter

SETTINGS = Raft(
    election_timeout_ms=100,
    heartbeat_interval_ms=20,
    compact_entries=10,
    keep_entries=2,
    segment_bytes=1_024,
    max_proposal_bytes=1_024,
    pending_bytes=4_096,
)


class Rows:
    """A machine that keeps each command under its position."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reloads = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.store.put(b"r%06d" % index, command)
        if command == b"poison":
            raise ValueError("poison")
        return b"did " + command

    def reload(self) -> None:
        self.reloads += 1


class Bench:
    """A host alone, or one of several, on a disk of its own."""

    def __init__(self, voters: tuple[int, ...] = (1,)) -> None:
        self.fuse = Fuse()
        self.disk = FusedDisk(self.fuse)
        self.databases = MemoryDatabases(self.fuse)
        self.voters = voters
        self.now = 1_000
        self.sent: list[tuple[int, bytes]] = []
        self.reports: list[str] = []
        self.outcomes: list[Outcome] = []
        self.open()

    def open(self, **changes: int) -> None:
        self.writer = HandWriter()
        self.machine: Rows | None = None
        self.host = RaftHost(
            me=1,
            groups={"metadata": self.make},
            voters=Membership(self.voters),
            settings=msgspec.structs.replace(SETTINGS, **changes),
            timeout_ms=1_000,
            disk=Disk(self.disk, self.writer, self.databases, "/d/meta"),
            send=lambda to, data: self.sent.append((to, data)),
            chance=lambda: 0.5,
            report=self.reports.append,
            wall_s=7,
            now_ms=self.now,
        )

    def make(self, store: Store) -> Rows:
        self.machine = Rows(store)
        return self.machine

    def turn(self, milliseconds: int = 1, works: bool = True) -> None:
        for _ in range(milliseconds):
            self.now += 1
            self.host.turn(self.now)
            if works and self.writer.asked:
                self.writer.run()
                self.host.turn(self.now)

    def propose(self, *commands: bytes) -> None:
        for command in commands:
            self.host.propose("metadata", command, self.outcomes.append)

    def fold(self, *commands: bytes) -> list[Outcome]:
        self.outcomes.clear()
        self.propose(*commands)
        self.turn(400)
        return self.outcomes

    def rows(self) -> list[bytes]:
        return [value for _, value in self.host.group("metadata").store.walk(b"r")]

    def lose_power(self) -> None:
        self.disk.lose_power(random.Random(1))
        self.databases.lose_power(random.Random(1))
        self.open()
        self.turn(400)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.turn(400)
    return made


def test_a_node_alone_is_a_majority(bench: Bench) -> None:
    assert bench.host.leader("metadata") == 1
    assert bench.host.silent_ms < 1_000
    assert bench.fold(b"a", b"b") == [Applied(1, b"did a"), Applied(2, b"did b")]
    assert bench.rows() == [b"a", b"b"]
    status = bench.host.status()[0]
    assert (status.name, status.leads, status.position) == ("metadata", True, 2)
    assert status.commit == status.applied == status.last


def test_nobody_is_told_before_the_disk_has_it(bench: Bench) -> None:
    bench.propose(b"a")
    bench.turn(50, works=False)
    assert not bench.outcomes
    bench.turn()
    bench.turn()
    assert bench.outcomes == [Applied(1, b"did a")]
    bench.lose_power()
    assert bench.rows() == [b"a"]


def test_what_is_proposed_in_an_answer_is_due_at_once(bench: Bench) -> None:
    def again(outcome: Outcome) -> None:
        bench.outcomes.append(outcome)
        bench.host.propose("metadata", b"b", bench.outcomes.append)

    bench.host.propose("metadata", b"a", again)
    assert bench.host.next_ms <= bench.now
    bench.turn(20)
    assert bench.outcomes == [Applied(1, b"did a"), Applied(2, b"did b")]
    assert bench.host.next_ms > bench.now


def test_a_read_sees_what_was_answered(bench: Bench) -> None:
    bench.fold(b"a")
    found: list[Refused | list[bytes]] = []
    bench.host.read("metadata", lambda refused: found.append(refused or bench.rows()))
    bench.turn(20)
    assert found == [[b"a"]]


def test_too_long_and_too_much_are_refused(bench: Bench) -> None:
    outcomes = bench.fold(bytes(1_025), *[bytes(1_000)] * 6)
    refused = [each.code for each in outcomes if isinstance(each, Refused)]
    assert refused == [Refusal.TOO_LARGE, Refusal.BUSY, Refusal.BUSY, Refusal.BUSY]
    assert bench.host.counters.failed == 4
    assert bench.host.counters.answered == 3


def test_defect_i_a_command_that_fails_is_an_outcome_and_the_rest_goes_on(bench: Bench) -> None:
    outcomes = bench.fold(b"a", b"poison", b"b")
    assert outcomes[0] == Applied(1, b"did a")
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].code is Refusal.INTERNAL
    assert outcomes[2] == Applied(3, b"did b")
    assert bench.rows() == [b"a", b"b"]
    assert "poison" in bench.reports[-1]
    assert bench.machine is not None
    assert bench.machine.reloads == 2
    bench.lose_power()
    assert bench.rows() == [b"a", b"b"]
    assert bench.fold(b"c") == [Applied(4, b"did c")]


def test_defects_b_and_c_a_log_that_is_cut_short_has_its_state_on_the_disk(bench: Bench) -> None:
    expected = []
    for number in range(40):
        expected.append(b"%d" % number)
        bench.fold(expected[-1])
    group = bench.host.group("metadata")
    assert group.journal.start.index > 20
    bench.lose_power()
    assert bench.rows() == expected
    assert bench.host.group("metadata").node.start.index > 20


def test_a_log_that_may_not_be_cut_short_yet_is_not_tried_all_the_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = bench.host.group("metadata")
    start = group.node.start
    syncs: list[int] = []
    monkeypatch.setattr(group.node, "compact", lambda _: start)
    monkeypatch.setattr(group.store.database, "sync", lambda: syncs.append(1))
    for number in range(40):
        bench.fold(b"%d" % number)
    assert 2 <= len(syncs) <= 5


def test_a_store_that_forgot_more_than_the_log_has_is_refused(bench: Bench) -> None:
    for number in range(40):
        bench.fold(b"%d" % number)
    bench.host.close()
    bench.databases.tables.clear()
    with pytest.raises(Corrupt, match="replace the node"):
        bench.open()


def test_a_log_that_is_gone_is_refused(bench: Bench) -> None:
    bench.fold(b"a")
    bench.host.close()
    for path in [path for path in bench.disk.names if path.endswith(".journal")]:
        bench.disk.unlink(path)
    with pytest.raises(Corrupt, match="replace the node"):
        bench.open()


def test_a_failed_disk_ends_the_process(bench: Bench) -> None:
    bench.propose(b"a")
    bench.turn(1, works=False)
    bench.disk.faults["fdatasync"] = 5
    bench.writer.run()
    with pytest.raises(Fatal, match="this process ends"):
        bench.turn()
    assert not bench.outcomes


def test_a_full_disk_is_said_and_waited_for(bench: Bench) -> None:
    bench.disk.faults["pwritev"] = errno.ENOSPC
    bench.propose(b"a")
    bench.turn(50)
    assert not bench.outcomes
    assert "the disk is full" in bench.reports[-1]
    bench.disk.faults.clear()
    bench.writer.run()
    bench.turn(20)
    assert bench.outcomes == [Applied(1, b"did a")]
    assert "room again" in bench.reports[-1]


def test_at_the_end_whoever_waits_is_answered() -> None:
    bench = Bench(voters=(1, 2, 3))
    bench.turn(20)
    bench.propose(b"a")
    reads: list[Refused | None] = []
    bench.host.read("metadata", reads.append)
    bench.turn(5)
    bench.host.close()
    assert [each.code for each in bench.outcomes if isinstance(each, Refused)] == [
        Refusal.UNAVAILABLE
    ]
    assert reads[0] is not None


def test_without_a_majority_a_node_is_isolated_and_proposals_end() -> None:
    bench = Bench(voters=(1, 2, 3))
    bench.propose(b"a")
    bench.turn(400)
    assert bench.host.silent_ms >= 1_000
    assert bench.host.leader("metadata") is None
    assert not bench.outcomes
    bench.turn(1_000)
    assert isinstance(bench.outcomes[0], Refused)
    assert bench.outcomes[0].code is Refusal.UNAVAILABLE


def vote(sender: int = 2, to: int = 1, group: int = 0) -> Message:
    return Message(MessageKind.HEARTBEAT, group, sender, to, 9)


@pytest.mark.parametrize(
    "parcel",
    [
        b"",
        b"\xff" * 10,
        bytes(10 << 20),
        encode(Parcel(b"\x01", ())),
        encode(Parcel(raft_message.encode([vote(sender=3)]), ())),
        encode(Parcel(raft_message.encode([vote(to=2)]), ())),
    ],
)
def test_a_parcel_that_cannot_be_ends_its_link(parcel: bytes) -> None:
    bench = Bench(voters=(1, 2, 3))
    with pytest.raises(ProtocolError):
        bench.host.receive(2, parcel)
    bench.turn(10)


def test_a_group_that_is_not_here_is_not_answered() -> None:
    bench = Bench(voters=(1, 2, 3))
    bench.host.receive(2, encode(Parcel(raft_message.encode([vote(group=9)]), ())))
    bench.turn(10)
    assert bench.host.status()[0].term == 0


def test_another_nodes_proposals_are_its_own(bench: Bench) -> None:
    theirs = Forward(0, Batch(2, 1, 1, 1, (b"theirs",)))
    forged = Forward(0, Batch(3, 1, 1, 1, (b"forged",)))
    bench.host.receive(2, encode(Parcel(b"", (theirs, forged))))
    bench.turn(50)
    assert bench.rows() == [b"theirs"]


def test_lives_rise_whatever_the_clock_says(bench: Bench) -> None:
    lives = [begin_life(bench.disk, "/d/other", wall_s) for wall_s in (100, 100, 50, 200)]
    assert lives == [100, 101, 102, 200]


def wrong_life(data: bytes) -> Callable[[], object]:
    bench = Bench()
    inode = bench.disk.names["/d/meta/life"]
    inode.resize(0)
    inode.write(0, data)
    return lambda: begin_life(bench.disk, "/d/meta", 7)


@pytest.mark.parametrize("data", [b"nonsense", b"", b"4294967295"])
def test_a_life_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(Corrupt):
        wrong_life(data)()
