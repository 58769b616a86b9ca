"""What all groups of a Raft host share: who it is, its journals, what leaves it, what it counts."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from robustmq.meta.peer_message import Chunk, ChunkReply, Forward, Parcel, encode
from robustmq.raft import message as raft_message
from robustmq.raft.journal import Journals
from robustmq.raft.message import Message
from robustmq.settings.raft import Raft

_COUNTED: Final = 128
"""Bytes that a message counts for beside its entries."""


class Counters(Struct):
    """What a host has done, for /metrics.

    proposed: Commands that were given to it here. answered: Those of them that were folded.
    failed: Those that were refused, or late. applied: Commands that it has folded, whosever.
    """

    proposed: int = 0
    answered: int = 0
    failed: int = 0
    applied: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0


class Outbox:
    """What is to be sent to other nodes, by node, in order."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._raft: dict[int, list[Message]] = {}
        self._others: dict[int, list[Forward | Chunk | ChunkReply]] = {}

    def say(self, message: Message) -> None:
        """Have a message of Raft sent to whom it is for."""
        self._raft.setdefault(message.to, []).append(message)

    def tell(self, to: int, other: Forward | Chunk | ChunkReply) -> None:
        """Have a host's own message sent."""
        self._others.setdefault(to, []).append(other)

    def flush(self, send: Callable[[int, bytes], None]) -> None:
        """Send everything, in parcels of about `most_bytes`."""
        for to, messages in self._raft.items():
            self._send_raft(to, messages, send)
        self._raft.clear()
        for to, others in self._others.items():
            for other in others:
                send(to, encode(Parcel(b"", (other,))))
        self._others.clear()

    def _send_raft(
        self, to: int, messages: list[Message], send: Callable[[int, bytes], None]
    ) -> None:
        part: list[Message] = []
        size = 0
        for message in messages:
            part.append(message)
            size += _COUNTED + sum(entry.size for entry in message.entries)
            if size >= self._most_bytes:
                send(to, encode(Parcel(raft_message.encode(part), ())))
                part, size = [], 0
        if part:
            send(to, encode(Parcel(raft_message.encode(part), ())))


class Site(Struct):
    """What a group is given by its host.

    answer: Calls what it is given when the turn is over, so that nobody is called in between.
    report: Hears of what an administrator should know, in sentences.
    """

    me: int
    life: int
    settings: Raft
    journals: Journals
    outbox: Outbox
    chance: Callable[[], float]
    answer: Callable[[Callable[[], None]], None]
    report: Callable[[str], None]
    counters: Counters
    tokens: int = 0

    def token(self) -> int:
        """Return a number that this node never uses again, in no life."""
        self.tokens += 1
        return self.life << 31 | self.tokens
