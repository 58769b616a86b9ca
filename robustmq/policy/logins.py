"""Who comes: decided from what a client says of itself, its certificate and the users."""

import hmac
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from robustmq.errors import Refusal, Refused
from robustmq.message.tenancy import DEFAULT_TENANT, named_tenant
from robustmq.policy.passwords import METHODS, Verifier, prepared
from robustmq.policy.principal import BRIDGE, Peer, Principal
from robustmq.policy.scram import ScramError, ScramServer
from robustmq.policy.users import Account, Users
from robustmq.settings.users import MqttAuth

Check: TypeAlias = Callable[[], bool]
Later: TypeAlias = Callable[[Check, Callable[[bool], None]], bool]
"""Runs a check aside and calls back with what it says; False when too many wait already."""

_WRONG = Refused(Refusal.BAD_CREDENTIALS, "the user name or the password is wrong")
_BUSY = Refused(Refusal.BUSY, "too many clients log in at this moment: try again")


class Login(NamedTuple):
    """What a client says of itself; `client_id` and `username` are names within the tenant."""

    peer: Peer
    client_id: str
    username: str | None = None
    password: bytes | None = None
    tenant: str = DEFAULT_TENANT


class Step(NamedTuple):
    """The server's next message of an exchange; with a principal it is the last.

    `expires_ms` is when the proof is void (Unix ms, 0: never): then it has to be given again.
    """

    data: bytes
    principal: Principal | None = None
    expires_ms: int = 0


class Exchange(Protocol):
    """A client that proves who it is in several messages (SASL)."""

    def step(self, data: bytes) -> Step | Refused:
        """Take the client's next message."""


Bearer: TypeAlias = Callable[[Login, Collection[str]], Exchange]


class ScramExchange:
    """An Exchange by SCRAM; a user name that begins with one of `tenants` is of that tenant."""

    def __init__(
        self, logins: "Logins", method: str, login: Login, tenants: Collection[str]
    ) -> None:
        self.method = method
        self._logins = logins
        self._login = login
        self._tenants = tenants
        self._username = ""
        self._scram = ScramServer(self._verifier, logins.nonce())

    def step(self, data: bytes) -> Step | Refused:
        """Take the client's next message."""
        scram = self._scram
        try:
            if not scram.is_begun:
                return Step(scram.first(data))
            last = scram.final(data)
        except ScramError as error:
            if error.wrong:
                return _WRONG
            return Refused(Refusal.NOT_AUTHORIZED, error.sentence)
        login = self._login
        if login.username not in {None, self._username}:
            return Refused(
                Refusal.NOT_AUTHORIZED, "the user name of CONNECT is not the one that was proved"
            )
        account = self._logins.users.find(login.tenant, self._username)
        if account is None:
            return _WRONG
        decided = _accepted(login._replace(username=self._username), account)
        return decided if isinstance(decided, Refused) else Step(last, decided)

    def _verifier(self, username: str) -> Verifier:
        if named := named_tenant(username, self._tenants):
            tenant, username = named
            self._login = self._login._replace(tenant=tenant)
        self._username = username
        users, tenant = self._logins.users, self._login.tenant
        account = users.find(tenant, username)
        found = account.verifier(self.method) if account is not None else None
        decoy = users.decoy(tenant, username).verifier(self.method)
        assert decoy is not None
        return found or decoy


