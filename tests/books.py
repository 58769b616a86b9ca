"""What must hold of every fabric at rest, whatever happened before."""

from tests.fabric import Fabric


def check_books(fabric: Fabric) -> None:
    """At rest, owners know exactly the interests that the cores have, and nobody waits."""
    for node in fabric.nodes:
        core, dispatch = node.core, node.dispatch
        assert not core._waits
        assert not core._fetches
        assert not node.shares._joins
        assert not node.subscriptions._unsettled
        assert not dispatch._scans
        assert not dispatch._held
        assert not dispatch._early
        assert not dispatch._congested
        assert not node.router.blocked
        wanted: dict[bytes, set[int]] = {}
        for peer in fabric.nodes:
            for topic_filter in peer.subscriptions.filters():
                if node.index in fabric.placement.cores_of_filter(topic_filter):
                    wanted.setdefault(topic_filter, set()).add(peer.index)
        assert dispatch._filters == wanted
        assert len(dispatch._wild) == sum(b"+" in name or b"#" in name for name in wanted)
    check_groups(fabric)


def check_groups(fabric: Fabric) -> None:
    """At rest, leaders know exactly the members that the cores have, and their readiness."""
    ready: dict[bytes, dict[int, bool]] = {}
    for node in fabric.nodes:
        for (member, key), membership in node.shares._memberships.items():
            assert member == membership.window.key
            ready.setdefault(key, {})[member] = membership.window.outbox is not None
    for node in fabric.nodes:
        led = {key: one.group for key, one in node.shares._led.items()}
        mine = {key for key in ready if fabric.placement.group_core(key) == node.index}
        assert led.keys() == mine
        for key, group in led.items():
            assert group._ready == ready[key]
            assert sorted(group._turn) == sorted(
                m for m, is_ready in ready[key].items() if is_ready
            )
            if group._turn:
                assert not group._pending
