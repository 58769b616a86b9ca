"""WebSocket below MQTT: the server's side of RFC 6455, as a Layer.

The opening handshake is the library's (`websockets`), cut out of the stream and bounded here;
frames are the kernel's. A payload rises as it comes, whole frame or not, and what a turn sends
is one binary message. Extensions are not negotiated, so there is nothing to decompress.
"""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from robustmq._kernel.websocket import FrameReader
from robustmq.net.layer import Broken, Facts

SUBPROTOCOLS: Final = ("mqtt", "mqttv3.1")
"""What a client offers to speak MQTT; the first one that it offers is chosen (MQTT5 6)."""

_HEAD_END: Final = b"\r\n\r\n"
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PONG: Final = 0x8A
_NORMAL: Final = 1000

# What the library has to say of a handshake is said to the client.
_SILENT: Final = logging.getLogger(f"{__name__}.handshake")
_SILENT.disabled = True


@dataclass(frozen=True, slots=True)
class Terms:
    """What a listener asks of WebSocket clients.

    `path` is where MQTT is; `origins` are the pages whose scripts may connect, all when empty;
    `max_head` bounds the request in bytes, `max_message` a client's message.
    """

    path: str
    origins: tuple[str, ...]
    max_head: int
    max_message: int


class WebSocket:
    """The server's end of one WebSocket connection; a Layer."""

    __slots__ = ("_ended", "_facts", "_frames", "_head", "_terms", "_words", "is_open")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._head = b""
        self._words = b""
        self._facts = Facts()
        self._frames = FrameReader(terms.max_message)
        # Our Close frame, or the refusal of the handshake, is among what was given to send.
        self._ended = False
        self.is_open = False

    @property
    def has_ended(self) -> bool:
        """Say whether nothing that the client still sends is taken: it, or a mistake, ended it."""
        return self._frames.close is not None or self._frames.failure is not None

    def receive(self, data: bytes) -> bytes:
        """Take bytes from below; return those of MQTT in it.

        Raises Broken when the handshake is refused or a frame breaks RFC 6455; the answer or the
        Close frame is among `outgoing` then. What came before a mistake is returned first: it
        counts, however the stream was cut.
        """
        if data and not self.is_open:
            data = self._shake_hands(data)
        if not data or self._ended:
            return b""
        frames = self._frames
        plain = frames.feed(data)
        if frames.ping is not None:
            self._words += _frame(_PONG, frames.ping)
            frames.ping = None
        mistake = frames.failure
        if frames.close is not None:
            mistake = self._answer_close(frames.close)
        if mistake is not None:
            code, detail = mistake
            self._end(Close(code, detail))
            if not plain:
                raise Broken(f"WebSocket {code}: {detail}")
        return plain

    def send(self, data: bytes) -> bytes:
        """Return one binary message that holds `data`; nothing after a Close frame."""
        return b"" if self._ended else _frame(_BINARY, data)

    def outgoing(self) -> bytes:
        """Return the answer to the handshake, pongs and the Close frame that are due."""
        words, self._words = self._words, b""
        return words

    def close(self) -> bytes:
        """Return the Close frame, unless one was sent or there is nobody to read it."""
        if self.is_open:
            self._end(Close(_NORMAL, ""))
        return self.outgoing()

    def tell(self, facts: Facts) -> None:
        """Write down which path and which origin the request named."""
        facts.path = self._facts.path
        facts.origin = self._facts.origin

    def _end(self, close: Close) -> None:
        if not self._ended:
            self._ended = True
            self._words += _frame(_CLOSE, close.serialize())

    def _answer_close(self, payload: bytes) -> tuple[int, str] | None:
        """Answer a Close frame with its own code (RFC 6455 5.5.1), or return what is wrong."""
        if not payload:
            self._end(Close(_NORMAL, ""))
            return None
        try:
            close = Close.parse(payload)
            close.check()
        except UnicodeDecodeError:
            return 1007, "the reason of a Close frame is UTF-8"
        except ProtocolError:
            return 1002, "a Close frame names a code that may be sent"
        self._end(Close(close.code, ""))
        return None

    # ------------------------------------------------------------------ handshake

    def _shake_hands(self, data: bytes) -> bytes:
        """Take a part of the request; return what stands behind it when it was accepted."""
        searched = max(0, len(self._head) - len(_HEAD_END) + 1)
        self._head += data
        end = self._head.find(_HEAD_END, searched)
        if not self._head[:1].isalpha():
            self._ended = True
            raise Broken("no WebSocket: the first bytes are not HTTP")
        if (len(self._head) if end < 0 else end) > self._terms.max_head:
            self._refuse(
                _refusal(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"The request has more than {self._terms.max_head} bytes.",
                )
            )
        if end < 0:
            return b""
        end += len(_HEAD_END)
        rest, head = self._head[end:], self._head[:end]
        self._head = b""
        self._accept(head)
        return rest

    def _accept(self, head: bytes) -> None:
        """Answer a whole request: 101, or a refusal and Broken."""
        origins = [Origin(each) for each in self._terms.origins]
        protocol = ServerProtocol(
            # Clients that are no browsers name no origin, and may come.
            origins=[*origins, None] if origins else None,
            subprotocols=[Subprotocol(each) for each in SUBPROTOCOLS],
            logger=_SILENT,
        )
        protocol.receive_data(head)
        # The library's parser and its protocol hold each other; so they end with the handshake.
        protocol.parser.close()
        requests = [each for each in protocol.events_received() if isinstance(each, Request)]
        if not requests:
            self._refuse(_refusal(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1."))
        request = requests[0]
        path = request.path.partition("?")[0]
        if path != self._terms.path:
            text = f"There is nothing here. MQTT over WebSocket is at {self._terms.path}."
            self._refuse(_refusal(HTTPStatus.NOT_FOUND, text))
        response = protocol.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response)
        self._facts = Facts(path=path, origin=protocol.origin)
        self._words += response.serialize()
        self.is_open = True

    def _refuse(self, response: Response) -> None:
        self._ended = True
        self._head = b""
        self._words += response.serialize()
        raise Broken(f"WebSocket handshake refused with {response.status_code}")


def _refusal(status: HTTPStatus, sentence: str) -> Response:
    body = f"{sentence}\n".encode()
    headers = Headers(
        [
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)


def _frame(first: int, payload: bytes) -> bytes:
    """Return a whole frame; a server's frames are not masked (RFC 6455 5.1)."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65_536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload
