"""What must hold of every fabric at rest, whatever happened before."""

from robustmq.broker.interests import CORE
from tests.fabric import Fabric


def check_books(fabric: Fabric) -> None:
    """At rest, every core knows exactly the interests of all, and nobody waits."""
    for node in fabric.nodes:
        core, interests = node.core, node.interests
        assert not core._wants._waits
        assert not core._fetches._fetches
        assert not core._fetches._heard
        assert not node.shares._joins
        assert not node.shares._returning
        assert not node.shares.leads._awaited
        handovers = node.parts.handovers
        assert not handovers._unanswered
        assert not handovers._held
        assert not any(handovers._asked.values())
        assert not node.subscriptions._unsettled
        assert not node.subscriptions._provisional
        assert not node.scans._scans
        assert not interests.awaited
        assert not interests._unconfirmed
        assert not node.router.blocked
        assert not any(peer.calls or peer.size for peer in node.router._peers.values())
        wanted: dict[bytes, list[int]] = {}
        for peer in fabric.nodes:
            for topic_filter in peer.subscriptions.filters():
                wanted.setdefault(topic_filter, []).append(peer.index)
        known = {
            name: sorted(target & CORE for target in targets)
            for name, targets in interests._filters.items()
        }
        assert known == wanted
        assert len(interests._wild) == sum(b"+" in name or b"#" in name for name in wanted)
    check_groups(fabric)


def check_groups(fabric: Fabric) -> None:
    """At rest, leaders know exactly the members that the cores have, and their readiness."""
    ready: dict[bytes, dict[int, bool]] = {}
    for node in fabric.nodes:
        for (member, key), membership in node.shares._memberships.items():
            assert member == membership.window.key
            ready.setdefault(key, {})[member] = membership.is_ready
    for node in fabric.nodes:
        led = {key: one.group for key, one in node.shares.leads.led.items()}
        mine = {key for key in ready if fabric.placement.group_core(key) == node.index}
        assert led.keys() == mine
        for key, group in led.items():
            assert group._ready == ready[key]
            assert sorted(group.strategy._turn) == sorted(
                m for m, is_ready in ready[key].items() if is_ready
            )
            if group.has_ready:
                assert not group._pending
