"""Who is here: the sessions of a core, their clients and subscriptions, for an administrator.

Each walk goes on from a position: it yields (the position behind an entry, the entry), or None in
its place when the arguments exclude it. While sessions come and go an entry may be passed over or
come twice.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

from robustmq.broker.api import Principal
from robustmq.message.tenancy import DEFAULT_TENANT, local_filter
from robustmq.mqtt.session import NEVER, Session, Subscribed
from robustmq.mqtt.session_table import SessionTable

Entry: TypeAlias = dict[str, Any]

_SHIFT: Final = 24
"""Bits of a position that number the subscriptions of one session (see `max_subscriptions`)."""


class Census:
    """Reads the sessions of a core.

    `client_id` among the arguments names one of them, within the `tenant` if there is one.
    """

    def __init__(self, sessions: SessionTable) -> None:
        self._sessions = sessions

    def clients(self, start: int, arguments: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        """Walk over the clients that are connected."""
        for position, session in self._walk(start, arguments):
            yield position, _client(session) if session.connection is not None else None

    def sessions(self, start: int, arguments: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        """Walk over the sessions, connected or not."""
        for position, session in self._walk(start, arguments):
            yield position, _session(session)

    def subscriptions(self, start: int, arguments: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        """Walk over the subscriptions of the sessions."""
        first, done = start >> _SHIFT, start & (1 << _SHIFT) - 1
        for behind, session in self._walk(first, arguments):
            subscribed = list(islice(session.subscriptions, done, None))
            if not subscribed:
                yield behind << _SHIFT, None
            for number, each in enumerate(subscribed, done + 1):
                last = number == done + len(subscribed)
                position = behind << _SHIFT if last else (behind - 1) << _SHIFT | number
                yield position, _subscription(session, each)
            done = 0

    def _walk(self, start: int, arguments: Mapping[str, Any]) -> Iterator[tuple[int, Session]]:
        client_id = arguments.get("client_id")
        if client_id is None:
            yield from enumerate(self._sessions.walk(start), start + 1)
            return
        tenant = str(arguments.get("tenant", DEFAULT_TENANT))
        session = self._sessions.get(Principal(str(client_id), tenant=tenant).identity)
        if start == 0 and session is not None:
            yield 1, session


def _client(session: Session) -> Entry:
    principal = session.principal
    connection = session.connection
    return {
        "tenant": session.principal.tenant,
        "client_id": session.client_id,
        "username": principal.username,
        "source_ip": principal.address,
        "listener": principal.listener,
        "protocol": f"mqtt{session.version}",
        "keep_alive_ms": connection.keep_alive_ms if connection is not None else 0,
    }


def _session(session: Session) -> Entry:
    return {
        "tenant": session.principal.tenant,
        "client_id": session.client_id,
        "username": session.principal.username,
        "connected": session.connection is not None,
        "durable": session.is_durable,
        "session_expiry": None if session.expiry == NEVER else session.expiry,
        "is_contain_last_will": session.will is not None,
        "last_will_delay_interval": _will_delay(session),
        "distinct_time": session.ended_ms // 1_000 or None,
        "subscriptions": session.subscription_count,
    }


def _will_delay(session: Session) -> int | None:
    will = session.will
    if will is None:
        return None
    return (will.properties.will_delay_interval or 0) if will.properties is not None else 0


def _subscription(session: Session, subscribed: Subscribed) -> Entry:
    options = subscribed.options
    group = subscribed.group
    return {
        "tenant": session.principal.tenant,
        "client_id": session.client_id,
        "path": local_filter(subscribed.written.decode()),
        "group": None if group is None else group.decode(),
        "qos": options.qos,
        "no_local": options.no_local,
        "preserve_retain": options.retain_as_published,
    }
