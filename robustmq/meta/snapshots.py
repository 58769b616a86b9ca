"""The snapshots of one group that are on their way: those it sends, and the one it receives."""

from typing import Protocol

from robustmq.meta.peer_message import Chunk, ChunkReply
from robustmq.meta.site import Site
from robustmq.meta.store import GroupStore
from robustmq.meta.transfer import Incoming, Outgoing
from robustmq.raft.message import Message, MessageKind
from robustmq.raft.node import Node


class Group(Protocol):
    """What is asked of the group."""

    number: int
    name: str
    node: Node

    @property
    def store(self) -> GroupStore:
        """The group's store."""


class Snapshots:
    """Sends and receives in bounded windows, while the group goes on."""

    def __init__(self, site: Site, group: Group) -> None:
        self._site = site
        self._group = group
        self._outgoing: dict[int, Outgoing] = {}
        self._incoming: Incoming | None = None

    @property
    def next_ms(self) -> int | None:
        """When something may have to be sent again."""
        if not self._outgoing:
            return None
        retry = self._site.settings.retry_ms
        return min(each.sent_ms for each in self._outgoing.values()) + retry

    def begin(self, to: int, now_ms: int) -> None:
        """A follower needs a snapshot."""
        group, settings = self._group, self._site.settings
        node, store = group.node, group.store
        if to in self._outgoing:
            self._end(to, arrived=False)
        snapshot = node.describe(store.position.index)
        if not node.snapshot_begins(to, snapshot.index):
            node.snapshot_ended(to, snapshot.index, False)
            return
        token = self._site.token()
        first = Chunk(group.number, node.term, token, snapshot, 0, b"", 0, 0, False)
        self._outgoing[to] = Outgoing(
            to,
            first,
            store.view(),
            now_ms,
            window=settings.snapshot_window,
            part_bytes=settings.snapshot_part_bytes,
        )
        self._site.report(
            f"node {to} is too far behind in the group {group.name}: it is sent the state at "
            f"{snapshot.index}"
        )

    def turn(self, now_ms: int, is_installing: bool) -> None:
        """Send what may be sent; give up what makes no progress."""
        if self._incoming is not None and self._incoming.is_whole and not is_installing:
            # Raft has no use for it: the log has caught up by itself.
            self._incoming = None
            self._group.store.abandon()
        settings, node = self._site.settings, self._group.node
        for to, each in list(self._outgoing.items()):
            if not node.leads or node.term != each.term:
                self._end(to, arrived=False)
                continue
            if now_ms >= each.progress_ms + settings.snapshot_timeout_ms:
                self._end(to, arrived=False)
                continue
            if now_ms >= each.sent_ms + settings.retry_ms:
                parts = each.again(now_ms)
            else:
                parts = each.parts(now_ms)
            for part in parts:
                self._site.outbox.tell(to, part)

    def heard(self, reply: ChunkReply, sender: int, now_ms: int) -> None:
        """A follower has said what it expects."""
        outgoing = self._outgoing.get(sender)
        if outgoing is None or outgoing.transfer != reply.transfer:
            return
        if reply.refused:
            self._end(sender, arrived=False)
            return
        outgoing.arrived(reply.expected, now_ms)
        if outgoing.has_arrived:
            self._site.counters.snapshots_sent += 1
            self._end(sender, arrived=True)

    def take(self, chunk: Chunk, sender: int, now_ms: int) -> None:
        """A part has come from the leader."""
        group = self._group
        node, store = group.node, group.store
        if chunk.term != node.term or node.leader != sender:
            return
        incoming = self._incoming
        if incoming is None or incoming.transfer != chunk.transfer:
            if incoming is not None and incoming.is_whole:
                return
            if chunk.number or chunk.snapshot.index <= store.position.index:
                reply = ChunkReply(group.number, chunk.transfer, 0, refused=True)
                self._site.outbox.tell(sender, reply)
                return
            incoming = self._incoming = Incoming(store, chunk, sender)
        was_whole = incoming.is_whole
        reply = incoming.take(chunk)
        if reply.refused:
            self._site.report(
                f"part {chunk.number} of a snapshot from node {sender} for the group {group.name} "
                f"is not what was sent: it is asked for again"
            )
            self._incoming = None
            store.abandon()
        elif incoming.is_whole and not was_whole:
            node.step(
                Message(
                    MessageKind.SNAPSHOT,
                    group.number,
                    sender,
                    self._site.me,
                    chunk.term,
                    snapshot=incoming.staged.snapshot,
                ),
                now_ms,
            )
        self._site.outbox.tell(sender, reply)

    def installed(self) -> None:
        """What was received is about to be the store; what is sent is of the old one."""
        self._incoming = None
        for to in list(self._outgoing):
            self._end(to, arrived=False)

    def close(self) -> None:
        """Let go of everything."""
        for each in self._outgoing.values():
            each.close()
        self._outgoing.clear()
        self._incoming = None

    def _end(self, to: int, arrived: bool) -> None:
        outgoing = self._outgoing.pop(to)
        outgoing.close()
        self._group.node.snapshot_ended(to, outgoing.snapshot.index, arrived)
