"""TLS as a layer: OpenSSL between two buffers in memory, without a socket."""

import contextlib
import ssl
from collections.abc import Mapping
from typing import Final

from robustmq.net.layer import Broken, Facts

_RECORD: Final = 16_384
"""Bytes that a record of TLS holds at most (RFC 8446 5.1)."""

_ALTERNATIVE: Final = {"dns": "DNS", "email": "email", "uri": "URI"}


class TlsLayer:
    """One side of a TLS connection: the server's, or with `server_name` the client's.

    The server must be who `server_name` says, as far as the context wants it. `user_from` says
    which part of the client's certificate names its user: common_name, dns, email, uri, or none.
    """

    __slots__ = ("_from_peer", "_tls", "_to_peer", "_user_from", "has_ended", "is_open")

    def __init__(
        self, context: ssl.SSLContext, user_from: str = "none", server_name: str | None = None
    ) -> None:
        self._from_peer = ssl.MemoryBIO()
        self._to_peer = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._from_peer,
            self._to_peer,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._user_from = user_from
        self.is_open = False
        self.has_ended = False

    def receive(self, data: bytes) -> bytes:
        """Take records; return what they hold, b"" during the handshake."""
        self._from_peer.write(data)
        try:
            if not self.is_open:
                self._tls.do_handshake()
                self.is_open = True
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLCertVerificationError as error:
            raise Broken(f"the peer's certificate is refused: {error.verify_message}") from error
        except ssl.SSLError as error:
            what = "a TLS record is wrong" if self.is_open else "no TLS handshake"
            raise Broken(f"{what}: {_reason(error)}") from error

    def _read(self) -> bytes:
        pieces = []
        tls = self._tls
        while self._from_peer.pending or tls.pending():
            try:
                piece = tls.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            if not piece:
                self.has_ended = True
                break
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, data: bytes) -> bytes:
        """Return the records that hold `data`; Broken when the peer has ended the connection."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise Broken(f"nothing can be sent over TLS: {_reason(error)}") from error
        return self._to_peer.read()

    def outgoing(self) -> bytes:
        """Return what the handshake has to say, tickets, and alerts."""
        return self._to_peer.read() if self._to_peer.pending else b""

    def close(self) -> bytes:
        """Return the alert that says that this side has ended (RFC 8446 6.1)."""
        if not self.is_open:
            return b""
        # The peer's own alert is not waited for.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._to_peer.read()

    def tell(self, facts: Facts) -> None:
        """Write down the user that the client's certificate names, if it has shown one."""
        certificate = self._tls.getpeercert() if self._user_from != "none" else None
        if certificate:
            facts.certified = _user(certificate, self._user_from)


def _user(certificate: Mapping[str, object], source: str) -> str | None:
    names: list[tuple[str, str]] = []
    if source == "common_name":
        wanted = "commonName"
        subject = certificate.get("subject", ())
        assert isinstance(subject, tuple)
        names = [attribute for part in subject for attribute in part]
    else:
        wanted = _ALTERNATIVE[source]
        alternative = certificate.get("subjectAltName", ())
        assert isinstance(alternative, tuple)
        names = list(alternative)
    return next((value for kind, value in names if kind == wanted and value), None)


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words: "wrong version number"."""
    return (error.reason or "an unknown error").replace("_", " ").lower()
