"""Which rule of the configuration a topic is kept by."""

from collections.abc import Sequence
from typing import Final

from robustmq._kernel.trie import Trie
from robustmq.config import Storage, TopicRule, default_rule
from robustmq.message.tenancy import local

REMEMBERED: Final = 65_536
"""Topics that are remembered unless told (`mqtt_runtime.protocol.route_cache`)."""

DEFAULT: Final = default_rule(Storage())


_OWN: Final = b"t"
_SHARED: Final = b"r"


def keeps_log(rule: TopicRule) -> bool:
    """Say whether the topics of a rule are kept in a log, for readers to come."""
    bounds = rule.retention_ms or rule.retention_bytes or rule.retention_records
    return bool(rule.own_shard or rule.compact or bounds)


def log_name(rule: TopicRule, topic: bytes) -> bytes:
    """The name of the log that keeps a topic: its own, or that of all topics of the rule."""
    return _OWN + topic if rule.own_shard else _SHARED + rule.filter.encode()


def own_topic(name: bytes) -> bytes | None:
    """The topic that has the log of a name to itself; None when topics share it."""
    return name[1:] if name.startswith(_OWN) else None


class TopicRules:
    """The rules in the order of the file: the first that matches a topic is the topic's rule.

    `default` is the rule of all other topics; `remembered` is how many topics are answered
    without matching: when there are more, all of them are forgotten.
    """

    __slots__ = ("_found", "_remembered", "_rules", "_trie", "default", "keep_logs", "store_qos0")

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
        self.keep_logs = any(map(keeps_log, (default, *rules)))
        """Whether there is a rule that keeps logs at all."""
        self.store_qos0 = any(rule.store_qos0 for rule in (default, *rules))
        """Whether there is a rule that stores QoS 0 at all."""

    def of(self, topic: bytes) -> TopicRule:
        """Return the rule of a valid topic name (matching: MQTT5 4.7), whoever's tenant it is."""
        rule = self._found.get(topic)
        if rule is None:
            if not self._rules:
                return self.default
            matching = self._trie.match(local(topic))
            rule = self._rules[min(matching)] if matching else self.default
            if len(self._found) >= self._remembered:
                self._found.clear()
            self._found[topic] = rule
        return rule

    def of_log(self, name: bytes) -> TopicRule:
        """Return the rule of a log by its name (`log_name`); the default when it is gone."""
        if name.startswith(_OWN):
            return self.of(name[1:])
        topic_filter = name[1:].decode()
        found = (rule for rule in self._rules if rule.filter == topic_filter)
        return next(found, self.default)
