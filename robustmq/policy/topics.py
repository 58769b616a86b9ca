"""What the configuration says of topics beyond admission: rewriting, payloads, subscriptions."""

from collections.abc import Iterator, Sequence

from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.message.delay import is_delayed
from robustmq.message.tenancy import DEFAULT_TENANT, MARK, qualified, qualified_filter
from robustmq.message.topic import MAX_BYTES, canonical_filter, inner_filter
from robustmq.policy.principal import Principal
from robustmq.policy.rewrite import Rewriting
from robustmq.policy.shared_groups import SharedGroups
from robustmq.policy.template import Template
from robustmq.policy.topic_rules import TopicRules
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.topics import AutoSubscribe

_MARKED = Refused(Refusal.TOPIC_INVALID, "no topic that begins with $ may hold $ before U+0001")
_TOO_LONG = Refused(
    Refusal.TOPIC_INVALID, "with the name of its tenant the topic is longer than 65,535 bytes"
)


class Topics:
    """Decides for a client and a topic; a refusal is a value.

    `rewrites` says whether a message may go to another topic than its publisher wrote,
    `names_publishers` whether every message has to say whose it is.
    """

    def __init__(self, config: MqttRuntime, rules: TopicRules) -> None:
        self._rewriting = Rewriting(config.topic_rewrite, config.protocol.route_cache)
        self._rules = rules
        self._automatic: Sequence[tuple[AutoSubscribe, Template]] = [
            (rule, Template(rule.topic)) for rule in config.auto_subscribe
        ]
        self.rewrites = self._rewriting.rewrites
        self.names_publishers = SharedGroups(config.shared).choose_by_client

    def name(self, principal: Principal, topic: bytes) -> bytes | Refused:
        """Return the topic that a message to a valid topic goes to, the tenant's name with it."""
        if topic.startswith(b"$") and MARK in topic:
            return _MARKED
        changed = self._rewriting.name(principal, topic)
        if isinstance(changed, Refused) or principal.tenant == DEFAULT_TENANT:
            return changed
        known = qualified(principal.tenant, changed)
        return known if len(known) <= MAX_BYTES else _TOO_LONG

    def filter(self, principal: Principal, written: str) -> str | Refused:
        """Return the filter of a subscription as it is known by: one text for each.

        `$queue/...` is `$share/$queue/...`, the filter inside may be rewritten, and that of a
        tenant has the tenant's name.
        """
        canonical = canonical_filter(written)
        if canonical.startswith("$") and MARK in canonical.encode():
            return _MARKED
        try:
            inner_filter(canonical)
        except ProtocolError as error:
            return Refused(Refusal.TOPIC_INVALID, error.detail)
        changed = self._rewriting.filter(principal, canonical)
        if isinstance(changed, Refused) or principal.tenant == DEFAULT_TENANT:
            return changed
        known = qualified_filter(principal.tenant, changed)
        return known if len(known.encode()) <= MAX_BYTES else _TOO_LONG

    def payload(self, topic: bytes, payload: bytes) -> Refused | None:
        """Say why a message that calls itself text may not be published (MQTT5 3.3.2.3.2)."""
        if is_delayed(topic):
            topic = topic.split(b"/", 2)[-1]
        if not self._rules.of(topic).check_payload_format:
            return None
        try:
            payload.decode()
        except UnicodeDecodeError:
            return Refused(
                Refusal.PAYLOAD_INVALID,
                "the message says that it is text, but its payload is not UTF-8 "
                "(check_payload_format of a topic rule)",
            )
        return None

    def automatic(self, principal: Principal) -> Iterator[tuple[str, AutoSubscribe]]:
        """Yield the filters that a client is subscribed to, and the rules that say so."""
        for rule, template in self._automatic:
            topic_filter = template.fill(principal)
            if isinstance(topic_filter, str) and len(topic_filter.encode()) <= MAX_BYTES:
                yield topic_filter, rule
