"""Exclusive subscriptions (`$exclusive/filter`, as in EMQX): one session of all has a filter.

The core that the placement names grants it. Nothing of that is on disk: the cores say what their
sessions hold, which durable sessions know from their subscriptions, and until all have said so
nothing new is granted.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.frames import Kind
from robustmq.broker.placement import MEMBERSHIP, Placement
from robustmq.broker.router import Fabric
from robustmq.broker.state import State


class _Claim(NamedTuple):
    """What a session of this core has asked of `owner`; `reply` is told whether it has it."""

    owner: int
    member: int
    topic_filter: bytes
    reply: Callable[[bool], None]


class _Holder(NamedTuple):
    """Who has a filter: a session by its number, on a core."""

    member: int
    core: int


class _Asked(NamedTuple):
    """A claim that is answered when all cores have told what their sessions hold."""

    source: int
    call: int
    member: int
    topic_filter: bytes


class Exclusives:
    """What the sessions of this core hold, and who holds what this core grants.

    `handlers` take the frames of other cores.
    """

    def __init__(
        self, turn: Turn, *, core: int, placement: Placement, fabric: Fabric, state: State
    ) -> None:
        self._turn = turn
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._state = state
        self._held: set[tuple[int, bytes]] = set()
        self._claims: dict[int, _Claim] = {}
        self._last_call = 0
        self._holders: dict[bytes, _Holder] = {}
        self._unconfirmed: dict[int, set[bytes]] = {}
        self._awaited: set[int] = set()
        self._asked: list[_Asked] = []
        self.handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.CLAIM: lambda source, frame: self._on_claim(source, *frames.read_claim(frame)),
            Kind.CLAIMED: lambda source, frame: self._on_claimed(
                source, *frames.read_claimed(frame)
            ),
            Kind.RELEASE: lambda source, frame: self._on_release(
                source, *frames.read_release(frame)
            ),
        }

    # ------------------------------------------------------------------ sessions of this core

    def claim(self, window: Window, topic_filter: bytes, reply: Callable[[bool], None]) -> None:
        """Ask for a filter; `reply(True)` when the session has it, and no other can."""
        self._last_call += 1
        owner = self._owner(topic_filter)
        self._claims[self._last_call] = _Claim(owner, window.key, topic_filter, reply)
        self._send_claim(self._last_call, window.key, topic_filter)

    def restore(self, window: Window, topic_filter: bytes) -> None:
        """After a restart: the durable session had it; to be said before the core starts."""
        self._hold(window.key, topic_filter)

    def release(self, window: Window, topic_filter: bytes, kept: bool) -> None:
        """Let others have it: at once, or of a session that is `kept` when the disk knows."""
        self._held.discard((window.key, topic_filter))
        self._count()
        free = partial(self._free, window.key, topic_filter)
        if kept:
            self._state.then(free)
        else:
            free()

    def _free(self, member: int, topic_filter: bytes) -> None:
        claimed = any(
            claim.member == member and claim.topic_filter == topic_filter
            for claim in self._claims.values()
        )
        # The session may have it again, or is about to: then it is let go of another time.
        if not claimed and (member, topic_filter) not in self._held:
            self._fabric.send(self._owner(topic_filter), frames.release(member, topic_filter))

    def _hold(self, member: int, topic_filter: bytes) -> None:
        self._held.add((member, topic_filter))
        self._count()

    def _count(self) -> None:
        self._turn.row[metrics.SUBSCRIPTIONS_EXCLUSIVE] = len(self._held)

    def _owner(self, topic_filter: bytes) -> int:
        return self._placement.exclusive_core(topic_filter)

    def _send_claim(self, call: int, member: int, topic_filter: bytes) -> None:
        self._fabric.send(self._owner(topic_filter), frames.claim(call, member, topic_filter))

    def _on_claimed(self, source: int, call: int, granted: bool) -> None:
        claim = self._claims.get(call)
        if claim is None or claim.owner != source:
            # Another core grants the filter now, and was asked.
            return
        del self._claims[call]
        if granted:
            self._hold(claim.member, claim.topic_filter)
        claim.reply(granted)

    # ------------------------------------------------------------------ filters of this core

    def _on_claim(self, source: int, call: int, member: int, topic_filter: bytes) -> None:
        if not call:
            # It was granted by an earlier life of this core.
            self._holders.setdefault(topic_filter, _Holder(member, source))
            self._unconfirmed.get(source, set()).discard(topic_filter)
        elif self._awaited or self._owner(topic_filter) != self._core:
            self._asked.append(_Asked(source, call, member, topic_filter))
        else:
            who = _Holder(member, source)
            holder = self._holders.setdefault(topic_filter, who)
            self._fabric.send(source, frames.claimed(call, holder == who))

    def _on_release(self, source: int, member: int, topic_filter: bytes) -> None:
        if self._holders.get(topic_filter) == _Holder(member, source):
            del self._holders[topic_filter]

    # ------------------------------------------------------------------ lives

    def start(self) -> None:
        """Begin, with the sessions restored: all cores have to tell what theirs hold."""
        for member, topic_filter in self._held:
            if self._owner(topic_filter) == self._core:
                self._on_claim(self._core, 0, member, topic_filter)
        self._awaited = {core for core in self._placement.cores if core != self._core}
        if not self._placement.is_known:
            self._awaited.add(MEMBERSHIP)

    def tell(self, core: int) -> None:
        """Tell a core what the sessions here hold of its filters, and ask again for the rest."""
        for member, topic_filter in self._held:
            if self._owner(topic_filter) == core:
                self._send_claim(0, member, topic_filter)
        for call, claim in self._claims.items():
            if self._owner(claim.topic_filter) == core:
                self._send_claim(call, claim.member, claim.topic_filter)

    def replaced(self, core: int) -> None:
        """A core has a new life: what its sessions hold is to be confirmed."""
        self._awaited.add(core)
        self._asked = [asked for asked in self._asked if asked.source != core]
        self._unconfirmed[core] = {
            topic_filter for topic_filter, holder in self._holders.items() if holder.core == core
        }

    def departed(self, core: int) -> None:
        """A core is gone with its node: what its sessions held is free."""
        self._unconfirmed.pop(core, None)
        self._asked = [asked for asked in self._asked if asked.source != core]
        held = [each for each, holder in self._holders.items() if holder.core == core]
        for topic_filter in held:
            del self._holders[topic_filter]

    def placed(self, awaited: set[int]) -> None:
        """Other cores may grant what others did; `awaited` have not told by the same placement."""
        self._awaited = set(awaited)
        for topic_filter in [each for each in self._holders if self._owner(each) != self._core]:
            del self._holders[topic_filter]
        for member, topic_filter in self._held:
            self._send_claim(0, member, topic_filter)
        for call, claim in list(self._claims.items()):
            owner = self._owner(claim.topic_filter)
            if owner != claim.owner:
                self._claims[call] = claim._replace(owner=owner)
                self._send_claim(call, claim.member, claim.topic_filter)
        self._answer()

    def told(self, core: int) -> None:
        """A core has told all that its sessions hold: what it has not named is free.

        It knows who grants what: what it has asked for in error it has asked for elsewhere.
        """
        self._awaited.discard(core)
        for topic_filter in self._unconfirmed.pop(core, ()):
            self._holders.pop(topic_filter, None)
        for topic_filter, holder in list(self._holders.items()):
            if holder.core == core and self._owner(topic_filter) != self._core:
                del self._holders[topic_filter]
        self._asked = [
            asked
            for asked in self._asked
            if asked.source != core or self._owner(asked.topic_filter) == self._core
        ]
        self._answer()

    def _answer(self) -> None:
        if not self._awaited:
            asked, self._asked = self._asked, []
            for each in asked:
                self._on_claim(*each)
