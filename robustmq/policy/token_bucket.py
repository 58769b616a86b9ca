"""A rate: so much in a second, and a second's worth at once."""


class TokenBucket:
    """Fills by `rate` in a second up to one second's worth; taking more leaves a debt."""

    __slots__ = ("_level", "_looked_ms", "rate")

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._level = float(rate)
        self._looked_ms: int | None = None

    def take(self, amount: int, now_ms: int) -> float:
        """Take, also more than there is; return what is left, below 0 for a debt."""
        if self._looked_ms is not None:
            passed_ms = max(now_ms - self._looked_ms, 0)
            self._level = min(self._level + self.rate * passed_ms / 1_000, float(self.rate))
        self._looked_ms = now_ms
        self._level -= amount
        return self._level

    def passed(self, amount: int, now_ms: int) -> float:
        """Learn what others took at some time since the last look; return what is left."""
        level = self._level - amount
        if self._looked_ms is not None:
            level += self.rate * max(now_ms - self._looked_ms, 0) / 1_000
        self._looked_ms = now_ms
        self._level = min(level, float(self.rate))
        return self._level

    def wait_ms(self, level: float = 1.0) -> int:
        """Return how long it takes from the last look until there is so much."""
        missing = level - self._level
        return 0 if missing <= 0 else int(missing * 1_000 / self.rate) + 1
