"""The bell of one process: an eventfd that others ring only while it sleeps."""

import contextlib
import os


class Doorbell:
    """An eventfd that wakes one process; made before the fork, so that all can ring it.

    The fd is nonblocking: rings that nobody has answered yet are one ring.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def create(cls) -> "Doorbell":
        """Make a silent bell; its descriptor is closed on exec and kept over a fork."""
        return cls(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def ring(self) -> None:
        """Wake the process that watches this bell."""
        # A counter that cannot grow means that the bell has been ringing all along.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._fd, 1)

    def answer(self) -> bool:
        """Silence the bell; False when nobody had rung."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def fileno(self) -> int:
        """Return the descriptor, to be watched for reading."""
        return self._fd

    def close(self) -> None:
        """Close this process's descriptor; others keep theirs."""
        os.close(self._fd)
