"""The sessions whose home is this core: opening, taking over, expiring, and their wills."""

from robustmq import metrics
from robustmq.broker.api import Broker, Principal, Record, Window
from robustmq.config import MqttProtocol
from robustmq.mqtt.headers import to_headers
from robustmq.mqtt.packets import Will
from robustmq.mqtt.session import NEVER, Session


class SessionTable:
    """Sessions by client id. `first_key` is where this core's session keys begin."""

    def __init__(self, broker: Broker, limits: MqttProtocol, first_key: int) -> None:
        self._broker = broker
        self._limits = limits
        self._sessions: dict[str, Session] = {}
        self._next_key = first_key
        self._cells = broker.turn.row

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, principal: Principal, clean_start: bool) -> tuple[Session, bool]:
        """The client's session, and whether it was there; a connection that it has is ended.

        MQTT5 3.1.4: the earlier connection gets 0x8E, and with clean start the session with it
        goes.
        """
        session = self._sessions.get(principal.client_id)
        if session is not None and session.connection is not None:
            self._cells[metrics.SESSIONS_TAKEN_OVER] += 1
            session.connection.taken_over(clean_start)
            session = self._sessions.get(principal.client_id)
        if session is not None and clean_start:
            self.end(session)
            session = None
        if session is not None:
            self._revive(session)
            session.principal = principal
            return session, True
        limits = self._limits
        window = Window(
            self._broker.turn,
            limits.max_queued_messages,
            limits.max_queued_bytes,
            limits.max_outbox_bytes,
        )
        self._next_key += 1
        window.key = self._next_key
        session = Session(principal.client_id, window, principal)
        self._sessions[principal.client_id] = session
        self._cells[metrics.SESSIONS] = len(self._sessions)
        return session, False

    def detach(self, session: Session, with_will: bool) -> None:
        """The session's connection has ended; `with_will`: not by the client's own wish."""
        session.connection = None
        session.window.detach()
        self._broker.open(session.window, False)
        if not with_will:
            session.will = None
        if session.expiry == 0:
            self.end(session)
            return
        now_ms = self._broker.turn.now_ms
        if session.expiry != NEVER:
            session.expiry_timer = self._broker.at(
                now_ms + session.expiry * 1_000, lambda: self._expire(session)
            )
        delay = _delay(session.will)
        if session.will is not None and delay:
            session.will_timer = self._broker.at(
                now_ms + delay * 1_000, lambda: self._publish_will(session)
            )
        else:
            self._publish_will(session)

    def end(self, session: Session) -> None:
        """Forget the session; its will is due now if it is not sent yet (MQTT5 3.1.3.2.2)."""
        self._revive(session, keep_will=True)
        self._publish_will(session)
        for subscribed in session.subscriptions.values():
            if subscribed.group is None:
                self._broker.unsubscribe(session.window, subscribed.topic_filter)
            else:
                self._broker.leave(session.window, subscribed.group, subscribed.topic_filter)
        self._cells[metrics.SUBSCRIPTIONS] -= len(session.subscriptions)
        session.subscriptions.clear()
        session.window.clear()
        session.window.session = None
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        self._cells[metrics.SESSIONS] = len(self._sessions)

    def _expire(self, session: Session) -> None:
        self._cells[metrics.SESSIONS_EXPIRED] += 1
        self.end(session)

    def _revive(self, session: Session, keep_will: bool = False) -> None:
        if session.expiry_timer is not None:
            session.expiry_timer.cancel()
            session.expiry_timer = None
        if session.will_timer is not None:
            session.will_timer.cancel()
            session.will_timer = None
        if not keep_will:
            session.will = None

    def _publish_will(self, session: Session) -> None:
        will, session.will = session.will, None
        session.will_timer = None
        if will is None:
            return
        now_ms = self._broker.turn.now_ms
        publisher = 0 if session.hears_itself(will.topic) else session.window.key
        record = Record(
            key=will.topic,
            value=will.payload,
            headers=to_headers(
                will.properties, now_ms, self._limits.max_message_expiry_interval, publisher
            ),
            qos=will.qos,
            retain=will.retain,
            timestamp=now_ms,
        )
        if self._broker.publish(session.principal, record, None) is None:
            self._cells[metrics.WILLS_PUBLISHED] += 1


def _delay(will: Will | None) -> int:
    """Seconds between the end of the connection and the will (MQTT5 3.1.3.2.2)."""
    if will is None or will.properties is None:
        return 0
    return will.properties.will_delay_interval or 0
