"""What a session is on disk: three kinds of rows, how they are written, and how they are read.

    "s" client id            -> session: number, expiry, connected or since when not, will ...
    "t" number, filter       -> subscription; the filter with its $share prefix
    "u" number, packet id    -> nothing: a QoS 2 message was received, and waits for PUBREL

Numbers are u64 and packet ids u16, big-endian. Values are msgpack arrays that begin with the
version of their layout. Reading is a fold: the same rows always give the same sessions.
"""

from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

import msgspec

from robustmq.broker.api import Options, State
from robustmq.errors import Corrupt, ProtocolError
from robustmq.message.session_record import WillRecord
from robustmq.mqtt import properties
from robustmq.mqtt.packets import Will
from robustmq.mqtt.session import Session, Subscribed
from robustmq.mqtt.wire import Reader

SESSION: Final = b"s"
SUBSCRIPTION: Final = b"t"
RECEIVED: Final = b"u"
_END: Final = b"v"

_MANY: Final = 1_000
"""Rows from which on a range is erased rather than every row deleted."""

_NO_LOCAL: Final = 4
_RETAIN_AS_PUBLISHED: Final = 8
_PLAIN: Final = tuple(
    Options(flags & 3, bool(flags & _NO_LOCAL), bool(flags & _RETAIN_AS_PUBLISHED))
    for flags in range(16)
)
_PACKER: Final = msgspec.msgpack.Encoder()


class SessionRow(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A session without its subscriptions; `ended_ms` is 0 while it is connected.

    One whose number has not the bit DURABLE ended with the server; its will is what is left.
    """

    number: int
    expiry: int
    version: int
    ended_ms: int
    username: str | None
    will: WillRecord | None
    address: str = ""
    superuser: bool = False
    generation: int = 0
    born: int = 0


class SubscriptionRow(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A subscription: its options as in SUBSCRIBE (MQTT5 3.8.3.1), where it stands, its identifier.

    `identifier` is encoded as it goes into messages.
    """

    flags: int
    start: int
    identifier: bytes


_SESSIONS: Final = msgspec.msgpack.Decoder(SessionRow)
_SUBSCRIPTIONS: Final = msgspec.msgpack.Decoder(SubscriptionRow)

R = TypeVar("R", SessionRow, SubscriptionRow)


def options_of(flags: int, identifier: bytes) -> Options:
    """Options from the byte of SUBSCRIBE (MQTT5 3.8.3.1); those without identifier are shared."""
    plain = _PLAIN[flags & 15]
    return plain._replace(identifier=identifier) if identifier else plain


def flags_of(options: Options) -> int:
    """The byte of SUBSCRIBE for these options, retain handling left out (MQTT5 3.8.3.1)."""
    no_local = _NO_LOCAL if options.no_local else 0
    as_published = _RETAIN_AS_PUBLISHED if options.retain_as_published else 0
    return options.qos | no_local | as_published


def encode_session(session: Session) -> bytes:
    """The value of a session's row."""
    will = session.will
    return _PACKER.encode(
        SessionRow(
            session.window.key,
            session.expiry,
            session.version,
            session.ended_ms,
            session.principal.username,
            None if will is None else will_record(will),
            session.principal.address,
            session.principal.superuser,
            session.generation,
            session.born,
        )
    )


def encode_subscription(subscribed: Subscribed) -> bytes:
    """The value of a subscription's row."""
    options = subscribed.options
    return _PACKER.encode(SubscriptionRow(flags_of(options), subscribed.start, options.identifier))


def decode_session(value: bytes) -> SessionRow:
    """Read the value of a session's row. Raises Corrupt, also for a layout of another version."""
    return _decode(_SESSIONS, value, "session")


def decode_subscription(written: bytes, value: bytes) -> Subscribed:
    """Read the row of the subscription with this filter. Raises Corrupt."""
    row = _decode(_SUBSCRIPTIONS, value, "subscription")
    return Subscribed(written, options_of(row.flags, row.identifier), row.start)


def with_start(value: bytes, start: int) -> bytes:
    """The value of a subscription's row with another start. Raises Corrupt."""
    row = _decode(_SUBSCRIPTIONS, value, "subscription")
    row.start = start
    return _PACKER.encode(row)


def will_of(will: WillRecord | None) -> Will | None:
    """The will that a row holds. Raises Corrupt."""
    if will is None:
        return None
    block = None
    if will.properties:
        try:
            reader = Reader(will.properties, 0, len(will.properties))
            block = properties.decode(reader, properties.WILL)
        except ProtocolError as error:
            raise Corrupt(f"the will of a session's row: {error.detail}") from error
    return Will(will.topic, will.payload, will.qos, will.retain, block)


def will_record(will: Will) -> WillRecord:
    """A will as a row holds it."""
    block = b""
    if will.properties is not None:
        block = properties.encode(will.properties, properties.WILL)
    return WillRecord(will.topic, will.payload, will.qos, will.retain, block)


def _decode(decoder: "msgspec.msgpack.Decoder[R]", value: bytes, what: str) -> R:
    try:
        return decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"a {what}'s row: {error}") from error


