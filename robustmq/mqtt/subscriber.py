"""What a client subscribes to: SUBSCRIBE, UNSUBSCRIBE, and the retained messages that follow."""

from functools import partial
from typing import TYPE_CHECKING, Final

from robustmq import metrics
from robustmq.broker.api import Kept, Options
from robustmq.message.topic import shared_filter
from robustmq.mqtt import wire
from robustmq.mqtt.packets import Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from robustmq.mqtt.reasons import SUBSCRIBE_REFUSALS, Reason, is_error
from robustmq.mqtt.session import Subscribed

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection
    from robustmq.mqtt.session import Session

_SEND: Final = 0
_SEND_IF_NEW: Final = 1
_IDENTIFIER: Final = b"\x0b"


class _Request:
    """A SUBSCRIBE on its way: answered when every core has settled every filter."""

    def __init__(self, packet_id: int, reasons: list[Reason]) -> None:
        self.packet_id = packet_id
        self.reasons = reasons
        self.owing = sum(not is_error(reason) for reason in reasons)
        self.retained: list[tuple[bytes, Options, list[Kept]]] = []


class Subscriber:
    """The subscriptions of a connection's session (MQTT5 3.8 to 3.11)."""

    __slots__ = ("_connection", "_session")

    def __init__(self, connection: "Connection", session: "Session") -> None:
        self._connection = connection
        self._session = session

    def subscribe(self, packet: Subscribe) -> None:
        """Start every subscription; SUBACK follows when no later publish can be missed."""
        identifier = b""
        if packet.properties is not None and packet.properties.subscription_identifiers:
            number = packet.properties.subscription_identifiers[0]
            identifier = _IDENTIFIER + wire.varint(number)
        new: set[str] = set()
        reasons = [self._judge(one, new) for one in packet.subscriptions]
        request = _Request(packet.packet_id, reasons)
        if any(one.no_local for one in packet.subscriptions):
            self._connection.intake.forget()
        for one, reason in zip(packet.subscriptions, request.reasons, strict=True):
            if not is_error(reason):
                self._start(request, one, identifier)
        if not request.owing:
            self._acknowledge(request)

    def _judge(self, one: Subscription, new: set[str]) -> Reason:
        """The reason for SUBACK; `new` collects the filters that the packet adds."""
        connection = self._connection
        refused = connection.broker.authorize(self._session.principal, one.filter)
        if refused is not None:
            return SUBSCRIBE_REFUSALS[refused.code]
        known = self._session.subscriptions
        if one.filter not in known and one.filter not in new:
            if len(known) + len(new) >= connection.mqtt.limits.max_subscriptions:
                return Reason.QUOTA_EXCEEDED
            new.add(one.filter)
        return Reason(one.qos)

    def _start(self, request: _Request, one: Subscription, identifier: bytes) -> None:
        session = self._session
        broker = self._connection.broker
        options = Options(one.qos, one.no_local, one.retain_as_published, identifier)
        shared = shared_filter(one.filter)
        is_new = one.filter not in session.subscriptions
        if is_new:
            broker.turn.row[metrics.SUBSCRIPTIONS] += 1
        if shared is None:
            topic_filter = one.filter.encode()
            session.subscriptions[one.filter] = Subscribed(topic_filter, options, None)
            retained = one.retain_handling == _SEND or (
                one.retain_handling == _SEND_IF_NEW and is_new
            )
            reply = partial(self._settled, request, topic_filter, options)
            broker.subscribe(session.window, topic_filter, options, retained, reply)
        else:
            topic_filter = shared.filter.encode()
            group = shared.group.encode()
            session.subscriptions[one.filter] = Subscribed(topic_filter, options, group)
            joined = partial(self._settled, request, topic_filter, options, [])
            broker.join(session.window, group, topic_filter, options, joined)

    def _settled(
        self, request: _Request, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        request.owing -= 1
        if kept:
            request.retained.append((topic_filter, options, kept))
        if not request.owing:
            self._acknowledge(request)

    def _acknowledge(self, request: _Request) -> None:
        connection = self._connection
        if connection.ended:
            return
        connection.send(Suback(request.packet_id, request.reasons))
        for topic_filter, options, kept in request.retained:
            connection.broker.send_retained(self._session.window, topic_filter, options, kept)

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """End subscriptions; what is in flight for them may still be completed."""
        session = self._session
        broker = self._connection.broker
        reasons: list[Reason] = []
        for topic_filter in packet.filters:
            known = session.subscriptions.pop(topic_filter, None)
            if known is None:
                reasons.append(Reason.NO_SUBSCRIPTION_EXISTED)
                continue
            broker.turn.row[metrics.SUBSCRIPTIONS] -= 1
            if known.group is None:
                broker.unsubscribe(session.window, known.topic_filter)
            else:
                broker.leave(session.window, known.group, known.topic_filter)
            if known.options.no_local:
                self._connection.intake.forget()
            reasons.append(Reason.SUCCESS)
        self._connection.send(Unsuback(packet.packet_id, reasons))
