"""Who may connect: the users of the configuration, and those that an administrator has added."""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from types import MappingProxyType
from typing import Any, Final

import msgspec

from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.policy.passwords import ITERATIONS, METHODS, Verifier, verifier
from robustmq.settings.users import User

KIND: Final = "user"
"""The kind of records that users are; the name of one is `tenant/username`."""

_SALT_BYTES: Final = 16
_NOBODY: Final[Mapping[tuple[str, str], User]] = MappingProxyType({})


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


class AddedUsers:
    """The users that records add to those of the configuration; a fold of the image.

    `changed(tenant, username)` hears of each that is other now or gone, (None, None) of all.
    """

    def __init__(self) -> None:
        self.changed: Callable[[str | None, str | None], None] = lambda _tenant, _username: None
        self.by_name: dict[tuple[str, str], User] = {}
        self.changed_at: dict[tuple[str, str], int] = {}
        """The index of the log at which each was last changed."""

    def clear(self) -> None:
        """Forget all: the records follow."""
        self.by_name.clear()
        self.changed_at.clear()
        self.changed(None, None)

    def apply(self, name: str, value: Mapping[str, Any] | None, changed: int = 0) -> None:
        """Add or replace a user by its record, or with None remove it; raises ValueError."""
        tenant, _, username = name.partition("/")
        self.by_name.pop((tenant, username), None)
        self.changed_at.pop((tenant, username), None)
        try:
            if value is not None:
                self.changed_at[tenant, username] = changed
                self.by_name[tenant, username] = user_of(name, value)
        finally:
            self.changed(tenant, username)


def user_of(name: str, value: Mapping[str, Any]) -> User:
    """Read a record; raises ValueError with a sentence when it is no user."""
    tenant, _, username = name.partition("/")
    try:
        return msgspec.convert({**value, "tenant": tenant, "username": username}, User)
    except msgspec.ValidationError as error:
        raise ValueError(f"the user {name} cannot be used: {error}") from error


class Users:
    """All users by tenant and name: who is in the configuration is so as it says.

    `added` may change; whoever changes it makes this anew, so that it is seen.
    """

    def __init__(
        self, users: Sequence[User] = (), added: Mapping[tuple[str, str], User] = _NOBODY
    ) -> None:
        self._added = added
        self._accounts = {(each.tenant or DEFAULT_TENANT, each.username): each for each in users}
        # Whoever asks for unknown users is told the same on every core and after a restart.
        told = "\n".join(password for each in users for password in each.passwords)
        self._key = hashlib.sha256(b"decoy" + told.encode()).digest()
        first = next((password for each in users for password in each.passwords), None)
        self._iterations = verifier(first).iterations if first is not None else ITERATIONS

    def __len__(self) -> int:
        return len(self._accounts) + len(self._added)

    def find(self, tenant: str, username: str) -> Account | None:
        """The user of a tenant with this name."""
        user = self._accounts.get((tenant, username)) or self._added.get((tenant, username))
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
