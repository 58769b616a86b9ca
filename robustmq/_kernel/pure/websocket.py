"""The frames of a WebSocket client, unmasked and taken apart (RFC 6455 5): readable twin."""

from __future__ import annotations

from typing import Final

_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_MAX_CONTROL: Final = 125


class FrameReader:
    """What one client sends: `feed` takes bytes as they come and returns those of its messages.

    A frame need not be complete: its payload is given as far as it has come, so nothing is kept
    but the beginning of a frame's head and of a control frame. `ping` is the payload of the
    last ping since it was None (RFC 6455 5.5.3: only the last one need be answered). `close`
    is the payload of the client's close frame, `failure` the status code and the reason of its
    first mistake; after either of them nothing more is taken. A message of more than
    `max_message` bytes is a mistake. A length in more bytes than it needs is none: clients in
    the field write such.
    """

    __slots__ = (
        "_control",
        "_head",
        "_in_message",
        "_left",
        "_mask",
        "_max_message",
        "_message",
        "_opcode",
        "close",
        "failure",
        "ping",
    )

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._head = b""
        self._mask = b""
        self._opcode = _BINARY
        # Bytes of the frame's payload that are still to come, and of the message so far.
        self._left = 0
        self._message = 0
        self._in_message = False
        self._control = b""
        self.ping: bytes | None = None
        self.close: bytes | None = None
        self.failure: tuple[int, str] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what the socket gave; return the bytes of messages in it, unmasked."""
        data = self._head + data
        self._head = b""
        at = 0
        out: list[bytes] = []
        while at < len(data) and self.close is None and self.failure is None:
            if self._left == 0:
                head = self._read_head(data, at)
                if head == 0 or self.failure is not None:
                    break
                at += head
            if self._left or self._opcode >= _CLOSE:
                chunk = self._unmask(data[at : at + self._left])
                at += len(chunk)
                if self._opcode < _CLOSE:
                    out.append(chunk)
                else:
                    self._take_control(chunk)
        return b"".join(out)

    def _read_head(self, data: bytes, at: int) -> int:
        """Begin the frame whose head is at `at`; return the head's length, 0 when it cannot yet.

        The frame begins with its payload to come in `_left`, or with a `failure`.
        """
        if len(data) - at < 2:
            self._head = data[at:]
            return 0
        first, length = data[at], data[at + 1]
        self.failure = self._mistake(first, length)
        if self.failure is not None:
            return 0
        length &= 127
        size = {126: 8, 127: 14}.get(length, 6)
        if len(data) - at < size:
            self._head = data[at:]
            return 0
        if size > 6:
            length = int.from_bytes(data[at + 2 : at + size - 4], "big")
        self._mask = data[at + size - 4 : at + size]
        self.failure = self._begin(first, length)
        return size

    def _mistake(self, first: int, second: int) -> tuple[int, str] | None:
        """Return what is wrong with the first two bytes of a frame (RFC 6455 5.2)."""
        opcode = first & 15
        if first & 0x70:
            return 1002, "a reserved bit is set, and no extension was negotiated"
        if not second & 0x80:
            return 1002, "a frame from a client is masked"
        if opcode >= _CLOSE:
            if opcode > _PONG:
                return 1002, f"opcode {opcode} is reserved"
            if not first & 0x80:
                return 1002, "a control frame is not fragmented"
            if second & 127 > _MAX_CONTROL:
                return 1002, "a control frame has at most 125 bytes"
        elif opcode > _BINARY:
            return 1002, f"opcode {opcode} is reserved"
        elif opcode == _CONTINUATION and not self._in_message:
            return 1002, "there is no message to continue"
        elif opcode != _CONTINUATION and self._in_message:
            return 1002, "a message begins within another one"
        elif opcode == _TEXT:
            return 1003, "MQTT is sent in binary messages"
        return None

    def _begin(self, first: int, length: int) -> tuple[int, str] | None:
        """Begin a frame of `length` bytes, or return what is wrong with that."""
        self._opcode = first & 15
        self._left = length
        if self._opcode >= _CLOSE:
            self._control = b""
            return None
        if length >> 63:
            return 1002, "the length of a frame has 63 bits"
        if not self._in_message:
            self._message = 0
        self._message += length
        self._in_message = not first & 0x80
        if self._message > self._max_message:
            return 1009, f"a message has at most {self._max_message} bytes"
        return None

    def _unmask(self, chunk: bytes) -> bytes:
        """Return the payload that `chunk` is masked of; the next one goes on where it ends."""
        length = len(chunk)
        self._left -= length
        key = (self._mask * (length // 4 + 1))[:length]
        turned = length % 4
        self._mask = self._mask[turned:] + self._mask[:turned]
        return (int.from_bytes(chunk, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")

    def _take_control(self, chunk: bytes) -> None:
        self._control += chunk
        if self._left:
            return
        if self._opcode == _PING:
            self.ping = self._control
        elif self._opcode == _CLOSE:
            self.close = self._control
        # The frame is done: what follows begins a new one.
        self._opcode = _BINARY
