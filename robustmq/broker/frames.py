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
_MEMBER: Final = struct.Struct("<BBQQBH")
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


DELIVER_HEAD: Final = bytes((Kind.DELIVER,))


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
    """Ask for everything that matches the filter from now on, and for what is retained."""
    return _CALL.pack(Kind.WANT, retained, call) + topic_filter


def read_want(frame: bytes) -> tuple[int, bool, bytes]:
    """Return (call, retained, filter)."""
    _, retained, call = _CALL.unpack_from(frame)
    return call, bool(retained), frame[_CALL.size :]


def unwant(topic_filter: bytes) -> bytes:
    """Take back the interest in a filter."""
    return bytes((Kind.UNWANT,)) + topic_filter


def retained(call: int, batch: bytes) -> bytes:
    """Some of the retained messages that a `want` asked for; `wanted` follows the last."""
    return _CALL.pack(Kind.RETAINED, 0, call) + batch


def wanted(call: int) -> bytes:
    """Answer a `want`: from now on nothing that matches is missed."""
    return _CALL.pack(Kind.WANTED, 0, call)


def joined(call: int) -> bytes:
    """Answer a `join`."""
    return _CALL.pack(Kind.JOINED, 0, call)


def read_call(frame: bytes) -> tuple[int, bytes]:
    """Return (call, rest) of a `retained`, `wanted` or `joined` frame."""
    return _CALL.unpack_from(frame)[2], frame[_CALL.size :]


def join(call: int, member: int, ready: bool, qos: int, group: bytes, topic_filter: bytes) -> bytes:
    """Make a session a member of a shared group, or change its state in it.

    `ready`: its client is connected. `call` 0: no answer is wanted.
    """
    head = _MEMBER.pack(Kind.JOIN, ready, call, member, qos, len(group))
    return head + group + topic_filter


def leave(member: int, group: bytes, topic_filter: bytes) -> bytes:
    """A session is a member no more."""
    return _MEMBER.pack(Kind.LEAVE, 0, 0, member, 0, len(group)) + group + topic_filter


def read_member(frame: bytes) -> tuple[int, int, bool, int, bytes, bytes]:
    """Return (call, member, ready, qos, group, filter) of a `join` or `leave`."""
    _, ready, call, member, qos, length = _MEMBER.unpack_from(frame)
    start = _MEMBER.size
    return call, member, bool(ready), qos, frame[start : start + length], frame[start + length :]


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
