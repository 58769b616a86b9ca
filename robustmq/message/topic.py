"""Topic names and topic filters: the rules that tries, codecs and routes must agree with."""

from hashlib import blake2b
from itertools import zip_longest
from typing import Final

import msgspec

from robustmq.errors import ProtocolError

TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
"""Reason codes of MQTT 5 (MQTT5 2.4), which this layer cannot take from the codec's table."""

MAX_BYTES: Final = 65_535
"""The longest name or filter in bytes of UTF-8 (MQTT5 4.7.3)."""

SHARE_PREFIX: Final = "$share/"
QUEUE_PREFIX: Final = "$queue/"
EXCLUSIVE_PREFIX: Final = "$exclusive/"


class SharedFilter(msgspec.Struct, frozen=True, gc=False):
    """A shared subscription's group and the filter inside it (MQTT5 4.8.2)."""

    group: str
    filter: str


def validate_name(topic: bytes) -> None:
    """Check a topic name (MQTT5 4.7): 1 to 65,535 bytes of UTF-8, no wildcard, no U+0000.

    Raises ProtocolError 0x90.
    """
    if not topic:
        raise ProtocolError(TOPIC_NAME_INVALID, "A topic name is empty.")
    if len(topic) > MAX_BYTES:
        raise ProtocolError(TOPIC_NAME_INVALID, "A topic name is longer than 65,535 bytes.")
    if b"+" in topic or b"#" in topic:
        raise ProtocolError(TOPIC_NAME_INVALID, "A topic name contains a wildcard.")
    if b"\0" in topic:
        raise ProtocolError(TOPIC_NAME_INVALID, "A topic name contains U+0000.")
    try:
        topic.decode()
    except UnicodeDecodeError:
        raise ProtocolError(TOPIC_NAME_INVALID, "A topic name is not UTF-8.") from None


def validate_filter(topic_filter: str) -> None:
    """Check a topic filter, shared or not (MQTT5 4.7, 4.8.2).

    `#` stands alone in the last level, `+` alone in its level. Raises ProtocolError 0x8F.
    """
    inner = topic_filter
    shared = shared_filter(topic_filter)
    if shared is not None:
        inner = shared.filter
    if not inner:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A topic filter is empty.")
    if "\0" in inner:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A topic filter contains U+0000.")
    try:
        size = len(topic_filter.encode())
    except UnicodeEncodeError:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A topic filter has a surrogate.") from None
    if size > MAX_BYTES:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A topic filter is longer than 65,535 bytes.")
    if not _wildcards_in_place(inner):
        raise ProtocolError(
            TOPIC_FILTER_INVALID, "A wildcard in a topic filter does not stand in its place."
        )


def _wildcards_in_place(topic_filter: str) -> bool:
    levels_of_filter = topic_filter.split("/")
    last = levels_of_filter.pop()
    return all(
        level == "+" or ("+" not in level and "#" not in level) for level in levels_of_filter
    ) and (last in {"+", "#"} or ("+" not in last and "#" not in last))


def shared_filter(topic_filter: str) -> SharedFilter | None:
    """Split `$share/group/filter` (MQTT5 4.8.2); None when the filter is not shared.

    The inner filter's wildcards are not checked here. Raises ProtocolError 0x8F for a group
    that is empty or has a wildcard, and when no filter follows it.
    """
    if not topic_filter.startswith(SHARE_PREFIX):
        return None
    group, slash, inner = topic_filter[len(SHARE_PREFIX) :].partition("/")
    if not group:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A shared subscription's group is empty.")
    if "+" in group or "#" in group:
        raise ProtocolError(
            TOPIC_FILTER_INVALID, "A shared subscription's group contains a wildcard."
        )
    if "\0" in group:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A shared subscription's group has U+0000.")
    if not slash or not inner:
        raise ProtocolError(TOPIC_FILTER_INVALID, "A shared subscription has no topic filter.")
    return SharedFilter(group, inner)


