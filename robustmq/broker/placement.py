"""Which core keeps what on this node: the same answer in every process, without asking."""

from robustmq.message.topic import is_wildcard, stable_hash


class Placement:
    """Sessions, retained topics and shared groups over the `workers` cores.

    A message that is published is appended by the core of its publisher's session (ADR 0015).
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def home_of(self, client_id: bytes) -> int:
        """The core on which a client's session lives."""
        return stable_hash(client_id) % self.workers

    def group_core(self, group_key: bytes) -> int:
        """The core that leads a shared group."""
        return stable_hash(group_key) % self.workers

    def exclusive_core(self, topic_filter: bytes) -> int:
        """The core that grants an exclusive subscription to a filter."""
        return stable_hash(topic_filter) % self.workers

    def retained_core(self, topic: bytes) -> int:
        """The core that keeps a topic's retained message."""
        return stable_hash(topic) % self.workers

    def retained_cores(self, topic_filter: bytes) -> list[int]:
        """The cores that keep retained messages which a filter can match."""
        if is_wildcard(topic_filter):
            return list(range(self.workers))
        return [self.retained_core(topic_filter)]

    def log_core(self, topic: bytes) -> int:
        """The core that keeps the log which a topic has of its own."""
        return stable_hash(topic) % self.workers
