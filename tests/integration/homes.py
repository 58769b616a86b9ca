"""Names that belong to a chosen core: client ids by their home, topics by their owner."""

import itertools
from typing import Final

from robustmq.message.topic import stable_hash

WORKERS: Final = 2
PLACES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(publisher's core, subscriber's core) of a node with two workers."""

_numbers = itertools.count()


def name_on(core: int, beginning: str, workers: int = WORKERS) -> str:
    """Return a name that was not given before and whose hash is at home on `core`."""
    while True:
        name = f"{beginning}{next(_numbers)}"
        if stable_hash(name.encode()) % workers == core:
            return name


def topic_on(core: int, pattern: str, workers: int = WORKERS) -> str:
    """Return a topic that `core` owns; `pattern` has one "{}", which is filled in."""
    while True:
        topic = pattern.format(next(_numbers))
        if stable_hash(topic.encode()) % workers == core:
            return topic
