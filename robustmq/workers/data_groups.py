"""What a core lets the data groups of its cluster decide: what a turn has gathered, together."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from robustmq.errors import Refused
from robustmq.message.session_record import SessionChange, Verdict
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, data
from robustmq.meta.data import Batch, Retained
from robustmq.meta.machine import Applied, Outcome
from robustmq.mqtt.registry import Heard
from robustmq.workers.meta_link import MetaLink

BATCH_BYTES: Final = 256 << 10
"""Bytes of retained messages at which a batch is full; a longer one travels alone."""


class _Gathered:
    """A batch that is being gathered, and who waits for what of it."""

    __slots__ = ("changes", "decided", "heard", "retained", "size")

    def __init__(self) -> None:
        self.changes: list[SessionChange] = []
        self.heard: list[Heard] = []
        self.retained: list[Retained] = []
        self.decided: list[Callable[[int, int], None]] = []
        self.size = 0


class DataGroups:
    """A `registry.Registry` and a `replicas.Replication` over `groups` groups of node `node`."""

    def __init__(self, node: int, groups: int, link: MetaLink) -> None:
        self.groups = groups
        self._node = node
        self._link = link
        self._gathered: dict[int, list[_Gathered]] = {}

    def propose(self, change: SessionChange, done: Heard) -> None:
        """Let the cluster decide on a change of a session."""
        batch = self._batch(stable_hash(change.identity.encode()) % self.groups)
        batch.changes.append(change)
        batch.heard.append(done)

    def retain(
        self,
        group: int,
        rows: Sequence[tuple[bytes, bytes | None]],
        done: Callable[[int, int], None],
    ) -> None:
        """Let a group keep messages by topic; `done(code, index)` when it has, or has refused."""
        batch = self._batch(group)
        batch.retained += [Retained(topic, message) for topic, message in rows]
        batch.size += sum(len(topic) + len(message or b"") for topic, message in rows)
        batch.decided.append(done)

    def flush(self) -> None:
        """Propose what the turn has gathered."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}
        own = self._link.image.nodes.get(self._node)
        incarnation = own.incarnation if own is not None else 0
        for group, batches in gathered.items():
            for each in batches:
                batch = Batch(self._node, incarnation, each.changes, each.retained)
                self._link.propose(f"data_{group}", data.encode(batch), partial(_tell, each))

    def _batch(self, group: int) -> _Gathered:
        batches = self._gathered.setdefault(group, [])
        if not batches or batches[-1].size >= BATCH_BYTES:
            batches.append(_Gathered())
        return batches[-1]


def _tell(batch: _Gathered, outcome: Outcome) -> None:
    """Tell who waits what became of it."""
    index = outcome.position if isinstance(outcome, Applied) else 0
    result = commands.outcome(outcome.result) if isinstance(outcome, Applied) else outcome
    if isinstance(result, Refused):
        for heard in batch.heard:
            heard(Verdict.UNKNOWN)
        for decided in batch.decided:
            decided(int(result.code), 0)
        return
    if batch.heard:
        for heard, verdict in zip(batch.heard, data.verdicts(result), strict=True):
            heard(verdict)
    for decided in batch.decided:
        decided(0, index)
