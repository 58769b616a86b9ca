"""How a frame is marked on a ring: which part of it this is, from which life to which.

An endpoint's epoch is raised by the supervisor before it starts a replacement. Each frame carries
the epochs of both sides, so that neither ever mistakes an earlier life of the other for this one.
"""

from typing import Final

WHOLE: Final = 0
"""The kind of a frame that was pushed in one piece."""
MORE: Final = 1
"""The kind of a fragment that others follow."""
LAST: Final = 2
"""The kind of the fragment that completes a frame."""

MAX_FRAME_BYTES: Final = 512 * 1024 * 1024
"""The largest frame that crosses a ring, unless another limit is given."""
EPOCH_MASK: Final = 0xFFFFFFFF
"""Epochs are compared as u32."""


def stamp(source_epoch: int, target_epoch: int) -> int:
    """Return the u64 that goes with a frame: the source's epoch above the target's."""
    return (source_epoch & EPOCH_MASK) << 32 | target_epoch & EPOCH_MASK
