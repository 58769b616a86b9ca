"""What a client subscribes to: SUBSCRIBE, UNSUBSCRIBE, and the retained messages that follow."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from robustmq import metrics
from robustmq._kernel.intake import CLAIM
from robustmq.broker.api import Kept, Options
from robustmq.errors import Refusal, Refused
from robustmq.message.tenancy import local_filter
from robustmq.message.topic import EXCLUSIVE_PREFIX, is_special
from robustmq.mqtt import wire
from robustmq.mqtt.packets import Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from robustmq.mqtt.reasons import SUBSCRIBE_REFUSALS, Reason, is_error
from robustmq.mqtt.session import Subscribed
from robustmq.mqtt.session_rows import flags_of, options_of

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection
    from robustmq.mqtt.session import Session

_SEND: Final = 0
_SEND_IF_NEW: Final = 1
_IDENTIFIER: Final = b"\x0b"
_UNKEPT: Final = "the cluster has not said in time that it has stored this: try again"
_NO_ANSWER: Final = 0
"""The packet id of subscriptions that the client has not asked for."""


class _Request:
    """A SUBSCRIBE on its way: answered when every core has settled every filter.

    That of a durable session also waits until all of its rows are durable.
    """

    def __init__(self, packet_id: int, reasons: list[Reason], sentence: str) -> None:
        self.packet_id = packet_id
        self.reasons = reasons
        self.sentence = sentence
        self.claims = 0
        """Exclusive subscriptions of which it is not known whether they can be had."""
        self.owing = sum(not is_error(reason) for reason in reasons)
        self.retained: list[tuple[bytes, Options, list[Kept]]] = []
        self.new: list[bytes] = []
        """The filters that the session did not have before."""


class Subscriber:
    """The subscriptions of a connection's session (MQTT5 3.8 to 3.11)."""

    __slots__ = ("_broker", "_connection", "_session")

    def __init__(self, connection: "Connection", session: "Session") -> None:
        self._connection = connection
        self._broker = connection.broker
        self._session = session

    def subscribe(self, packet: Subscribe) -> None:
        """Start every subscription; SUBACK follows when no later publish can be missed."""
        identifier = b""
        if packet.properties is not None and packet.properties.subscription_identifiers:
            number = packet.properties.subscription_identifiers[0]
            identifier = _IDENTIFIER + wire.varint(number)
        self._begin(packet.packet_id, map(self._named, packet.subscriptions), identifier)

    def subscribe_automatically(self) -> None:
        """Subscribe to what the configuration says, where the session does not already."""
        session = self._session
        missing: list[Subscription | Refused] = []
        for topic_filter, rule in self._broker.topics.automatic(session.principal):
            one = self._named(
                Subscription(
                    topic_filter,
                    rule.qos,
                    rule.no_local,
                    rule.retain_as_published,
                    rule.retain_handling,
                )
            )
            if isinstance(one, Refused) or session.subscription(one.filter.encode()) is None:
                missing.append(one)
        if missing:
            self._begin(_NO_ANSWER, missing, b"")

    def _named(self, one: Subscription) -> Subscription | Refused:
        """The subscription by the filter that it is known by."""
        name = self._broker.topics.filter(self._session.principal, one.filter)
        if isinstance(name, Refused):
            return name
        if self._connection.is_bridge and not is_special(name):
            # It keeps retained messages as such, and would send back what it brought.
            return msgspec.structs.replace(
                one, filter=name, no_local=True, retain_as_published=True
            )
        return msgspec.structs.replace(one, filter=name)

    def _begin(
        self, packet_id: int, wanted: Iterable[Subscription | Refused], identifier: bytes
    ) -> None:
        new: set[bytes] = set()
        refused = self._broker.state.refusal if self._session.is_durable else None
        why: list[str] = []
        asked = list(wanted)
        reasons = [self._judge(one, new, refused, why) for one in asked]
        request = _Request(packet_id, reasons, "; ".join(dict.fromkeys(why)))
        waits = self._session.is_durable and request.owing > 0
        # Answers may come at once: one is owed until all have been asked for.
        request.owing += waits + 1
        for place, (one, reason) in enumerate(zip(asked, reasons.copy(), strict=True)):
            if isinstance(one, Subscription) and not is_error(reason):
                if one.filter.startswith(EXCLUSIVE_PREFIX):
                    self._claim(request, place, one, identifier)
                else:
                    self._start(request, one, identifier)
        if waits:
            self._await_rows(request)
        self._answered(request)

    def _judge(
        self,
        one: Subscription | Refused,
        new: set[bytes],
        refused: Refused | None,
        why: list[str],
    ) -> Reason:
        """The reason for SUBACK; `new` collects the filters that the packet adds.

        `refused` says why nothing can be kept now; `why` collects the sentences of refusals.
        """
        if isinstance(one, Refused):
            why.append(one.detail)
            return SUBSCRIBE_REFUSALS[one.code]
        session = self._session
        limits = self._connection.mqtt.limits
        if one.filter.startswith(EXCLUSIVE_PREFIX) and not limits.exclusive_subscription:
            why.append(
                "exclusive subscriptions are switched off "
                "(mqtt_runtime.protocol.exclusive_subscription)"
            )
            return Reason.TOPIC_FILTER_INVALID
        refused = self._broker.authorize(session.principal, one.filter) or refused
        if refused is not None:
            why.append(refused.detail)
            return SUBSCRIBE_REFUSALS[refused.code]
        written = one.filter.encode()
        if written not in new and session.subscription(written) is None:
            limit = self._connection.mqtt.limits.max_subscriptions
            if session.subscription_count + len(new) >= limit:
                why.append(
                    f"a session has at most {limit} subscriptions "
                    "(mqtt_runtime.protocol.max_subscriptions)"
                )
                self._broker.turn.row[metrics.SUBSCRIPTIONS_REFUSED] += 1
                return Reason.QUOTA_EXCEEDED
            new.add(written)
        return Reason(one.qos)

    def _claim(self, request: _Request, place: int, one: Subscription, identifier: bytes) -> None:
        """Start an exclusive subscription when no other session of the node has it.

        What the client says next is looked at when that is known.
        """
        self._connection.intake.hold(CLAIM)
        request.claims += 1
        topic_filter = one.filter.removeprefix(EXCLUSIVE_PREFIX).encode()
        claimed = partial(self._claimed, request, place, one, identifier)
        self._broker.exclusives.claim(self._session.window, topic_filter, claimed)

    def _claimed(
        self, request: _Request, place: int, one: Subscription, identifier: bytes, granted: bool
    ) -> None:
        session = self._session
        written = one.filter.encode()
        if self._connection.ended:
            if granted and session.subscription(written) is None:
                self._connection.mqtt.sessions.release(session, Subscribed(written, Options()))
            return
        request.claims -= 1
        if not request.claims:
            self._connection.intake.let_go(CLAIM)
        if not granted:
            request.reasons[place] = Reason.QUOTA_EXCEEDED
            request.sentence = request.sentence or f"another client has subscribed to {one.filter}"
            self._answered(request)
            return
        request.owing += session.is_durable
        self._start(request, one, identifier)
        if session.is_durable:
            self._await_rows(request)

    def _start(self, request: _Request, one: Subscription, identifier: bytes) -> None:
        session = self._session
        broker = self._broker
        plain = Options(one.qos, one.no_local, one.retain_as_published)
        options = options_of(flags_of(plain), identifier)
        written = one.filter.encode()
        subscribed = Subscribed(written, options)
        group = subscribed.group
        before = session.subscription(written) or self._replaced(subscribed)
        if before is None:
            broker.turn.row[metrics.SUBSCRIPTIONS] += 1
            request.new.append(written)
        topic_filter = subscribed.topic_filter
        if group is None:
            retained = one.retain_handling == _SEND or (
                one.retain_handling == _SEND_IF_NEW and before is None
            )
            reply = partial(self._settled, request, topic_filter, options)
            broker.subscribe(session.window, topic_filter, options, retained, reply)
        else:
            joined = partial(self._answered, request)
            broker.join(session.window, group, topic_filter, options, joined)
        if session.is_durable:
            # What was published here before SUBSCRIBE has its position by now.
            start = broker.position
            if before is not None and before.options.qos and options.qos:
                start = before.start
            subscribed = Subscribed(written, options, start)
            self._connection.mqtt.sessions.rows.put_subscription(session, subscribed)
        session.subscribe(subscribed)
        events = self._connection.mqtt.events
        if events is not None:
            name = local_filter(one.filter)
            events.subscribed(session.principal, name, one.qos, broker.turn.now_ms)
        if one.no_local:
            self._connection.forget_routes()

    def _replaced(self, subscribed: Subscribed) -> Subscribed | None:
        """Take the place of a subscription to the same filter that is exclusive, or is not."""
        session = self._session
        twin = session.unsubscribe(subscribed.twin) if subscribed.group is None else None
        if twin is not None:
            sessions = self._connection.mqtt.sessions
            sessions.release(session, twin)
            if session.is_durable:
                sessions.rows.delete_subscription(session, twin.written)
        return twin

    def _settled(
        self, request: _Request, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        if kept:
            request.retained.append((topic_filter, options, kept))
        self._answered(request)

    def _await_rows(self, request: _Request) -> None:
        """Answer when what was put is durable, here and in the cluster."""
        self._connection.mqtt.sessions.when_kept(
            self._session.principal.identity,
            partial(self._answered, request),
            partial(self._unkept, request),
        )

    def _unkept(self, request: _Request) -> None:
        """The cluster has not said that it has the subscriptions: take the new ones back."""
        session = self._session
        sessions = self._connection.mqtt.sessions
        new, request.new = request.new, []
        for written in new if not self._connection.ended else ():
            known = session.unsubscribe(written)
            if known is not None:
                sessions.withdraw(session, known)
                sessions.rows.delete_subscription(session, written)
        request.reasons = [
            reason if is_error(reason) else SUBSCRIBE_REFUSALS[Refusal.UNAVAILABLE]
            for reason in request.reasons
        ]
        request.retained = []
        request.sentence = request.sentence or _UNKEPT
        self._answered(request)

    def _answered(self, request: _Request) -> None:
        request.owing -= 1
        if not request.owing:
            self._acknowledge(request)

    def _acknowledge(self, request: _Request) -> None:
        connection = self._connection
        if connection.ended:
            return
        if request.packet_id != _NO_ANSWER:
            connection.refuse(Suback(request.packet_id, request.reasons), request.sentence)
        else:
            refused = sum(map(is_error, request.reasons))
            self._broker.turn.row[metrics.AUTO_SUBSCRIPTIONS_REFUSED] += refused
        for topic_filter, options, kept in request.retained:
            self._broker.send_retained(self._session.window, topic_filter, options, kept)

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """End subscriptions; what is in flight for them may still be completed."""
        session = self._session
        sessions = self._connection.mqtt.sessions
        events = self._connection.mqtt.events
        reasons: list[Reason] = []
        for name in packet.filters:
            known = self._forget(name)
            if known is None:
                reasons.append(Reason.NO_SUBSCRIPTION_EXISTED)
                continue
            sessions.withdraw(session, known)
            if session.is_durable:
                sessions.rows.delete_subscription(session, known.written)
            if known.options.no_local:
                self._connection.forget_routes()
            reasons.append(Reason.SUCCESS)
            if events is not None:
                events.unsubscribed(session.principal, name, self._broker.turn.now_ms)
        answer = Unsuback(packet.packet_id, reasons)
        if session.is_durable:
            unkept = partial(self._connection.expel, Reason.IMPLEMENTATION_SPECIFIC_ERROR, _UNKEPT)
            sessions.when_kept(
                session.principal.identity,
                partial(self._connection.send_if_open, answer),
                unkept,
            )
        else:
            self._connection.send(answer)

    def _forget(self, written: str) -> Subscribed | None:
        """Take a subscription out of the session; it may be older than the rules of today."""
        session = self._session
        name = self._broker.topics.filter(session.principal, written)
        known = session.unsubscribe(name.encode()) if isinstance(name, str) else None
        return known or session.unsubscribe(written.encode())
