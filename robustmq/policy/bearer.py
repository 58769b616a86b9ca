"""Bearer tokens: signed JWTs (RFC 7519) that say who a client is, and OAUTHBEARER (RFC 7628)."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from robustmq.errors import ConfigError, Refusal, Refused
from robustmq.message.tenancy import DEFAULT_TENANT, named_tenant
from robustmq.policy.logins import Login, Logins, Step
from robustmq.settings.kafka import KafkaOauth

TOKEN_BYTES: Final = 65_536
"""Bytes of the longest message of a client."""

_SEPARATOR: Final = b"\x01"
_SECRET_BYTES: Final = 32
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE"
_ALGORITHMS: Final = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "oct": ("HS256", "HS384", "HS512"),
}

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey


class Key(NamedTuple):
    """A key that signs tokens: its family, its name if it has one, and itself."""

    family: str
    name: str | None
    key: PublicKey | bytes


class Claims(NamedTuple):
    """What a token says: who its bearer is, and until when (Unix ms)."""

    username: str
    expires_ms: int


def read_key(path: str, content: bytes) -> Sequence[Key]:
    """Read the keys of a file: PEM, a JSON Web Key Set, or else a secret. Raises ConfigError."""
    try:
        if content.lstrip().startswith(b"{"):
            return [_of_set(each) for each in jwt.PyJWKSet.from_json(content.decode()).keys]
        if content.lstrip().startswith(b"-----BEGIN"):
            return [_public(content)]
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise ConfigError(f"{path} holds no key for tokens that can be used: {error}") from error
    secret = content.strip()
    if len(secret) < _SECRET_BYTES:
        raise ConfigError(
            f"{path} is neither PEM nor a JSON Web Key Set, and as a secret it is too short: "
            f"it has {len(secret)} bytes, {_SECRET_BYTES} are needed"
        )
    return [Key("oct", None, secret)]


def _of_set(found: jwt.PyJWK) -> Key:
    if found.key_type not in _ALGORITHMS:
        raise ValueError(f"keys of type {found.key_type} are not used")
    return Key(found.key_type, found.key_id, found.key)


def _public(content: bytes) -> Key:
    is_certificate = content.lstrip().startswith(_CERTIFICATE)
    found: object = (
        load_pem_x509_certificate(content).public_key()
        if is_certificate
        else load_pem_public_key(content)
    )
    if isinstance(found, RSAPublicKey):
        return Key("RSA", None, found)
    if isinstance(found, EllipticCurvePublicKey):
        return Key("EC", None, found)
    raise ValueError("neither RSA nor of an elliptic curve")


class Bearers:
    """Looks at tokens. `now_ms()` is the turn's clock."""

    def __init__(
        self, settings: KafkaOauth, keys: Sequence[Key], now_ms: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._now_ms = now_ms

    def begin(self, logins: Logins, login: Login, tenants: Collection[str]) -> "BearerExchange":
        """Begin an exchange; the user that a token names may begin with one of `tenants`."""
        return BearerExchange(self, login, tenants, logins)

    def check(self, token: str) -> Claims | Refused:
        """Return what a token says, or why it is not believed."""
        try:
            header = jwt.get_unverified_header(token)
            claims = self._verified(token, header)
        except jwt.PyJWTError as error:
            return _refused(f"the token is not believed: {error}")
        return self._claims(claims)

    def _verified(self, token: str, header: dict[str, Any]) -> dict[str, Any]:
        """The claims, if one of the keys has signed them; the time is looked at later."""
        algorithm, name = header.get("alg"), header.get("kid")
        failure: jwt.PyJWTError = jwt.InvalidTokenError("no key of ours fits its algorithm")
        for key in self._keys:
            fits = algorithm in _ALGORITHMS[key.family]
            if not fits or (name and key.name and name != key.name):
                continue
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[str(algorithm)],
                    audience=self._settings.audience or None,
                    issuer=self._settings.issuer or None,
                    options={
                        "require": ["exp"],
                        "verify_aud": bool(self._settings.audience),
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_nbf": False,
                    },
                )
            except jwt.PyJWTError as error:
                failure = error
            else:
                return claims
        raise failure

    def _claims(self, claims: dict[str, Any]) -> Claims | Refused:
        now_s, leeway_s = self._now_ms() / 1_000, self._settings.leeway_ms / 1_000
        expires_s, begins_s = claims["exp"], claims.get("nbf", 0)
        if not isinstance(expires_s, int | float) or not isinstance(begins_s, int | float):
            return _refused("the times of the token are no numbers")
        if not now_s - leeway_s < expires_s < 1e11:
            return _refused("the token has expired")
        if begins_s > now_s + leeway_s:
            return _refused("the token is not valid yet")
        username = claims.get(self._settings.user_claim)
        if not isinstance(username, str) or not username or "\0" in username:
            return _refused(f"the token names no user: it has no {self._settings.user_claim}")
        return Claims(username, int((expires_s + leeway_s) * 1_000))


class BearerExchange:
    """An `Exchange` by OAUTHBEARER: one message, and another when it is not believed."""

    def __init__(
        self,
        bearers: Bearers,
        login: Login,
        tenants: Collection[str],
        logins: Logins,
    ) -> None:
        self._bearers = bearers
        self._login = login
        self._tenants = tenants
        self._logins = logins
        self._refused: Refused | None = None

    def step(self, data: bytes) -> Step | Refused:
        """Take the client's next message."""
        if self._refused is not None:
            # The client has seen the reason; whatever it says ends the exchange (RFC 7628 3.2.3).
            return self._refused
        authority, token = _parsed(data)
        claims = self._bearers.check(token) if token else _refused("this is no bearer token")
        if isinstance(claims, Refused):
            return self._challenge(claims)
        if authority not in {"", claims.username}:
            return self._challenge(_refused("nobody may act for another user"))
        named = named_tenant(claims.username, self._tenants) or (DEFAULT_TENANT, claims.username)
        tenant, username = named
        decided = self._logins.accept(self._login._replace(tenant=tenant, username=username))
        return decided if isinstance(decided, Refused) else Step(b"", decided, claims.expires_ms)

    def _challenge(self, refused: Refused) -> Step:
        self._refused = refused
        return Step(json.dumps({"status": "invalid_token"}).encode())


def _parsed(data: bytes) -> tuple[str, str]:
    """Whom a client acts for, and its token; "" for none (RFC 7628 3.1)."""
    if len(data) > TOKEN_BYTES:
        return "", ""
    header, _, rest = data.partition(_SEPARATOR)
    try:
        binding, authority, *_ = [*header.decode().split(","), ""]
        fields = dict(part.decode().split("=", 1) for part in rest.split(_SEPARATOR) if part)
    except ValueError:
        return "", ""
    scheme, _, token = fields.get("auth", "").partition(" ")
    if binding not in {"n", "y"} or scheme.lower() != "bearer":
        return "", ""
    return authority.removeprefix("a="), token.strip()


def _refused(why: str) -> Refused:
    return Refused(Refusal.BAD_CREDENTIALS, why)
