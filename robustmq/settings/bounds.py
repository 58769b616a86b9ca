"""Bounds of configured numbers, and the units that they are counted in."""

from typing import Final

from msgspec import Meta

GIB: Final = 1 << 30
TIB: Final = 1 << 40
U32_MAX: Final = 0xFFFFFFFF
I64_MAX: Final = (1 << 63) - 1
CENTURY_MS: Final = 3_155_760_000_000


def between(low: float, high: float) -> Meta:
    """Constrain a number to `low` and `high`, both included."""
    return Meta(ge=low, le=high)
