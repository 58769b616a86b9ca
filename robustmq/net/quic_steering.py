"""Whose connection a QUIC datagram is: connection ids that name a worker, and the kernel's filter.

A connection id of ours begins with 16 bits that are the worker's index modulo the number of
workers. The filter sends each datagram to the worker that its destination connection id names, so
that it arrives there from whatever address. The id of a client's first packets is its own choice
(RFC 9000 7.2): any worker is right for them, and always the same one for the same id.
"""

import ctypes
import hashlib
import hmac
import socket
import struct
from collections.abc import Callable
from typing import Final

CID_BYTES: Final = 8
"""Bytes of a connection id of ours."""
TOKEN_BYTES: Final = 16
"""Bytes of a stateless reset token (RFC 9000 10.3)."""
SECRET_BYTES: Final = 32
"""Bytes of the secret that all workers of a node share, whatever their lives."""

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_LOAD_BYTE: Final = 0x30
_LOAD_HALF: Final = 0x28
_JUMP_IF_SET: Final = 0x45
_JUMP: Final = 0x05
_MODULO: Final = 0x94
_RETURN: Final = 0x16
_LONG_HEADER: Final = 0x80
_CID_AT_SHORT: Final = 1
_CID_AT_LONG: Final = 6


class ConnectionIds:
    """Makes the connection ids of one worker and the tokens that belong to them.

    `random(n)` returns n random bytes. The tokens depend on `secret` and the id alone: the next
    life of a worker can reset the connections of the last one (RFC 9000 10.3.2).
    """

    def __init__(
        self, worker: int, workers: int, secret: bytes, random: Callable[[int], bytes]
    ) -> None:
        self._worker = worker
        self._workers = workers
        self._secret = secret
        self._random = random

    def issue(self) -> bytes:
        """Return a new connection id that leads to this worker."""
        drawn = self._random(CID_BYTES)
        number = int.from_bytes(drawn[:2], "big")
        number += self._worker - number % self._workers
        if number > 0xFFFF:
            number -= self._workers
        return number.to_bytes(2, "big") + drawn[2:]

    def reset_token(self, cid: bytes) -> bytes:
        """Return the stateless reset token of a connection id."""
        return hmac.digest(self._secret, b"stateless reset" + cid, hashlib.sha256)[:TOKEN_BYTES]


def program(workers: int) -> bytes:
    """Return the filter as `struct sock_filter[]`: from a datagram to the worker's socket.

    Sockets are numbered in the order in which they were bound. A datagram too short to hold a
    connection id goes to the first.
    """
    instructions = (
        (_LOAD_BYTE, 0, 0, 0),
        (_JUMP_IF_SET, 0, 2, _LONG_HEADER),
        (_LOAD_HALF, 0, 0, _CID_AT_LONG),
        (_JUMP, 0, 0, 1),
        (_LOAD_HALF, 0, 0, _CID_AT_SHORT),
        (_MODULO, 0, 0, workers),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def attach(sock: socket.socket, workers: int) -> None:
    """Let the kernel steer the datagrams of the group that `sock` is bound with.

    Raises OSError when the kernel knows no such filter.
    """
    code = program(workers)
    kept = ctypes.create_string_buffer(code, len(code))
    length = len(code) // 8
    filter_program = struct.pack("@HP", length, ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filter_program)
