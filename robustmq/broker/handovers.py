"""Messages of shared groups on their way between leaders and members, each taken exactly once.

Rows: `A` epoch, number -> core, member, group key and the batch of one run: what another core must
take over. `H` (see `taken`): what this one has taken from each core last.
"""

import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from robustmq._kernel.batch import records
from robustmq.broker import frames
from robustmq.broker.frames import Number
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric
from robustmq.broker.state import State
from robustmq.broker.taken import Taken
from robustmq.policy.topic_rules import TopicRules

LEADER: Final = 0
"""In the place of a member: the batch goes (back) to the group's leader."""
ROW_KEY: Final = struct.Struct(">cIQ")
_ROW: Final = struct.Struct(">HQH")
TAKEN: Final = b"H"


class Handover(NamedTuple):
    """One run of records for a member of a group on `core`, or (LEADER) for its leader there."""

    core: int
    member: int
    key: bytes
    batch: bytes

    def encode(self) -> bytes:
        """The value of a row `A`."""
        return _ROW.pack(self.core, self.member, len(self.key)) + self.key + self.batch


def decode(value: bytes) -> Handover:
    """Read the value of a row `A`."""
    core, member, length = _ROW.unpack_from(value)
    end = _ROW.size + length
    return Handover(core, member, value[_ROW.size : end], value[end:])


class Handovers:
    """What this core hands over, until the other one has it on its disk, and what it takes.

    A handover is written before it leaves, is numbered in this core's stream, and is sent again
    when the other core is replaced; that takes each number once. One that stays on this core is
    taken at once, with the commit of this turn. `take(member, key, batch)` is who takes.
    What a departed core has not taken, or not said so, is handed to `reroute(key, batch)`.
    `full`: more than `pressure_bytes` wait for their answers, so that the rest may wait on disk.
    """

    def __init__(
        self,
        *,
        core: int,
        placement: Placement,
        fabric: Fabric,
        state: State,
        rules: TopicRules,
        pressure_bytes: int,
    ) -> None:
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._state = state
        self._rules = rules
        self._pressure_bytes = pressure_bytes
        self._epoch = 0
        self._last = 0
        self._asked: dict[int, dict[tuple[int, int], bytes]] = {}
        self._unanswered = 0
        self._taken = Taken(state, TAKEN)
        self.note = self._taken.note
        self.forget = self._taken.forget
        self._held: deque[tuple[int, bytes]] = deque()
        self.handed = 0
        """How many handovers there were in this life."""
        self.take: Callable[[int, bytes, bytes], None]
        self.reroute: Callable[[bytes, bytes], None]

    @property
    def full(self) -> bool:
        """Whether too much waits for its answer."""
        return self._unanswered > self._pressure_bytes

    @property
    def busy(self) -> bool:
        """Whether what had to wait for the disk can be taken."""
        return bool(self._held) and self._state.refusal is None

    def restore(self) -> None:
        """After a restart: know what was handed over and not answered, and what was taken."""
        self._taken.restore()
        for key, value in self._state.walk(b"A", b"B"):
            _, epoch, number = ROW_KEY.unpack(key)
            self._expect((epoch, number), decode(value))

    def send(self, core: int, member: int, key: bytes, batch: bytes) -> None:
        """Hand a batch of one run over to a member's core, or to the core that leads the group."""
        self.handed += 1
        if core == self._core:
            self.take(member, key, batch)
            return
        if not self._epoch:
            self._epoch = self._state.next_number(b"handover", 1)
        self._last += 1
        handover = Handover(core, member, key, batch)
        number = self._epoch, self._last
        self._state.put(ROW_KEY.pack(b"A", *number), handover.encode())
        self._unanswered += len(batch)
        self._state.then(partial(self._leave, number, handover))

    def _leave(self, number: tuple[int, int], handover: Handover) -> None:
        self._unanswered -= len(handover.batch)
        frame = self._expect(number, handover)
        if self._placement.is_live(handover.core):
            self._fabric.send(handover.core, frame)
        else:
            self.departed(handover.core)

    def _expect(self, number: tuple[int, int], handover: Handover) -> bytes:
        _, member, key, batch = handover
        frame = frames.hand(*number, member, key, batch)
        self._asked.setdefault(handover.core, {})[number] = frame
        self._unanswered += len(frame)
        return frame

    def resend(self, core: int) -> None:
        """Hand over to the successor of a core what its predecessor had not answered."""
        for frame in self._asked.get(core, {}).values():
            self._fabric.send(core, frame)

    def taken(self, source: int, frame: bytes) -> None:
        """A core has what it was handed."""
        number = frames.read_taken(frame)
        asked = self._asked.get(source, {}).pop(number, None)
        if asked is not None:
            self._unanswered -= len(asked)
            self._state.delete(ROW_KEY.pack(b"A", *number))

    def departed(self, core: int) -> None:
        """A core is gone with its node: others get what it was handed and has not answered."""
        self.drop_core(core)
        for number, frame in self._asked.pop(core, {}).items():
            self._unanswered -= len(frame)
            self._state.delete(ROW_KEY.pack(b"A", *number))
            _, _, _, key, batch = frames.read_hand(frame)
            self.reroute(key, batch)

    def look(self) -> None:
        """See whose nodes are not live, once it is known which are."""
        if not self._placement.is_known:
            return
        for core in [core for core in self._asked if not self._placement.is_live(core)]:
            self.departed(core)

    # ------------------------------------------------------------------ the other side

    def receive(self, source: int, frame: bytes) -> None:
        """Another core hands something over; while nothing can be written it has to wait."""
        if self._held or self._state.refusal is not None:
            self._held.append((source, frame))
        else:
            self._receive(source, frame)

    def run(self) -> None:
        """Once a turn: take what had to wait for the disk."""
        while self._held and self._state.refusal is None:
            self._receive(*self._held.popleft())

    def drop_core(self, core: int) -> None:
        """A core was replaced: its successor hands over again what was held here."""
        self._held = deque(each for each in self._held if each[0] != core)

    def _receive(self, source: int, frame: bytes) -> None:
        epoch, number, member, key, batch = frames.read_hand(frame)
        if not self._taken.has(source, Number(epoch, number)):
            self._taken.add(source, Number(epoch, number))
            self._sync_if_wanted(batch)
            self.take(member, key, batch)
        answer = frames.taken(epoch, number)
        self._state.then(partial(self._fabric.send, source, answer))

    def _sync_if_wanted(self, batch: bytes) -> None:
        topic = records(batch)[0][3]
        if topic is not None and self._rules.of(topic).flush == "always":
            self._state.demand_sync()
