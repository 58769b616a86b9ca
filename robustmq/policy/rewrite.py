"""Topics that the configuration writes anew, of messages and of subscriptions."""

from collections.abc import Sequence

from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.message.delay import is_delayed
from robustmq.message.topic import inner_filter, is_special, matches, validate_filter, validate_name
from robustmq.policy.principal import Principal
from robustmq.policy.template import Template
from robustmq.settings.topics import TopicRewrite, compiled


class _Rule:
    """One rule, compiled."""

    __slots__ = ("_pattern", "_source", "_template")

    def __init__(self, rule: TopicRewrite) -> None:
        self._source = rule.source_topic.encode()
        self._pattern = compiled(rule.regex)
        self._template = Template(rule.dest_topic, captures=True)

    @property
    def has_names(self) -> bool:
        """Whether the new topic depends on the client."""
        return self._template.has_names

    def is_for(self, topic: bytes) -> bool:
        """Say whether the rule holds for a topic, be it that it changes nothing."""
        return matches(self._source, topic)

    def apply(self, principal: Principal, topic: str) -> str | Refused:
        """Return the new topic; the same when the expression does not match."""
        match = self._pattern.search(topic)
        if match is None:
            return topic
        filled = self._template.fill(principal, (match.group(), *match.groups()))
        return topic if filled is None else filled


class Rewriting:
    """The rules; of those for a topic only the last of the file is applied, as in EMQX.

    `remembered` is how many topics are answered without matching; beyond that all are forgotten.
    """

    __slots__ = ("_found", "_publish", "_remembered", "_subscribe")

    def __init__(self, rules: Sequence[TopicRewrite], remembered: int) -> None:
        latest = [(rule.action, _Rule(rule)) for rule in reversed(rules)]
        self._publish = [rule for action, rule in latest if action != "subscribe"]
        self._subscribe = [rule for action, rule in latest if action != "publish"]
        self._remembered = remembered
        self._found: dict[bytes, bytes | Refused] = {}

    @property
    def rewrites(self) -> bool:
        """Whether there are rules for what is published."""
        return bool(self._publish)

    def name(self, principal: Principal, topic: bytes) -> bytes | Refused:
        """Return the topic that a message to a valid `topic` goes to.

        Of a delayed one what is behind the delay is rewritten.
        """
        if not self._publish:
            return topic
        if is_delayed(topic) and topic.count(b"/") > 1:
            *delay, inner = topic.split(b"/", 2)
            changed = self._name(principal, inner)
            return changed if isinstance(changed, Refused) else b"/".join((*delay, changed))
        return self._name(principal, topic)

    def _name(self, principal: Principal, topic: bytes) -> bytes | Refused:
        known = self._found.get(topic)
        if known is not None:
            return known
        rule = _rule_for(self._publish, topic)
        changed = topic if rule is None else _rewritten(rule, principal, topic)
        if rule is None or not rule.has_names:
            if len(self._found) >= self._remembered:
                self._found.clear()
            self._found[topic] = changed
        return changed

    def filter(self, principal: Principal, written: str) -> str | Refused:
        """Return the filter that a subscription to a valid filter is for.

        Of a shared or exclusive one what is behind its prefix is rewritten.
        """
        if not self._subscribe:
            return written
        inner = inner_filter(written)
        prefix = written[: len(written) - len(inner)]
        rule = _rule_for(self._subscribe, inner.encode())
        if rule is None:
            return written
        changed = rule.apply(principal, inner)
        if isinstance(changed, Refused):
            return changed
        try:
            validate_filter(changed)
        except ProtocolError as error:
            return _not_valid(inner, changed, error)
        if changed != inner and is_special(changed):
            return Refused(
                Refusal.TOPIC_INVALID,
                f"{inner} would be rewritten to {changed}, but no rule makes a subscription "
                "shared or exclusive (mqtt_runtime.topic_rewrite)",
            )
        return prefix + changed


def _rule_for(rules: Sequence[_Rule], topic: bytes) -> _Rule | None:
    return next((rule for rule in rules if rule.is_for(topic)), None)


def _rewritten(rule: _Rule, principal: Principal, topic: bytes) -> bytes | Refused:
    changed = rule.apply(principal, topic.decode())
    if isinstance(changed, Refused):
        return changed
    encoded = changed.encode()
    try:
        validate_name(encoded)
    except ProtocolError as error:
        return _not_valid(topic.decode(), changed, error)
    return encoded


def _not_valid(before: str, after: str, error: ProtocolError) -> Refused:
    return Refused(
        Refusal.TOPIC_INVALID,
        f"{before} would be rewritten to {after!r} (mqtt_runtime.topic_rewrite): {error.detail}",
    )
