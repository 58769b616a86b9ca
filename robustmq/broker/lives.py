"""The lives of cores: how one begins among the others, and what it does when another comes or goes.

A core that begins appends nothing before all that were there have told it what they want. It is
not waited for in turn: what is published elsewhere before its interest is known there may miss
its subscribers, and may, because none of them has had its SUBACK (ADR 0010).

What a core leads (shared groups, exclusive filters) follows from the nodes that are live. All
tell what concerns it to whoever leads by the nodes that they know, and say so with the digest of
these; who knows the same nodes counts them as heard. So nothing is granted or given up by a
leader that does not know of everybody, and who is told too early keeps it until it is the leader.
"""

from collections.abc import Mapping

from robustmq.broker import frames
from robustmq.broker.deposits import Deposits
from robustmq.broker.parts import Parts
from robustmq.broker.placement import MEMBERSHIP, Life, Placement
from robustmq.broker.retained_fetches import RetainedFetches
from robustmq.broker.router import Fabric
from robustmq.broker.wants import Wants
from robustmq.message.core_number import FIRST_REMOTE


class Lives:
    """What core `core` knows of the lives of the others."""

    def __init__(
        self,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        parts: Parts,
        wants: Wants,
        fetches: RetainedFetches,
        deposits: Deposits,
    ) -> None:
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._parts = parts
        self._wants = wants
        self._fetches = fetches
        self._deposits = deposits
        self._digests: dict[int, int] = {}
        """By core: the placement by which it has told what it has to tell."""

    def start(self) -> None:
        """Begin: tell what the restored sessions want, and let publishers wait for the others."""
        interests, subscriptions = self._parts.interests, self._parts.subscriptions
        others = self._others()
        interests.await_from(others)
        if not self._placement.is_known:
            interests.await_from([MEMBERSHIP])
        for core in others:
            self._parts.router.joined(core)
        self._parts.orphans.begin()
        for topic_filter in subscriptions.filters():
            interests.want(self._core, topic_filter, subscriptions.is_durable(topic_filter))
        self._parts.shares.start()
        self._parts.exclusives.start()
        for core in others:
            self._tell_all(core)
        if interests.awaited:
            self._parts.router.hold()

    def _others(self) -> list[int]:
        return [core for core in self._placement.cores if core != self._core]

    def _tell_all(self, core: int) -> None:
        """Tell a core everything that is wanted here, and what it leads."""
        self._wants.tell(core)
        self._parts.router.resend(core)
        self._parts.shares.tell(core)
        self._parts.exclusives.tell(core)
        self._parts.kept_logs.tell(core)
        self._send_told(core)
        self._parts.orphans.tell(core)

    def _send_told(self, core: int) -> None:
        told = frames.told(self._parts.router.retained, self._placement.digest)
        self._fabric.send(core, told)

    # ------------------------------------------------------------------ lives of other cores

    def replaced(self, core: int) -> None:
        """Core `core` was replaced: say again what its predecessor knew or had not answered."""
        if not self._placement.is_live(core):
            return
        self._digests.pop(core, None)
        self._parts.orphans.forget(core)
        self._parts.interests.replaced(core)
        self._parts.scans.drop_core(core)
        self._fetches.drop_core(core)
        self._wants.replaced(core)
        self._parts.partitions.replaced(core)
        self._parts.shares.drop_core(core)
        self._parts.exclusives.replaced(core)
        self._tell_all(core)

    def on_told(self, source: int, frame: bytes) -> None:
        """A core has told all that it wants, and all that it has to tell of what is led here."""
        position, digest = frames.read_told(frame)
        if source < FIRST_REMOTE:
            self._parts.scans.arrived(source, position)
        self._digests[source] = digest
        if digest == self._placement.digest:
            self._parts.interests.told(source)
            self._parts.shares.leads.told(source)
            self._parts.exclusives.told(source)

    # ------------------------------------------------------------------ nodes

    def update(self, nodes: Mapping[int, Life]) -> None:
        """Learn which nodes are live; see `Core.update`."""
        placement, interests = self._placement, self._parts.interests
        life = nodes.get(placement.node) if placement.node is not None else None
        if life is None:
            interests.await_from([MEMBERSHIP])
            self._parts.router.hold()
            return
        known = placement.nodes.get(placement.node) if placement.node is not None else None
        before, digest = placement.remote, placement.digest
        placement.update(nodes)
        now = placement.remote
        for core in before:
            if core not in now:
                self._departed(core)
        is_new = known is None or known.incarnation != life.incarnation
        if is_new:
            interests.await_from(now)
            self._parts.orphans.begin()
            self._parts.estates.begin()
        if placement.digest != digest:
            self._place([core for core in now if core not in before])
            self._parts.orphans.placed()
        interests.told(MEMBERSHIP)
        if interests.awaited:
            self._parts.router.hold()

    def _departed(self, core: int) -> None:
        """Core `core` is gone with its node: what it had to answer is answered."""
        self._digests.pop(core, None)
        self._parts.orphans.forget(core)
        self._deposits.departed(core)
        self._parts.interests.departed(core)
        self._parts.scans.drop_core(core)
        self._wants.departed(core)
        self._parts.partitions.replaced(core)
        self._parts.shares.departed(core)
        self._parts.exclusives.departed(core)
        self._parts.router.departed(core)

    def _place(self, joined: list[int]) -> None:
        """Tell everybody what he has to know by the nodes as they are now."""
        parts, digest = self._parts, self._placement.digest
        for core in joined:
            parts.router.joined(core)
            self._wants.tell(core)
        others = self._others()
        awaited = {core for core in others if self._digests.get(core) != digest}
        parts.shares.placed(awaited)
        parts.exclusives.placed(awaited)
        for core in others:
            self._send_told(core)
        for core in parts.interests.awaiting - awaited:
            if core >= 0:
                parts.interests.told(core)
