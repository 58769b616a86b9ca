"""What the state machine of a group is given by whoever keeps it."""

from collections.abc import Callable
from typing import Protocol

from robustmq.kafka.errors import ErrorCode


class Keeper(Protocol):
    """The clock, the ledger, and names, as one group sees them."""

    @property
    def now_ms(self) -> int:
        """The turn's clock."""

    def keep(self, then: Callable[[ErrorCode], None]) -> None:
        """Write the page as it is then; `then(NONE)` when that is done."""

    def settled(self, then: Callable[[ErrorCode], None]) -> None:
        """Call back when what `keep` was asked for so far is done; at once when it is."""

    def wake(self, when_ms: int) -> None:
        """Call `due` of the group at that time or before."""

    def rebalanced(self) -> None:
        """A generation has begun, or everybody has another target: it is counted."""

    def new_id(self, client_id: str) -> str:
        """Make a member's id."""
