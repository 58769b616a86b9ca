"""What a replicated group needs: a store for its state, and the machine that folds commands."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from robustmq.errors import Refused


class Store(Protocol):
    """The applied state of one group: ordered rows, keys and values `bytes`.

    Keys that begin with the byte 0 are its owner's (applied index, outcomes of proposals); a
    machine uses the others. What was put is seen by `get` and `walk` at once, whether it has been
    written or not: so commands have the same outcome however they are batched. What one command
    puts is written as one, together with its index.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value; None when there is none. Raises Corrupt."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove a row; it may be missing."""
        ...

    def walk(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose keys begin with `prefix`, from the key `start` on, ascending.

        To be used up or dropped before the next `put` or `delete`. Raises Corrupt.
        """
        ...


class Machine(Protocol):
    """Folds the committed commands of a group, in order, over its store.

    The same commands give the same rows and outcomes on every node: a machine knows no time, no
    chance and no configuration but what a command says.
    """

    def apply(self, index: int, command: bytes) -> bytes:
        """Fold one command, the one at `index` of the log; return its outcome.

        A command that is refused, or that nobody understands, has an outcome that says so; it
        never raises for what a command says.
        """
        ...

    def reload(self) -> None:
        """Take the store as it is now: after a start, and when a snapshot was installed."""
        ...


class Applied(NamedTuple):
    """A command was folded at `position` of its group's log, here or on the leader's node."""

    position: int
    result: bytes


Outcome: TypeAlias = Applied | Refused
"""What became of a proposal. UNAVAILABLE: in its time nobody said, and it may yet be folded."""


class Groups(Protocol):
    """The replicated groups of this node, by name: `metadata`, `offset_<i>`, `data_<i>`."""

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        """Have a command folded on every node; `done` is called once, with its outcome."""
        ...

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        """Call `done(None)` when this node has folded all that anybody knew to be committed."""
        ...

    def leader(self, group: str) -> int | None:
        """Return the number of the node that leads; None: nobody is known to."""
        ...
