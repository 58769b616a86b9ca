"""What Raft keeps and says: entries, hard state, membership, snapshots, messages; and their bytes.

Messages travel as frames: a msgpack array of messages, each an array of its fields in order. A
frame may hold messages of many groups. Terms and indices are integers from 0 on; entry 1 is the
first of a log.
"""

import enum
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from robustmq.errors import ProtocolError

MOST: Final = (1 << 63) - 1
"""The highest number in a frame."""
NOBODY: Final = -1
"""The number of no node."""

Number = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
NodeId = Annotated[int, msgspec.Meta(ge=NOBODY, le=MOST)]


class EntryKind(enum.IntEnum):
    """What an entry is for."""

    COMMAND = 0
    """For the state machine."""
    NO_OP = 1
    """The first entry of a leader's term; it has no data."""
    MEMBERSHIP = 2
    """Who belongs to the group from this entry on: a Membership."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a group's log; (index, term) is its identity everywhere."""

    index: Number
    term: Number
    kind: EntryKind
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that the entry counts for, wherever entries are counted in bytes."""
        return len(self.data) + ENTRY_BYTES


ENTRY_BYTES: Final = 16
"""Bytes that an entry counts for beside its data."""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a replica must never forget: its term, whom it voted for in it, and what is committed.

    `vote` is NOBODY before a vote. `commit` is a lower bound: it may lag behind.
    """

    term: Number = 0
    vote: NodeId = NOBODY
    commit: Number = 0


class Membership(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The replicas of a group, ascending: who votes, and who only learns."""

    voters: tuple[Number, ...] = ()
    learners: tuple[Number, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands for a log up to `index`, without its content: the entry's term, the members.

    It is the start of a log that was compacted, and the description of a snapshot.
    """

    index: Number = 0
    term: Number = 0
    membership: Membership = Membership()


class MessageKind(enum.IntEnum):
    """What a message says. The fields beside (group, sender, to, term) that it uses are named."""

    PRE_VOTE = 0
    """Would you vote for me in `term`? My last entry is (index, log_term). Nobody's term rises."""
    PRE_VOTE_REPLY = 1
    """`rejected` or not, for the asked `term`. A rejection has the replier's own term; its `index`
    is not 0 when the asker is no member any more by the committed membership at that index."""
    VOTE = 2
    """Vote for me in `term`; my last entry is (index, log_term). `context` 1: by order of the
    leader, which gives its office up."""
    VOTE_REPLY = 3
    """`rejected` or not."""
    APPEND = 4
    """`entries` behind (index, log_term); what is up to `commit` is committed."""
    APPEND_REPLY = 5
    """My log is yours up to `index`, on my disk. Or `rejected`: `index` is what the append stood
    on, and the last entry of mine that may be yours is (hint, log_term)."""
    COMMIT = 6
    """What is up to `commit` is committed. It is not answered."""
    HEARTBEAT = 7
    """I lead; what is up to `commit` is committed. `context` is the latest round of reads."""
    HEARTBEAT_REPLY = 8
    """You lead, in this `term`; `context` as asked."""
    SNAPSHOT = 9
    """`snapshot` has arrived whole; made by the receiver's own host, as if the leader had sent it
    in one piece. Answered by APPEND_REPLY."""
    TIMEOUT_NOW = 10
    """Ask for votes now: I give my office up to you."""
    READ = 11
    """Which index must I have applied to read? `context` is the asker's token."""
    READ_REPLY = 12
    """`index`, for the token `context`; or `rejected`: I do not lead, or not any more."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """A message from one replica of a group to another; see MessageKind for its fields."""

    kind: MessageKind
    group: Number
    sender: Number
    to: Number
    term: Number
    index: Number = 0
    log_term: Number = 0
    commit: Number = 0
    rejected: bool = False
    hint: Number = 0
    context: Number = 0
    entries: tuple[Entry, ...] = ()
    snapshot: Snapshot | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_frames: Final = msgspec.msgpack.Decoder(list[Message])
_memberships: Final = msgspec.msgpack.Decoder(Membership)


def encode(messages: Sequence[Message]) -> bytes:
    """One frame with these messages, in order."""
    return _encoder.encode(messages)


def decode(frame: bytes | bytearray | memoryview, most_bytes: int) -> list[Message]:
    """The messages of a frame of at most `most_bytes` bytes.

    Raises ProtocolError when it is longer, no frame, or holds entries out of order.
    """
    if len(frame) > most_bytes:
        raise ProtocolError(0, f"A Raft frame has {len(frame)} bytes; {most_bytes} are allowed.")
    try:
        messages = _frames.decode(frame)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"A Raft frame cannot be read: {error}.") from None
    for message in messages:
        if message.entries or message.kind is MessageKind.SNAPSHOT:
            _check(message)
    return messages


def _check(message: Message) -> None:
    """Raise ProtocolError unless the entries follow each other and what must be there is there."""
    if message.kind is MessageKind.SNAPSHOT and message.snapshot is None:
        raise ProtocolError(0, "A Raft message says that a snapshot is there, and not which.")
    index, term = message.index, message.log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            raise ProtocolError(0, f"The entries of a Raft message break off at {index}.")
        term = entry.term
        if entry.kind is EntryKind.MEMBERSHIP:
            membership(entry.data)


def membership_bytes(members: Membership) -> bytes:
    """The data of an entry of the kind MEMBERSHIP."""
    return _encoder.encode(members)


def membership(data: bytes) -> Membership:
    """The membership that an entry's data say; raises ProtocolError when they say none."""
    try:
        return _memberships.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"An entry holds no membership: {error}.") from None
