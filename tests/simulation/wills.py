"""What becomes of each will: sent once, void, or either where a crash leaves it open.

The server's side is told by the node: when a session was opened, left, and when its core died.
So the time at which a will is due is known to the millisecond (MQTT5 3.1.3.2.2).
"""

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


class Fate(enum.Enum):
    """What is known of a will."""

    ASKED = "asked"
    """Sent with a CONNECT that no core may have seen."""
    ARMED = "armed"
    DUE = "due"
    """It goes out at `due_ms`, unless the client returns before."""
    VOID = "void"
    OPEN = "open"
    """A crash took back what was decided, or what has happened cannot be known."""


@dataclass
class Testament:
    """One will: what its fate hangs on. `commit` is the write of its core that holds its fate."""

    number: int
    client: str
    delay: int
    expiry: int = 0
    fate: Fate = Fate.ASKED
    due_ms: int = 0
    commit: int = 0
    by_restart: bool = False
    sealed: bool = False
    """Nothing that comes changes it: it has gone out, or the client was back before."""
    heard: Counter[str] = field(default_factory=Counter)
    exact: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)


class Wills:
    """The wills of all clients; the current one of each is the last that was opened."""

    def __init__(self, clock: Callable[[], int], fault: Callable[[str], None]) -> None:
        self._clock = clock
        self._fault = fault
        self.all: list[Testament] = []
        self._current: dict[str, Testament] = {}

    def make(self, client: str, delay: int) -> Testament:
        """A client sends a will with CONNECT; its payload is `w` and its number."""
        will = Testament(len(self.all), client, delay)
        self.all.append(will)
        return will

    def heard(self, number: int, topic: str, client: str, qos: int, late: bool) -> None:
        """A client was given a will, perhaps one of a core that has forgotten it (`late`)."""
        will = self.all[number]
        will.heard[client] += 1
        if topic != f"w/{will.client}":
            self._fault(f"{client} was given the will {number} of {will.client} on {topic}")
        if late:
            will.forgotten.add(client)
        again = qos == 2 and client in will.exact
        if qos == 2:
            will.exact.add(client)
        if again and client not in will.forgotten:
            self._fault(f"{client} was given the will {number} of {will.client} again")
        if will.fate is Fate.DUE and self._clock() < will.due_ms:
            self._fault(f"{client} was given the will {number} of {will.client} too early")

    # ------------------------------------------------------------------ the server's side

    def opened(
        self, client: str, number: int | None, *, clean: bool, expiry: int, commit: int
    ) -> None:
        """A core has opened a session with the will of that number."""
        last = self._current.pop(client, None)
        if last is not None and not last.sealed and last.fate is Fate.DUE:
            if clean or self._clock() >= last.due_ms:
                last.due_ms = min(last.due_ms, self._clock())
            else:
                last.fate = Fate.VOID
            last.sealed = True
            last.commit = commit
        if number is not None:
            will = self._current[client] = self.all[number]
            will.fate = Fate.ARMED
            will.expiry = expiry
            will.commit = commit

    def left(self, client: str, *, with_will: bool, expiry: int, commit: int) -> None:
        """A core has seen the session's connection end."""
        will = self._current.get(client)
        if will is None or will.fate is not Fate.ARMED:
            return
        will.commit = commit
        will.by_restart = False
        if with_will:
            self._run(will, expiry)
        else:
            will.fate = Fate.VOID
            will.sealed = True

    def _run(self, will: Testament, expiry: int) -> None:
        will.expiry = expiry
        will.fate = Fate.DUE
        will.due_ms = self._clock() + min(will.delay, expiry) * 1_000

    def crashed(self, clients: set[str], written: int) -> None:
        """The core of these clients has died; its disk has the commits up to `written`."""
        for will in self.all:
            if will.client not in clients:
                continue
            if will.commit > written:
                if will.by_restart and will.fate is Fate.DUE and not will.sealed:
                    will.fate = Fate.ARMED
                elif will.fate is not Fate.ASKED:
                    will.fate = Fate.OPEN
            will.commit = 0

    def restarted(self, clients: Iterable[str], commit: int) -> None:
        """The core is there again: who was connected is offline since now."""
        for client in clients:
            will = self._current.get(client)
            if will is not None and will.fate is Fate.ARMED:
                will.commit = commit
                will.by_restart = True
                self._run(will, will.expiry)

    # ------------------------------------------------------------------ the end

    def check(self, watcher: str, *, complete: bool) -> None:
        """Compare with what the watcher has; not `complete`: a full disk may have cost some."""
        for will in self.all:
            heard = will.heard[watcher]
            name = f"the will {will.number} of {will.client}"
            if will.fate is Fate.DUE and not heard and complete:
                self._fault(f"{name}, due at {will.due_ms}, was not sent")
            if will.fate in {Fate.VOID, Fate.ARMED, Fate.ASKED} and heard:
                self._fault(f"{name} is {will.fate.value} and was sent")
