"""What crosses from one core to another: a kind, a few integers, and bytes.

All integers are little-endian, because frames go to other machines too.
"""

import enum
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from robustmq._kernel.batch import gather
from robustmq.message.batch import count_of, raw_records
from robustmq.message.record import QOS_BITS

_STORE: Final = struct.Struct("<BBIQ")
_KEEP: Final = struct.Struct("<BBQI")
_CALL: Final = struct.Struct("<BBQ")
_MEMBER: Final = struct.Struct("<BBQQ")
_LOAD: Final = struct.Struct("<BBQQQ")
_POSITION: Final = struct.Struct("<BBQQ")
_WANTED: Final = struct.Struct("<BQIQQ")
_U64: Final = struct.Struct("<Q")
_TOLD: Final = struct.Struct("<BBQQ")
_SCAN: Final = struct.Struct("<BBQ")
_LOOK: Final = struct.Struct("<BBHHQ")
_GROUP: Final = struct.Struct("<BBH")
_ASSIGN: Final = struct.Struct("<BBQH")
_HAND: Final = struct.Struct("<BBIQQH")
_TAKEN: Final = struct.Struct("<BBIQ")
_READY: Final = 1
_DURABLE: Final = 2


class Number(NamedTuple):
    """A part's place in the stream of the core that asks; they ascend, and epochs never repeat."""

    epoch: int
    call: int


@enum.unique
class Kind(enum.IntEnum):
    """What a frame asks for or answers; its first byte."""

    STORE = 1
    CONFIRM = 2
    DELIVER = 3
    WANT = 4
    UNWANT = 5
    RETAINED = 6
    WANTED = 7
    JOIN = 8
    JOINED = 9
    LEAVE = 10
    ASSIGN = 11
    RETURN = 12
    SCAN = 13
    TOLD = 14
    RETAIN = 15
    KEEP = 16
    HAND = 17
    TAKEN = 18
    LOAD = 19
    CLAIM = 20
    CLAIMED = 21
    RELEASE = 22
    LOOK = 23
    SETTLED = 24


DELIVER_HEAD: Final = bytes((Kind.DELIVER,))


def store(epoch: int, call: int, batch: bytes, is_owed: bool = False) -> bytes:
    """Ask a core to deliver a batch and to keep it for its durable sessions.

    `epoch` is the life of the asking core, in which its calls are numbered from 1. What
    `is_owed` is asked for until it is taken.
    """
    return _STORE.pack(Kind.STORE, is_owed, epoch, call) + batch


def read_store(frame: bytes) -> tuple[Number, bool, bytes]:
    """Return (number, is owed, batch)."""
    _, is_owed, epoch, call = _STORE.unpack_from(frame)
    return Number(epoch, call), bool(is_owed), frame[_STORE.size :]


def settled(digest: int) -> bytes:
    """Say that this core has the sessions that are its own by these nodes, and their interest.

    `digest` is that of the nodes (`Placement.digest`).
    """
    return _CALL.pack(Kind.SETTLED, 0, digest)


def read_settled(frame: bytes) -> int:
    """Return the digest of `settled`."""
    _, _, digest = _CALL.unpack(frame)
    return int(digest)


def told(position: int, digest: int) -> bytes:
    """Say to a core that it knows now all that the sender wants, and has its retained messages.

    `position` is how far they have come in the sender's stream; `digest` is of the placement by
    which the sender has told what is led there (`Placement.digest`).
    """
    return _TOLD.pack(Kind.TOLD, 0, position, digest)


def read_told(frame: bytes) -> tuple[int, int]:
    """Return (position, digest)."""
    _, _, position, digest = _TOLD.unpack(frame)
    return position, digest


def without_qos_0(frame: bytes) -> bytes:
    """Return a `store` that may have been delivered, for another time; empty when nothing is left.

    A message of QoS 0 is delivered at most once. Other frames are returned as they are.
    """
    if frame[0] != Kind.STORE:
        return frame
    batch = frame[_STORE.size :]
    left = [raw for raw, fields in raw_records(batch) if fields[0] & QOS_BITS]
    if len(left) == count_of(batch):
        return frame
    return frame[: _STORE.size] + gather(batch, left) if left else b""


def retain(call: int, position: int, batch: bytes, is_late: bool = False) -> bytes:
    """Ask a core to keep retained records; `position` is theirs in the asking core's stream.

    What `is_late` was published in an earlier life, and may be older than what is kept.
    """
    return _POSITION.pack(Kind.RETAIN, is_late, call, position) + batch


def read_retain(frame: bytes) -> tuple[int, int, bool, bytes]:
    """Return (call, position, is late, batch)."""
    _, is_late, call, position = _POSITION.unpack_from(frame)
    return call, position, bool(is_late), frame[_POSITION.size :]


def keep(call: int, name: bytes, batch: bytes) -> bytes:
    """Ask a core to append a batch to one of its topic logs, by the log's name."""
    return _KEEP.pack(Kind.KEEP, 0, call, len(name)) + name + batch


