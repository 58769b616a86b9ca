"""Who takes what: balanced, and nothing moves that need not."""

from collections import Counter

import msgspec

from robustmq.meta.placement import ShardPlacement, brokers, rendezvous, schedules
from robustmq.meta.records import Node, Schedule, Shard


def nodes(*states: str) -> dict[int, Node]:
    found = (
        Node(number=number, store="s", state=state)  # type: ignore[arg-type]
        for number, state in enumerate(states)
    )
    return {node.number: node for node in found}


def settled(shards: dict[str, Shard], of: dict[int, Node]) -> dict[str, Shard]:
    new = {**shards, **ShardPlacement(shards, of).changes()}
    assert ShardPlacement(new, of).changes() == {}
    return new


def fresh(count: int, replication: int) -> dict[str, Shard]:
    return {
        f"t-{number}": Shard(topic="t", number=number, replication=replication)
        for number in range(count)
    }


def test_rendezvous_moves_only_what_a_node_had() -> None:
    names = [b"%d" % number for number in range(300)]
    before = {name: rendezvous(name, [0, 1, 2]) for name in names}
    after = {name: rendezvous(name, [0, 2]) for name in names}
    assert all(after[name] == at for name, at in before.items() if at != 1)
    assert min(Counter(before.values()).values()) > 60


def test_new_shards_are_balanced_and_stay() -> None:
    three = nodes("live", "live", "live")
    shards = settled(fresh(30, 2), three)
    replicas = Counter(node for shard in shards.values() for node in shard.replicas)
    leaders = Counter(shard.leader for shard in shards.values())
    assert set(replicas.values()) == {20}
    assert max(leaders.values()) - min(leaders.values()) <= 2
    assert all(shard.isr == shard.replicas for shard in shards.values())
    assert all(shard.leader_epoch == 1 for shard in shards.values())
    assert ShardPlacement(shards, nodes("live", "live", "live", "live")).changes() == {}


def test_a_leader_that_is_gone_is_followed_by_one_that_has_all() -> None:
    shards = settled(fresh(12, 2), nodes("live", "live", "live"))
    without = settled(shards, nodes("live", "fenced", "live"))
    for name, shard in without.items():
        assert shard.replicas == shards[name].replicas
        assert shard.leader in shard.isr
        assert shard.leader != 1
        moved = shards[name].leader == 1
        assert shard.leader_epoch == shards[name].leader_epoch + moved


def test_a_shard_with_one_replica_waits_for_its_node() -> None:
    shards = settled(fresh(3, 1), nodes("live"))
    waiting = settled(shards, nodes("fenced", "live"))
    assert {shard.leader for shard in waiting.values()} == {None}
    assert {shard.replicas for shard in waiting.values()} == {(0,)}
    back = settled(waiting, nodes("live", "live"))
    assert {(shard.leader, shard.leader_epoch) for shard in back.values()} == {(0, 3)}


def test_replicas_move_when_a_node_leaves() -> None:
    shards = settled(fresh(6, 2), nodes("live", "live", "live"))
    shards = {name: msgspec.structs.replace(s, high_watermark=9) for name, s in shards.items()}
    left = settled(shards, nodes("leaving", "live", "live"))
    for name, shard in left.items():
        assert sorted(shard.replicas) == [1, 2]
        assert shard.high_watermark == 9
        assert set(shard.isr) == set(shards[name].isr) - {0}
    single = settled(fresh(2, 1), nodes("live"))
    anew = settled(single, nodes("leaving", "live"))
    assert {(s.replicas, s.isr, s.leader) for s in anew.values()} == {((1,), (1,), 1)}


def test_connectors_are_scheduled_over_live_nodes() -> None:
    names = ["a", "b", "c", "d"]
    found = schedules(names, {}, nodes("live", "live"))
    placed = {name: at for name, at in found.items() if at is not None}
    assert Counter(at.node for at in placed.values()) == {0: 2, 1: 2}
    assert schedules(names, placed, nodes("live", "live", "live")) == {}
    moved = schedules(names[1:], placed, nodes("live", "fenced"))
    assert moved.pop("a") is None
    assert {at.node for at in moved.values() if at is not None} == {0}
    assert set(moved) == {name for name in names[1:] if placed[name].node == 1}
    again = schedules(["a"], {"a": Schedule(node=0, incarnation=7)}, nodes("live"))
    assert again == {"a": Schedule(node=0, incarnation=1)}
    assert schedules(["a"], {}, nodes("fenced")) == {}


def test_brokers_are_live_and_have_the_role() -> None:
    of = nodes("live", "fenced", "leaving", "live")
    of[3] = msgspec.structs.replace(of[3], roles=("meta",))
    assert brokers(of.values()) == [0]
