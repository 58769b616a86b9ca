"""What is known of each client's session, and whether `session present` was right.

A session that no one is connected to ends when its expiry has passed. Its client does not know
exactly since when the server takes it for gone, so there are bounds: where they leave one answer,
only that one is right.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class View:
    """One client's session; times in ms, expiries in seconds.

    `gone_ms`: not before that did its time begin to run. `ended_ms`: then it did at the latest,
    None while that is open. `commit` is the write of its core that holds this.
    """

    exists: bool = False
    shortest: int = 0
    longest: int = 0
    gone_ms: int | None = None
    left_ms: int | None = None
    ended_ms: int | None = None
    commit: int = 0
    attempts: list[int] = field(default_factory=list)
    """When CONNECT was sent without an answer."""


class Views:
    """The sessions of all clients."""

    def __init__(self, clock: Callable[[], int], fault: Callable[[str], None]) -> None:
        self._clock = clock
        self._fault = fault
        self._views: dict[str, View] = {}

    def __getitem__(self, client: str) -> View:
        return self._views.setdefault(client, View())

    # ------------------------------------------------------------------ the client's side

    def connecting(self, client: str, expiry: int) -> None:
        """A CONNECT is sent; what it asks for is asked for until it is answered."""
        view = self[client]
        if view.attempts:
            view.shortest = min(view.shortest, expiry)
            view.longest = max(view.longest, expiry)
        view.attempts.append(self._clock())

    def connected(self, client: str, *, clean: bool, expiry: int, present: bool) -> bool:
        """A CONNACK has come; says whether it is plain which session that is."""
        view = self[client]
        expected = self._expected(view, clean)
        if present not in expected:
            told = f"{client}: session present {present}, {view}, clean {clean}"
            self._fault(told)
        now_ms, gone_ms = self._clock(), view.gone_ms or 0
        plain = not (
            present
            and view.exists
            and len(view.attempts) > 1
            and now_ms >= gone_ms + view.shortest * 1_000
        )
        view.exists = True
        view.shortest = view.longest = expiry
        view.attempts.clear()
        view.gone_ms = view.left_ms
        return plain

    def _expected(self, view: View, clean: bool) -> set[bool]:
        if clean:
            return {False}
        first = len(view.attempts) == 1
        if not view.exists or not view.longest:
            return {False} if first else {False, True}
        if view.gone_ms is not None and self._clock() < view.gone_ms + view.shortest * 1_000:
            return {True}
        ended_ms = view.ended_ms
        if first and ended_ms is not None and view.attempts[0] >= ended_ms + view.longest * 1_000:
            return {False}
        return {False, True}

    def disconnecting(self, client: str, expiry: int) -> None:
        """A DISCONNECT with another expiry is sent; it may not arrive."""
        view = self[client]
        view.shortest = min(view.shortest, expiry)
        view.longest = max(view.longest, expiry)

    def gone(self, client: str) -> None:
        """The client has left its connection."""
        view = self[client]
        if view.gone_ms is None:
            view.gone_ms = self._clock()

    # ------------------------------------------------------------------ the server's side

    def opened(self, client: str) -> None:
        """A core has opened the session for a connection."""
        view = self[client]
        view.left_ms = None

    def left(self, client: str, commit: int) -> None:
        """A core has seen the session's connection end; it will be written with that commit."""
        view = self[client]
        view.left_ms = view.ended_ms = self._clock()
        view.commit = commit
        if view.gone_ms is None and not view.attempts:
            view.gone_ms = view.left_ms

    def crashed(self, clients: Iterable[str], written: int) -> None:
        """The core of these clients has died; its disk has the commits up to `written`."""
        for client in clients:
            view = self[client]
            if view.left_ms is None:
                view.left_ms = self._clock()
                view.ended_ms = None
            if view.gone_ms is None:
                view.gone_ms = view.left_ms
            if view.commit > written:
                view.ended_ms = None

    def restarted(self, clients: Iterable[str], commit: int) -> None:
        """The core is there again: time runs for the sessions of which it is not known better."""
        for client in clients:
            view = self[client]
            if view.ended_ms is None:
                view.ended_ms = self._clock()
                view.commit = commit
            else:
                view.commit = 0
