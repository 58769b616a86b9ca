"""Values by topic name that a filter can ask for, such as retained messages."""

from bisect import bisect_left, insort
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

CHUNK: Final = 512
"""How many topics a chunk of the order has when it is cut off; at most twice as many."""

# U+0000 is in no topic, and below every other byte: with it between the levels the order of
# the bytes is the order of the levels, and what is below a topic lies directly behind it.
_SLASH: Final = b"/"
_JOINT: Final = b"\0"
_PAST_JOINT: Final = b"\1"
_DOLLAR: Final = b"$"
_PAST_DOLLAR: Final = b"%"
_PAST_ALL: Final = b"\xff"


class TopicMap(Generic[Value]):
    """A map from topic names to values, in an order that serves wildcard filters.

    Topics and filters are valid and in UTF-8. There are no nodes: a topic costs an entry of a
    dict and a place in a sorted list of chunks. A filter is answered by leaps over the order,
    each to the next topic that can match, so the cost is that of walking a tree of levels.
    """

    __slots__ = ("_chunks", "_lasts", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, Value] = {}
        self._chunks: list[list[bytes]] = []
        self._lasts: list[bytes] = []

    def __len__(self) -> int:
        """Return the number of topics."""
        return len(self._values)

    def get(self, topic: bytes) -> Value | None:
        """Return the value of a topic, None when there is none."""
        return self._values.get(topic.replace(_SLASH, _JOINT))

    def put(self, topic: bytes, value: Value) -> Value | None:
        """Set the value of a topic; returns the one that it replaces."""
        key = topic.replace(_SLASH, _JOINT)
        old = self._values.get(key)
        if key not in self._values:
            self._insert(key)
        self._values[key] = value
        return old

    def pop(self, topic: bytes) -> Value | None:
        """Take a topic out; returns its value, None when there is none."""
        key = topic.replace(_SLASH, _JOINT)
        if key not in self._values:
            return None
        position = bisect_left(self._lasts, key)
        chunk = self._chunks[position]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._lasts[position] = chunk[-1]
        else:
            del self._chunks[position], self._lasts[position]
        return self._values.pop(key)

    def _insert(self, key: bytes) -> None:
        if not self._chunks:
            self._chunks.append([key])
            self._lasts.append(key)
            return
        position = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        chunk = self._chunks[position]
        insort(chunk, key)
        if len(chunk) >= 2 * CHUNK:
            self._chunks.insert(position + 1, chunk[CHUNK:])
            del chunk[CHUNK:]
            self._lasts.insert(position, chunk[-1])
            position += 1
        self._lasts[position] = self._chunks[position][-1]

    def match(self, topic_filter: bytes) -> list[Value]:
        """Return the values of all topics that match a filter (MQTT5 4.7).

        They are in the order of their topics, level by level.
        """
        found: list[Value] = []
        cursor: bytes | None = b""
        while cursor is not None:
            values, cursor = self.page(topic_filter, cursor, CHUNK)
            found += values
        return found

    def page(
        self, topic_filter: bytes, cursor: bytes, budget: int
    ) -> tuple[list[Value], bytes | None]:
        """Return the next values that match a filter, and the cursor to go on with.

        The first cursor is b""; None is the end. A page makes at most `budget` leaps and
        returns at most `budget` values, possibly none. Between two pages the map may change:
        what was there all the time is returned once.
        """
        if b"+" not in topic_filter and b"#" not in topic_filter:
            key = topic_filter.replace(_SLASH, _JOINT)
            return ([self._values[key]] if key in self._values else []), None
        pattern = topic_filter.split(_SLASH)
        found: list[Value] = []
        target: bytes | None = cursor
        while target is not None:
            if budget <= 0:
                return found, target
            budget -= 1
            position = bisect_left(self._lasts, target)
            if position == len(self._lasts):
                return found, None
            chunk = self._chunks[position]
            place = bisect_left(chunk, target)
            until, target = _leap(pattern, chunk[place])
            if until is None:
                continue
            stop = min(bisect_left(chunk, until, place), place + budget + 1)
            found += [self._values[key] for key in chunk[place:stop]]
            budget -= stop - place - 1
            if stop == len(chunk):
                target = chunk[-1] + _JOINT
            elif chunk[stop] < until:
                target = chunk[stop]
        return found, None


def _leap(pattern: list[bytes], key: bytes) -> tuple[bytes | None, bytes | None]:
    """Judge the first topic that is left, and say where the next one that can match lies.

    Returns `(until, target)`. All topics from `key` to before `until` match, none when it is
    None; after them nothing matches before `target`, or at all when that is None.
    """
    if key.startswith(_DOLLAR) and pattern[0] in {b"+", b"#"}:
        return None, _PAST_DOLLAR
    levels = key.split(_JOINT)
    turn = -1
    for depth, wanted in enumerate(pattern):
        if wanted == b"#":
            if depth:
                return _JOINT.join(levels[:depth]) + _PAST_JOINT, _sibling(levels, turn)
            return (_DOLLAR, _DOLLAR) if key < _DOLLAR else (_PAST_ALL, None)
        if wanted == b"+":
            if depth == len(levels):
                return None, key + _JOINT
            turn = depth
        elif depth == len(levels):
            return None, key + _JOINT + wanted
        elif levels[depth] < wanted:
            return None, _JOINT.join([*levels[:depth], wanted])
        elif levels[depth] > wanted:
            return None, _sibling(levels, turn)
    if len(levels) > len(pattern):
        return None, _sibling(levels, turn)
    return key + _JOINT, _sibling(levels, turn)


def _sibling(levels: list[bytes], turn: int) -> bytes | None:
    """Return what lies behind all that is below the level which the last `+` stood for."""
    return None if turn < 0 else _JOINT.join(levels[: turn + 1]) + _PAST_JOINT
