"""The one ordered list of what may refuse a publish or a subscription."""

from robustmq.errors import Refusal, Refused
from robustmq.message.topic import shared_filter
from robustmq.policy.principal import Principal

_SERVER_TREE = b"$SYS"


class Admission:
    """Decides; a refusal is a value. The order of the checks is the order of the text."""

    def __init__(self, max_topic_levels: int) -> None:
        self._max_levels = max_topic_levels

    def publish(self, principal: Principal, topic: bytes) -> Refused | None:
        """Say why this principal may not publish to `topic`; None when it may."""
        if topic.startswith(_SERVER_TREE) and topic[4:5] in {b"", b"/"}:
            return Refused(
                Refusal.NOT_AUTHORIZED,
                f"{principal.client_id} may not publish to $SYS: it is the server's own tree",
            )
        if topic.count(b"/") >= self._max_levels:
            return Refused(
                Refusal.TOPIC_INVALID,
                f"the topic has more than {self._max_levels} levels "
                "(mqtt_runtime.protocol.max_topic_levels)",
            )
        return None

    def subscribe(self, principal: Principal, topic_filter: str) -> Refused | None:
        """Say why this principal may not subscribe to a valid filter; None when it may."""
        del principal
        shared = shared_filter(topic_filter)
        inner = shared.filter if shared else topic_filter
        if inner.count("/") >= self._max_levels:
            return Refused(
                Refusal.TOPIC_INVALID,
                f"the filter has more than {self._max_levels} levels "
                "(mqtt_runtime.protocol.max_topic_levels)",
            )
        return None
