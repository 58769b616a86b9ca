"""Who takes what: shards over nodes, connectors over nodes, and sessions of a node that is gone."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from robustmq.message.topic import stable_hash
from robustmq.meta.records import Node, Schedule, Shard


def rendezvous(name: bytes, nodes: Collection[int]) -> int:
    """Return the node that has a name: when one goes or comes, only what it has moves."""
    return max(nodes, key=lambda node: (stable_hash(b"%d\0" % node + name), node))


def brokers(nodes: Iterable[Node]) -> list[int]:
    """Return the numbers of the nodes that serve clients now, ascending."""
    return sorted(node.number for node in nodes if node.state == "live" and node.is_broker)


class ShardPlacement:
    """Places shards over nodes: new ones where the least are, the others stay where they are.

    A shard's replicas move only when a node leaves for good: its records lie where they are. Its
    leader changes, with a higher epoch, when that is not live, to one of those that have all
    (`isr`); while none of them is live nobody leads, and the shard waits for one to return. When
    all that have had it are gone for good it begins anew, empty: nothing else is left of it.
    """

    def __init__(self, shards: Mapping[str, Shard], nodes: Mapping[int, Node]) -> None:
        engines = {n: node for n, node in nodes.items() if "engine" in node.roles}
        self._shards = shards
        self._staying = {n for n, node in engines.items() if node.state != "leaving"}
        self._live = sorted(n for n in self._staying if nodes[n].state == "live")
        self._replicas = Counter(n for shard in shards.values() for n in shard.replicas)
        self._leading = Counter(
            shard.leader for shard in shards.values() if shard.leader is not None
        )

    def changes(self) -> dict[str, Shard]:
        """Return the shards that must change, as they are to be, by name."""
        found: dict[str, Shard] = {}
        for name, shard in self._shards.items():
            new = self._led(name, self._replicated(name, shard))
            if new != shard:
                found[name] = new
        return found

    def _replicated(self, name: str, shard: Shard) -> Shard:
        kept = [node for node in shard.replicas if node in self._staying]
        self._replicas.subtract(set(shard.replicas) - set(kept))
        more = [node for node in self._live if node not in kept]
        more.sort(key=lambda node: (self._replicas[node], -_weight(name, node)))
        added = more[: max(shard.replication - len(kept), 0)]
        self._replicas.update(added)
        replicas = (*kept, *added)
        if replicas == shard.replicas:
            return shard
        isr = tuple(node for node in shard.isr if node in kept) or replicas
        mark = shard.high_watermark if set(isr) & set(shard.isr) else 0
        return msgspec.structs.replace(shard, replicas=replicas, isr=isr, high_watermark=mark)

    def _led(self, name: str, shard: Shard) -> Shard:
        if shard.leader in self._live and shard.leader in shard.isr:
            return shard
        able = [node for node in shard.isr if node in self._live]
        able.sort(key=lambda node: (self._leading[node], -_weight(name, node)))
        leader = able[0] if able else None
        if leader == shard.leader:
            return shard
        if shard.leader is not None:
            self._leading[shard.leader] -= 1
        if leader is not None:
            self._leading[leader] += 1
        return msgspec.structs.replace(shard, leader=leader, leader_epoch=shard.leader_epoch + 1)


def schedules(
    connectors: Iterable[str], scheduled: Mapping[str, Schedule], nodes: Mapping[int, Node]
) -> dict[str, Schedule | None]:
    """Return where connectors must run from now on, by name; None: it is no more.

    One stays where it is while that node is live as the same incarnation.
    """
    live = brokers(nodes.values())
    wanted = set(connectors)
    staying = {
        name
        for name, at in scheduled.items()
        if name in wanted and at.node in live and nodes[at.node].incarnation == at.incarnation
    }
    load = Counter(scheduled[name].node for name in staying)
    found: dict[str, Schedule | None] = dict.fromkeys(set(scheduled) - wanted)
    for name in sorted(wanted - staying if live else ()):
        node = min(live, key=lambda node: (load[node], -_weight(name, node)))
        load[node] += 1
        found[name] = Schedule(node=node, incarnation=nodes[node].incarnation)
    return found


def _weight(name: str, node: int) -> int:
    return stable_hash(b"%d\0" % node + name.encode())
