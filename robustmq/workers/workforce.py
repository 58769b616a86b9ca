"""What the HTTP application of a node may ask and tell: its workers, and its cluster."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from robustmq.admin.blacklist import ended
from robustmq.admin.node import Key, Keys, Replies
from robustmq.errors import Refusal, Refused
from robustmq.meta import commands
from robustmq.meta.commands import Change, Command, SetKey
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.records import Record, check, decoded, encoded
from robustmq.net.channel import Channel
from robustmq.policy.bans import KIND
from robustmq.workers import log
from robustmq.workers.cluster_desk import ClusterDesk
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.meta_link import MetaLink, Page
from robustmq.workers.roster import Roster
from robustmq.workers.topic_desk import TopicDesk

METADATA: Final = "metadata"
GRACE_SECONDS: Final = 1

_log = log.EventLog("server")


class Workforce:
    """The workers, and what all nodes know together; the `Node` of the HTTP application."""

    def __init__(self, inheritance: ServerInheritance) -> None:
        config = inheritance.config
        self.workers = inheritance.workers
        self._roster = Roster(inheritance)
        self._roster.noticed[KIND] = self._banned
        self._most = config.admin.max_records
        self._seconds = config.admin.answer_timeout_ms / 1_000
        self._cluster_seconds = config.meta_runtime.raft_write_timeout_sec + GRACE_SECONDS
        (end,) = inheritance.meta_channels
        self._channel = Channel(end, self._blocked)
        life = inheritance.region.state(inheritance.index).epoch
        self._desk = ClusterDesk(self._channel, life)
        self._link = MetaLink(
            self._channel,
            life,
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            timeout_ms=self._cluster_seconds * 1_000,
        )
        self._link.other = self._desk.take
        self._link.applied = self._applied
        self._link.image.changed = self._changed
        self.topics = TopicDesk(config, self._link, self.workers)
        self._known: dict[str, Mapping[str, dict[str, Any]]] = {}
        self._reaching: list[tuple[int, asyncio.Event]] = []
        self._earned: dict[str, dict[str, Any]] = {}
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to talk to the workers and to the meta process."""
        self._roster.start()
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._link.receive)
        self._link.start()
        self._expire()

    async def ask_cluster(self, kind: str, arguments: dict[str, Any]) -> object:
        """See `admin.node.Node`."""
        return await self._desk.ask(kind, arguments, self._cluster_seconds)

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        """See `admin.node.Node`."""
        return await self._roster.ask(kind, arguments, cores)

    def records(self, kind: str) -> Mapping[str, dict[str, Any]]:
        """See `admin.node.Node`."""
        known = self._known.get(kind)
        if known is None:
            records = self._link.image.of(kind)
            known = {name: decoded(value) for name, value in records.items()}
            self._known[kind] = known
        return known

    async def settled(self) -> list[int]:
        """See `admin.node.Node`."""
        return await self._roster.settled(self._link.image.index or 0)

    async def change(
        self, changes: Iterable[tuple[str, str, dict[str, Any] | None]], *, create: bool = False
    ) -> list[int] | Refused:
        """See `admin.node.Node`."""
        records = [
            Record(kind, name, None if value is None else encoded(value))
            for kind, name, value in changes
        ]
        for record in records:
            if sentence := check(record):
                return Refused(Refusal.PAYLOAD_INVALID, sentence)
        expected = [
            commands.Expectation(record.kind, record.name, 0)
            for record in records
            if create and record.value is not None
        ]
        return await self._decided(Change(records, expected, self._most))

    async def set_key(self, key: str, value: bytes | None) -> list[int] | Refused:
        """See `admin.node.Node`."""
        return await self._decided(SetKey(key, value, most=self._most))

    async def keys(self, prefix: str, start: str, limit: int) -> Keys | Refused:
        """See `admin.node.Node`."""
        answer: asyncio.Future[Page | Refused] = asyncio.get_running_loop().create_future()

        def found(page: Page | Refused) -> None:
            if not answer.done():
                answer.set_result(page)

        self._link.keys(prefix, start, limit, found)
        page = await answer
        if isinstance(page, Refused):
            return page
        rows, after = page
        return Keys([Key(row.key, row.value) for row in rows], after)

    async def _decided(self, command: Command) -> list[int] | Refused:
        """Have a command folded; return when the node's images know what it has changed."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._link.propose(METADATA, commands.encode(command), done)
        outcome = await answer
        if not isinstance(outcome, Applied):
            return outcome
        result = commands.outcome(outcome.result)
        if isinstance(result, Refused):
            return result
        await self._reached(outcome.position)
        return await self._roster.settled(outcome.position)

    # ------------------------------------------------------------------ the image

    async def _reached(self, index: int) -> None:
        """Wait until the image of this process has reached an index, no longer than configured."""
        if (self._link.image.index or 0) >= index:
            return
        entry = (index, asyncio.Event())
        self._reaching.append(entry)
        try:
            await asyncio.wait_for(entry[1].wait(), self._seconds)
        except TimeoutError:
            _log.warning("the image of the metadata is late", index=index)
        finally:
            self._reaching.remove(entry)

    def _applied(self, index: int) -> None:
        for wanted, event in self._reaching:
            if wanted <= index:
                event.set()

    def _changed(self, kinds: Collection[str]) -> None:
        for kind in kinds:
            self._known.pop(kind, None)

    def _expire(self) -> None:
        self._link.expire()
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._expire)

    def _blocked(self) -> None:
        loop = asyncio.get_running_loop()

        def writable() -> None:
            loop.remove_writer(self._channel.fileno())
            self._channel.flush()

        loop.add_writer(self._channel.fileno(), writable)

    # ------------------------------------------------------------------ bans that workers make

    def _banned(self, _core: int, value: dict[str, Any]) -> None:
        """A worker has banned a client: it becomes a record, with others that come meanwhile."""
        self._earned[value.pop("name")] = value
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_bans())

    async def _write_bans(self) -> None:
        while self._earned:
            earned, self._earned = self._earned, {}
            over = ended(self.records(KIND), int(time.time() * 1_000))
            result = await self.change(
                [
                    *((KIND, name, None) for name in over),
                    *((KIND, name, value) for name, value in earned.items()),
                ]
            )
            if isinstance(result, Refused):
                _log.warning("bans of workers are not kept", reason=result.detail)
        self._writing = None
