"""The configuration of who may connect: `[mqtt_runtime.auth]` and `[[users]]`."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from robustmq.settings.access import Permission
from robustmq.settings.bounds import between
from robustmq.settings.listener import TENANT_PATTERN

ITERATIONS_MAX: Final = 1_000_000

_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_KEY_256: Final = r"[A-Za-z0-9+/]{43}="
_KEY_512: Final = r"[A-Za-z0-9+/]{86}=="
_PASSWORD: Final = re.compile(
    rf"SCRAM-SHA-256\$(\d{{1,7}}):{_BASE64}\${_KEY_256}:{_KEY_256}"
    rf"|SCRAM-SHA-512\$(\d{{1,7}}):{_BASE64}\${_KEY_512}:{_KEY_512}"
    rf"|\$7\$(\d{{1,7}})\${_BASE64}\${_KEY_512}"
)


class MqttAuth(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.auth]`: Who may connect; the users themselves are in [[users]].

    secret_free_login: Take clients that give no user name; "auto": while there is no user, here or
        by the API, and then whatever name a client gives. SIGHUP applies a change.
    certificate_as_username: off: a client certificate says nothing of the user; alone: the name in
        it is the user's, and no password is needed; with_password: likewise, but the password is.
    tenants: The tenants beside default, of which nobody sees anything of another; each has at most
        128 letters, digits, _, . and -.
    default_permission: What holds where no table of [[acl]] does. SIGHUP applies a change.
    max_pending_logins: Passwords that wait in a core to be checked; who comes then is told that
        the server is busy.
    """

    secret_free_login: Literal["auto"] | bool = "auto"
    certificate_as_username: Literal["off", "alone", "with_password"] = "off"
    tenants: tuple[Annotated[str, Meta(pattern=TENANT_PATTERN, min_length=1)], ...] = ()
    default_permission: Permission = "Allow"
    max_pending_logins: Annotated[int, between(1, 1_000_000)] = 1_000


class User(Struct, frozen=True, kw_only=True):
    """`[[users]]`: Who may connect, one table for each user; SIGHUP applies a change.

    username: The name that a client gives.
    password: What robustmq-password prints for the password, one or a list of several; it is no
        secret that lets anybody in. The formats are SCRAM-SHA-256 and SCRAM-SHA-512 as PostgreSQL
        writes them, and $7$ as in a password file of mosquitto. Without one the user can come by
        certificate only.
    tenant: The tenant that the user belongs to; "": default.
    client_id: The client identifiers that the user may have, with * for any characters and ? for
        one; "": any.
    superuser: No rule of access holds for this user.
    """

    username: Annotated[str, Meta(min_length=1, max_length=65_535, examples=["alice"])]
    password: str | tuple[str, ...] = ""
    tenant: Annotated[str, Meta(pattern=TENANT_PATTERN)] = ""
    client_id: Annotated[str, Meta(max_length=65_535)] = ""
    superuser: bool = False

    def __post_init__(self) -> None:
        for password in self.passwords:
            found = _PASSWORD.fullmatch(password)
            iterations = next(filter(None, found.groups()), "0") if found else "0"
            if not 0 < int(iterations) <= ITERATIONS_MAX:
                raise ValueError(
                    f"the password of {self.username} is in none of the formats SCRAM-SHA-256, "
                    f"SCRAM-SHA-512 and $7$, with 1 to {ITERATIONS_MAX} iterations; passwords are "
                    "not kept in plain text: write what robustmq-password prints"
                )

    @property
    def passwords(self) -> tuple[str, ...]:
        """The password's verifiers, in the formats above."""
        if isinstance(self.password, str):
            return (self.password,) if self.password else ()
        return self.password


def repeated(users: Sequence[User]) -> str | None:
    """The name of a user that a tenant has twice; None when there is none."""
    counts = Counter((user.tenant, user.username) for user in users)
    return next((name for (_, name), count in counts.items() if count > 1), None)
