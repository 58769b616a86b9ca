"""Three Raft hosts, from one seed, with kills at every system call, lost power and cut links."""

import os
import random
from functools import partial

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.meta.machine import Applied
from robustmq.meta.raft_host import RaftHost
from tests.simulation.host_world import GROUPS, POISON, World

SEEDS = int(os.environ.get("ROBUSTMQ_SEEDS", "20"))
FIRST = os.environ.get("ROBUSTMQ_SEED")


def trouble(world: World, rng: random.Random) -> None:
    """Something breaks, or heals."""
    number = rng.choice((1, 2, 3))
    computer = world.computers[number]
    kind = rng.randrange(8)
    if kind <= 2:
        computer.fuse.left = rng.randint(0, 60)
    elif kind == 3 and computer.host is not None:
        computer.die(power=rng.random() < 0.5)
    elif kind == 4:
        other = rng.choice([each for each in (1, 2, 3) if each != number])
        world.cut.add((number, other))
        if rng.random() < 0.5:
            world.cut.add((other, number))
    elif kind == 5:
        world.drops = rng.choice((0.0, 0.05, 0.3))
    else:
        world.cut.clear()


def live(seed: int) -> World:
    world = World(seed)
    rng = random.Random(seed ^ 0x5EED)
    count = 0
    for _ in range(25):
        trouble(world, rng)
        for _ in range(rng.randint(1, 6)):
            for _ in range(rng.randint(0, 8)):
                count += 1
                name = POISON if rng.random() < 0.03 else b"x" * rng.choice((1, 50))
                world.propose(rng.choice((1, 2, 3)), rng.choice(GROUPS), b"%s%d" % (name, count))
            world.run(rng.randint(1, 60))
    return world


@pytest.mark.parametrize("seed", range(SEEDS) if FIRST is None else [int(FIRST)])
def test_nothing_acknowledged_is_lost_or_done_twice(seed: int) -> None:
    world = live(seed)
    world.settle()
    applied = sum(isinstance(each.outcome, Applied) for each in world.proposals)
    assert applied > 0


def test_a_life_of_a_proposal() -> None:
    world = World(1)
    world.until(world.is_led)
    leader = world.lead()
    for number in (1, 2, 3):
        proposal = world.propose(number, "metadata", b"p%d" % number)
        assert proposal is not None
        world.until(proposal.is_done)
        assert isinstance(proposal.outcome, Applied)
    assert leader == world.lead()
    world.settle()


def test_proposals_of_a_node_are_folded_in_its_order() -> None:
    world = World(2)
    world.until(world.is_led)
    world.drops = 0.3
    proposals = [world.propose(2, "metadata", b"%d" % each) for each in range(50)]
    world.until(lambda: all(each is not None and each.outcome for each in proposals))
    world.drops = 0.0
    positions = [
        each.outcome.position for each in proposals if each and isinstance(each.outcome, Applied)
    ]
    assert len(positions) == 50
    assert positions == sorted(positions)
    world.settle()


def test_nobody_is_told_anything_by_a_minority() -> None:
    world = World(3)
    world.until(world.is_led)
    leader = world.lead()
    assert leader is not None
    for other in {1, 2, 3} - {leader}:
        world.cut |= {(leader, other), (other, leader)}
    proposal = world.propose(leader, "metadata", b"alone")
    reads: list[Refused | None] = []
    host = world.computers[leader].host
    assert proposal is not None
    assert host is not None
    host.read("metadata", reads.append)
    world.run(700)
    assert host.silent_ms >= 600
    world.run(3_000)
    assert isinstance(proposal.outcome, Refused)
    assert proposal.outcome.code is Refusal.UNAVAILABLE
    assert reads
    assert reads[0] is not None
    world.settle()


def look(
    host: RaftHost, key: bytes, seen: list[Refused | bytes | None], refused: Refused | None
) -> None:
    seen.append(refused or host.group("metadata").store.get(key))


def test_a_read_sees_what_was_answered_before() -> None:
    world = World(4)
    world.until(world.is_led)
    for turn in range(20):
        proposal = world.propose(1 + turn % 3, "metadata", b"r%d" % turn)
        assert proposal is not None
        world.until(proposal.is_done)
        reader = world.computers[1 + (turn + 1) % 3].host
        assert reader is not None
        seen: list[Refused | bytes | None] = []
        reader.read("metadata", partial(look, reader, b"cr%d" % turn, seen))
        world.until(partial(bool, seen))
        assert seen == [b"1"]


def test_a_node_that_was_away_is_sent_a_snapshot_while_the_group_goes_on() -> None:
    world = World(5)
    world.until(world.is_led)
    leader = world.lead()
    away = next(each for each in (1, 2, 3) if each != leader)
    others = [each for each in (1, 2, 3) if each != away]
    world.computers[away].die(power=False)
    world.computers[away].down_until = 1 << 40
    for batch in range(30):
        for each in range(10):
            world.propose(others[each % 2], "metadata", b"s%d.%d" % (batch, each))
        world.run(30)
    world.until(lambda: all(each.outcome for each in world.proposals))
    world.computers[away].down_until = world.now
    proposal = None
    while (host := world.computers[away].host) is None or not host.counters.snapshots_installed:
        proposal = world.propose(others[0], "metadata", b"on%d" % world.now)
        world.run(5)
    assert proposal is not None
    world.settle()


@pytest.mark.parametrize("power", [False, True])
def test_an_installation_may_end_at_every_system_call(power: bool) -> None:
    """Defect A: a log and a snapshot that do not meet are no reason to forget either."""
    calls = 0
    while calls < 200:
        world = World(7)
        world.until(world.is_led)
        away = next(each for each in (1, 2, 3) if each != world.lead())
        others = [each for each in (1, 2, 3) if each != away]
        world.computers[away].die(power=False)
        world.computers[away].down_until = 1 << 40
        for batch in range(60):
            world.propose(others[batch % 2], "metadata", b"s%d" % batch)
            world.run(10)
        computer = world.computers[away]
        computer.down_until = world.now
        world.until(computer.is_staging)
        computer.power = power
        computer.fuse.left = calls
        world.run(300)
        died = world.kills > 0
        world.settle()
        if not died:
            break
        calls += 1
    assert 10 < calls < 200


def test_the_log_is_cut_short() -> None:
    world = World(6)
    world.until(world.is_led)
    for batch in range(200):
        world.propose(1 + batch % 3, "metadata", b"c%d" % batch)
        world.run(5)
    world.settle()
    for computer in world.computers.values():
        assert computer.host is not None
        group = computer.host.group("metadata")
        assert group.journal.start.index > 50
        assert group.journal.segments < 15
