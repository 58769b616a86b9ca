"""The publisher's side of a core: a batch a turn, its parts to the cores that want them, answers.

Here a message is accepted: its publisher is told when every core that has to keep it has it.
Rows: `O` epoch, call -> a batch that must reach those cores once, also when this one dies.
`J` epoch, call -> one that waits for the adoption of sessions, and was sent to nobody yet.
"""

import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from robustmq import metrics
from robustmq._kernel.batch import Acks, BatchBuilder, gather
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.appends import Append, Call, PutOff, Unanswered
from robustmq.broker.frames import Kind, Number
from robustmq.broker.interests import CORE, DURABLE, LOGGED, Interests
from robustmq.broker.log_parts import LogPart, LogParts
from robustmq.broker.orphans import Orphans
from robustmq.broker.placement import ADOPTION, Placement
from robustmq.broker.replicas import Proposals
from robustmq.broker.state import State
from robustmq.errors import Refusal, Refused
from robustmq.message.batch import count_of, only, raw_records
from robustmq.message.record import RETAIN_BIT, Record
from robustmq.message.tenancy import local

EPOCH_SHIFT: Final = 40
"""A position in a core's stream of retained messages has the core's epoch from this bit on."""

_GROUPS: Final = -1
"""In the place of a core that publishers wait for: the groups that retain messages."""

ONCE_KEY: Final = struct.Struct(">cIQ")
HELD: Final = b"J"


