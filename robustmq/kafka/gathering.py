"""An answer that is made of several, each of which comes when it comes."""

from collections.abc import Callable


class Gathering:
    """Calls `done` once, when it is `closed` and all that began has ended."""

    __slots__ = ("_done", "_owing")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._owing = 1

    def begin(self) -> None:
        """One more is under way."""
        self._owing += 1

    def end(self) -> None:
        """One has ended."""
        self._owing -= 1
        if not self._owing:
            self._done()

    def close(self) -> None:
        """No more will begin."""
        self.end()
