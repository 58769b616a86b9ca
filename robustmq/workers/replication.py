"""The replicated groups of this node on the event loop of the meta process."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from robustmq.config import Config
from robustmq.errors import Corrupt, ProtocolError, Refusal, Refused
from robustmq.meta.data import Data
from robustmq.meta.database import RocksdbDatabases
from robustmq.meta.machine import Applied, Machine, Outcome, Store
from robustmq.meta.metadata import Metadata
from robustmq.meta.offset import Offsets
from robustmq.meta.raft_host import Disk, RaftHost
from robustmq.raft.journal import Fatal
from robustmq.raft.message import Membership
from robustmq.storage.files import SystemFiles
from robustmq.storage.writer import WriterThread
from robustmq.workers import log

METADATA: Final = "metadata"
_MS: Final = 1_000_000

_ENDING: Final = Refused(Refusal.UNAVAILABLE, "this node is being stopped")
_log = log.EventLog("meta")


class Broken(Exception):
    """The groups cannot go on: the disk has failed, or what is stored is damaged."""


class Replication:
    """The Raft host, driven: a turn after whatever has happened, and when it is due.

    `turned(now_ms)` is called after each turn, and returns when it wants the next one; `broken` is
    done, with Broken, when there is no other.
    Raises Broken when what is stored cannot be used.
    """

    def __init__(
        self,
        config: Config,
        voters: tuple[int, ...],
        send: Callable[[int, bytes], None],
        turned: Callable[[int], int],
    ) -> None:
        raft = config.meta_runtime.raft
        self._loop = asyncio.get_running_loop()
        self._turned = turned
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self.is_closed = False
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._writer = WriterThread("raft")
        databases = RocksdbDatabases(raft.store_memory_bytes, raft.store_wal_bytes)
        folder = str(Path(config.data_path) / "meta")
        try:
            self.host = RaftHost(
                me=config.broker_id,
                groups=factories(config),
                voters=Membership(voters=voters),
                settings=raft,
                timeout_ms=config.meta_runtime.raft_write_timeout_sec * 1_000,
                disk=Disk(SystemFiles(), self._writer, databases, folder),
                send=send,
                chance=random.SystemRandom().random,
                report=_report,
                wall_s=int(time.time()),
                now_ms=now_ms(),
            )
        except (Corrupt, OSError) as error:
            raise Broken(_sentence(error)) from error
        metadata = self.host.machine(METADATA)
        assert isinstance(metadata, Metadata)
        self.metadata = metadata
        self._loop.add_reader(self.host.fileno(), self.wake)
        self.wake()

    def machines(self) -> Mapping[str, Machine]:
        """Return the machines of all groups by name."""
        return {each.name: self.host.machine(each.name) for each in self.host.status()}

    def wake(self) -> None:
        """Have a turn soon: what else comes in this pass of the loop belongs to it."""
        if not self._is_due and not self.is_closed:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def receive(self, node: int, parcel: bytes) -> None:
        """Take what a node's host has sent."""
        if self.is_closed:
            return
        try:
            self.host.receive(node, parcel)
        except ProtocolError as error:
            _log.warning("a node says what cannot be", node=node, reason=error.detail)
        self.wake()

    def lost(self, node: int) -> None:
        """Hear that what was sent to a node lately may be lost."""
        if not self.is_closed:
            self.host.unreachable(node)
            self.wake()

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        """Have a command folded on every node; see `machine.Groups`."""
        if self.is_closed:
            done(_ENDING)
            return
        self.host.propose(group, command, done)
        self.wake()

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        """Call `done(None)` when all that was committed is folded here; see `machine.Groups`."""
        if self.is_closed:
            done(_ENDING)
            return
        self.host.read(group, done)
        self.wake()

    def leader(self, group: str) -> int | None:
        """Return the number of the node that leads; None: nobody is known to."""
        return self.host.leader(group)

    async def folded(self, group: str, command: bytes) -> Outcome:
        """Have a command folded; return what became of it."""
        answer: asyncio.Future[Outcome] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.propose(group, command, done)
        return await answer

    def close(self) -> None:
        """Write what is gathered and let go of everything."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self.host.fileno())
        if self._timer is not None:
            self._timer.cancel()
        try:
            self.host.close()
        except (Fatal, Corrupt, OSError) as error:
            _log.error("the groups could not be closed", reason=_sentence(error))

    def _turn(self) -> None:
        self._is_due = False
        if self.is_closed or self.broken.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        now = now_ms()
        try:
            self.host.turn(now)
        except (Fatal, Corrupt, OSError) as error:
            self.broken.set_exception(Broken(_sentence(error)))
            return
        wait_ms = min(self._turned(now), self.host.next_ms) - now
        if wait_ms <= 0:
            self.wake()
        else:
            self._timer = self._loop.call_later(wait_ms / 1_000, self.wake)


def factories(config: Config) -> dict[str, Callable[[Store], Machine]]:
    """Return what makes the machine of each group, by the group's name, the same on all nodes."""
    meta = config.meta_runtime
    return {
        METADATA: Metadata,
        **{f"offset_{number}": Offsets for number in range(meta.offset_raft_group_num)},
        **{f"data_{number}": Data for number in range(meta.data_raft_group_num)},
    }


def result(outcome: Outcome) -> bytes:
    """Return what a folded command has answered; raises ValueError when it was not folded."""
    if isinstance(outcome, Applied):
        return outcome.result
    raise ValueError(outcome.detail)


def now_ms() -> int:
    """Return milliseconds that never run back."""
    return time.monotonic_ns() // _MS


def _sentence(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _report(sentence: str) -> None:
    _log.warning("group", reason=sentence)
