"""The heap of a worker: what it frees it will want again at once."""

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MAPPED_BYTES: Final = 1 << 22
"""What is larger gets pages of its own, which go back when it goes."""
_KEPT_BYTES: Final = 1 << 25
"""Free bytes at the end of the heap, beyond which they go back."""


def keep() -> None:
    """Have glibc keep what is freed, up to a bound (mallopt(3)); elsewhere nothing is done.

    Otherwise every batch of a megabyte costs 256 page faults, about a tenth of all its time.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
