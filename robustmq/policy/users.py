"""Who may connect: an image of all users, made anew when they change."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

import msgspec

from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.policy.passwords import ITERATIONS, METHODS, Verifier, verifier
from robustmq.settings.users import User

_SALT_BYTES: Final = 16


class Account(msgspec.Struct, frozen=True):
    """A user: the name within its tenant, what is kept of the password, and what it may."""

    tenant: str
    username: str
    verifiers: tuple[Verifier, ...]
    client_ids: re.Pattern[str] | None = None
    superuser: bool = False

    def may_be(self, client_id: str) -> bool:
        """Say whether the user may have this client identifier."""
        return self.client_ids is None or self.client_ids.match(client_id) is not None

    def verifier(self, method: str) -> Verifier | None:
        """The verifier that a method of SCRAM can use."""
        return next((each for each in self.verifiers if each.method == method), None)


class Users:
    """All users by tenant and name; immutable."""

    def __init__(self, users: Sequence[User] = ()) -> None:
        self._accounts = {(each.tenant or DEFAULT_TENANT, each.username): each for each in users}
        # Whoever asks for unknown users is told the same on every core and after a restart.
        told = "\n".join(password for each in users for password in each.passwords)
        self._key = hashlib.sha256(b"decoy" + told.encode()).digest()
        first = next((password for each in users for password in each.passwords), None)
        self._iterations = verifier(first).iterations if first is not None else ITERATIONS

    def __len__(self) -> int:
        return len(self._accounts)

    def find(self, tenant: str, username: str) -> Account | None:
        """The user of a tenant with this name."""
        user = self._accounts.get((tenant, username))
        return _account(user, tenant) if user is not None else None

    def decoy(self, tenant: str, username: str) -> Account:
        """A user that nobody can be, for a name that is unknown: so that asking tells nothing."""
        asked = f"{tenant}\0{username}\0".encode()

        def made(method: str) -> Verifier:
            salt = hmac.digest(self._key, asked + method.encode(), "sha256")[:_SALT_BYTES]
            digest = METHODS[method]
            impossible = bytes(hashlib.new(digest).digest_size)
            return Verifier(method, digest, self._iterations, salt, impossible, impossible)

        return Account(tenant, username, tuple(made(method) for method in METHODS))


def _account(user: User, tenant: str) -> Account:
    pattern = translate(user.client_id.replace("[", "[[]"))
    client_ids = re.compile(pattern) if user.client_id else None
    verifiers = tuple(verifier(password) for password in user.passwords)
    return Account(tenant, user.username, verifiers, client_ids, user.superuser)