def canonical_filter(topic_filter: str) -> str:
    """Write `$queue/filter` as the shared subscription that it is, `$share/$queue/filter`."""
    return SHARE_PREFIX + topic_filter if topic_filter.startswith(QUEUE_PREFIX) else topic_filter


def exclusive_filter(topic_filter: str) -> str:
    """Return what an exclusive subscription (`$exclusive/filter`) is for; else the filter."""
    return topic_filter.removeprefix(EXCLUSIVE_PREFIX)


def inner_filter(topic_filter: str) -> str:
    """Return the filter that messages have to match, without what else a subscription says.

    Raises ProtocolError 0x8F for a shared or exclusive subscription without a filter, and for one
    within another.
    """
    shared = shared_filter(canonical_filter(topic_filter))
    inner = exclusive_filter(topic_filter) if shared is None else shared.filter
    if not inner or (inner != topic_filter and is_special(inner)):
        raise ProtocolError(
            TOPIC_FILTER_INVALID, "Behind $share, $queue or $exclusive is no plain topic filter."
        )
    return inner


def is_special(topic_filter: str) -> bool:
    """Say whether a filter is that of a shared or exclusive subscription."""
    return topic_filter.startswith((SHARE_PREFIX, QUEUE_PREFIX, EXCLUSIVE_PREFIX))


def levels(topic: bytes) -> list[bytes]:
    """Return the levels of a name or filter; empty levels count (MQTT5 4.7.1.1)."""
    return topic.split(b"/")


def is_wildcard(topic_filter: bytes) -> bool:
    """Say whether a valid filter can match more than one topic (MQTT5 4.7.1)."""
    return b"+" in topic_filter or b"#" in topic_filter


def matches(topic_filter: bytes, topic: bytes) -> bool:
    """Say whether a valid filter matches a valid topic name (MQTT5 4.7).

    This is the definition that tries and kernels are tested against. `a/#` matches `a`; a
    leading wildcard does not match a topic that begins with `$` ([MQTT-4.7.2-1]).
    """
    wanted = levels(topic_filter)
    given = levels(topic)
    if topic.startswith(b"$") and wanted[0] in {b"+", b"#"}:
        return False
    for position, level in enumerate(wanted):
        if level == b"#":
            return True
        if position == len(given) or level not in {b"+", given[position]}:
            return False
    # Here `#` was not met: only the same number of levels matches.
    return len(wanted) == len(given)


def covers(wide: bytes, topic_filter: bytes) -> bool:
    """Say whether one valid filter matches every topic that another one matches (MQTT5 4.7)."""
    outer, inner = levels(wide), levels(topic_filter)
    if topic_filter.startswith(b"$") and outer[0] in {b"+", b"#"}:
        return False
    for position, level in enumerate(outer):
        if level == b"#":
            return True
        if position == len(inner) or inner[position] == b"#":
            return False
        if level not in {b"+", inner[position]}:
            return False
    return len(outer) == len(inner)


def overlap(one: bytes, other: bytes) -> bool:
    """Say whether there is a topic that two valid filters match (MQTT5 4.7)."""
    first, second = levels(one), levels(other)
    for wild, topic_filter in ((first[0], other), (second[0], one)):
        if wild in {b"+", b"#"} and topic_filter.startswith(b"$"):
            return False
    for a, b in zip_longest(first, second):
        if b"#" in {a, b}:
            return True
        if a != b and (None in {a, b} or b"+" not in {a, b}):
            return False
    return True


def stable_hash(data: bytes) -> int:
    """Return an unsigned 64-bit hash that is the same in every process and version.

    BLAKE2b with a digest of 8 bytes, read little-endian: about 0.6 us for 32 bytes, evenly
    spread in all its bits whatever the names look like, so that `stable_hash(x) % cores` is
    balanced (tests/unit/message/test_topic.py measures it). Stored data depends on it: it
    never changes.
    """
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
