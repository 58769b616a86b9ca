"""A leader's office, for one term: who follows how far, what is committed, and reads."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from robustmq.errors import Refusal, Refused
from robustmq.raft.log import UNKNOWN, ReplicaLog
from robustmq.raft.message import (
    ENTRY_BYTES,
    NOBODY,
    Entry,
    EntryKind,
    Membership,
    Message,
    MessageKind,
    membership_bytes,
)
from robustmq.raft.progress import Phase, Progress
from robustmq.raft.quorum import agreed, majority, members
from robustmq.raft.ready import Follower
from robustmq.raft.rounds import Rounds
from robustmq.settings.raft import Raft

Send = Callable[[Message], None]

_LATE: Final = Refused(Refusal.BUSY, "Too much is proposed and not committed; try again.")
_LEAVING: Final = Refused(Refusal.UNAVAILABLE, "The leader gives its office up; try again.")
_CHANGING: Final = Refused(Refusal.BUSY, "Another change of the members is under way; try again.")
_YOUNG: Final = Refused(Refusal.BUSY, "The leader is new and has committed nothing; try again.")


class Leader:
    """What a replica knows and does as long as it leads in one term.

    `send` takes what may leave at once: a leader's own term is durable before it leads.
    """

    def __init__(
        self,
        me: int,
        group: int,
        term: int,
        log: ReplicaLog,
        settings: Raft,
        *,
        send: Send,
        now_ms: int,
    ) -> None:
        self._me = me
        self._group = group
        self._term = term
        self._log = log
        self._settings = settings
        self._send = send
        self._now_ms = now_ms
        self._followers: dict[int, Progress] = {}
        self._voters: tuple[int, ...] = ()
        self._uncommitted: deque[tuple[int, int]] = deque()
        self._uncommitted_bytes = 0
        self._transfer_to = NOBODY
        self._transfer_ms = 0
        self._heartbeat_ms = now_ms
        self._lost_ms = now_ms + settings.election_timeout_ms
        self._is_spared = False
        self.reads = Rounds(settings.pending_reads)
        self.wanting: list[int] = []
        """Followers for which the host is to be asked for a snapshot."""
        self._reconfigure()
        log.append((Entry(log.last_index + 1, term, EntryKind.NO_OP, b""),))

    # Who follows.

    def _reconfigure(self) -> None:
        """The log's latest membership has changed: it counts from now on."""
        membership, settings = self._log.membership, self._settings
        self._voters = membership.voters
        followers = self._followers
        self._followers = {}
        for node in members(membership):
            if node != self._me:
                self._followers[node] = followers.get(node) or Progress(
                    self._log.last_index + 1,
                    self._now_ms,
                    settings.inflight_messages,
                    settings.inflight_bytes,
                )

    def followers(self) -> list[Follower]:
        """All other replicas."""
        return [
            Follower(node, node in self._voters, each.matched, each.heard_ms, each.snapshot)
            for node, each in self._followers.items()
        ]

    def contact_ms(self, now_ms: int) -> int:
        """When a majority of the voters was heard last; it counts itself as heard now."""
        followers = self._followers
        return agreed(
            [followers[node].heard_ms if node in followers else now_ms for node in self._voters]
        )

    def _holds(self, members: Membership, now_ms: int) -> bool:
        """Whether a majority of such a membership is heard."""
        timeout = self._settings.election_timeout_ms
        heard = 0
        for node in members.voters:
            follower = self._followers.get(node)
            heard += node == self._me or (
                follower is not None and now_ms - follower.heard_ms < timeout
            )
        return heard >= majority(len(members.voters))

    # Time.

    @property
    def next_ms(self) -> int:
        """When `tick` has something to do."""
        at = min(self._heartbeat_ms, self._lost_ms)
        return at if self._transfer_to == NOBODY else min(at, self._transfer_ms)

    def tick(self, now_ms: int) -> bool:
        """Time has passed; says whether this replica still leads (dissertation 6.2)."""
        timeout = self._settings.election_timeout_ms
        # Nothing has happened for longer than heartbeats leave: this process did not run, and
        # what followers have said lies in its sockets. It is heard before the office is left.
        stood_still = now_ms - self._now_ms > timeout // 2
        self._now_ms = now_ms
        if now_ms >= self._lost_ms:
            self._lost_ms = self.contact_ms(now_ms) + timeout
            is_lost = now_ms >= self._lost_ms
            if is_lost and (self._is_spared or not stood_still):
                return False
            if is_lost:
                self._lost_ms = now_ms + self._settings.heartbeat_interval_ms
            self._is_spared = is_lost
        if self._transfer_to != NOBODY and now_ms >= self._transfer_ms:
            self._transfer_to = NOBODY
        if now_ms >= self._heartbeat_ms:
            self._heartbeat_ms = now_ms + self._settings.heartbeat_interval_ms
            self._heartbeat()
        return True

    def _heartbeat(self) -> None:
        """Say to all that this replica leads, and what is committed of what they have."""
        latest = self.reads.latest
        for node, follower in self._followers.items():
            commit = min(self._log.commit, follower.matched)
            self._say(node, MessageKind.HEARTBEAT, commit=commit, context=latest)

    def _say(self, to: int, kind: MessageKind, commit: int = 0, context: int = 0) -> None:
        self._send(
            Message(kind, self._group, self._me, to, self._term, commit=commit, context=context)
        )

    # Proposals.

    def propose(self, data: Sequence[bytes], now_ms: int) -> int | Refused:
        """Append commands; the followers hear of them with the next `flush`."""
        self._now_ms = now_ms
        if self._transfer_to != NOBODY:
            return _LEAVING
        size = sum(map(len, data)) + ENTRY_BYTES * len(data)
        # One batch is taken even if it is longer than all that may wait.
        if self._uncommitted_bytes and (
            self._uncommitted_bytes + size > self._settings.uncommitted_bytes
        ):
            return _LATE
        log, term = self._log, self._term
        first = log.last_index + 1
        log.append(
            [Entry(first + at, term, EntryKind.COMMAND, each) for at, each in enumerate(data)]
        )
        self._uncommitted.append((log.last_index, size))
        self._uncommitted_bytes += size
        return first

    def change(self, wanted: Membership | Refused, now_ms: int) -> int | Refused:
        """Append a membership; it counts at once (dissertation 4.1)."""
        self._now_ms = now_ms
        if isinstance(wanted, Refused):
            return wanted
        log = self._log
        if self._transfer_to != NOBODY:
            return _LEAVING
        if log.membership_index > log.commit:
            return _CHANGING
        # Without an entry of its own term committed, a leader may not know of a change that is
        # committed: two single changes could then have majorities that do not meet.
        if log.term_at(log.commit) != self._term:
            return _YOUNG
        data = membership_bytes(wanted)
        log.append((Entry(log.last_index + 1, self._term, EntryKind.MEMBERSHIP, data),))
        self._reconfigure()
        return log.last_index

    def promotable(self, node: int, wanted: Membership, now_ms: int) -> Refused | None:
        """Why a learner may not vote yet."""
        follower = self._followers.get(node)
        lag = self._log.last_index - follower.matched if follower else 0
        if follower is None or follower.phase is not Phase.STREAM:
            return Refused(Refusal.BUSY, f"Node {node} has not caught up; try again later.")
        if lag > self._settings.promote_entries:
            return Refused(Refusal.BUSY, f"Node {node} lags {lag} entries behind; try again later.")
        if not self._holds(wanted, now_ms):
            return Refused(Refusal.UNAVAILABLE, "Too few voters are heard to take another one in.")
        return None

    def removable(self, wanted: Membership, now_ms: int) -> Refused | None:
        """Why a replica may not leave now."""
        if self._holds(wanted, now_ms):
            return None
        detail = "Of those who would stay no majority is heard: the group would stop. Force it to."
        return Refused(Refusal.UNAVAILABLE, detail)

    def transfer(self, to: int, now_ms: int) -> Refused | None:
        """Begin to give the office up (dissertation 3.10)."""
        self._now_ms = now_ms
        if to == self._me:
            return None
        if to not in self._voters:
            return Refused(Refusal.BUSY, f"Node {to} does not vote in the group.")
        if self._transfer_to != NOBODY:
            return _LEAVING
        self._transfer_to = to
        self._transfer_ms = now_ms + self._settings.election_timeout_ms
        self._order(to, self._followers[to])
        return None

    def _order(self, to: int, follower: Progress) -> None:
        """Let the successor ask for votes when it has everything."""
        if to == self._transfer_to and follower.matched == self._log.last_index:
            self._say(to, MessageKind.TIMEOUT_NOW)

    # What followers say.

    def heard(self, message: Message, now_ms: int) -> Progress | None:
        """A message of this term has come from a replica; None when it is no follower."""
        self._now_ms = now_ms
        follower = self._followers.get(message.sender)
        if follower is not None:
            follower.heard_ms = now_ms
        return follower

    def on_append_reply(self, message: Message, now_ms: int) -> None:
        """A follower has taken entries, or not."""
        follower = self.heard(message, now_ms)
        if follower is None:
            return
        if message.rejected:
            self._rejected(message, follower)
            return
        # An acknowledgement beyond our end can only be an error of the peer.
        if message.index > self._log.last_index:
            return
        new = follower.accepted(message.index)
        if follower.phase is Phase.PROBE or (
            follower.phase is Phase.SNAPSHOT and follower.matched >= self._log.start.index
        ):
            follower.stream()
        if new:
            if message.index > self._log.commit:
                self.count()
            self._order(message.sender, follower)

    def _rejected(self, message: Message, follower: Progress) -> None:
        """Go back to where the logs may match: a whole term at once (Raft 5.3)."""
        if message.index <= follower.matched or follower.phase is Phase.SNAPSHOT:
            return
        if follower.phase is Phase.PROBE and message.index != follower.next - 1:
            return
        log = self._log
        if message.hint < log.start.index or message.log_term < log.start.term:
            # Ours has nothing where the logs may match, but for what is known to match.
            follower.probe(0)
            if follower.matched < log.start.index:
                self._want_snapshot(message.sender, follower)
            return
        follower.probe(log.latest_up_to(message.hint, message.log_term) + 1)

    def on_heartbeat_reply(self, message: Message, now_ms: int) -> None:
        """A follower is there, and has confirmed a round of reads."""
        follower = self.heard(message, now_ms)
        if follower is None:
            return
        if follower.phase is Phase.PROBE:
            follower.probing = False
        if follower.matched < self._log.last_index:
            self._append(message.sender, follower, True)
        self._order(message.sender, follower)
        if message.context > follower.round:
            follower.round = message.context
            self._confirm()

    def count(self) -> None:
        """Commit what a majority has, if it is of this term (Raft 5.4.2)."""
        log = self._log
        followers = self._followers
        matched = [
            followers[node].matched if node in followers else log.stable for node in self._voters
        ]
        index = agreed(matched)
        if index > log.commit and log.term_at(index) == self._term:
            log.commit_to(index)
            waiting = self._uncommitted
            while waiting and waiting[0][0] <= index:
                self._uncommitted_bytes -= waiting.popleft()[1]

    # Snapshots and links.

    def _want_snapshot(self, to: int, follower: Progress) -> None:
        """What a follower lacks is not in the log any more: the host is asked for a snapshot."""
        follower.needs_snapshot()
        self.wanting.append(to)

    def snapshot_begins(self, to: int, index: int) -> bool:
        """A snapshot is on its way to a follower; no: it needs none, or a newer one."""
        follower = self._followers.get(to)
        if follower is None or follower.phase is not Phase.SNAPSHOT:
            return False
        if index < self._log.start.index:
            self.wanting.append(to)
            return False
        follower.snapshot = index
        return True

    def snapshot_ended(self, to: int, index: int, arrived: bool) -> None:
        """It has arrived or not; the follower is probed when it is heard again."""
        follower = self._followers.get(to)
        if follower is None or follower.phase is not Phase.SNAPSHOT:
            return
        follower.probe(index + 1 if arrived else 0)
        follower.probing = True

    def unreachable(self, to: int) -> None:
        """What is under way to a follower may be lost."""
        follower = self._followers.get(to)
        if follower is not None and follower.phase is Phase.STREAM:
            follower.probe(0)

    def snapshots_keep(self, index: int) -> int:
        """How far the log may be compacted, at most to `index`, for snapshots under way."""
        under_way = [each.snapshot for each in self._followers.values() if each.snapshot]
        return min([index, *under_way])

    # Reads.

    def _confirm(self) -> None:
        """Tell reads whose round a majority has confirmed."""
        followers, latest = self._followers, self.reads.latest
        rounds = [followers[node].round if node in followers else latest for node in self._voters]
        for reader, token, index in self.reads.confirmed(agreed(rounds)):
            self._answer(reader, token, index)

    def _answer(self, reader: int, token: int, index: int) -> None:
        kind = MessageKind.READ_REPLY
        self._send(Message(kind, self._group, self._me, reader, self._term, index, context=token))

    # The end of a turn.

    def flush(self) -> None:
        """Send what is to be sent: entries, what is committed, a round of reads."""
        log = self._log
        last, commit = log.last_index, log.commit
        for node, follower in self._followers.items():
            if follower.next <= last:
                while follower.may_send and follower.next <= last:
                    self._append(node, follower, False)
            told = min(follower.matched, commit)
            if told > follower.told:
                follower.told = told
                self._say(node, MessageKind.COMMIT, commit=told)
        if self.reads.waiting and log.term_at(commit) == self._term:
            self.reads.begin(commit)
            if self._followers:
                self._heartbeat()
            self._confirm()

    def _append(self, to: int, follower: Progress, even_empty: bool) -> None:
        """Send what follows, as much as one message carries; nothing while it may not be sent."""
        if not follower.may_send and not (even_empty and follower.phase is Phase.STREAM):
            return
        log = self._log
        stands_on = follower.next - 1
        term = log.term_at(stands_on)
        if term == UNKNOWN:
            self._want_snapshot(to, follower)
            return
        entries: Sequence[Entry] = ()
        if follower.next <= log.last_index and follower.may_send:
            entries = log.read(follower.next, log.last_index, self._settings.append_bytes)
        elif not even_empty:
            return
        last = stands_on + len(entries)
        kind, group, me, mine = MessageKind.APPEND, self._group, self._me, self._term
        sent = tuple(entries)
        self._send(Message(kind, group, me, to, mine, stands_on, term, log.commit, entries=sent))
        follower.told = max(follower.told, min(log.commit, last))
        if entries:
            size = sum([len(entry.data) for entry in entries]) + ENTRY_BYTES * len(entries)
            follower.sent(last, size)
