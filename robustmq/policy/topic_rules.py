"""Which rule of the configuration a topic is kept by."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from robustmq._kernel.trie import Trie
from robustmq.config import Storage, TopicRule, default_rule
from robustmq.message.tenancy import local, qualified, tenant_of

REMEMBERED: Final = 65_536
"""Topics that are remembered unless told (`mqtt_runtime.protocol.route_cache`)."""

DEFAULT: Final = default_rule(Storage())


_OWN: Final = b"t"
_SHARED: Final = b"r"


def keeps_log(rule: TopicRule) -> bool:
    """Say whether the topics of a rule are kept in a log, for readers to come."""
    bounds = rule.retention_ms or rule.retention_bytes or rule.retention_records
    return bool(rule.own_shard or rule.compact or bounds)


class OwnLog(NamedTuple):
    """Whose a log is: a topic's, and which of its partitions."""

    topic: bytes
    partition: int


def log_name(rule: TopicRule, topic: bytes, partition: int = 0) -> bytes:
    """The name of the log that keeps a partition: its own, or that of a tenant's by the rule."""
    if not rule.own_shard:
        return _SHARED + qualified(tenant_of(topic), rule.filter.encode())
    return _OWN + topic + (b"\0%d" % partition if partition else b"")


def own_log(name: bytes) -> OwnLog | None:
    """Which partition has the log of a name to itself; None when topics share it."""
    if not name.startswith(_OWN):
        return None
    topic, _, partition = name[1:].partition(b"\0")
    return OwnLog(topic, int(partition or 0))


class TopicRules:
    """The rules in the order of the file: the first that matches a topic is the topic's rule.

    A topic that was made explicitly has a rule of its own (`hold`), which comes before. `default`
    is the rule of all other topics; `remembered` is how many topics are answered without
    matching: when there are more, all of them are forgotten.
    """

    __slots__ = (
        "_found", "_held", "_keep_logs", "_remembered", "_rules", "_trie", "default", "store_qos0",
    )  # fmt: skip

    def __init__(
        self,
        rules: Sequence[TopicRule],
        default: TopicRule = DEFAULT,
        remembered: int = REMEMBERED,
    ) -> None:
        self.default = default
        self._rules = tuple(rules)
        self._remembered = remembered
        self._found: dict[bytes, TopicRule] = {}
        # A key is the number of a rule, so the least of those that match is the first of the file.
        self._trie: Trie[int] = Trie()
        for number, rule in enumerate(rules):
            self._trie.add(rule.filter.encode(), number)
        self._held: dict[bytes, TopicRule] = {}
        self._keep_logs = any(map(keeps_log, (default, *rules)))
        self.store_qos0 = any(rule.store_qos0 for rule in (default, *rules))
        """Whether there is a rule that stores QoS 0 at all."""

    @property
    def keep_logs(self) -> bool:
        """Whether there is a rule that keeps logs at all."""
        return self._keep_logs or bool(self._held)

    @property
    def named(self) -> list[TopicRule]:
        """The rules whose shared logs are a topic for clients of Kafka."""
        return [rule for rule in self._rules if rule.kafka_topic]

    def hold(self, topic: bytes, rule: TopicRule | None) -> None:
        """Let a topic have a rule of its own from now on; None: that of the file.

        What was decided for the topic by another rule is void, here alone.
        """
        if rule is None:
            self._held.pop(topic, None)
        else:
            self._held[topic] = rule
        self._found.pop(topic, None)

    def of(self, topic: bytes) -> TopicRule:
        """Return the rule of a valid topic name (matching: MQTT5 4.7), whoever's tenant it is."""
        rule = self._found.get(topic)
        if rule is None:
            if not self._rules and not self._held:
                return self.default
            rule = self._held.get(topic) or self.of_file(topic)
            if len(self._found) >= self._remembered:
                self._found.clear()
            self._found[topic] = rule
        return rule

    def of_file(self, topic: bytes) -> TopicRule:
        """Return what the file alone says of a topic."""
        matching = self._trie.match(local(topic)) if self._rules else ()
        return self._rules[min(matching)] if matching else self.default

    def of_log(self, name: bytes) -> TopicRule:
        """Return the rule of a log by its name (`log_name`); the default when it is gone."""
        own = own_log(name)
        if own is not None:
            return self.of(own.topic)
        topic_filter = local(name[1:]).decode()
        found = (rule for rule in self._rules if rule.filter == topic_filter)
        return next(found, self.default)
