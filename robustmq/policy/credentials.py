"""What is kept of users' passwords, told and changed for administrators."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from robustmq.errors import Refusal, Refused
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.meta.commands import Expectation
from robustmq.meta.records import USER, Record, encoded
from robustmq.policy.passwords import kept, verifier
from robustmq.policy.users import AddedUsers
from robustmq.settings.users import User

_NAME_BYTES: Final = 512

Change: TypeAlias = Callable[
    [Sequence[Record], Sequence[Expectation], Callable[[Refused | None], None]], None
]
"""Changes records whose last changes are as expected; answers when this node knows it."""


class Credential(NamedTuple):
    """A method of SCRAM by which a user can come, and how often its password is hashed."""

    method: str
    iterations: int


class Salted(NamedTuple):
    """A password as a client has hashed it (RFC 5802 3, SaltedPassword)."""

    method: str
    iterations: int
    salt: bytes
    salted_password: bytes


class CredentialBook:
    """The credentials of users: those of the configuration are told, those of records changed."""

    def __init__(
        self, configured: Callable[[], Sequence[User]], added: AddedUsers, change: Change
    ) -> None:
        self._configured = configured
        self._added = added
        self._change = change

    def of(self, tenant: str) -> Mapping[str, Sequence[Credential]]:
        """Return the credentials of all users of a tenant who have some."""
        found = {name: user for (of, name), user in self._added.by_name.items() if of == tenant}
        for user in self._configured():
            if (user.tenant or DEFAULT_TENANT) == tenant:
                found[user.username] = user
        told = {name: _credentials(user) for name, user in sorted(found.items())}
        return {name: credentials for name, credentials in told.items() if credentials}

    def alter(
        self,
        tenant: str,
        username: str,
        salted: Sequence[Salted],
        removed: Sequence[str],
        reply: Callable[[Refused | None], None],
    ) -> None:
        """Set credentials of a user, who need not be there yet, and remove those of methods.

        A user of the configuration is refused with NOT_AUTHORIZED.
        """
        refused = self._refusal(tenant, username)
        if refused is not None:
            reply(refused)
            return
        known = self._added.by_name.get((tenant, username)) or User(username=username)
        methods = {*removed, *(each.method for each in salted)}
        passwords = [*_without(known, methods), *map(_written, salted)]
        user = msgspec.structs.replace(known, password=tuple(passwords))
        name = f"{tenant}/{username}"
        value = encoded(_value(user)) if passwords or user.client_id or user.superuser else None
        expected = Expectation(USER, name, self._added.changed_at.get((tenant, username), 0))
        self._change([Record(USER, name, value)], [expected], reply)

    def _refusal(self, tenant: str, username: str) -> Refused | None:
        if not 0 < len(username.encode()) <= _NAME_BYTES or "\0" in username:
            return Refused(Refusal.NOT_AUTHORIZED, f"a user's name has 1 to {_NAME_BYTES} bytes")
        for user in self._configured():
            if user.username == username and (user.tenant or DEFAULT_TENANT) == tenant:
                return Refused(
                    Refusal.NOT_AUTHORIZED,
                    f"the user {username} is in the configuration: change its password there",
                )
        return None


def _credentials(user: User) -> Sequence[Credential]:
    found = [verifier(each) for each in user.passwords]
    return [Credential(each.method, each.iterations) for each in found if each.method is not None]


def _without(user: User, methods: Collection[str]) -> list[str]:
    """What stays of a password when these methods are set or removed.

    A hash that is no method's would be of another password than what is set now.
    """
    found = [(verifier(each).method, each) for each in user.passwords]
    return [text for method, text in found if method is not None and method not in methods]


def _written(salted: Salted) -> str:
    return kept(salted.method, salted.salted_password, salted.salt, salted.iterations)


def _value(user: User) -> dict[str, Any]:
    """What the record of a user says: its name is that of the record."""
    fields: dict[str, Any] = msgspec.to_builtins(user)
    return {key: value for key, value in fields.items() if key not in {"username", "tenant"}}