def read_keep(frame: bytes) -> tuple[int, bytes, bytes]:
    """Return (call, name, batch)."""
    _, _, call, length = _KEEP.unpack_from(frame)
    end = _KEEP.size + length
    return call, frame[_KEEP.size : end], frame[end:]


def confirm(call: int, code: int) -> bytes:
    """Answer a `store`, `retain` or `keep`: 0, or the Refusal."""
    return _CALL.pack(Kind.CONFIRM, code, call)


def read_confirm(frame: bytes) -> tuple[int, int]:
    """Return (call, code)."""
    _, code, call = _CALL.unpack(frame)
    return call, code


def want(call: int, durable: bool, retained: bool, topic_filter: bytes) -> bytes:
    """Ask for everything that matches the filter from now on.

    `durable`: it must be kept before it is acknowledged. `retained`: the answer must say how far
    the retained messages had come by then. Without a call (0) no answer is wanted.
    """
    return _CALL.pack(Kind.WANT, durable | retained << 1, call) + topic_filter


def read_want(frame: bytes) -> tuple[int, bool, bool, bytes]:
    """Return (call, durable, retained, filter)."""
    _, flags, call = _CALL.unpack_from(frame)
    return call, bool(flags & 1), bool(flags & 2), frame[_CALL.size :]


def unwant(topic_filter: bytes) -> bytes:
    """Take back the interest in a filter."""
    return bytes((Kind.UNWANT,)) + topic_filter


def wanted(call: int, number: Number, position: int, sent: Sequence[int]) -> bytes:
    """Answer a `want`: from now on nothing that matches is missed.

    `number` is the last part that the answering core had sent to anybody, `position` how far its
    retained messages had come; `sent` are the last positions that it had sent to each of the cores
    which keep what the filter can match.
    """
    head = _WANTED.pack(Kind.WANTED, call, *number, position)
    return head + b"".join(map(_U64.pack, sent))


def read_wanted(frame: bytes) -> tuple[int, Number, int, list[int]]:
    """Return (call, number, position, sent)."""
    _, call, epoch, last, position = _WANTED.unpack_from(frame)
    positions = [each for (each,) in _U64.iter_unpack(frame[_WANTED.size :])]
    return call, Number(epoch, last), position, positions


def scan(call: int, until: Sequence[tuple[int, int]], topic_filter: bytes) -> bytes:
    """Ask for the retained messages that match.

    `until` has for each core the position in its stream up to which they are wanted, and the
    position that must have arrived before.
    """
    head = _SCAN.pack(Kind.SCAN, len(until), call)
    return head + b"".join(_U64.pack(n) for pair in until for n in pair) + topic_filter


def read_scan(frame: bytes) -> tuple[int, list[tuple[int, int]], bytes]:
    """Return (call, until, filter)."""
    _, count, call = _SCAN.unpack_from(frame)
    end = _SCAN.size + 16 * count
    numbers = [each for (each,) in _U64.iter_unpack(frame[_SCAN.size : end])]
    return call, list(zip(numbers[::2], numbers[1::2], strict=True)), frame[end:]


def look(
    call: int, cuts: Sequence[tuple[int, int]], awaited: Sequence[int], topic_filter: bytes
) -> bytes:
    """Ask for the retained messages that match, where groups of the cluster say what is retained.

    `cuts` are pairs of a core and the position in its stream up to which they are wanted, `awaited`
    for each group the index that must have been reached before.
    """
    head = _LOOK.pack(Kind.LOOK, 0, len(cuts), len(awaited), call)
    numbers = [*(n for pair in cuts for n in pair), *awaited]
    return head + b"".join(map(_U64.pack, numbers)) + topic_filter


def read_look(frame: bytes) -> tuple[int, dict[int, int], list[int], bytes]:
    """Return (call, cuts by core, awaited, filter)."""
    _, _, cuts, groups, call = _LOOK.unpack_from(frame)
    end = _LOOK.size + 8 * (2 * cuts + groups)
    numbers = [each for (each,) in _U64.iter_unpack(frame[_LOOK.size : end])]
    pairs = zip(numbers[: 2 * cuts : 2], numbers[1 : 2 * cuts : 2], strict=True)
    return call, dict(pairs), numbers[2 * cuts :], frame[end:]


def retained(call: int, last: bool, batch: bytes) -> bytes:
    """Some of the retained messages that a `scan` asked for; the last frame may have none."""
    return _CALL.pack(Kind.RETAINED, last, call) + batch


def read_retained(frame: bytes) -> tuple[int, bool, bytes]:
    """Return (call, last, batch)."""
    _, last, call = _CALL.unpack_from(frame)
    return call, bool(last), frame[_CALL.size :]


def joined(call: int) -> bytes:
    """Answer a `join`."""
    return _CALL.pack(Kind.JOINED, 0, call)


