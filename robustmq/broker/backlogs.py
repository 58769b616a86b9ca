"""Logs that came with sessions from another core, when the number of cores had changed.

A session that has moved reads them beside the logs of its filters on its new core, until it has
passed their ends; nothing is appended to them. Row `M` number -> the backlogs of that session.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from robustmq.errors import Corrupt

_NUMBER: Final = struct.Struct(">cQ")
_PART: Final = struct.Struct(">QQH")


class Part(NamedTuple):
    """What a session is owed by a filter from before the move: the log's number, and its end."""

    topic_filter: bytes
    log: int
    stop: int


def row_key(number: int) -> bytes:
    """The key of the row of session `number`."""
    return _NUMBER.pack(b"M", number)


def number_of(key: bytes) -> int:
    """The number of the session whose row has this key."""
    return int(_NUMBER.unpack(key)[1])


def encode(parts: Iterable[Part]) -> bytes:
    """The row's value."""
    return b"".join(
        _PART.pack(log, stop, len(topic_filter)) + topic_filter for topic_filter, log, stop in parts
    )


def decode(value: bytes) -> list[Part]:
    """The parts of a row's value. Raises Corrupt."""
    parts = []
    at = 0
    while at < len(value):
        begin = at + _PART.size
        if begin > len(value):
            raise Corrupt("a session's backlogs: cut in a part")
        log, stop, length = _PART.unpack_from(value, at)
        at = begin + length
        if at > len(value):
            raise Corrupt("a session's backlogs: cut in a filter")
        parts.append(Part(value[begin:at], log, stop))
    return parts
