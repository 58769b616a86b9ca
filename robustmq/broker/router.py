"""The publisher's side of a core: topics to shards, one batch per shard and turn, answers back."""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from robustmq._kernel.batch import Acks, BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.placement import Placement

_EPOCH_SPACE: Final = 1 << 15


class Fabric(Protocol):
    """How frames reach the other cores; a core's own number is as good as any other."""

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame for a core; it leaves at the end of the turn, in order."""

    def backlog(self, core: int) -> int:
        """Bytes that wait for room in the ring to a core."""


class _Call(NamedTuple):
    """An append that waits for its answer; `sent` is what had been sent to its core by then."""

    shard: int
    retained: bool
    batch: bytes
    acks: Acks
    sent: int


class _Outstanding:
    """What one core has been sent and has not answered; all counts are bytes since it lives."""

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self.sent = 0
        self.asked = 0
        self.answered = 0


class Router:
    """Builders by shard, and the appends that are not answered yet, by core and call.

    At most about `window_bytes` are unanswered per core: beyond that its builders are blocked
    and their publishers paused, until the owner has caught up. A batch of QoS 0 alone needs no
    answer; one is asked for just often enough to know how far the owner is.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        placement: Placement,
        core: int,
        epoch: int,
        fabric: Fabric,
        max_batch_bytes: int,
        window_bytes: int,
    ) -> None:
        self._turn = turn
        self._placement = placement
        self._core = core
        self._epoch = epoch
        self._fabric = fabric
        self._max_batch_bytes = max_batch_bytes
        self._window_bytes = window_bytes
        self._builders: dict[int, BatchBuilder] = {}
        self._outstanding = [_Outstanding() for _ in range(placement.workers)]
        self._blocked: set[int] = set()
        self._last_call = 0
        self.append_here: Callable[[int, int, int, bool, bytes], None]

    @property
    def blocked(self) -> bool:
        """Whether some core is so far behind that publishers have to wait."""
        return bool(self._blocked)

    def builder(self, topic: bytes) -> BatchBuilder:
        """The builder that takes a topic's records."""
        shard = self._placement.shard_of(topic)
        builder = self._builders.get(shard)
        if builder is None:
            builder = BatchBuilder(self._turn, shard, self._max_batch_bytes, self._send)
            builder.producer_id = self._core
            builder.producer_epoch = self._epoch % _EPOCH_SPACE
            builder.blocked = self._placement.core_of(shard) in self._blocked
            self._builders[shard] = builder
        return builder

    def flush(self) -> None:
        """Send every batch that this turn has built to its owner."""
        builders = self._turn.builders
        while builders:
            pending = builders[:]
            builders.clear()
            for builder in pending:
                if builder.count:
                    self._send(builder)

    def _send(self, builder: BatchBuilder) -> None:
        shard = builder.shard
        assert isinstance(shard, int)
        core = self._placement.core_of(shard)
        retained = builder.retained
        batch, acks = builder.take()
        outstanding = self._outstanding[core]
        outstanding.sent += len(batch)
        call = 0
        if len(acks) or outstanding.sent - outstanding.asked > self._window_bytes // 4:
            self._last_call += 1
            call = self._last_call
            outstanding.calls[call] = _Call(shard, retained, batch, acks, outstanding.sent)
            outstanding.asked = outstanding.sent
        if outstanding.sent - outstanding.answered > self._window_bytes:
            self._block(core, True)
        if core == self._core:
            self.append_here(core, call, shard, retained, batch)
        else:
            self._fabric.send(core, frames.append(call, shard, retained, batch))

    def appended(self, core: int, call: int, code: int, unmatched: list[tuple[int, int]]) -> None:
        """A core has answered an append, and with it all earlier ones: tell the publishers."""
        outstanding = self._outstanding[core]
        answered = outstanding.calls.pop(call, None)
        if answered is None:
            return
        outstanding.answered = answered.sent
        answered.acks.settle(code, unmatched)
        self._relieve(core)

    def resend(self, core: int) -> None:
        """The owner was replaced: what its predecessor owed an answer for goes out again.

        QoS 0 that was on its way is gone with it: to send it again could deliver it twice.
        """
        calls = self._outstanding[core].calls
        outstanding = self._outstanding[core] = _Outstanding()
        for call, owed in calls.items():
            if len(owed.acks):
                outstanding.sent += len(owed.batch)
                outstanding.calls[call] = owed._replace(sent=outstanding.sent)
                frame = frames.append(call, owed.shard, owed.retained, owed.batch)
                self._fabric.send(core, frame)
        outstanding.asked = outstanding.sent
        self._relieve(core)

    def _relieve(self, core: int) -> None:
        outstanding = self._outstanding[core]
        unanswered = outstanding.sent - outstanding.answered
        if core in self._blocked and unanswered <= self._window_bytes // 2:
            self._block(core, False)

    def _block(self, core: int, blocked: bool) -> None:
        if blocked:
            self._blocked.add(core)
        else:
            self._blocked.discard(core)
        for shard, builder in self._builders.items():
            if self._placement.core_of(shard) == core:
                builder.blocked = blocked
