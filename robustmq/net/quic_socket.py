"""The UDP socket of a QUIC server: datagrams in by turns, datagrams out in runs."""

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from aioquic.quic.connection import NetworkAddress

from robustmq.net.quic_server import Datagram

READS: Final = 128
"""Datagrams that one call of `receive` takes at most; the others wait for the next turn."""
BUFFER_BYTES: Final = 4 << 20
"""What the kernel is asked to hold each way; it gives what net.core.rmem_max allows."""

_MOST_BYTES: Final = 65_536
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SEGMENTS: Final = 40
_SEGMENT_BYTES: Final = 60_000
_UNSUPPORTED: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


class QuicSocket:
    """Sends and receives datagrams on a bound, non-blocking socket.

    Datagrams of one size to one address go to the kernel together, which cuts them (UDP_SEGMENT):
    Python has no sendmmsg. What the kernel does not take now is kept, in `waiting`; what it cannot
    deliver at all is lost, as datagrams are.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._segments = True
        self._waiting: deque[Datagram] = deque()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)

    @property
    def waiting(self) -> int:
        """How many datagrams the kernel has not taken yet."""
        return len(self._waiting)

    def receive(self, take: Callable[[bytes, NetworkAddress], None]) -> int:
        """Give datagrams to `take`; returns how many there were, READS when there may be more."""
        for received in range(READS):
            try:
                data, address = self._socket.recvfrom(_MOST_BYTES)
            except BlockingIOError:
                return received
            except OSError:
                # An ICMP error for something that was sent: the connection's timers know better.
                continue
            take(data, address)
        return READS

    def send(self, datagrams: Iterable[Datagram]) -> bool:
        """Send datagrams after those that wait; False when some of them have to wait."""
        self._waiting.extend(datagrams)
        while self._waiting:
            run = self._run()
            data, address = self._waiting[0]
            try:
                if run > 1:
                    self._send_run(run, len(data), address)
                else:
                    self._socket.sendto(data, address)
            except OSError as error:
                if error.errno in _FULL:
                    return False
                if run > 1 and error.errno in _UNSUPPORTED:
                    self._segments = False
                    continue
            for _ in range(run):
                self._waiting.popleft()
        return True

    def _run(self) -> int:
        """How many of the datagrams that wait can go together: all but the last of one size."""
        if not self._segments or len(self._waiting) == 1:
            return 1
        data, address = self._waiting[0]
        size = len(data)
        most = min(_SEGMENTS, _SEGMENT_BYTES // size)
        run = 1
        while run < most and run < len(self._waiting):
            following, to = self._waiting[run]
            if to != address or len(following) > size:
                break
            run += 1
            if len(following) < size:
                break
        return run

    def _send_run(self, run: int, size: int, address: NetworkAddress) -> None:
        parts = [self._waiting[at][0] for at in range(run)]
        segment = (_SOL_UDP, _UDP_SEGMENT, struct.pack("H", size))
        self._socket.sendmsg(parts, [segment], 0, address)