class Fabric(Protocol):
    """How frames reach the other cores; a core's own number is as good as any other.

    What is sent to a core whose node is not live goes nowhere.
    """

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame for a core; it leaves at the end of the turn, in order."""

    def backlog(self, core: int) -> int:
        """Bytes that wait for room in the ring to a core."""

    def epoch(self, core: int) -> int:
        """The number of the life that a core is in."""


class Router:
    """Appends, once a turn, what this core's publishers have sent (ADR 0015).

    What a core must keep (`DURABLE`, `LOGGED`, retained messages) is asked of it and answered;
    the rest is sent and forgotten, a batch of QoS 0 also where durable sessions are, unless a rule
    stores QoS 0 (`stores_qos0`). Publishers pause while more than `pressure_bytes` wait for
    room to some core or for its answer, until it is half of that.

    A batch with a message that is to be delivered `once` is on this core's disk before any part
    of it leaves, and is asked of every core that wants it, live or not: the next life asks again
    for what was not confirmed. Parts are numbered, and a core takes each number once. `stream` is
    the epoch of these numbers, never the same in two lives, unlike the fabric's `epoch`.

    What sessions of a node that is gone may want is held until their adoption is told (`orphans`):
    it has no number before that, and what must come `once` has a row of its own meanwhile.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        epoch: int,
        placement: Placement,
        fabric: Fabric,
        interests: Interests,
        orphans: Orphans,
        log_parts: LogParts,
        state: State,
        stores_qos0: bool,
        max_batch_bytes: int,
        pressure_bytes: int,
    ) -> None:
        self._turn = turn
        self._core = core
        self._epoch = epoch
        self._placement = placement
        self._fabric = fabric
        self._interests = interests
        self._orphans = orphans
        self._log_parts = log_parts
        self._state = state
        self._stores_qos0 = stores_qos0
        self._stream = state.next_number(b"stream", 1)
        self._put_off: deque[PutOff] = deque()
        self._ready: set[int] = set()
        self._replays: list[tuple[bytes, bytes]] = []
        self._once: list[int] = []
        """Which records of the batch that is being built are to be delivered once."""
        self._pressure_bytes = pressure_bytes
        self._peers = {number: Unanswered() for number in range(placement.workers)}
        self._behind: set[int] = set()
        self._last_call = 0
        self.sent = Number(0, 0)
        """The part that was sent last."""
        self.retained = epoch << EPOCH_SHIFT
        """The position of what was retained last."""
        self.builder = BatchBuilder(turn, core, max_batch_bytes, self._append)
        self.proposals: Proposals | None = None
        """Where what is retained goes in a cluster."""
        self.deliver_here: Callable[[bytes], None]
        self.receive_here: Callable[[bytes], None]
        self.later: Callable[[Callable[[], None]], object]

    @property
    def blocked(self) -> bool:
        """Whether publishers have to wait."""
        return self.builder.blocked

    @property
    def is_held(self) -> bool:
        """Whether it is not known who wants what."""
        return self._interests.awaited

    @property
    def busy(self) -> bool:
        """Whether there is something to append, or publishers may go on."""
        orphans = self._orphans
        if (self.builder.count or orphans.are_adopted) and not self._interests.awaited:
            return True
        if orphans.is_due:
            return True
        return bool(self._behind) and all(map(self._has_caught_up, self._behind))

    def append(
        self, record: Record, reply: Callable[[int, bool], None] | None, once: bool = False
    ) -> None:
        """Append one record with this turn's batch; see `api.Broker.publish`."""
        builder = self.builder
        builder.append(
            record.key, record.value, record.headers, record.attributes, record.timestamp
        )
        if reply is not None:
            builder.expect(reply, 0)
        if once:
            self._once.append(builder.count - 1)
        builder.settle_if_full()

    def refusal(self, record: Record) -> Refused | None:
        """Why a message that is to be delivered once cannot be: its log has no core now."""
        if self._log_parts.is_led(record.key, record.headers):
            return None
        topic = local(record.key).decode()
        return Refused(Refusal.UNAVAILABLE, f"no live node has the log of {topic}: publish later")

    @property
    def has_replays(self) -> bool:
        """Whether something of the last life is still to be sent."""
        return bool(self._replays)

    def hold(self) -> None:
        """Let publishers wait while it is not known who wants what."""
        self.builder.blocked = True

    def flush(self) -> None:
        """Append what this turn has gathered, and let publishers go on when all have caught up."""
        if self._orphans.is_due:
            self._orphans.say()
        if self._interests.awaited:
            if self._once:
                # The rows that were put with it are written now, and so must it be.
                self._append(self.builder)
            return
        if self._replays:
            self._replay()
        self._send_ready()
        if self._orphans.are_adopted:
            self._release()
        while self.builder.count:
            # Whoever is answered by this may publish again.
            self._append(self.builder)
        self._turn.builders.clear()
        if self.builder.blocked:
            self._behind = {core for core in self._behind if not self._has_caught_up(core)}
            self.builder.blocked = bool(self._behind)

    def _append(self, builder: BatchBuilder) -> None:
        if self._interests.awaited and not self._once:
            return
        retained = builder.retained
        once, self._once = self._once, []
        stored = bool(builder.qos or once) or self._stores_qos0
        count = builder.count
        batch, acks = builder.take()
        cells = self._turn.row
        cells[metrics.SHARD_APPENDS] += 1
        cells[metrics.SHARD_RECORDS] += count
        cells[metrics.SHARD_BYTES] += len(batch)
        self._go(self._next(acks, stored=stored), batch, retained, once)

    def hand_on(self, batch: bytes, acks: Acks, qos: int) -> None:
        """Send what was read from a log to whom wants it; not while `is_held`."""
        stored = bool(qos) or self._stores_qos0
        self._go(self._next(acks, is_read=True, stored=stored), batch, False, [])

    def _go(self, append: Append, batch: bytes, retained: bool, once: list[int]) -> None:
        if self._orphans.are_open:
            batch, once = self._hold_back(append, batch, retained, once)
            if not batch:
                append.confirm(0)
                return
        if not (once or self._put_off):
            self._send(append, batch, retained)
            return
        if once:
            key = ONCE_KEY.pack(b"O", append.epoch, append.call)
            # The others are sent again by their publishers, in the order that they want: a
            # replay must not bring some of them before what was sent earlier.
            self._state.put(key, only(batch, once))
            append.forget = partial(self._state.delete, key)
        # What follows waits behind it: the messages of a publisher keep their order.
        waiting = PutOff(append, batch, retained, bool(once))
        self._put_off.append(waiting)
        self._state.then(partial(self._may_go, waiting), partial(self._give_up, waiting))

    def _hold_back(
        self, append: Append, batch: bytes, retained: bool, once: list[int]
    ) -> tuple[bytes, list[int]]:
        """Hold what orphans may be owed; returns the others, b"" for none, and which come once."""
        self._last_call += 1
        key = ONCE_KEY.pack(HELD, self._stream, self._last_call)
        others = self._orphans.hold(append, batch, retained, once, key)
        if self._orphans.held_bytes > self._pressure_bytes:
            self._behind.add(ADOPTION)
            self.builder.blocked = True
        return others

    def _release(self) -> None:
        """Append what was held, in its order: it is known who wants it."""
        for whole, batch, retained, once, key in self._orphans.release():
            if once:
                self._state.delete(key)
            append = self._next(Acks(), is_read=whole.is_read, stored=whole.stored, whole=whole)
            self._go(append, batch, retained, once)

    def _next(
        self,
        acks: Acks,
        *,
        stored: bool,
        is_owed: bool = False,
        is_read: bool = False,
        whole: Append | None = None,
    ) -> Append:
        self._last_call += 1
        return Append(
            acks,
            self._stream,
            self._last_call,
            is_owed=is_owed,
            is_read=is_read,
            stored=stored,
            whole=whole,
        )

    def _may_go(self, waiting: PutOff) -> None:
        self._ready.add(waiting.append.call)
        self._send_ready()

    def _give_up(self, waiting: PutOff, code: int) -> None:
        """Writing fails: refuse what was to be written first, and let go what waits behind it.

        It goes when nothing before it waits any more: a core takes no number after a higher one.
        """
        if waiting.once:
            self._put_off.remove(waiting)
            self._turn.row[metrics.MESSAGES_DROPPED_REFUSED] += count_of(waiting.batch)
            waiting.append.confirm(code)
        else:
            self._ready.add(waiting.append.call)
        self._send_ready()

    def _send_ready(self) -> None:
        """Send what was put off and waits for nothing any more, in its order."""
        while self._put_off and not self._interests.awaited:
            append, batch, retained, _ = self._put_off[0]
            if append.call not in self._ready:
                return
            self._put_off.popleft()
            self._ready.discard(append.call)
            self._send(append, batch, retained)

    def _send(self, append: Append, batch: bytes, retained: bool) -> None:
        self.sent = Number(append.epoch, append.call)
        # What is to come once is told from its replay by its number, also where it is live only.
        split = self._interests.split_by_core if append.forget else self._interests.split
        parts, append.unmatched = split(batch)
        for start, stop in append.unmatched:
            self._turn.row[metrics.MESSAGES_UNMATCHED] += stop - start
        for target, part in parts:
            if target & LOGGED:
                if not append.is_read:
                    self._keep(append, part)
            elif target & DURABLE and append.stored:
                frame = frames.store(append.epoch, append.call, part, append.is_owed)
                self._ask(target & CORE, append, append.call, frame)
            elif target & CORE == self._core:
                self.deliver_here(part)
            else:
                self._fabric.send(target & CORE, frames.DELIVER_HEAD + part)
                self._watch(target & CORE)
        if retained:
            self._retain(append, batch)
        append.confirm(0)

    def restore(self) -> None:
        """After a restart: take up what was to be delivered once and is not confirmed."""
        self._replays = [*self._state.walk(b"O", b"P"), *self._state.walk(HELD, b"K")]
        for key, _ in self._replays:
            self._last_call = max(self._last_call, ONCE_KEY.unpack(key)[2])

    def _replay(self) -> None:
        """Ask again for what the last life had not heard to be kept; who has it says so."""
        replays, self._replays = self._replays, []
        for key, batch in replays:
            kind, epoch, call = ONCE_KEY.unpack(key)
            if kind == HELD:
                # Nobody has seen it: it is as what is published now, but for its publisher.
                self._state.delete(key)
                append = self._next(Acks(), stored=True, is_owed=True)
                self._go(append, batch, True, [*range(count_of(batch))])
                continue
            append = Append(Acks(), epoch, call, is_owed=True)
            append.forget = partial(self._state.delete, key)
            self._send(append, batch, True)

    def _keep(self, append: Append, batch: bytes) -> None:
        """Ask cores to keep records in logs; a log takes each number once, as a core does."""
        for part in self._log_parts.parts(batch, append.epoch, append.call):
            self._keep_part(append, part)

    def _keep_part(self, append: Append, part: LogPart) -> None:
        core = part.core
        if core is not None and core in self._peers:
            self._last_call += 1
            frame = frames.keep(self._last_call, part.name, part.batch)
            self._ask(core, append, self._last_call, frame)
        elif append.forget is None:
            self._turn.row[metrics.MESSAGES_DROPPED_REFUSED] += count_of(part.batch)
            append.code = append.code or Refusal.UNAVAILABLE
        else:
            # It may be in the log, so nobody is told to publish it anew: somebody will keep it.
            append.owing += 1
            self.later(partial(self._keep_late, append, part))

    def _keep_late(self, append: Append, part: LogPart) -> None:
        self._keep_part(append, part._replace(core=self._log_parts.core_of_log(part)))
        append.confirm(0)

    def _retain(self, append: Append, batch: bytes) -> None:
        """Send the retained records to the cores that keep their topics."""
        if self.proposals is not None:
            append.owing += 1
            self._propose(append, batch, self.proposals)
            return
        kept: dict[int, list[bytes]] = {}
        for raw, (attributes, _, _, topic, _, _) in raw_records(batch):
            if attributes & RETAIN_BIT and topic is not None:
                kept.setdefault(self._placement.retained_core(topic), []).append(raw)
        for core, some in kept.items():
            self._last_call += 1
            self.retained += 1
            self._peers[core].retained = self.retained
            part = gather(batch, some)
            frame = frames.retain(self._last_call, self.retained, part, append.is_owed)
            self._ask(core, append, self._last_call, frame)

    def replicate(self, proposals: Proposals) -> None:
        """Retain by the groups of the cluster; to be said before anything is appended.

        Positions grow from one life to the next, also when the whole node was begun anew.
        """
        self.proposals = proposals
        self.retained = self._stream << EPOCH_SHIFT

    def _propose(self, append: Append, batch: bytes, proposals: Proposals) -> None:
        def decided(code: int) -> None:
            if code and append.is_owed:
                self.later(partial(self._propose, append, batch, proposals))
            else:
                append.confirm(code)

        self.retained += 1
        proposals.propose(self.retained, batch, decided)
        if proposals.unanswered > self._pressure_bytes:
            self._behind.add(_GROUPS)
            self.builder.blocked = True

    def _ask(self, core: int, append: Append, call: int, frame: bytes) -> None:
        append.owing += 1
        peer = self._peers[core]
        peer.calls[call] = Call(append, frame)
        peer.size += len(frame)
        self._send_frame(core, frame)
        self._watch(core)

    def _send_frame(self, core: int, frame: bytes) -> None:
        if core == self._core:
            self.receive_here(frame)
        else:
            self._fabric.send(core, frame)

    def confirmed(self, core: int, call: int, code: int) -> None:
        """A core has what `call` asked it to keep, or (with a code) refuses."""
        peer = self._peers[core]
        answered = peer.calls.get(call)
        if answered is not None:
            if code and answered.append.is_owed:
                self.later(partial(self._ask_again, core, call))
                return
            del peer.calls[call]
            peer.size -= len(answered.frame)
            answered.append.confirm(code)

    def _ask_again(self, core: int, call: int) -> None:
        peer = self._peers.get(core)
        asked = peer.calls.get(call) if peer is not None else None
        if asked is not None:
            self._send_frame(core, asked.frame)

    def joined(self, core: int) -> None:
        """A core of another node is there, and can be asked."""
        self._peers.setdefault(core, Unanswered())

    def departed(self, core: int) -> None:
        """A core is gone with its node, and nobody knows whether it has kept what it was asked to.

        So it is refused, and its publisher sends it again when others have those sessions. What
        is to be delivered once is not, since the others would have it twice; a log is where it
        was when its core is there again, and is asked again then.
        """
        peer = self._peers.pop(core)
        self._behind.discard(core)
        for append, frame in peer.calls.values():
            self._turn.row[metrics.CLUSTER_PARTS_LOST] += 1
            is_once = append.is_once
            if is_once and frame[0] == Kind.KEEP:
                _, name, batch = frames.read_keep(frame)
                self._keep_part(append, LogPart(None, name, batch))
            append.confirm(0 if is_once else Refusal.UNAVAILABLE)

    def resend(self, core: int) -> None:
        """Ask the successor of a core for what its predecessor owed an answer for.

        QoS 0 that was on its way to be delivered is gone with it.
        """
        calls = self._peers[core].calls
        for call, asked in list(calls.items()):
            frame = frames.without_qos_0(asked.frame)
            if frame:
                self._fabric.send(core, frame)
            else:
                self.confirmed(core, call, 0)

    def retained_so_far(self, topic_filter: bytes) -> tuple[int, list[int]]:
        """The position of what this core has retained, and the last for each core that keeps it.

        The cores are those that keep what `topic_filter` can match.
        """
        cores = self._placement.retained_cores(topic_filter)
        return self.retained, [self._peers[core].retained for core in cores]

    def _watch(self, core: int) -> None:
        if (
            self._fabric.backlog(core) > self._pressure_bytes
            or self._peers[core].size > self._pressure_bytes
        ):
            self._behind.add(core)
            self.builder.blocked = True

    def _has_caught_up(self, core: int) -> bool:
        half = self._pressure_bytes // 2
        if core == _GROUPS:
            return self.proposals is None or self.proposals.unanswered <= half
        if core == ADOPTION:
            return self._orphans.held_bytes <= half
        return self._fabric.backlog(core) <= half and self._peers[core].size <= half
