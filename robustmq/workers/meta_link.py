"""A process' end toward the meta process of its node: proposals, queries, and the image."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionRecord
from robustmq.meta import offset
from robustmq.meta.data import ALL
from robustmq.meta.image import Image
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.records import Record
from robustmq.net.channel import Channel
from robustmq.workers import log
from robustmq.workers import meta_messages as messages
from robustmq.workers.meta_messages import (
    PAGE_ROWS,
    Adopt,
    Changed,
    Follow,
    Found,
    FoundKey,
    FoundOffset,
    Hello,
    Propose,
    Query,
    Records,
    Snapshot,
    Standing,
    Welcome,
)

PENDING_MOST: Final = 10_000
"""Proposals and queries of a process that are on their way at once."""

Answer: TypeAlias = messages.Outcome | Found
Page: TypeAlias = tuple[list[Any], str | None]

_keys: Final = msgspec.msgpack.Decoder(list[FoundKey])
_page_of: Final = msgspec.msgpack.Decoder(offset.Page)
_page_keys: Final = msgspec.msgpack.Decoder(list[str])
_found_offsets: Final = msgspec.msgpack.Decoder(list[FoundOffset])
_sessions: Final = msgspec.msgpack.Decoder(list[SessionRecord | None])

_log = log.EventLog("meta_link")


class _Pending:
    """What was asked and is not answered: it is asked again of the next life."""

    __slots__ = ("deadline_ms", "done", "message")

    def __init__(
        self, message: bytes, done: Callable[[Answer | Refused], None], deadline_ms: int
    ) -> None:
        self.message = message
        self.done = done
        self.deadline_ms = deadline_ms


class MetaLink:
    """Proposes, asks, and folds what comes. Every answer comes once, and in a bounded time.

    `now_ms` is a clock that never goes back; `timeout_ms` is how long an answer may take: `expire`
    must be called now and then. `applied(index)` is called when the image has reached an index,
    `changed(message)` for retained messages, `adopt(message)` for sessions of a node that is
    gone, and `stood(is_isolated)` when the node has lost the cluster or has found it again.
    `other(data)` takes what belongs to somebody else who uses the channel, and says whether it did.
    """

    def __init__(
        self, channel: Channel, epoch: int, *, now_ms: Callable[[], int], timeout_ms: int
    ) -> None:
        self.image = Image(_unusable)
        self.applied: Callable[[int], None] = lambda _index: None
        self.changed: Callable[[Changed], None] = lambda _changed: None
        self.adopt: Callable[[Adopt], None] = lambda _adopt: None
        self.other: Callable[[bytes], bool] = lambda _data: False
        self.stood: Callable[[bool], None] = lambda _is_isolated: None
        self.is_isolated = False
        self._channel = channel
        self._epoch = epoch
        self._now_ms = now_ms
        self._timeout_ms = timeout_ms
        self._life: int | None = None
        self._pending: dict[int, _Pending] = {}
        self._following: dict[str, Follow] = {}
        self._last = 0

    @property
    def is_informed(self) -> bool:
        """Whether the records of the cluster are known here."""
        return self.image.index is not None

    def start(self) -> None:
        """Ask for the records: `is_informed` when they have been read."""
        self._send(Hello(self._epoch))

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        """Have a command folded by a group; `done` hears the outcome, once.

        UNAVAILABLE: nothing was heard in time; the command may be folded nevertheless. When the
        meta process ends meanwhile, it may be folded twice.
        """

        def answered(answer: Answer | Refused) -> None:
            if isinstance(answer, messages.Outcome):
                done(Applied(answer.index, answer.result))
            else:
                assert isinstance(answer, Refused)
                done(answer)

        number = self._number()
        self._ask(number, Propose(self._epoch, number, group, command), answered)

    def keys(
        self, prefix: str, start: str, limit: int, done: Callable[[Page | Refused], None]
    ) -> None:
        """Ask for keys of the key-value store, as `FoundKey`, and where to go on."""
        number = self._number()
        query = Query(self._epoch, number, "metadata", "keys", prefix, start, limit=limit)
        self._ask(number, query, _page(_keys, done))

    def sessions(
        self, group: str, identities: Sequence[str], done: Callable[[Page | Refused], None]
    ) -> None:
        """Ask who has sessions: a SessionRecord for each, or None where there is no row."""
        number = self._number()
        query = Query(self._epoch, number, group, "sessions", names=[*identities])
        self._ask(number, query, _page(_sessions, done))

    def owned(self, group: str, start: str, done: Callable[[Page | Refused], None]) -> None:
        """Ask for the sessions of this core that this node owns, from an identity on."""
        number = self._number()
        query = Query(self._epoch, number, group, "owned", start=start)
        self._ask(number, query, _page(_sessions, done))

    def page(self, group: str, key: str, done: Callable[[offset.Page | Refused], None]) -> None:
        """Ask for a page of an offset group as it is now."""

        def answered(answer: Answer | Refused) -> None:
            if isinstance(answer, Found):
                done(_page_of.decode(answer.rows))
            else:
                assert isinstance(answer, Refused)
                done(answer)

        number = self._number()
        self._ask(number, Query(self._epoch, number, group, "page", start=key), answered)

    def page_keys(
        self, group: str, prefix: str, start: str, done: Callable[[Page | Refused], None]
    ) -> None:
        """Ask for the keys of pages that begin with `prefix`, and where to go on."""
        number = self._number()
        query = Query(self._epoch, number, group, "page_keys", prefix, start, limit=PAGE_ROWS)
        self._ask(number, query, _page(_page_keys, done))

    def offsets(
        self, group: str, key: str, start: str, done: Callable[[Page | Refused], None]
    ) -> None:
        """Ask for offsets under a key from a place on, as FoundOffset, and where to go on."""
        number = self._number()
        query = Query(self._epoch, number, group, "offsets", key, start, limit=PAGE_ROWS)
        self._ask(number, query, _page(_found_offsets, done))

    def follow(self, group: str, after: tuple[int, bytes]) -> None:
        """Have `changed` called for what of this core's topics has changed behind `after`.

        From then on for all further changes, through all lives of the meta process.
        """
        self._follow(Follow(self._epoch, group, after))

    def expire(self) -> None:
        """Refuse what has waited too long."""
        now_ms = self._now_ms()
        for number, pending in [*self._pending.items()]:
            # They were asked in the order of their deadlines.
            if pending.deadline_ms > now_ms:
                return
            del self._pending[number]
            pending.done(
                Refused(
                    Refusal.UNAVAILABLE,
                    f"the meta service has not answered within {self._timeout_ms} ms: try again",
                )
            )

    def receive(self) -> None:
        """Take all that was said: call it when the channel is readable."""
        for data in self._channel.receive():
            if self.other(data):
                continue
            message = messages.from_meta(data)
            if message.epoch != self._epoch:
                continue
            match message:
                case Welcome(life=life):
                    self._welcomed(life)
                case Snapshot(index=index, records=records):
                    if self.image.replace(index, records):
                        self.applied(index)
                case Records():
                    self._fold(message)
                case messages.Outcome() | Found():
                    self._answered(message)
                case Changed():
                    self._took(message)
                case Adopt():
                    self.adopt(message)
                case Standing(is_isolated=is_isolated):
                    if is_isolated != self.is_isolated:
                        self.is_isolated = is_isolated
                        self.stood(is_isolated)

    # ------------------------------------------------------------------ what was said

    def _welcomed(self, life: int) -> None:
        if life == self._life:
            return
        self._life = life
        for pending in self._pending.values():
            self._channel.send(pending.message)
        for follow in self._following.values():
            self._send(follow)

    def _fold(self, message: Records) -> None:
        if self.image.apply(message.before, message.index, message.records):
            self.applied(message.index)
        else:
            self.start()

    def _took(self, message: Changed) -> None:
        group = message.group
        if group not in self._following:
            return
        if message.is_missing:
            self._send(self._following[group])
            return
        self.changed(message)
        if message.after is None:
            self._following[group] = Follow(self._epoch, group, (message.index, ALL))
        else:
            self._follow(Follow(self._epoch, group, message.after, message.is_whole))

    def _follow(self, follow: Follow) -> None:
        self._following[follow.group] = follow
        if self._life is not None:
            self._send(follow)

    def _answered(self, answer: Answer) -> None:
        pending = self._pending.pop(answer.number, None)
        if pending is None:
            return
        refused = Refused(Refusal(answer.code), answer.detail) if answer.code else None
        pending.done(refused or answer)

    # ------------------------------------------------------------------ what is asked

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _ask(
        self, number: int, message: messages.ToMeta, done: Callable[[Answer | Refused], None]
    ) -> None:
        if len(self._pending) >= PENDING_MOST:
            done(Refused(Refusal.BUSY, f"{PENDING_MOST} proposals wait for an answer already"))
            return
        data = messages.encode(message)
        self._pending[number] = _Pending(data, done, self._now_ms() + self._timeout_ms)
        if self._life is not None:
            self._channel.send(data)

    def _send(self, message: messages.ToMeta) -> None:
        self._channel.send(messages.encode(message))


def _page(
    decoder: "msgspec.msgpack.Decoder[Any]", done: Callable[[Page | Refused], None]
) -> Callable[[Answer | Refused], None]:
    def answered(answer: Answer | Refused) -> None:
        if isinstance(answer, Found):
            done((decoder.decode(answer.rows), answer.after))
        else:
            assert isinstance(answer, Refused)
            done(answer)

    return answered


def _unusable(record: Record, reason: str) -> None:
    _log.warning("a record is not applied", kind=record.kind, name=record.name, reason=reason)
