"""What cores say to each other of partitions: frames whose first byte is 64 to 95.

A call's number is its asker's; answers carry it. Integers of heads are little-endian, the rest is
MessagePack. A batch lies at the end of its frame, as it is.
"""

import enum
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from robustmq.broker.partition_api import (
    Appended,
    EpochEnd,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Read,
    Size,
    Sought,
    Wanted,
)
from robustmq.message.batch import Buffer

_CALL: Final = struct.Struct("<BBQ")
_APPEND: Final = struct.Struct("<BBQII")
_APPENDED: Final = struct.Struct("<BBQqqq")
_READ: Final = struct.Struct("<BBQQQQ")


Change: TypeAlias = tuple[int, Wanted | None]
"""A place, and what is wanted there."""


@enum.unique
class Kind(enum.IntEnum):
    """What a frame asks for or answers; its first byte."""

    APPEND = 64
    APPENDED = 65
    READ = 66
    READING = 67
    CANCEL = 68
    ASK = 69
    ANSWER = 70
    FORGET = 71
    KEPT = 72


class Question(enum.IntEnum):
    """What is asked of the partitions of a core by `ASK`, once and for a list of things."""

    FIND = 1
    EPOCH_ENDS = 2
    TRIM = 3
    END = 4
    PRODUCERS = 5
    SIZES = 6
    BEGIN = 7


_encode: Final = msgspec.msgpack.Encoder().encode
_kept: Final = msgspec.msgpack.Decoder(list[bytes])
_changes: Final = msgspec.msgpack.Decoder(list[tuple[int, Wanted | None]])
_reads: Final = msgspec.msgpack.Decoder(list[tuple[int, Read]])
_asked: Final[dict[Question, msgspec.msgpack.Decoder[Any]]] = {
    Question.FIND: msgspec.msgpack.Decoder(list[Sought]),
    Question.EPOCH_ENDS: msgspec.msgpack.Decoder(list[tuple[Partition, int, int]]),
    Question.TRIM: msgspec.msgpack.Decoder(list[tuple[Partition, int]]),
    Question.END: msgspec.msgpack.Decoder(list[Marker]),
    Question.PRODUCERS: msgspec.msgpack.Decoder(list[Partition]),
    Question.SIZES: msgspec.msgpack.Decoder(list[None]),
    Question.BEGIN: msgspec.msgpack.Decoder(list[Opening]),
}
_answered: Final[dict[Question, msgspec.msgpack.Decoder[Any]]] = {
    Question.FIND: msgspec.msgpack.Decoder(list[Found]),
    Question.EPOCH_ENDS: msgspec.msgpack.Decoder(list[EpochEnd]),
    Question.TRIM: msgspec.msgpack.Decoder(list[Found]),
    Question.END: msgspec.msgpack.Decoder(list[int]),
    Question.PRODUCERS: msgspec.msgpack.Decoder(list[tuple[int, list[Producing]]]),
    Question.SIZES: msgspec.msgpack.Decoder(list[list[Size]]),
    Question.BEGIN: msgspec.msgpack.Decoder(list[int]),
}


def append(call: int, partition: Partition, batch: Buffer) -> bytes:
    """Ask for a batch to be appended."""
    head = _APPEND.pack(Kind.APPEND, 0, call, partition.number, len(partition.topic))
    return b"".join((head, partition.topic, batch))


def read_append(frame: bytes) -> tuple[int, Partition, bytes]:
    """Return (call, partition, batch)."""
    _, _, call, number, length = _APPEND.unpack_from(frame)
    end = _APPEND.size + length
    return call, Partition(frame[_APPEND.size : end], number), frame[end:]


def appended(call: int, outcome: Appended) -> bytes:
    """Answer an `append`."""
    fault, base, timestamp, start, detail = outcome
    return _APPENDED.pack(Kind.APPENDED, fault, call, base, timestamp, start) + detail.encode()


def read_appended(frame: bytes) -> tuple[int, Appended]:
    """Return (call, outcome)."""
    _, fault, call, base, timestamp, start = _APPENDED.unpack_from(frame)
    return call, Appended(fault, base, timestamp, start, frame[_APPENDED.size :].decode())


def read(
    call: int, number: int, min_bytes: int, max_bytes: int, changes: Sequence[Change]
) -> bytes:
    """Ask for what there is; without `min_bytes` of it, and no fault, also for what comes then.

    `changes` are places, and what is wanted there from now on. With a `number` they are kept under
    it, and another read of that number says only what is wanted otherwise (None: nothing).
    """
    head = _READ.pack(Kind.READ, 0, call, number, min_bytes, max_bytes)
    return head + _encode(changes)


def read_read(frame: bytes) -> tuple[int, int, int, int, list[Change]]:
    """Return (call, number, min bytes, max bytes, changes)."""
    _, _, call, number, min_bytes, max_bytes = _READ.unpack_from(frame)
    changes = _changes.decode(memoryview(frame)[_READ.size :])
    return call, number, min_bytes, max_bytes, changes


def forget(number: int) -> bytes:
    """Say that what is kept for reads under a number is wanted no more."""
    return _CALL.pack(Kind.FORGET, 0, number)


def read_forget(frame: bytes) -> int:
    """Return the number."""
    return int(_CALL.unpack_from(frame)[2])


def reading(call: int, reads: Sequence[tuple[int, Read]], is_last: bool) -> bytes:
    """Say what has come of a `read`, by place: at first of all that was not told yet.

    What comes later is what lies behind it; `is_last`: nothing will.
    """
    return _CALL.pack(Kind.READING, is_last, call) + _encode(reads)


def read_reading(frame: bytes) -> tuple[int, list[tuple[int, Read]], bool]:
    """Return (call, reads by place, is last)."""
    _, is_last, call = _CALL.unpack_from(frame)
    return call, _reads.decode(memoryview(frame)[_CALL.size :]), bool(is_last)


def cancel(call: int) -> bytes:
    """Say that nobody waits for a `read` any more."""
    return _CALL.pack(Kind.CANCEL, 0, call)


def read_cancel(frame: bytes) -> int:
    """Return the call."""
    return int(_CALL.unpack_from(frame)[2])


def ask(call: int, question: Question, things: Sequence[object]) -> bytes:
    """Ask a question of each of several things."""
    return _CALL.pack(Kind.ASK, question, call) + _encode(things)


def read_ask(frame: bytes) -> tuple[int, Question, list[Any]]:
    """Return (call, question, things)."""
    _, number, call = _CALL.unpack_from(frame)
    question = Question(number)
    return call, question, _asked[question].decode(memoryview(frame)[_CALL.size :])


def answer(call: int, question: Question, answers: Sequence[object]) -> bytes:
    """Answer an `ask`, each thing in its place."""
    return _CALL.pack(Kind.ANSWER, question, call) + _encode(answers)


def read_answer(frame: bytes) -> tuple[int, list[Any]]:
    """Return (call, answers)."""
    _, number, call = _CALL.unpack_from(frame)
    return call, _answered[Question(number)].decode(memoryview(frame)[_CALL.size :])


def kept(is_there: bool, topics: Sequence[bytes]) -> bytes:
    """The sender keeps the logs of topics, or keeps them no more."""
    return bytes((Kind.KEPT, is_there)) + _encode(topics)


def read_kept(frame: bytes) -> tuple[bool, list[bytes]]:
    """Undo `kept`."""
    return bool(frame[1]), _kept.decode(frame[2:])
