"""The one ordered list of what may refuse a publish or a subscription."""

from robustmq.errors import Refusal, Refused
from robustmq.message.tenancy import local
from robustmq.message.topic import inner_filter
from robustmq.policy.access import Access
from robustmq.policy.principal import SERVER, Principal
from robustmq.policy.topic_rules import TopicRules

_SERVER_TREE = b"$SYS"
_BRIDGES = b"$SYS/broker/connection/"
_STATE = b"/state"
"""Between these is the name of one of mosquitto's bridges, which says whether it is connected."""


class Admission:
    """Decides; a refusal is a value. The order of the checks is the order of the text."""

    def __init__(
        self, max_topic_levels: int, rules: TopicRules | None = None, access: Access | None = None
    ) -> None:
        self._max_levels = max_topic_levels
        self._rules = rules or TopicRules(())
        self.access = access or Access()

    def limits_size(self, topic: bytes) -> bool:
        """Say whether the size of a message decides whether it may go to `topic`."""
        return self._rules.of(topic).max_message_bytes > 0

    def publish(
        self, principal: Principal, topic: bytes, size: int = 0, retain: bool = False
    ) -> Refused | None:
        """Say why this principal may not publish `size` bytes to `topic`; None when it may."""
        name = local(topic)
        is_systems = name.startswith(_SERVER_TREE) and name[4:5] in {b"", b"/"}
        is_bridges = name.startswith(_BRIDGES) and name.endswith(_STATE)
        if is_systems and principal is not SERVER and not is_bridges:
            return Refused(
                Refusal.NOT_AUTHORIZED,
                f"{principal.client_id} may not publish to $SYS: it is the server's own tree",
            )
        if name.count(b"/") >= self._max_levels:
            return Refused(
                Refusal.TOPIC_INVALID,
                f"the topic has more than {self._max_levels} levels "
                "(mqtt_runtime.protocol.max_topic_levels)",
            )
        if refused := self.access.publish(principal, name, retain):
            return refused
        rule = self._rules.of(topic)
        if 0 < rule.max_message_bytes < size:
            return Refused(
                Refusal.TOO_LARGE,
                f"the message has {size} bytes, its topic takes {rule.max_message_bytes} "
                "(max_message_bytes of a topic rule)",
            )
        return None

    def subscribe(self, principal: Principal, topic_filter: str) -> Refused | None:
        """Say why this principal may not subscribe to a valid filter; None when it may."""
        inner = local(inner_filter(topic_filter).encode())
        if inner.count(b"/") >= self._max_levels:
            return Refused(
                Refusal.TOPIC_INVALID,
                f"the filter has more than {self._max_levels} levels "
                "(mqtt_runtime.protocol.max_topic_levels)",
            )
        return self.access.subscribe(principal, inner)