class Logins:
    """Decides who may connect.

    `later` runs what takes long; `nonce` gives text for one use, printable and without a comma;
    `secret` is known to this process only.
    """

    def __init__(
        self,
        settings: MqttAuth,
        users: Users,
        *,
        later: Later,
        nonce: Callable[[], str],
        secret: bytes,
    ) -> None:
        self.users = users
        self.nonce = nonce
        self._settings = settings
        self._later = later
        self._secret = secret
        # A password that was right needs no second look; one entry for each user.
        self._known: dict[tuple[str, str], bytes] = {}
        self.bearer: Bearer | None = None
        """Begins an exchange by a token; None where tokens are not believed."""

    def replace(self, settings: MqttAuth, users: Users) -> None:
        """Let others come from now on; who is there stays."""
        self._settings = settings
        self.users = users
        self._known.clear()

    def changed(self, users: Users, tenant: str | None, username: str | None) -> None:
        """Let a user come as it is now, or with None all; who is there stays."""
        self.users = users
        if tenant is None or username is None:
            self._known.clear()
        else:
            self._known.pop((tenant, username), None)

    def log_in(
        self, login: Login, reply: Callable[[Principal | Refused], None]
    ) -> Principal | Refused | None:
        """Decide at once, or return None and answer by `reply`."""
        if login.peer.listener == BRIDGE:
            return login.peer.principal(login.client_id, None, superuser=True)
        mode = self._settings.certificate_as_username
        certified = login.peer.certified
        if mode != "off" and certified is not None:
            login = login._replace(username=certified)
            if mode == "alone" and login.password is None:
                return _accepted(login, self.users.find(login.tenant, certified))
        if login.username is None or (not self.users and self._takes_anonymous):
            if self._takes_anonymous:
                return _accepted(login, None)
            return Refused(
                Refusal.NOT_AUTHORIZED, "a user name and a password are needed to connect here"
            )
        return self._check(login, login.username, reply)

    def exchange(self, method: str, login: Login, tenants: Collection[str] = ()) -> Exchange | None:
        """Begin an exchange by a method; None when it is not offered.

        With `tenants` the name that is proved may begin with one of them (`acme@alice`).
        """
        if not self.users or method not in METHODS:
            return None
        return ScramExchange(self, method, login, tenants)

    def accept(self, login: Login) -> Principal | Refused:
        """Let in who has proved to be a user elsewhere, as far as that user may."""
        account = self.users.find(login.tenant, login.username) if login.username else None
        return _accepted(login, account)

    @property
    def _takes_anonymous(self) -> bool:
        wanted = self._settings.secret_free_login
        return not self.users if wanted == "auto" else bool(wanted)

    def _check(
        self, login: Login, username: str, reply: Callable[[Principal | Refused], None]
    ) -> Principal | Refused | None:
        if login.password is None:
            return _WRONG
        users = self.users
        account = users.find(login.tenant, username)
        password = prepared(login.password)
        if account is not None and self._is_known(account, password):
            return _accepted(login, account)
        asked = account
        if asked is None or not asked.verifiers:
            asked = users.decoy(login.tenant, username)
        # All verifiers of a user are of one password: the first says all.
        check = partial(_matches, asked.verifiers[:1], password)
        checked = partial(self._checked, users, login, account, password, reply)
        return None if self._later(check, checked) else _BUSY

    def _checked(  # noqa: PLR0917
        self,
        users: Users,
        login: Login,
        account: Account | None,
        password: bytes,
        reply: Callable[[Principal | Refused], None],
        right: bool,
    ) -> None:
        if account is None or not right:
            reply(_WRONG)
            return
        if users is self.users:
            self._known[account.tenant, account.username] = self._digest(password)
        reply(_accepted(login, account))

    def _is_known(self, account: Account, password: bytes) -> bool:
        known = self._known.get((account.tenant, account.username))
        return known is not None and hmac.compare_digest(known, self._digest(password))

    def _digest(self, password: bytes) -> bytes:
        return hmac.digest(self._secret, password, "sha256")


def _matches(verifiers: tuple[Verifier, ...], password: bytes) -> bool:
    return any(each.matches(password) for each in verifiers)


def _accepted(login: Login, account: Account | None) -> Principal | Refused:
    if account is not None and not account.may_be(login.client_id):
        return Refused(
            Refusal.NOT_AUTHORIZED,
            f"the user {login.username} may not have the client identifier {login.client_id}",
        )
    superuser = account is not None and account.superuser
    return login.peer.principal(login.client_id, login.username, login.tenant, superuser)
