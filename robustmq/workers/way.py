"""The way from the meta process to another process of its node."""

import asyncio
import socket
from collections.abc import Callable

from robustmq.net.channel import Channel
from robustmq.shm.region import State


class Way:
    """A channel toward another process of the node; a `feed.Line`. `state` is that process'.

    `received(data)` takes its messages, `drained()` is called when what waited for it is sent.
    """

    def __init__(self, end: socket.socket, state: State) -> None:
        self._state = state
        self._channel = Channel(end, self._blocked)
        self._is_blocked = False
        self.drained: Callable[[], None] = lambda: None

    @property
    def epoch(self) -> int:
        """The life of the process; 0 while it does not run."""
        return self._state.epoch if self._state.pid else 0

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait for it."""
        return self._channel.backlog_bytes

    def listen(self, received: Callable[[bytes], None]) -> None:
        """Take what it says from now on."""

        def readable() -> None:
            for data in self._channel.receive():
                received(data)

        asyncio.get_running_loop().add_reader(self._channel.fileno(), readable)

    def send(self, message: bytes) -> None:
        """Send a message, or keep it until the process reads."""
        self._channel.send(message)

    def clear(self) -> None:
        """Forget what was not sent yet."""
        self._channel.clear()

    def _blocked(self) -> None:
        # `flush` says so again as long as there is no room.
        if not self._is_blocked:
            self._is_blocked = True
            asyncio.get_running_loop().add_writer(self._channel.fileno(), self._writable)

    def _writable(self) -> None:
        self._channel.flush()
        if not self._channel.backlog_bytes:
            self._is_blocked = False
            asyncio.get_running_loop().remove_writer(self._channel.fileno())
            self.drained()
