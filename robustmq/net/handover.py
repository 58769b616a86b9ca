"""Sockets on their way to the core that is home to their session (SCM_RIGHTS)."""

import errno
import os
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Final

_MOST: Final = 200
"""Descriptors per datagram; the kernel takes at most 253 (SCM_MAX_FD)."""

_NOTE_MAX: Final = 512
"""Bytes of the note that goes with a descriptor at most."""

_SIZE: Final = struct.Struct("<H")
_RECEIVED: Final = _MOST * (_SIZE.size + _NOTE_MAX)
_SPACE: Final = socket.CMSG_LEN(_MOST * 4)
_RECEIVE: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC

_EXHAUSTED: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""What the kernel says when too many descriptors are on their way, or it has no memory."""


class Handover:
    """Sends descriptors to other cores, a datagram per core and turn, and receives its own.

    `blocked(core, socket)` is called when a core's socket takes no more: `flush` must be called
    again when it is writable; `exhausted()` when the machine takes no more: `flush` must be called
    again after a while. `arrived(fd, note)` gets every descriptor that comes in, with what the
    sender had to say of it.
    """

    def __init__(
        self,
        inbound: socket.socket,
        outbound: Sequence[socket.socket],
        arrived: Callable[[int, bytes], None],
        blocked: Callable[[int, socket.socket], None],
        exhausted: Callable[[], None],
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._arrived = arrived
        self._blocked = blocked
        self._exhausted = exhausted
        self._leaving: dict[int, list[tuple[int, bytes]]] = {}

    @property
    def waiting(self) -> int:
        """Descriptors that have not left yet, and are open here."""
        return sum(map(len, self._leaving.values())) if self._leaving else 0

    def send(self, core: int, fd: int, note: bytes) -> None:
        """Let a descriptor leave with the next `flush`; it is closed here then.

        `note` goes with it; ValueError when it has more than 512 bytes.
        """
        if len(note) > _NOTE_MAX:
            raise ValueError(f"a note of {len(note)} bytes exceeds {_NOTE_MAX}")
        self._leaving.setdefault(core, []).append((fd, note))

    def flush(self) -> None:
        """Send what leaves."""
        if self._leaving:
            for core in list(self._leaving):
                self._flush_core(core)

    def _flush_core(self, core: int) -> None:
        leaving = self._leaving[core]
        while leaving:
            batch = leaving[:_MOST]
            try:
                notes = b"".join(_SIZE.pack(len(note)) + note for _, note in batch)
                socket.send_fds(self._outbound[core], [notes], [fd for fd, _ in batch])
            except BlockingIOError:
                self._blocked(core, self._outbound[core])
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._exhausted()
                return
            del leaving[: len(batch)]
            for fd, _ in batch:
                os.close(fd)
        del self._leaving[core]

    def receive(self) -> None:
        """Take what has arrived, all of it."""
        while True:
            try:
                # Not socket.recv_fds, which passes its flags over.
                data, ancillary, _, _ = self._inbound.recvmsg(_RECEIVED, _SPACE, _RECEIVE)
            except BlockingIOError:
                return
            arrived = array("i")
            for level, kind, descriptors in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    arrived.frombytes(descriptors[: len(descriptors) // 4 * 4])
            at = 0
            for fd in arrived:
                (size,) = _SIZE.unpack_from(data, at)
                at += _SIZE.size + size
                self._arrived(fd, data[at - size : at])
            if not data:
                return
