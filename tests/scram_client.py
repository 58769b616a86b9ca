"""The client's side of SCRAM (RFC 5802), for tests of the server's."""

import hashlib
import hmac
from base64 import b64decode, b64encode

from robustmq.policy.passwords import METHODS


class ScramClient:
    """Proves that it knows a password, and checks that the server knows it too."""

    def __init__(
        self, username: str, password: str, method: str = "SCRAM-SHA-256", nonce: str = "client"
    ) -> None:
        self._digest = METHODS[method]
        self._password = password
        self._bare = f"n={username},r={nonce}"
        self._exchanged = b""
        self._salted = b""

    def first(self, header: str = "n,,") -> bytes:
        """The first message."""
        self._header = header
        return (header + self._bare).encode()

    def final(self, challenge: bytes, prefix: str = "") -> bytes:
        """The final message, for the server's first; `prefix` is written before the nonce."""
        fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salt, rounds = b64decode(fields["s"]), int(fields["i"])
        self._salted = hashlib.pbkdf2_hmac(self._digest, self._password.encode(), salt, rounds)
        without_proof = f"c={b64encode(self._header.encode()).decode()},r={prefix}{fields['r']}"
        self._exchanged = ",".join((self._bare, challenge.decode(), without_proof)).encode()
        key = hmac.digest(self._salted, b"Client Key", self._digest)
        stored = hashlib.new(self._digest, key).digest()
        signature = hmac.digest(stored, self._exchanged, self._digest)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def is_server(self, last: bytes) -> bool:
        """Say whether the server's final message proves that it knows the password."""
        key = hmac.digest(self._salted, b"Server Key", self._digest)
        return last == b"v=" + b64encode(hmac.digest(key, self._exchanged, self._digest))
