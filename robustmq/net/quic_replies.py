"""What a QUIC server says without a connection: Version Negotiation, Retry, refusals and resets."""

import hashlib
import hmac
from typing import Final

from aioquic.quic.connection import NetworkAddress
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicFrameType,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from robustmq.net.quic_steering import TOKEN_BYTES

INITIAL_BYTES: Final = 1_200
"""Bytes of the smallest datagram that may hold an Initial packet (RFC 9000 14.1)."""

_LIFE_MS: Final = 10_000
_MAC_BYTES: Final = 16
_TIME_BYTES: Final = 8
_HEAD_BYTES: Final = _MAC_BYTES + _TIME_BYTES
_MOST_CID_BYTES: Final = 20
_CLOSE_BYTES: Final = 64
_RESET_MOST: Final = 42
_RESET_LEAST: Final = 21
_SHORT_HEADER: Final = 0x40


class RetryTokens:
    """Tokens that show that a client's address is its own (RFC 9000 8.1.2).

    They are good for ten seconds and, as they depend on nothing but `secret`, in every life of a
    worker.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, address: NetworkAddress, original: bytes, retry: bytes, now: float) -> bytes:
        """Return a token for a client that is told to use the id `retry` instead of `original`."""
        said = int(now * 1_000).to_bytes(_TIME_BYTES, "big") + original
        return self._mac(address, retry, said) + said

    def original(
        self, token: bytes, address: NetworkAddress, retry: bytes, now: float
    ) -> bytes | None:
        """Return the id that the client used first; None when the token is not good (any more)."""
        said = token[_MAC_BYTES:]
        if not _HEAD_BYTES <= len(token) <= _HEAD_BYTES + _MOST_CID_BYTES:
            return None
        if not hmac.compare_digest(token[:_MAC_BYTES], self._mac(address, retry, said)):
            return None
        age = int(now * 1_000) - int.from_bytes(said[:_TIME_BYTES], "big")
        return said[_TIME_BYTES:] if 0 <= age <= _LIFE_MS else None

    def _mac(self, address: NetworkAddress, retry: bytes, said: bytes) -> bytes:
        seen = f"{address[0]} {address[1]} ".encode() + bytes((len(retry),)) + retry
        return hmac.digest(self._secret, b"retry" + seen + said, hashlib.sha256)[:_MAC_BYTES]


def retry(version: int, client: bytes, original: bytes, offered: bytes, token: bytes) -> bytes:
    """Return a Retry packet that asks `client` to come again to the id `offered`."""
    return encode_quic_retry(
        version=version,
        source_cid=offered,
        destination_cid=client,
        original_destination_cid=original,
        retry_token=token,
    )


def version_negotiation(client: bytes, server: bytes, versions: list[int]) -> bytes:
    """Return a Version Negotiation packet (RFC 9000 17.2.1)."""
    return encode_quic_version_negotiation(
        source_cid=server, destination_cid=client, supported_versions=versions
    )


def refusal(version: int, client: bytes, original: bytes, code: int) -> bytes:
    """Return an Initial packet that closes, with a transport `code`, what has not begun."""
    keys = CryptoPair()
    keys.setup_initial(cid=original, is_client=False, version=version)
    builder = QuicPacketBuilder(
        host_cid=original,
        is_client=False,
        max_datagram_size=INITIAL_BYTES,
        peer_cid=client,
        version=version,
    )
    builder.start_packet(QuicPacketType.INITIAL, keys)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=_CLOSE_BYTES)
    for number in (code, QuicFrameType.PADDING, 0):
        frame.push_uint_var(number)
    datagrams, _ = builder.flush()
    return bytes(datagrams[0])


def stateless_reset(received: int, token: bytes, noise: bytes) -> bytes | None:
    """Return a stateless reset for a datagram of `received` bytes (RFC 9000 10.3).

    None when that is so short that an answer could be answered for ever (10.3.3). `noise` is at
    least 26 random bytes.
    """
    length = min(received - 1, _RESET_MOST)
    if length < _RESET_LEAST:
        return None
    filler = noise[: length - TOKEN_BYTES]
    return bytes((filler[0] & 0x3F | _SHORT_HEADER,)) + filler[1:] + token
