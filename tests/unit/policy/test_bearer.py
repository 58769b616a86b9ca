"""Tokens are believed when a key of ours has signed them, for us, for now; nothing else is."""

import base64
import json
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from robustmq.errors import ConfigError, Refused
from robustmq.policy.bearer import TOKEN_BYTES, BearerExchange, Bearers, Claims, read_key
from robustmq.policy.logins import Login, Step
from robustmq.policy.principal import Peer
from robustmq.settings.kafka import KafkaOauth
from robustmq.settings.users import User
from tests.logins import ScriptedLogins

NOW_MS: Final = 1_700_000_000_000
NOW_S: Final = NOW_MS // 1_000
SECRET: Final = b"a secret of 32 bytes and not less"
RSA: Final = rsa.generate_private_key(65_537, 2_048)
EC: Final = ec.generate_private_key(ec.SECP256R1())


Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Signer = Private | bytes | str


def _pem(key: Private) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _bearers(*contents: bytes, issuer: str = "", audience: str = "") -> Bearers:
    keys = [key for content in contents for key in read_key("file", content)]
    return Bearers(KafkaOauth(leeway_ms=0, issuer=issuer, audience=audience), keys, lambda: NOW_MS)


def _token(key: Signer = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    said = {"sub": "alice", "exp": NOW_S + 60, **claims}
    return jwt.encode({k: v for k, v in said.items() if v is not None}, key, algorithm)


def _why(bearers: Bearers, token: str) -> str:
    refused = bearers.check(token)
    assert isinstance(refused, Refused), refused
    return refused.detail


@pytest.mark.parametrize(
    ("kept", "key", "algorithm"),
    [(SECRET, SECRET, "HS256"), (_pem(RSA), RSA, "RS256"), (_pem(EC), EC, "ES256")],
)
def test_a_token_says_who_its_bearer_is_and_until_when(
    kept: bytes, key: Signer, algorithm: str
) -> None:
    believed = _bearers(kept).check(_token(key, algorithm))
    assert believed == Claims("alice", (NOW_S + 60) * 1_000)


def test_of_several_keys_the_one_with_the_name_is_taken() -> None:
    encoded = base64.urlsafe_b64encode(SECRET).decode().rstrip("=")
    other = base64.urlsafe_b64encode(SECRET[::-1]).decode().rstrip("=")
    keys = [{"kty": "oct", "kid": "b", "k": other}, {"kty": "oct", "kid": "a", "k": encoded}]
    bearers = _bearers(json.dumps({"keys": keys}).encode())
    named = jwt.encode({"sub": "x", "exp": NOW_S + 1}, SECRET, "HS256", headers={"kid": "a"})
    assert isinstance(bearers.check(named), Claims)
    wrong = jwt.encode({"sub": "x", "exp": NOW_S + 1}, SECRET, "HS256", headers={"kid": "b"})
    assert "Signature" in _why(bearers, wrong)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW_S}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": 1e12}, "expired"),
        ({"nbf": NOW_S + 1}, "not valid yet"),
        ({"sub": None}, "names no user"),
        ({"sub": ""}, "names no user"),
    ],
)
def test_what_a_token_says_must_hold_now(claims: dict[str, Any], why: str) -> None:
    assert why in _why(_bearers(SECRET), _token(**claims))


def test_a_token_is_for_us_and_from_whom_we_trust_where_that_is_said() -> None:
    bearers = _bearers(SECRET, issuer="idp", audience="robustmq")
    assert isinstance(bearers.check(_token(iss="idp", aud=["x", "robustmq"])), Claims)
    assert "ssuer" in _why(bearers, _token(iss="other", aud="robustmq"))
    assert "udience" in _why(bearers, _token(iss="idp", aud="other"))
    assert isinstance(_bearers(SECRET).check(_token(aud="anybody")), Claims)


def test_a_public_key_is_no_secret_and_no_algorithm_is_none() -> None:
    bearers = _bearers(_pem(RSA))
    assert "no key of ours" in _why(bearers, _token(algorithm="HS256"))
    assert "no key of ours" in _why(bearers, _token("", "none"))
    assert "not believed" in _why(bearers, "garbage")
    assert "not believed" in _why(_bearers(SECRET), _token(SECRET[::-1]))


@pytest.mark.parametrize(
    "content",
    [b"short", b"{}", b"-----BEGIN PUBLIC KEY-----", _pem(ed25519.Ed25519PrivateKey.generate())],
)
def test_a_file_without_a_key_is_refused_by_its_name(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"keys\.pem"):
        read_key("keys.pem", content)


def _exchange(users: tuple[User, ...] = ()) -> BearerExchange:
    login = Login(Peer("192.0.2.1", "kafka_tls"), "client")
    return _bearers(SECRET).begin(ScriptedLogins(users=users), login, ("acme",))


def _message(token: str, header: str = "n,,") -> bytes:
    return f"{header}\x01auth=Bearer {token}\x01\x01".encode()


def test_the_bearer_comes_in_and_its_tenant_is_that_of_its_name() -> None:
    users = (User(username="alice", tenant="acme", superuser=True),)
    step = _exchange(users).step(_message(_token(sub="acme@alice"), "n,a=acme@alice,"))
    assert isinstance(step, Step)
    assert step.principal is not None
    assert (step.principal.username, step.principal.tenant) == ("alice", "acme")
    assert step.principal.superuser
    assert step.expires_ms == (NOW_S + 60) * 1_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"n,,\x01\x01",
        b"\xff",
        b"n,,\x01auth\x01\x01",
        _message("garbage"),
        _message(_token(), "n,a=bob,"),
        _message(_token(), "p=tls,,"),
        _message("x" * TOKEN_BYTES),
    ],
)
def test_who_is_not_believed_is_told_and_then_refused(data: bytes) -> None:
    exchange = _exchange()
    assert exchange.step(data) == Step(b'{"status": "invalid_token"}')
    assert isinstance(exchange.step(b"\x01"), Refused)
