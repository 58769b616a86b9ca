"""The UDP socket of a QUIC server: datagrams in by turns, datagrams out in runs."""

import errno
import ipaddress
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from aioquic.quic.connection import NetworkAddress

from robustmq.net.quic_server import Datagram

READS: Final = 128
"""Datagrams that one call of `receive` takes at most."""
BUFFER_BYTES: Final = 4 << 20
"""What the kernel is asked to hold each way; it gives what net.core.rmem_max allows."""

_MOST_BYTES: Final = 65_536
_ANCILLARY_BYTES: Final = 128
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SEGMENTS: Final = 40
_SEGMENT_BYTES: Final = 60_000
_UNSUPPORTED: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

_IP_PKTINFO: Final = 8
_IPV6_RECVPKTINFO: Final = 49
_IPV6_PKTINFO: Final = 50
_V4: Final = (socket.IPPROTO_IP, _IP_PKTINFO)
_V6: Final = (socket.IPPROTO_IPV6, _IPV6_PKTINFO)
_Ancillary = tuple[int, int, bytes]


class QuicSocket:
    """Sends and receives datagrams on a bound, non-blocking socket.

    Datagrams of one size to one address go to the kernel together, which cuts them (UDP_SEGMENT):
    Python has no sendmmsg. What the kernel does not take now is kept, in `waiting`; what it cannot
    deliver at all is lost, as datagrams are.

    A socket that is bound to all addresses answers from the one that was asked: there the address
    of a client ends in an item more, which says that (IP_PKTINFO).
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._segments = True
        self._waiting: deque[Datagram] = deque()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self._is_anywhere = ipaddress.ip_address(sock.getsockname()[0]).is_unspecified
        if self._is_anywhere:
            v6 = sock.family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO) if v6 else _V4
            sock.setsockopt(level, option, 1)

    @property
    def waiting(self) -> int:
        """How many datagrams the kernel has not taken yet."""
        return len(self._waiting)

    def receive(self, take: Callable[[bytes, NetworkAddress], None], seconds: float) -> int:
        """Give datagrams to `take`, for so many seconds; returns how many there were.

        The others wait in the kernel: a handshake takes as long as many messages do.
        """
        end = time.monotonic() + seconds
        received = 0
        while received < READS:
            try:
                data, address = self._read()
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for something that was sent: the connection's timers know better.
                continue
            take(data, address)
            received += 1
            if time.monotonic() >= end:
                break
        return received

    def _read(self) -> tuple[bytes, NetworkAddress]:
        if not self._is_anywhere:
            return self._socket.recvfrom(_MOST_BYTES)
        data, ancillary, _, address = self._socket.recvmsg(_MOST_BYTES, _ANCILLARY_BYTES)
        return data, (*address, _asked(ancillary))

    def send(self, datagrams: Iterable[Datagram]) -> bool:
        """Send datagrams after those that wait; False when some of them have to wait."""
        self._waiting.extend(datagrams)
        while self._waiting:
            run = self._run()
            try:
                self._send_run(run)
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

    def _send_run(self, run: int) -> None:
        data, address = self._waiting[0]
        ancillary: list[_Ancillary] = []
        if self._is_anywhere:
            *address, asked = address
            ancillary = [asked] if asked else []
        if run > 1:
            ancillary.append((_SOL_UDP, _UDP_SEGMENT, struct.pack("H", len(data))))
        elif not ancillary:
            self._socket.sendto(data, tuple(address))
            return
        parts = [self._waiting[at][0] for at in range(run)]
        self._socket.sendmsg(parts, ancillary, 0, tuple(address))


def _asked(ancillary: list[_Ancillary]) -> _Ancillary | None:
    """Return what makes the kernel answer from the address that a datagram was sent to."""
    for level, kind, data in ancillary:
        if (level, kind) == _V4:
            # struct in_pktinfo: interface, local address, address in the header.
            return level, kind, bytes(4) + data[4:8] + bytes(4)
        if (level, kind) == _V6:
            # struct in6_pktinfo: address, interface.
            return level, kind, bytes(data)
    return None
