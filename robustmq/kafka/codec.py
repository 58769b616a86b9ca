"""Kafka's requests and responses, from bytes and to bytes.

Messages are without the four bytes of their size. Everything that decodes raises ProtocolError for
bytes that are no message, and makes nothing that is larger than the bytes justify.
"""

import struct
from functools import cache
from typing import Final, NamedTuple

from robustmq.errors import ProtocolError
from robustmq.kafka.api_keys import SPOKEN, ApiKey
from robustmq.kafka.decoder import Decode, compile_decoder
from robustmq.kafka.encoder import Encode, compile_encoder
from robustmq.kafka.schema import Message
from robustmq.kafka.wire import malformed, skip_tags

MAX_ELEMENTS: Final = 250_000
"""How many elements the arrays of a message have at most in all, unless another limit is given."""

_REQUEST: Final = struct.Struct(">hhih")
_RESPONSE: Final = struct.Struct(">i")


class RequestHeader(NamedTuple):
    """The header of a request; the body begins at `body_at`."""

    api: int
    version: int
    correlation_id: int
    client_id: str | None
    body_at: int


def decode_request_header(data: bytes, at: int = 0) -> RequestHeader:
    """Read the header of a request, of whatever API and version."""
    try:
        api, version, correlation_id, size = _REQUEST.unpack_from(data, at)
        at += _REQUEST.size
        client_id = None
        if size >= 0:
            client_id = data[at : at + size].decode()
            at += size
        known = SPOKEN.get(api)
        if known is not None and known.is_flexible(version):
            at = skip_tags(data, at)
    except (IndexError, struct.error):
        raise malformed("The header of a request ends too early.") from None
    except UnicodeDecodeError:
        raise malformed("The client id of a request is not UTF-8.") from None
    if at > len(data):
        raise malformed("The header of a request ends too early.")
    return RequestHeader(api, version, correlation_id, client_id, at)


def decode_request(
    api: int, version: int, data: bytes, at: int, max_elements: int = MAX_ELEMENTS
) -> Message:
    """Read the body of a request, of a version that `SPOKEN` speaks; what follows it is ignored."""
    return _decoded(_request_decoder(api, version), api, version, data, at, max_elements)


def encode_response(api: int, version: int, correlation_id: int, response: Message) -> list[bytes]:
    """Write a response with its header, in pieces; large batches are pieces of their own."""
    out = bytearray(_RESPONSE.pack(correlation_id))
    # Clients that do not know our versions yet read it: without tags in all versions.
    if SPOKEN[api].is_flexible(version) and api != ApiKey.API_VERSIONS:
        out.append(0)
    pieces: list[bytes] = []
    _response_encoder(api, version)(response, out, pieces)
    if out:
        pieces.append(bytes(out))
    return pieces


def encode_request(
    api: int, version: int, correlation_id: int, client_id: str | None, request: Message
) -> list[bytes]:
    """Write a request with its header, in pieces as `encode_response` does."""
    name = b"" if client_id is None else client_id.encode()
    size = -1 if client_id is None else len(name)
    out = bytearray(_REQUEST.pack(api, version, correlation_id, size))
    out += name
    if SPOKEN[api].is_flexible(version):
        out.append(0)
    pieces: list[bytes] = []
    _request_encoder(api, version)(request, out, pieces)
    if out:
        pieces.append(bytes(out))
    return pieces


def decode_response(
    api: int, version: int, data: bytes, max_elements: int = MAX_ELEMENTS
) -> tuple[int, Message]:
    """Return a response's correlation id, and the response."""
    try:
        (correlation_id,) = _RESPONSE.unpack_from(data)
        at = _RESPONSE.size
        if SPOKEN[api].is_flexible(version) and api != ApiKey.API_VERSIONS:
            at = skip_tags(data, at)
    except (IndexError, struct.error):
        raise malformed("The header of a response ends too early.") from None
    decode = _response_decoder(api, version)
    return correlation_id, _decoded(decode, api, version, data, at, max_elements)


def _decoded(  # noqa: PLR0917
    decode: Decode, api: int, version: int, data: bytes, at: int, max_elements: int
) -> Message:
    try:
        return decode(data, at, max_elements)
    except (IndexError, struct.error):
        detail = "It ends too early."
    except UnicodeDecodeError:
        detail = "A text in it is not UTF-8."
    except ProtocolError as error:
        detail = error.detail
    raise malformed(f"This is no {SPOKEN[api].name} of version {version}: {detail}")


@cache
def _request_decoder(api: int, version: int) -> Decode:
    spoken = SPOKEN[api]
    return compile_decoder(spoken.request, version, is_flexible=spoken.is_flexible(version))


@cache
def _request_encoder(api: int, version: int) -> Encode:
    spoken = SPOKEN[api]
    return compile_encoder(spoken.request, version, is_flexible=spoken.is_flexible(version))


@cache
def _response_decoder(api: int, version: int) -> Decode:
    spoken = SPOKEN[api]
    return compile_decoder(spoken.response, version, is_flexible=spoken.is_flexible(version))


@cache
def _response_encoder(api: int, version: int) -> Encode:
    spoken = SPOKEN[api]
    return compile_encoder(spoken.response, version, is_flexible=spoken.is_flexible(version))
