"""Where cores of other nodes come in: the port of this node, and the way to the core they want."""

import socket
from collections.abc import Callable
from typing import Final, Protocol

from robustmq._kernel.poller import Poller, peer_address
from robustmq.broker.api import Timer
from robustmq.net.layer import Facts
from robustmq.net.peer_connection import NO_PEER
from robustmq.net.peer_handshake import PREAMBLE_BYTES, wanted
from robustmq.net.tcp import Acceptor, Door

NOTE: Final = b"\xc1peer "
"""How the note begins that goes with a socket of a link; no MessagePack does (its 0xc1 is none)."""
BACKLOG: Final = 128


class Clock(Protocol):
    """What calls back later."""

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back at a time of the turn's clock."""


class PeerDoor:
    """Looks which core of this node a connection wants, and lets it go there.

    `accept(fd, address)` takes those for this core, `index` of `workers`; `hand_over(core, fd,
    note)` gives others away, and `note` leads to `arrived` there. `full()` says that no more may
    come in, `refused(facts, why)` hears of those that did not.
    """

    def __init__(
        self,
        poller: Poller,
        listener: socket.socket,
        *,
        index: int,
        workers: int,
        clock: Clock,
        now_ms: Callable[[], int],
        timeout_ms: int,
        accept: Callable[[int, str], None],
        hand_over: Callable[[int, int, bytes], None],
        full: Callable[[], bool],
        refused: Callable[[Facts, str], None],
    ) -> None:
        self._index = index
        self._workers = workers
        self._accept = accept
        self._hand_over = hand_over
        listener.listen(BACKLOG)
        self._door = Door(
            poller,
            clock=clock,
            now_ms=now_ms,
            peek_bytes=PREAMBLE_BYTES,
            timeout_ms=timeout_ms,
            home=self._home,
            arrived=self._arrived,
            refused=refused,
            header=lambda _beginning, _facts: None,
            what=lambda _beginning: NO_PEER,
        )
        self._acceptor = Acceptor(
            poller,
            clock=clock,
            now_ms=now_ms,
            listener=listener,
            met=lambda fd: self._door.meet(fd, Facts(peer_address(fd), "peer")),
            full=full,
            refused=lambda: refused(Facts(), "too many connections are being made"),
        )

    @property
    def waiting(self) -> int:
        """Connections that have not said which core they want."""
        return self._door.waiting

    def shut(self) -> None:
        """Let nobody in any more."""
        self._acceptor.shut()
        self._door.shut()

    def _home(self, beginning: bytes) -> int | None:
        index = wanted(beginning)
        return index if index is None or index < self._workers else -1

    def _arrived(self, fd: int, index: int, facts: Facts) -> None:
        if index == self._index:
            self._accept(fd, facts.address)
        else:
            self._hand_over(index, fd, NOTE + facts.address.encode())


def address_in(note: bytes) -> str:
    """Return the address of the peer that a note tells."""
    return note.removeprefix(NOTE).decode()
