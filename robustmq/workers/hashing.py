"""Passwords are looked at aside: one thread a worker, and never too many that wait for it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Hashing:
    """Runs checks of passwords one after the other.

    `resume(callback)` runs a callback on the loop, from any thread; `most` checks may wait.
    Hashing lets go of the interpreter's lock, so the loop goes on meanwhile. The thread has the
    loop's own priority: with a lower one it would be put off while it holds the lock.
    """

    def __init__(self, resume: Callable[[Callable[[], None]], None], most: int) -> None:
        self._resume = resume
        self._most = most
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "hashing")

    def later(self, check: Callable[[], bool], done: Callable[[bool], None]) -> bool:
        """Run `check` and call back on the loop; False when too many wait already."""
        if self._waiting >= self._most:
            return False
        self._waiting += 1

        def finished(future: Future[bool]) -> None:
            if not future.cancelled():
                self._resume(lambda: self._tell(future, done))

        self._thread.submit(check).add_done_callback(finished)
        return True

    def close(self) -> None:
        """Look at no more; who waits is not answered."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _tell(self, future: Future[bool], done: Callable[[bool], None]) -> None:
        self._waiting -= 1
        done(future.result())
