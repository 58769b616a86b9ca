"""What a kernel has decided per topic, and which of it a change to a filter makes void."""

from collections.abc import Mapping
from typing import Final, Protocol

from robustmq.message.topic import is_wildcard, matches

_ONE_BY_ONE: Final = 256
"""Topics that are looked at one by one; when more are known, all are decided anew."""


class TopicCache(Protocol):
    """Answers by topic; `forget(None)` drops all of them."""

    def forget(self, topic: bytes | None = None) -> None:
        """Decide a topic anew."""


def forget(cache: TopicCache, known: Mapping[bytes, object], topic_filter: bytes) -> None:
    """Have every topic that `topic_filter` matches decided anew; `known` has those decided."""
    if not is_wildcard(topic_filter):
        cache.forget(topic_filter)
    elif len(known) > _ONE_BY_ONE:
        cache.forget()
    else:
        for topic in [topic for topic in known if matches(topic_filter, topic)]:
            cache.forget(topic)
