"""What the topic of a delayed publish says: `$delayed/<when>/<topic>`, as in EMQX.

`<when>` is a decimal number of seconds. Up to 1,000,000,000 (the year 2001 as a Unix time, 31
years as a delay) it counts from now; above that it is a Unix time, and one that has passed means
at once. `<topic>` is everything behind the second slash, empty levels included.
"""

from typing import Final, NamedTuple

from robustmq.errors import ProtocolError
from robustmq.message.topic import TOPIC_NAME_INVALID, validate_name

DELAYED: Final = b"$delayed"
INTERVAL_MAX: Final = 1_000_000_000
"""The greatest number that is a delay, in seconds; a greater one is a Unix time."""
_DIGITS_MAX: Final = 12


class Delay(NamedTuple):
    """When a message is due, in ms since 1970, and the topic that it is for."""

    due_ms: int
    topic: bytes


def is_delayed(topic: bytes) -> bool:
    """Say whether the topic is in the tree of delayed publishes, well formed or not."""
    return topic.startswith(DELAYED) and topic[8:9] in {b"", b"/"}


def read_delay(topic: bytes, now_ms: int) -> Delay:
    """Read a topic of which `is_delayed` is true; what has passed at `now_ms` is due now.

    Raises ProtocolError 0x90 when it has another form, when no message may be published to the
    topic behind it, and when that is to be delayed itself.
    """
    number, _, inner = topic[len(DELAYED) + 1 :].partition(b"/")
    if not number.isdigit() or len(number) > _DIGITS_MAX:
        raise ProtocolError(
            TOPIC_NAME_INVALID, "A delayed topic is not $delayed/<seconds or Unix time>/<topic>."
        )
    validate_name(inner)
    if is_delayed(inner):
        raise ProtocolError(TOPIC_NAME_INVALID, "A delayed topic is delayed once more.")
    seconds = int(number)
    due_ms = seconds * 1_000
    return Delay(now_ms + due_ms if seconds <= INTERVAL_MAX else max(now_ms, due_ms), inner)


def delay_seconds(topic: bytes, now_ms: int) -> int:
    """How many seconds, rounded up, a message to this topic is to wait; 0 for any other topic."""
    if not is_delayed(topic):
        return 0
    try:
        due_ms = read_delay(topic, now_ms).due_ms
    except ProtocolError:
        return 0
    return -(-(due_ms - now_ms) // 1_000)