class Registrar(Protocol):
    """Whoever tells the cluster what changes in these rows."""

    def note(self, session: Session) -> None:
        """The session has begun, or something of it but for its subscriptions has changed."""

    def subscribed(self, session: Session, subscribed: Subscribed) -> None:
        """The session has a subscription, new or with other options."""

    def unsubscribed(self, session: Session, written: bytes) -> None:
        """The session has a subscription no more."""

    def end(self, session: Session, ended: Callable[[], None] | None) -> None:
        """The session is over; `ended()` if that ended its tenure, and not somebody else."""


class SessionRows:
    """Keeps the rows of the sessions of a core; nothing here waits, and `state` writes them.

    The `registrar` of a node in a cluster hears of all that others would take up.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.registrar: Registrar | None = None

    def put(self, session: Session) -> None:
        """Write what the session is now, its subscriptions apart."""
        if self.registrar is not None and not session.is_own:
            self.registrar.note(session)
        self.write(session)

    def write(self, session: Session) -> None:
        """Write what the session is now, which the cluster knows."""
        self._state.put(SESSION + session.principal.identity.encode(), encode_session(session))

    def put_subscription(self, session: Session, subscribed: Subscribed) -> None:
        """Write a subscription, new or changed."""
        if self.registrar is not None and not session.is_own:
            self.registrar.subscribed(session, subscribed)
        self.write_subscription(session, subscribed)

    def write_subscription(self, session: Session, subscribed: Subscribed) -> None:
        """Write a subscription that the cluster knows."""
        key = _prefix(SUBSCRIPTION, session) + subscribed.written
        self._state.put(key, encode_subscription(subscribed))

    def delete_subscription(self, session: Session, written: bytes) -> None:
        """The session subscribes to this filter no more."""
        if self.registrar is not None and not session.is_own:
            self.registrar.unsubscribed(session, written)
        self._state.delete(_prefix(SUBSCRIPTION, session) + written)

    def put_received(self, session: Session, packet_id: int) -> None:
        """A QoS 2 message was received."""
        self._state.put(_prefix(RECEIVED, session) + packet_id.to_bytes(2, "big"), b"")

    def delete_received(self, session: Session, packet_id: int) -> None:
        """The packet id is free."""
        self._state.delete(_prefix(RECEIVED, session) + packet_id.to_bytes(2, "big"))

    def erase(self, session: Session, ended: Callable[[], None] | None = None) -> None:
        """The session has ended: all its rows go.

        `ended()` when nobody can take the session up any more; never, when somebody has.
        """
        if self.registrar is not None and session.generation:
            self.registrar.end(session, ended)
        elif ended is not None:
            ended()
        self._state.delete(SESSION + session.principal.identity.encode())
        if not session.is_durable:
            return
        written = [subscribed.written for subscribed in session.subscriptions]
        self._erase(_prefix(SUBSCRIPTION, session), written)
        received = [packet_id.to_bytes(2, "big") for packet_id in session.received]
        self._erase(_prefix(RECEIVED, session), received)

    def _erase(self, prefix: bytes, suffixes: list[bytes]) -> None:
        if len(suffixes) < _MANY:
            for suffix in suffixes:
                self._state.delete(prefix + suffix)
        else:
            after = int.from_bytes(prefix, "big") + 1
            self._state.erase(prefix, after.to_bytes(len(prefix), "big"))

    def discard(self, key: bytes) -> None:
        """Remove a row that belongs to no session."""
        self._state.delete(key)

    # ------------------------------------------------------------------ reading

    def sessions(self) -> Iterator[tuple[str, SessionRow]]:
        """Yield every session: the client's identity and its row. Raises Corrupt."""
        for key, value in self._state.walk(SESSION, SUBSCRIPTION):
            yield key[1:].decode(), decode_session(value)

    def subscriptions(self) -> Iterator[tuple[bytes, int, Subscribed]]:
        """Yield every subscription: key, the session's number, and what it is. Raises Corrupt."""
        for key, value in self._state.walk(SUBSCRIPTION, RECEIVED):
            yield key, int.from_bytes(key[1:9], "big"), decode_subscription(key[9:], value)

    def received(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield every QoS 2 message that was received: key, the session's number, packet id."""
        for key, _ in self._state.walk(RECEIVED, _END):
            yield key, int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:11], "big")


def _prefix(kind: bytes, session: Session) -> bytes:
    return kind + session.window.key.to_bytes(8, "big")
