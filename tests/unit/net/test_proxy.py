"""PROXY headers of both versions: what they say, and what is none."""

import socket
import struct

import pytest

from robustmq._kernel.crc import crc32c
from robustmq.net.layer import Broken, Facts
from robustmq.net.proxy import SIGNATURE, Header, ProxyLayer, parse

MOST = 4_096
V4 = struct.pack("!4s4sHH", socket.inet_aton("192.0.2.1"), socket.inet_aton("10.0.0.1"), 5, 6)
V6 = struct.pack("!16s16sHH", socket.inet_pton(socket.AF_INET6, "2001:db8::1"), bytes(16), 5, 6)


def version_2(body: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def field(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def certificate(name: bytes, client: int = 0x03, unverified: int = 0) -> bytes:
    return field(0x20, struct.pack("!BI", client, unverified) + field(0x22, name))


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 65535 0\r\n", "192.0.2.1"),
        (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (version_2(V4), "192.0.2.1"),
        (version_2(V6, 0x21), "2001:db8::1"),
        (version_2(V4, 0x12), "192.0.2.1"),
        (version_2(bytes(216), 0x31), None),
        (version_2(b"", 0x00), None),
        (version_2(b"anything", 0x70), None),
        (version_2(V4, command=0x20), None),
        (version_2(b"", command=0x20), None),
        (version_2(V4 + field(0x01, b"h2") + field(0x04, bytes(9))), "192.0.2.1"),
    ],
)
def test_who_the_client_is(data: bytes, address: str | None) -> None:
    assert parse(data + b"\x10rest", MOST) == Header(len(data), address, None)
    assert all(parse(data[:length], MOST) is None for length in range(len(data)))


@pytest.mark.parametrize(
    ("body", "user"),
    [
        (certificate(b"alice"), "alice"),
        (certificate(b"alice", client=0x05), "alice"),
        (certificate(b"alice", client=0x01), None),
        (certificate(b"alice", unverified=1), None),
        (certificate(b""), None),
        (field(0x20, struct.pack("!BI", 7, 0) + field(0x21, b"TLSv1.3")), None),
    ],
)
def test_whom_a_certificate_names(body: bytes, user: str | None) -> None:
    header = parse(version_2(V4 + body), MOST)
    assert header is not None
    assert header.certified == user


def test_a_checksum_is_compared() -> None:
    blank = version_2(V4 + field(0x03, bytes(4)) + field(0x04, b"x"))
    at = blank.index(field(0x03, bytes(4))) + 3
    right = blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]
    assert parse(right, MOST) == Header(len(right), "192.0.2.1", None)
    with pytest.raises(Broken, match="checksum"):
        parse(blank, MOST)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x10\x0c\x00\x04MQTT", "must send a PROXY header"),
        (b"PROXX", "must send a PROXY header"),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n", "does not name"),
        (b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n", "does not name"),
        (b"PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n", "holds no IP address"),
        (b"PROXY TCP4 \xff 10.0.0.1 1 2\r\n", "holds no IP address"),
        (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", "do not fit"),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n", "do not fit"),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 -1 2\r\n", "do not fit"),
        (b"PROXY UNKNOWN" + b" " * 107, "more than 107 bytes"),
        (version_2(V4, command=0x31), "unknown command"),
        (version_2(V4, command=0x22), "unknown command"),
        (version_2(V4[:-1]), "ends within its addresses"),
        (version_2(V4 + b"\x04"), "ends within a field"),
        (version_2(V4 + b"\x04\0\5abc"), "ends within a field"),
        (version_2(V4 + field(0x20, b"\1")), "ends within a field"),
        (version_2(V4 + certificate(b"\xff")), "not UTF-8"),
        (SIGNATURE + b"\x21\x11\xff\xff", "exceeds 4096"),
    ],
)
def test_what_is_no_header(data: bytes, why: str) -> None:
    with pytest.raises(Broken, match=why):
        parse(data, MOST)


@pytest.mark.parametrize("takes_user", [True, False])
def test_the_layer_takes_the_header_and_passes_the_rest(takes_user: bool) -> None:
    layer = ProxyLayer(MOST, takes_user)
    data = version_2(V4 + certificate(b"alice"))
    assert (layer.receive(data[:20]), layer.is_open) == (b"", False)
    assert (layer.receive(data[20:] + b"mqtt"), layer.is_open) == (b"mqtt", True)
    assert (layer.receive(data), layer.send(b"x")) == (data, b"x")
    assert (layer.outgoing(), layer.close(), layer.has_ended) == (b"", b"", False)
    facts = Facts("127.0.0.1")
    layer.tell(facts)
    assert (facts.address, facts.certified) == ("192.0.2.1", "alice" if takes_user else None)
