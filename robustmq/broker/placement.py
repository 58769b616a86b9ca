"""Which core owns what on this node: the same answer in every process, without asking."""

from robustmq.message.topic import is_wildcard, stable_hash


class Placement:
    """Shards over cores, topics over shards, shared groups over cores.

    Auto-created MQTT topics share `shards` shards, keyed by topic.
    """

    def __init__(self, workers: int, shards: int) -> None:
        self.workers = workers
        self.shards = shards

    def shard_of(self, topic: bytes) -> int:
        """The shard that keeps a topic's records."""
        return stable_hash(topic) % self.shards

    def core_of(self, shard: int) -> int:
        """The core that owns a shard."""
        return shard % self.workers

    def owner_of(self, topic: bytes) -> int:
        """The core that owns a topic's shard."""
        return self.core_of(self.shard_of(topic))

    def group_core(self, group_key: bytes) -> int:
        """The core that leads a shared group."""
        return stable_hash(group_key) % self.workers

    def home_of(self, client_id: bytes) -> int:
        """The core on which a client's session lives."""
        return stable_hash(client_id) % self.workers

    def cores_of_filter(self, topic_filter: bytes) -> list[int]:
        """The cores that own what a filter can match: one for a plain topic, else all."""
        if is_wildcard(topic_filter):
            return list(range(self.workers))
        return [self.owner_of(topic_filter)]
