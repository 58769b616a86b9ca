"""Sessions of nodes that are gone: what they may be owed is held until their adoption is told.

When a node departs, the filters of its durable sessions are orphaned. Every core says, by the
digest of the nodes that it knows, when it has the sessions that are its own by these nodes: those
it had, and those it has adopted, with all cores knowing what they want. Who has heard that of all
cores, by the nodes that he knows himself, misses nobody any more: what he held goes where it is
wanted by then. A core that begins, or whose node is back, publishes nothing before.
"""

from collections.abc import Callable
from typing import Final

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.appends import Append, Held
from robustmq.broker.frames import Kind
from robustmq.broker.interests import Interests
from robustmq.broker.placement import ADOPTION, Placement
from robustmq.broker.state import State
from robustmq.message.batch import only, raw_records
from robustmq.message.record import QOS_BITS, RETAIN_BIT

_HELD: Final = QOS_BITS | RETAIN_BIT
"""What nobody is owed goes at once; what is retained keeps the order that it has in its topic."""


class Orphans:
    """What core `core` knows of the sessions of nodes that are gone, and what it holds for them.

    `send` takes a frame for another core.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        placement: Placement,
        interests: Interests,
        state: State,
        send: Callable[[int, bytes], None],
    ) -> None:
        self._turn = turn
        self._core = core
        self._placement = placement
        self._interests = interests
        self._state = state
        self._send = send
        self._is_settled = False
        self._said: int | None = None
        self._heard: dict[int, int] = {}
        self._held: list[Held] = []
        self.held_bytes = 0
        """The size of what is held."""
        self.are_adopted = False
        """Whether what is held can go."""
        self.is_due = False
        """Whether there is something to `say`."""

    @property
    def handlers(self) -> dict[int, Callable[[int, bytes], None]]:
        """What takes the frames of the kinds that belong here."""
        return {Kind.SETTLED: self._on_settled}

    @property
    def are_open(self) -> bool:
        """Whether something is to be held."""
        return self._interests.has_orphans

    # ------------------------------------------------------------------ who has which sessions

    def settled(self, is_settled: bool) -> None:
        """Learn whether this core has all sessions that are its own, with all that they want."""
        self._is_settled = is_settled
        self._see()

    def begin(self) -> None:
        """Its node has another life: others may have adopted what was its own."""
        if self._placement.node is not None:
            self._interests.await_from([ADOPTION])

    def placed(self) -> None:
        """Other nodes are live: all say it by these."""
        self.are_adopted = False
        self._see()
        self._look()

    def tell(self, core: int) -> None:
        """Tell a core, which has a new life, what the others have heard."""
        if self._said is not None and self._said == self._placement.digest:
            self._send(core, frames.settled(self._said))

    def forget(self, core: int) -> None:
        """A core has a new life, or is gone: what its predecessor has said is void."""
        self._heard.pop(core, None)
        self.are_adopted = False

    def _see(self) -> None:
        is_news = bool(self._placement.nodes) and self._said != self._placement.digest
        self.is_due = self._is_settled and is_news

    def say(self) -> None:
        """Once a turn, when it is due: say that this core has the sessions that are its own.

        Not earlier: a node may be gone and back at once, and has its sessions itself then.
        """
        self.is_due = False
        digest = self._said = self._placement.digest
        for core in self._placement.cores:
            if core != self._core:
                self._send(core, frames.settled(digest))
        self._heard[self._core] = digest
        self._look()

    def _on_settled(self, source: int, frame: bytes) -> None:
        self._heard[source] = frames.read_settled(frame)
        self._look()

    def _look(self) -> None:
        digest = self._placement.digest
        if all(self._heard.get(core) == digest for core in self._placement.cores):
            self._interests.told(ADOPTION)
            self.are_adopted = self.are_open

    # ------------------------------------------------------------------ what they may be owed

    def hold(
        self, whole: Append, batch: bytes, retained: bool, once: list[int], key: bytes
    ) -> tuple[bytes, list[int]]:
        """Hold what orphans may be owed; returns the other records, and which of these come once.

        It is b"" when all are held. Those that come `once` are put into row `key` until then.
        """
        held, others = self._sort(batch)
        if not held:
            return batch, once
        wanted = {*once}
        held_once = [place for place, index in enumerate(held) if index in wanted]
        part = only(batch, held)
        if held_once:
            self._state.put(key, only(part, held_once))
        whole.owing += 1
        whole.places = others
        self._held.append(Held(whole, part, retained, held_once, key))
        self.held_bytes += len(part)
        self._turn.row[metrics.CLUSTER_MESSAGES_HELD] += len(held)
        left = [place for place, index in enumerate(others) if index in wanted]
        return only(batch, others) if others else b"", left

    def _sort(self, batch: bytes) -> tuple[list[int], list[int]]:
        """The places of the records that orphans may be owed, and those of the others."""
        held: list[int] = []
        others: list[int] = []
        for place, (_, (attributes, _, _, topic, _, _)) in enumerate(raw_records(batch)):
            is_held = (
                attributes & _HELD and topic is not None and self._interests.is_orphaned(topic)
            )
            (held if is_held else others).append(place)
        return held, others

    def release(self) -> list[Held]:
        """Hold nothing any more: returns what was held, in its order."""
        self.are_adopted = False
        self._interests.adopted()
        held, self._held = self._held, []
        self.held_bytes = 0
        return held
