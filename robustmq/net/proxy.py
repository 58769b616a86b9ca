"""The PROXY protocol, versions 1 and 2: who a load balancer's client really is.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

import ipaddress
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from robustmq._kernel.crc import crc32c
from robustmq.net.layer import Broken, Facts

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""How a header of version 2 begins."""

_V1: Final = b"PROXY "
_V1_MAX: Final = 107
"""Bytes of the longest header of version 1, its line end included (2.1)."""

_V2: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")
_SSL: Final = struct.Struct("!BI")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES: Final = {0x1: (12, 4), 0x2: (36, 16), 0x3: (216, 0)}
"""By family: bytes of the addresses, and of the source's IP address in front of them."""

_CRC32C, _SSL_INFO, _SSL_CN = 0x03, 0x20, 0x22
_CERT_SHOWN: Final = 0x02 | 0x04
"""A client certificate was shown, over this connection or in the session before it (2.2.5)."""


class Header(NamedTuple):
    """A whole header: its bytes, and what it says of the client.

    `address` is None when the connection is the proxy's own or of a kind that has none;
    `certified` is the common name of a certificate that the proxy has verified.
    """

    length: int
    address: str | None
    certified: str | None


def parse(data: bytes, max_bytes: int) -> Header | None:
    """Read the header that `data` begins with; None when more is needed.

    A header of version 2 may have `max_bytes`. Raises Broken as soon as it cannot be a header.
    """
    if data.startswith(_V1[: len(data)]):
        return _version_1(data) if len(data) > len(_V1) else None
    if data.startswith(SIGNATURE[: len(data)]):
        return _version_2(data, max_bytes) if len(data) >= _V2.size else None
    raise Broken("a proxy's network must send a PROXY header first")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise Broken(f"a PROXY header of version 1 has more than {_V1_MAX} bytes")
        return None
    words = data[len(_V1) : end].split(b" ")
    if words[0] == b"UNKNOWN":
        return Header(end + 2, None, None)
    versions = {b"TCP4": 4, b"TCP6": 6}
    if len(words) != 5 or words[0] not in versions:
        raise Broken("a PROXY header of version 1 does not name TCP4, TCP6 or UNKNOWN and its ends")
    try:
        source, target = (ipaddress.ip_address(word.decode("ascii")) for word in words[1:3])
    except ValueError as error:
        raise Broken("a PROXY header of version 1 holds no IP address") from error
    ports = [int(word) for word in words[3:] if word.isdigit() and len(word) <= 5]
    if (
        len(ports) != 2
        or max(ports) > 65_535
        or {source.version, target.version} != {versions[words[0]]}
    ):
        raise Broken("a PROXY header of version 1 holds ends that do not fit together")
    return Header(end + 2, str(source), None)


def _version_2(data: bytes, max_bytes: int) -> Header | None:
    _, command, family, size = _V2.unpack_from(data)
    if command not in {_LOCAL, _PROXY}:
        raise Broken(f"a PROXY header of version 2 has the unknown command 0x{command:02x}")
    end = _V2.size + size
    if end > max_bytes:
        raise Broken(f"a PROXY header of {end} bytes exceeds {max_bytes}")
    if len(data) < end:
        return None
    header = data[:end]
    length, address_bytes = _ADDRESS_BYTES.get(family >> 4, (0, 0))
    if command == _LOCAL:
        return Header(end, None, None)
    if size < length:
        raise Broken("a PROXY header of version 2 ends within its addresses")
    address = None
    if address_bytes:
        packed = header[_V2.size : _V2.size + address_bytes]
        address = str(ipaddress.ip_address(packed))
    if family >> 4 not in {*_ADDRESS_BYTES, 0}:
        # A family of the future: where its addresses end is not known.
        return Header(end, None, None)
    certified = None
    for kind, start, stop in _tlvs(header, _V2.size + length, end):
        if kind == _SSL_INFO:
            certified = _common_name(header, start, stop)
        elif kind == _CRC32C:
            _check(header, start, stop)
    return Header(end, address, certified)


def _tlvs(header: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, start, stop) of each field."""
    while at < end:
        if at + _TLV.size > end:
            raise Broken("a PROXY header of version 2 ends within a field")
        kind, size = _TLV.unpack_from(header, at)
        at += _TLV.size
        if at + size > end:
            raise Broken("a PROXY header of version 2 ends within a field")
        yield kind, at, at + size
        at += size


def _check(header: bytes, start: int, stop: int) -> None:
    """Compare the checksum of the whole header, its own bytes taken for zeros (2.2.3)."""
    blank = header[:start] + bytes(stop - start) + header[stop:]
    if stop - start != 4 or crc32c(blank) != int.from_bytes(header[start:stop], "big"):
        raise Broken("the checksum of a PROXY header is wrong")


def _common_name(header: bytes, start: int, stop: int) -> str | None:
    if stop - start < _SSL.size:
        raise Broken("a PROXY header of version 2 ends within a field")
    client, unverified = _SSL.unpack_from(header, start)
    if unverified or not client & _CERT_SHOWN:
        return None
    for kind, at, end in _tlvs(header, start + _SSL.size, stop):
        if kind == _SSL_CN:
            try:
                return header[at:end].decode() or None
            except UnicodeDecodeError as error:
                raise Broken("the common name in a PROXY header is not UTF-8") from error
    return None


class ProxyLayer:
    """The header in front of everything else that a proxy sends; nothing goes the other way."""

    __slots__ = ("_beginning", "_header", "_max_bytes", "_takes_user", "is_open")

    has_ended = False

    def __init__(self, max_bytes: int, takes_user: bool) -> None:
        self._beginning = b""
        self._header: Header | None = None
        self._max_bytes = max_bytes
        self._takes_user = takes_user
        self.is_open = False

    def receive(self, data: bytes) -> bytes:
        """Take the header; return what follows it."""
        if self.is_open:
            return data
        self._beginning += data
        self._header = parse(self._beginning, self._max_bytes)
        if self._header is None:
            return b""
        self.is_open = True
        rest, self._beginning = self._beginning[self._header.length :], b""
        return rest

    def send(self, data: bytes) -> bytes:
        """Return what goes down, which is the same."""
        return data

    def outgoing(self) -> bytes:
        """Return nothing: no answer is given to a proxy."""
        return b""

    def close(self) -> bytes:
        """Return nothing: a proxy is told nothing."""
        return b""

    def tell(self, facts: Facts) -> None:
        """Write down who the client is."""
        assert self._header is not None
        apply(self._header, facts, takes_user=self._takes_user)


def apply(header: Header, facts: Facts, *, takes_user: bool) -> None:
    """Write down what a header says; the user of a certificate only when `takes_user`."""
    if header.address is not None:
        facts.address = header.address
    if takes_user:
        facts.certified = header.certified
