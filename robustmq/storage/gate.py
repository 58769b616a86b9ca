"""Whether an engine takes appends: not while writing fails or too much waits for the disk."""

import errno
from typing import Final

from robustmq.errors import Refusal, Refused
from robustmq.storage.log import Unwritable

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk, or quota, or a limit on the size of files says."""


class Gate:
    """`error` is set by whoever finds writing failing; `pending` counts bytes not yet written."""

    def __init__(self, directory: str, limit: int) -> None:
        self.error: OSError | None = None
        self.pending = 0
        self._directory = directory
        self._limit = limit

    @property
    def failure(self) -> str | None:
        """Why appends are refused, as a sentence; None while writing works."""
        error = self.error
        return None if error is None else f"cannot write to {self._directory}: {error.strerror}"

    def refusal(self, size: int) -> Refused | None:
        """Why `size` bytes cannot be taken now; None when they can."""
        error = self.error
        if error is not None:
            full = error.errno in FULL
            code = Refusal.QUOTA_EXCEEDED if full else Refusal.UNAVAILABLE
            return Refused(code, self.failure or "")
        if self.pending and self.pending + size > self._limit:
            return Refused(Refusal.BUSY, "too much waits for the disk")
        return None

    def admit(self, size: int) -> None:
        """Raise Unwritable when `size` bytes cannot be appended now."""
        refused = self.refusal(size)
        if refused is not None:
            raise Unwritable(refused)
