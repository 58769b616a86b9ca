"""A replica of a group as the others see it: terms, elections, and answers to every message."""

import enum
from collections import deque
from collections.abc import Callable
from heapq import heappush
from typing import Final

from robustmq.raft import quorum
from robustmq.raft.leader import Leader
from robustmq.raft.log import ReplicaLog
from robustmq.raft.message import NOBODY, Message, MessageKind, Snapshot
from robustmq.raft.ready import Read, Stored
from robustmq.settings.raft import Raft

_FROM_LEADER: Final = frozenset(
    {
        MessageKind.APPEND,
        MessageKind.COMMIT,
        MessageKind.HEARTBEAT,
        MessageKind.SNAPSHOT,
        MessageKind.TIMEOUT_NOW,
    }
)
_WITHOUT_TERM: Final = frozenset({MessageKind.PRE_VOTE, MessageKind.READ, MessageKind.READ_REPLY})
BY_ORDER: Final = 1
"""The context of a VOTE that the leader has ordered."""

_NEVER_MS: Final = 1 << 40


class Role(enum.IntEnum):
    """What a replica is at the moment."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class Replica:
    """The part of a Node that speaks with other replicas; it takes messages and makes messages."""

    def __init__(
        self,
        me: int,
        group: int,
        settings: Raft,
        stored: Stored,
        *,
        chance: Callable[[], float],
        now_ms: int,
    ) -> None:
        """Raises Corrupt when what is stored does not fit together."""
        self._me = me
        self._group = group
        self._settings = settings
        self._chance = chance
        self._log = ReplicaLog(stored, settings.cache_bytes)
        self._term = max(stored.hard_state.term, self._log.last_term)
        self._vote = stored.hard_state.vote if self._term == stored.hard_state.term else NOBODY
        self._hard = (self._term, self._vote)
        self._hard_number = 0
        self._durable = 0
        self._role = Role.FOLLOWER
        self._leader = NOBODY
        self._office: Leader | None = None
        self._votes: set[int] = set()
        self._gone_at = 0
        self._heard_ms = now_ms - _NEVER_MS
        self._since_ms = self._now_ms = now_ms
        # Who votes alone has nobody to wait for.
        is_alone = self._log.membership.voters == (me,)
        self._patience_ms = 0 if is_alone else self._patience()
        self._install: Snapshot | None = None
        self._install_number = 0
        self._outgoing: list[Message] = []
        self._after: list[Message] = []
        self._held: deque[tuple[int, list[Message]]] = deque()
        self._reads: list[Read] = []
        self._readers: list[tuple[int, int]] = []
        self._steps = (
            self._on_pre_vote,
            self._on_pre_vote_reply,
            self._on_vote,
            self._on_vote_reply,
            self._on_append,
            self._on_append_reply,
            self._on_commit,
            self._on_heartbeat,
            self._on_heartbeat_reply,
            self._on_snapshot,
            self._on_timeout_now,
            self._on_read,
            self._on_read_reply,
        )

    # Messages.

    def step(self, message: Message, now_ms: int) -> None:
        """A message for this replica has come, as `decode` gave it; nothing is raised."""
        if message.group != self._group or message.to != self._me:
            return
        self._now_ms = now_ms
        if message.term == self._term or self._is_of_other_term(message):
            self._steps[message.kind](message)

    def _is_of_other_term(self, message: Message) -> bool:
        """Take a higher term over; says whether the message means something (Raft 5.1)."""
        kind, term = message.kind, message.term
        if kind in _WITHOUT_TERM:
            return True
        if term < self._term:
            # Whoever leads in the past must hear of it, or nobody would lead for this replica.
            if kind in _FROM_LEADER:
                self._say(MessageKind.HEARTBEAT_REPLY, message.sender)
            elif kind is MessageKind.VOTE:
                self._say(MessageKind.VOTE_REPLY, message.sender, rejected=True)
            return False
        if kind is MessageKind.PRE_VOTE_REPLY and not message.rejected:
            return True
        if kind is MessageKind.VOTE and message.context != BY_ORDER and self._is_led():
            return False
        self._follow(term, message.sender if kind in _FROM_LEADER else NOBODY)
        return True

    def _say(
        self,
        kind: MessageKind,
        to: int,
        index: int = 0,
        log_term: int = 0,
        *,
        rejected: bool = False,
        hint: int = 0,
        context: int = 0,
        term: int = -1,
        after: bool = False,
    ) -> None:
        """Send a message when its term is durable; `after`: all that was taken so far, too."""
        term = self._term if term < 0 else term
        group, me = self._group, self._me
        said = Message(kind, group, me, to, term, index, log_term, 0, rejected, hint, context)
        unsaid = self._hard_number > self._durable or self._hard != (self._term, self._vote)
        (self._after if after or unsaid else self._outgoing).append(said)

    def _send(self, message: Message) -> None:
        """Send what a leader says, or answer a read of its own."""
        if message.to == self._me:
            self._on_read_reply(message)
        else:
            self._outgoing.append(message)

    # Terms and elections.

    def _patience(self) -> int:
        """Milliseconds without a leader until this replica asks for votes: it differs by chance."""
        timeout = self._settings.election_timeout_ms
        return timeout + int(timeout * self._chance())

    def _is_led(self) -> bool:
        """Whether a leader was heard so lately that none is to be replaced (dissertation 6.2)."""
        if self._office is not None:
            return True
        timeout = self._settings.election_timeout_ms
        return self._leader != NOBODY and self._now_ms - self._heard_ms < timeout

    def _follow(self, term: int, leader: int) -> None:
        """Be a follower in that term, of that leader or of nobody yet."""
        if term != self._term:
            self._term = term
            self._vote = NOBODY
        if self._office is not None:
            self._leave(self._office)
        self._role = Role.FOLLOWER
        self._leader = leader
        self._since_ms = self._now_ms
        self._patience_ms = self._patience()

    def _leave(self, office: Leader) -> None:
        """Lead no more: reads that wait are not confirmed."""
        self._heard_ms = office.contact_ms(self._now_ms)
        self._office = None
        for replica, token in office.reads.dropped():
            if replica == self._me:
                self._reads.append(Read(token, None))
            else:
                self._say(MessageKind.READ_REPLY, replica, rejected=True, context=token)

    def _campaign(self, *, asks_first: bool, context: int = 0) -> None:
        """Ask for votes, or at first only whether they would be given (dissertation 9.6)."""
        voters = self._log.membership.voters
        self._follow(self._term, NOBODY)
        if not self._may_lead():
            return
        if asks_first and voters != (self._me,):
            self._role = Role.PRE_CANDIDATE
            self._votes = {self._me}
            kind, term = MessageKind.PRE_VOTE, self._term + 1
        else:
            self._role = Role.CANDIDATE
            self._term += 1
            self._vote = self._me
            self._votes = set()
            kind, term = MessageKind.VOTE, self._term
            # Our own vote counts when it is durable, as all others.
            self._say(MessageKind.VOTE_REPLY, self._me, after=True)
        log = self._log
        for node in voters:
            if node != self._me:
                asked = (kind, node, log.last_index, log.last_term)
                after = kind is MessageKind.VOTE
                self._say(*asked, context=context, term=term, after=after)

    def _may_lead(self) -> bool:
        """Whether this replica is a voter, as far as it knows.

        One that is to leave leads until that is committed: nobody else may have the entry that
        says so (dissertation 4.2.2).
        """
        log = self._log
        if self._me in log.membership.voters:
            return self._gone_at <= log.membership_index
        before = log.membership_at(log.commit)[1]
        return self._gone_at < log.membership_index and self._me in before.voters

    def _on_pre_vote(self, message: Message) -> None:
        log = self._log
        if (
            message.term > self._term
            and not self._is_led()
            and log.is_behind(message.index, message.log_term)
        ):
            self._say(MessageKind.PRE_VOTE_REPLY, message.sender, term=message.term)
            return
        made, membership = log.membership_at(log.commit)
        gone = 0 if message.sender in quorum.members(membership) else made
        self._say(MessageKind.PRE_VOTE_REPLY, message.sender, gone, rejected=True)

    def _on_pre_vote_reply(self, message: Message) -> None:
        if message.rejected:
            # A membership that is committed is without us: be quiet, if it is not before ours.
            self._gone_at = max(self._gone_at, message.index)
        elif self._role is Role.PRE_CANDIDATE and message.term == self._term + 1:
            self._votes.add(message.sender)
            if self._has_majority():
                self._campaign(asks_first=False)

    def _has_majority(self) -> bool:
        voters = self._log.membership.voters
        return len(self._votes.intersection(voters)) >= quorum.majority(len(voters))

    def _on_vote(self, message: Message) -> None:
        """Vote for one per term, whose log is as good as ours (Raft 5.2, 5.4.1)."""
        free = self._vote == NOBODY and self._leader == NOBODY
        granted = (free or self._vote == message.sender) and self._log.is_behind(
            message.index, message.log_term
        )
        if granted:
            self._vote = message.sender
            self._since_ms = self._now_ms
        self._say(MessageKind.VOTE_REPLY, message.sender, rejected=not granted, after=granted)

    def _on_vote_reply(self, message: Message) -> None:
        if self._role is not Role.CANDIDATE or message.rejected:
            return
        self._votes.add(message.sender)
        if not self._has_majority():
            return
        self._role = Role.LEADER
        self._leader = self._me
        self._office = Leader(
            self._me,
            self._group,
            self._term,
            self._log,
            self._settings,
            send=self._send,
            now_ms=self._now_ms,
        )

    def _on_timeout_now(self, message: Message) -> None:
        if self._hear(message):
            self._campaign(asks_first=False, context=BY_ORDER)

    # What a leader says.

    def _hear(self, message: Message) -> bool:
        """The leader of this term has spoken; no: that cannot be."""
        if self._office is not None:
            return False
        if self._role is not Role.FOLLOWER:
            self._follow(self._term, message.sender)
        self._leader = message.sender
        self._heard_ms = self._since_ms = self._now_ms
        return True

    def _on_append(self, message: Message) -> None:
        """Take entries that stand on one that matches (Raft 5.3)."""
        if not self._hear(message):
            return
        log, index, entries = self._log, message.index, message.entries
        if index < log.commit:
            # What is committed matches, wherever the log starts: begin behind it.
            entries = entries[log.commit - index :]
            index = log.commit
        elif log.term_at(index) != message.log_term:
            last = max(log.latest_up_to(index, message.log_term), log.commit)
            self._reject(message, last)
            return
        if not log.merge(entries):
            return
        last = entries[-1].index if entries else index
        log.commit_to(min(message.commit, last))
        self._say(MessageKind.APPEND_REPLY, message.sender, last, after=True)

    def _reject(self, message: Message, last: int) -> None:
        """Say which entry is the last that may match."""
        kind, at, term = MessageKind.APPEND_REPLY, message.index, self._log.term_at(last)
        self._say(kind, message.sender, at, term, rejected=True, hint=last)

    def _on_commit(self, message: Message) -> None:
        if self._hear(message):
            self._log.commit_to(message.commit)

    def _on_heartbeat(self, message: Message) -> None:
        if self._hear(message):
            self._log.commit_to(message.commit)
            self._say(MessageKind.HEARTBEAT_REPLY, message.sender, context=message.context)

    def _on_snapshot(self, message: Message) -> None:
        snapshot, log = message.snapshot, self._log
        if snapshot is None or not self._hear(message):
            return
        if snapshot.index > log.commit:
            if log.term_at(snapshot.index) == snapshot.term:
                log.commit_to(snapshot.index)
            else:
                log.install(snapshot)
                self._install = snapshot
        self._say(MessageKind.APPEND_REPLY, message.sender, log.commit, after=True)

    # What followers say, and reads.

    def _on_append_reply(self, message: Message) -> None:
        if self._office is not None:
            self._office.on_append_reply(message, self._now_ms)

    def _on_heartbeat_reply(self, message: Message) -> None:
        if self._office is not None:
            self._office.on_heartbeat_reply(message, self._now_ms)

    def _on_read(self, message: Message) -> None:
        reader = (message.sender, message.context)
        if self._office is None or not self._office.reads.add(reader):
            kind = MessageKind.READ_REPLY
            self._say(kind, message.sender, rejected=True, context=message.context)

    def _on_read_reply(self, message: Message) -> None:
        # Whoever led when it was confirmed, what was answered before it was asked is below it.
        if message.rejected:
            self._reads.append(Read(message.context, None))
        else:
            heappush(self._readers, (message.index, message.context))
