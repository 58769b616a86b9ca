"""A WebSocket client's bytes, made without any library, so that tests can break every rule."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK: Final = b"\x37\xfa\x21\x3d"


def masked(payload: bytes, opcode: int = BINARY, fin: bool = True) -> bytes:
    """Return a client's frame."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | length,))
    elif length < 65_536:
        head = bytes((0xFE,)) + length.to_bytes(2, "big")
    else:
        head = bytes((0xFF,)) + length.to_bytes(8, "big")
    key = (_MASK * (length // 4 + 1))[:length]
    masked_payload = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    body = masked_payload.to_bytes(length, "big")
    return bytes((opcode | (0x80 if fin else 0),)) + head + _MASK + body


def request(target: str = "/mqtt", method: str = "GET", **changes: str | None) -> bytes:
    """Return an opening handshake; `changes` replaces headers ("_" for "-"), None removes one."""
    headers: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def accept_of(key: str = KEY) -> str:
    """Return what the server proves with that it has read the key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


def split_head(data: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """Return the status, the headers in lower case, and what stands behind them."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}, rest


def next_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return a server's frame as first byte, payload and what follows; None if it is not whole."""
    if len(data) < 2:
        return None
    first, length = data[0], data[1]
    assert not length & 0x80, "a server masks nothing"
    start = {126: 4, 127: 10}.get(length, 2)
    if start > 2:
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        return None
    return first, data[start : start + length], data[start + length :]


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return a server's frames as (first byte, payload); the data ends with a frame."""
    found = []
    while data:
        frame = next_frame(data)
        assert frame is not None, "the last frame is whole"
        first, payload, data = frame
        found.append((first, payload))
    return found
