"""A session's place in a shared group: who leads it, and what it has that is not acknowledged."""

from collections.abc import Callable
from typing import Final, NamedTuple

from robustmq._kernel.window import Window
from robustmq.broker.api import Options
from robustmq.broker.cursor import Unsent
from robustmq.broker.filter_log import FilterLog
from robustmq.broker.route import route_to

MEMBER_LOGS: Final = b"\0m"
"""The names of members' logs begin so, which no filter does."""
_NUMBER: Final = 8


class Membership:
    """One session's place in one group; it is the origin of the runs that came from there."""

    def __init__(self, window: Window, options: Options, leader: int) -> None:
        self.window = window
        self.options = options
        self.leader = leader
        """The core that was told of it as the group's leader."""
        self.former: set[int] = set()
        """Cores that lead it on until `leader` misses nothing any more."""
        self.is_full = False
        self.is_measured = False
        self.received = 0
        """Messages that it was given in this life of its leader."""
        self.route = route_to(window, options, self)

    @property
    def is_ready(self) -> bool:
        """Whether it takes messages now."""
        return self.window.outbox is not None and not self.is_full

    def refresh(self) -> None:
        """The session may speak another version of its protocol now."""
        self.route = route_to(self.window, self.options, self)


class Given:
    """What a member was given and has not acknowledged; it is the origin of its stored runs.

    `window` is None when the session has ended: then `unsent` is what it was. `left`: it is a
    member no more, and the log goes when the rest is acknowledged.
    """

    def __init__(self, member: int, key: bytes, window: Window | None) -> None:
        self.member = member
        self.key = key
        self.window = window
        self.log: FilterLog
        self.unsent: Unsent | None = None
        self.withdrawn: set[int] = set()
        self.left = False

    @property
    def name(self) -> bytes:
        """The name of its log."""
        return MEMBER_LOGS + self.member.to_bytes(_NUMBER, "big") + self.key


class Join(NamedTuple):
    """A join that `core` has not answered; without a `reply` the leader has changed."""

    core: int
    member: int
    key: bytes
    reply: Callable[[], None] | None


def member_of(name: bytes) -> tuple[int, bytes]:
    """Return the member and the group's key of a member's log by its name."""
    rest = name[len(MEMBER_LOGS) :]
    return int.from_bytes(rest[:_NUMBER], "big"), rest[_NUMBER:]