def read_joined(frame: bytes) -> int:
    """Return the call."""
    return int(_CALL.unpack_from(frame)[2])


def join(call: int, member: int, ready: bool, durable: bool, group: bytes) -> bytes:
    """Make a session a member of a shared group, or change its state in it.

    `ready`: it takes messages now. `durable`: what the group is owed must be kept on disk. `call`
    0: no answer is wanted. `group` is the group's key.
    """
    flags = ready * _READY | durable * _DURABLE
    return _MEMBER.pack(Kind.JOIN, flags, call, member) + group


def read_join(frame: bytes) -> tuple[int, int, bool, bool, bytes]:
    """Return (call, member, ready, durable, group key)."""
    _, flags, call, member = _MEMBER.unpack_from(frame)
    return call, member, bool(flags & _READY), bool(flags & _DURABLE), frame[_MEMBER.size :]


def load(member: int, received: int, outstanding: int, group: bytes) -> bytes:
    """Say how many messages a member of a group was given so far, and how many it has to answer."""
    return _LOAD.pack(Kind.LOAD, 0, member, received, outstanding) + group


def read_load(frame: bytes) -> tuple[int, int, int, bytes]:
    """Return (member, received, outstanding, group key)."""
    _, _, member, received, outstanding = _LOAD.unpack_from(frame)
    return member, received, outstanding, frame[_LOAD.size :]


def claim(call: int, member: int, topic_filter: bytes) -> bytes:
    """Ask for a filter for one session alone; without a call (0): say that it has it."""
    return _MEMBER.pack(Kind.CLAIM, 0, call, member) + topic_filter


def read_claim(frame: bytes) -> tuple[int, int, bytes]:
    """Return (call, member, filter)."""
    _, _, call, member = _MEMBER.unpack_from(frame)
    return call, member, frame[_MEMBER.size :]


def claimed(call: int, granted: bool) -> bytes:
    """Answer a `claim`: the session has the filter, or somebody else has."""
    return _CALL.pack(Kind.CLAIMED, granted, call)


def read_claimed(frame: bytes) -> tuple[int, bool]:
    """Return (call, granted)."""
    _, granted, call = _CALL.unpack(frame)
    return call, bool(granted)


def release(member: int, topic_filter: bytes) -> bytes:
    """Say that a session does not have the filter for itself any more."""
    return _MEMBER.pack(Kind.RELEASE, 0, 0, member) + topic_filter


def read_release(frame: bytes) -> tuple[int, bytes]:
    """Return (member, filter)."""
    return int(_MEMBER.unpack_from(frame)[3]), frame[_MEMBER.size :]


def leave(member: int, group: bytes) -> bytes:
    """Say that a session is a member no more."""
    return _MEMBER.pack(Kind.LEAVE, 0, 0, member) + group


def read_leave(frame: bytes) -> tuple[int, bytes]:
    """Return (member, group key)."""
    return int(_MEMBER.unpack_from(frame)[3]), frame[_MEMBER.size :]


def hand(epoch: int, number: int, member: int, group: bytes, batch: bytes) -> bytes:
    """Hand a batch of one run over to a member of a group, or with `member` 0 to its leader.

    `epoch` and `number` are those of the sender's stream; the other core takes each once.
    """
    return _HAND.pack(Kind.HAND, 0, epoch, number, member, len(group)) + group + batch


def read_hand(frame: bytes) -> tuple[int, int, int, bytes, bytes]:
    """Return (epoch, number, member, group key, batch)."""
    _, _, epoch, number, member, length = _HAND.unpack_from(frame)
    end = _HAND.size + length
    return epoch, number, member, frame[_HAND.size : end], frame[end:]


def taken(epoch: int, number: int) -> bytes:
    """Answer a `hand`: it is on this core's disk."""
    return _TAKEN.pack(Kind.TAKEN, 0, epoch, number)


def read_taken(frame: bytes) -> tuple[int, int]:
    """Return (epoch, number)."""
    _, _, epoch, number = _TAKEN.unpack(frame)
    return epoch, number


def assign(member: int, group: bytes, batch: bytes) -> bytes:
    """Give a batch to one member; `group` is the group's key."""
    return _ASSIGN.pack(Kind.ASSIGN, 0, member, len(group)) + group + batch


def read_assign(frame: bytes) -> tuple[int, bytes, bytes]:
    """Return (member, group key, batch)."""
    _, _, member, length = _ASSIGN.unpack_from(frame)
    start = _ASSIGN.size
    return member, frame[start : start + length], frame[start + length :]


def give_back(group: bytes, batch: bytes) -> bytes:
    """Return what a member that left had not acknowledged."""
    return _GROUP.pack(Kind.RETURN, 0, len(group)) + group + batch


def read_give_back(frame: bytes) -> tuple[bytes, bytes]:
    """Return (group key, batch)."""
    _, _, length = _GROUP.unpack_from(frame)
    return frame[_GROUP.size : _GROUP.size + length], frame[_GROUP.size + length :]
