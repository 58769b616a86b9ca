"""What is kept of a password: enough to check it, too little to use it."""

import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

METHODS: Final[Mapping[str, str]] = MappingProxyType(
    {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
)
"""The methods of SCRAM that are spoken (RFC 7677), and the digest of each."""

ITERATIONS: Final = 4_096
"""Rounds of PBKDF2 unless somebody wants more (RFC 7677 4: at least 4096)."""

_SCRAM: Final = re.compile(r"(SCRAM-SHA-\d+)\$(\d+):([^$]*)\$([^:]+):(.+)")
_HASHED: Final = re.compile(r"\$7\$(\d+)\$([^$]*)\$(.+)")

_NOTHING: Final = stringprep.in_table_b1
_FORBIDDEN: Final = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3,
    stringprep.in_table_c4, stringprep.in_table_c5, stringprep.in_table_c6,
    stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9,
    stringprep.in_table_a1,
)  # fmt: skip


class Verifier(msgspec.Struct, frozen=True):
    """A salted hash of a password, as SCRAM has it or plain.

    `method` is one of METHODS, or None: then `stored_key` is what PBKDF2 gives, and SCRAM
    cannot use it. `stored_key` and `server_key` are those of RFC 5802 3.
    """

    method: str | None
    digest: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes = b""

    def matches(self, password: bytes) -> bool:
        """Say whether this is the password; takes milliseconds of processor time."""
        salted = hashlib.pbkdf2_hmac(self.digest, password, self.salt, self.iterations)
        key = salted if self.method is None else _stored_key(self.digest, salted)
        return hmac.compare_digest(key, self.stored_key)


def verifier(text: str) -> Verifier:
    """Read a verifier in one of the three formats that the configuration takes (`User.password`).

    Raises ValueError for any other text.
    """
    if found := _SCRAM.fullmatch(text):
        method, rounds, salt, stored, server = found.groups()
        if method in METHODS:
            keys = (b64decode(each, validate=True) for each in (salt, stored, server))
            return Verifier(method, METHODS[method], int(rounds), *keys)
    if found := _HASHED.fullmatch(text):
        rounds, salt, key = found.groups()
        return Verifier(None, "sha512", int(rounds), b64decode(salt), b64decode(key))
    raise ValueError("a password is kept as SCRAM-SHA-256, SCRAM-SHA-512 or $7$")


def written(method: str, password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """The text of a verifier for a password, as PostgreSQL has it; `method` is one of METHODS."""
    prepared_password = prepared(password.encode())
    salted = hashlib.pbkdf2_hmac(METHODS[method], prepared_password, salt, iterations)
    return kept(method, salted, salt, iterations)


def kept(method: str, salted: bytes, salt: bytes, iterations: int) -> str:
    """The text of a verifier for a password that is salted already (RFC 5802 3)."""
    digest = METHODS[method]
    stored = _stored_key(digest, salted)
    server = hmac.digest(salted, b"Server Key", digest)
    parts = (b64encode(each).decode() for each in (salt, stored, server))
    return "{}${}:{}${}:{}".format(method, iterations, *parts)


def prepared(password: bytes) -> bytes:
    """The password as SASLprep makes it alike (RFC 4013); one that it forbids stays as it is."""
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    if text.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each for each in text if not _NOTHING(each)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if any(table(each) for each in normal for table in _FORBIDDEN):
        return password
    return normal.encode()


def _stored_key(digest: str, salted: bytes) -> bytes:
    return hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
