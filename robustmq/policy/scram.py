"""The server's side of SCRAM (RFC 5802, RFC 7677): two messages in, two messages out."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final

from robustmq.policy.passwords import Verifier

MESSAGE_BYTES: Final = 8_192
"""Bytes of the longest message of a client."""

_NO_BINDING: Final = ("n", "y")


class ScramError(Exception):
    """The client's message is none, or does not prove that it knows the password.

    `wrong` says that it is the proof that is wrong, not the form.
    """

    def __init__(self, sentence: str, wrong: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.wrong = wrong


class ScramServer:
    """One exchange. `find` gives the verifier for a user name, also for one that nobody has.

    `nonce` is the server's part of the nonce: printable ASCII without a comma, never used before.
    """

    def __init__(self, find: Callable[[str], Verifier], nonce: str) -> None:
        self.username = ""
        self._find = find
        self._nonce = nonce
        self._doubled = ""
        self._header = ""
        self._bare = ""
        self._challenge = ""
        self._verifier: Verifier | None = None

    @property
    def is_begun(self) -> bool:
        """Say whether the client's first message was taken."""
        return self._verifier is not None

    def first(self, message: bytes) -> bytes:
        """Take the client's first message; returns the server's first. Raises ScramError."""
        binding, _, rest = _text(message).partition(",")
        authority, comma, bare = rest.partition(",")
        if binding.startswith("p="):
            raise ScramError("channel binding is not offered: begin with n,,")
        if binding not in _NO_BINDING or not comma:
            raise ScramError("the first message of SCRAM does not begin with n,,")
        fields = _fields(bare, "n", "r")
        self.username = _name(fields["n"])
        if authority and (authority[:2] != "a=" or _name(authority[2:]) != self.username):
            raise ScramError("nobody may act for another user")
        self._header = f"{binding},{authority},"
        self._bare = bare
        self._nonce = fields["r"] + self._nonce
        # librdkafka before 2.6.1 puts its own part in front once more. The proof covers it.
        self._doubled = fields["r"] + self._nonce
        verifier = self._verifier = self._find(self.username)
        salt = b64encode(verifier.salt).decode()
        self._challenge = f"r={self._nonce},s={salt},i={verifier.iterations}"
        return self._challenge.encode()

    def final(self, message: bytes) -> bytes:
        """Take the client's final message; returns the server's. Raises ScramError."""
        verifier = self._verifier
        assert verifier is not None
        text = _text(message)
        without_proof, _, _ = text.rpartition(",p=")
        fields = _fields(text, "c", "r", "p")
        is_ours = fields["r"] in {self._nonce, self._doubled}
        if _decoded(fields["c"]) != self._header.encode() or not is_ours:
            raise ScramError("the final message of SCRAM belongs to another exchange", wrong=True)
        digest = verifier.digest
        exchanged = f"{self._bare},{self._challenge},{without_proof}".encode()
        signature = hmac.digest(verifier.stored_key, exchanged, digest)
        proof = _decoded(fields["p"])
        key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
        stored = hashlib.new(digest, key).digest()
        if len(proof) != len(signature) or not hmac.compare_digest(stored, verifier.stored_key):
            raise ScramError("the user name or the password is wrong", wrong=True)
        return b"v=" + b64encode(hmac.digest(verifier.server_key, exchanged, digest))


def _text(message: bytes) -> str:
    if len(message) > MESSAGE_BYTES:
        raise ScramError(f"a message of SCRAM has more than {MESSAGE_BYTES} bytes")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("a message of SCRAM is not UTF-8") from None


def _fields(text: str, *names: str) -> dict[str, str]:
    """The attributes of a message, which begin with `names` in this order (RFC 5802 5.1).

    Extensions may follow the nonce; one that is mandatory (`m=`) is none that we know.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or len(name) != 1 or name in fields:
            raise ScramError("a message of SCRAM is malformed")
        fields[name] = value
    known = [name for name in fields if name in names]
    if known != [*names] or next(iter(fields)) != names[0] or not fields["r"]:
        raise ScramError("a message of SCRAM lacks an attribute, or has an unknown one first")
    return fields


def _name(text: str) -> str:
    """A user name without its escapes (RFC 5802 5.1, saslname)."""
    name = text.replace("=2C", ",").replace("=3D", "=")
    if not name or text.count("=") != text.count("=2C") + text.count("=3D"):
        raise ScramError("the user name of SCRAM is malformed")
    return name


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ScramError("a message of SCRAM is not base64 where it must be") from None
