"""What crosses from one core to another: a kind, a few integers, and bytes.

All integers are little-endian; frames never leave this machine's memory.
"""

import enum
import struct
from collections.abc import Sequence
from typing import Final

_APPEND: Final = struct.Struct("<BBIQ")
_APPENDED: Final = struct.Struct("<BBIQ")
_RANGE: Final = struct.Struct("<II")
_CALL: Final = struct.Struct("<BBQ")
_MEMBER: Final = struct.Struct("<BBQQ")
_POSITION: Final = struct.Struct("<BBQQ")
_GROUP: Final = struct.Struct("<BBH")
_ASSIGN: Final = struct.Struct("<BBQH")


class Kind(enum.IntEnum):
    """What a frame asks for or answers; its first byte."""

    APPEND = 1
    APPENDED = 2
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


DELIVER_HEAD: Final = bytes((Kind.DELIVER,))

TOLD: Final = bytes((Kind.TOLD,))
"""Say to a core that is new that it knows now all that the sender wants."""


def append(call: int, shard: int, retained: bool, batch: bytes) -> bytes:
    """Ask the owner of `shard` to append `batch`; `retained`: some record has that flag.

    Calls are numbered from 1; 0 wants no answer.
    """
    return _APPEND.pack(Kind.APPEND, retained, shard, call) + batch


def read_append(frame: bytes) -> tuple[int, int, bool, bytes]:
    """Return (call, shard, retained, batch)."""
    _, retained, shard, call = _APPEND.unpack_from(frame)
    return call, shard, bool(retained), frame[_APPEND.size :]


def appended(call: int, code: int, unmatched: Sequence[tuple[int, int]]) -> bytes:
    """Answer an append: 0 or a Refusal, and the record ranges that nobody wants."""
    head = _APPENDED.pack(Kind.APPENDED, code, len(unmatched), call)
    if not unmatched:
        return head
    return head + b"".join(_RANGE.pack(start, stop) for start, stop in unmatched)


def read_appended(frame: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """Return (call, code, unmatched)."""
    _, code, count, call = _APPENDED.unpack_from(frame)
    if not count:
        return call, code, []
    return call, code, list(_RANGE.iter_unpack(frame[_APPENDED.size :]))


def want(call: int, retained: bool, topic_filter: bytes) -> bytes:
    """Ask for everything that matches the filter from now on.

    `retained`: the answer must say how far the retained messages had come by then.
    """
    return _CALL.pack(Kind.WANT, retained, call) + topic_filter


def read_want(frame: bytes) -> tuple[int, bool, bytes]:
    """Return (call, retained, filter)."""
    _, retained, call = _CALL.unpack_from(frame)
    return call, bool(retained), frame[_CALL.size :]


def unwant(topic_filter: bytes) -> bytes:
    """Take back the interest in a filter."""
    return bytes((Kind.UNWANT,)) + topic_filter


def wanted(call: int, position: int) -> bytes:
    """Answer a `want`: from now on nothing that matches is missed.

    `position` is that of the last retained message which was there before, 0 when none was.
    """
    return _POSITION.pack(Kind.WANTED, 0, call, position)


def read_wanted(frame: bytes) -> tuple[int, int]:
    """Return (call, position)."""
    _, _, call, position = _POSITION.unpack_from(frame)
    return call, position


def scan(call: int, position: int, topic_filter: bytes) -> bytes:
    """Ask for the retained messages that match, of those up to `position`."""
    return _POSITION.pack(Kind.SCAN, 0, call, position) + topic_filter


def read_scan(frame: bytes) -> tuple[int, int, bytes]:
    """Return (call, position, filter)."""
    _, _, call, position = _POSITION.unpack_from(frame)
    return call, position, frame[_POSITION.size :]


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


def join(call: int, member: int, ready: bool, group: bytes) -> bytes:
    """Make a session a member of a shared group, or change its state in it.

    `ready`: its client is connected. `call` 0: no answer is wanted. `group` is the group's key.
    """
    return _MEMBER.pack(Kind.JOIN, ready, call, member) + group


def leave(member: int, group: bytes) -> bytes:
    """Say that a session is a member no more."""
    return _MEMBER.pack(Kind.LEAVE, 0, 0, member) + group


def read_member(frame: bytes) -> tuple[int, int, bool, bytes]:
    """Return (call, member, ready, group key) of a `join` or `leave`."""
    _, ready, call, member = _MEMBER.unpack_from(frame)
    return call, member, bool(ready), frame[_MEMBER.size :]


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
