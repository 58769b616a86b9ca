"""Who may come: names, passwords, certificates, client identifiers, and what asking tells."""

from typing import Literal

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.policy.logins import Login, Step
from robustmq.policy.passwords import METHODS, written
from robustmq.policy.principal import Peer, Principal
from robustmq.policy.users import Users
from robustmq.settings.users import MqttAuth, User
from tests.logins import ScriptedLogins
from tests.scram_client import ScramClient

PEER = Peer("10.0.0.1", "tcp")
PASSWORDS = tuple(written(method, "pencil", b"salt", 1) for method in METHODS)
ALICE = User(username="alice", password=PASSWORDS, client_id="a-*[x]?")
BOB = User(username="bob", password=PASSWORDS[0], tenant="acme", superuser=True)
CERT = User(username="cert")


def decided(logins: ScriptedLogins, login: Login) -> Principal | Refused:
    answers: list[Principal | Refused] = []
    at_once = logins.log_in(login, answers.append)
    if at_once is not None:
        return at_once
    assert answers == []
    logins.look()
    (answer,) = answers
    return answer


def code(answer: Principal | Refused | Step | None) -> Refusal | None:
    return answer.code if isinstance(answer, Refused) else None


def test_without_users_everybody_may_come_under_any_name() -> None:
    logins = ScriptedLogins()
    for name, password in ((None, None), ("x", b"y"), ("", None)):
        assert decided(logins, Login(PEER, "c", name, password)) == PEER.principal("c", name)
    assert logins.waiting == []
    assert logins.exchange("SCRAM-SHA-256", Login(PEER, "c")) is None


@pytest.mark.parametrize(
    ("free", "users", "may_come"),
    [
        ("auto", (), True), ("auto", (ALICE,), False), (True, (ALICE,), True), (False, (), False),
        (True, (), True), (False, (ALICE,), False),
    ],
)  # fmt: skip
def test_who_gives_no_name(free: bool, users: tuple[User, ...], may_come: bool) -> None:
    logins = ScriptedLogins(MqttAuth(secret_free_login=free), users)
    answer = decided(logins, Login(PEER, "c"))
    assert code(answer) == (None if may_come else Refusal.NOT_AUTHORIZED)


@pytest.mark.parametrize(
    ("name", "password", "client_id", "refusal"),
    [
        ("alice", b"pencil", "a-1[x]2", None), ("alice", b"pencil", "b", Refusal.NOT_AUTHORIZED),
        ("alice", b"pencils", "a-1[x]2", Refusal.BAD_CREDENTIALS),
        ("alice", None, "a-1[x]2", Refusal.BAD_CREDENTIALS),
        ("carol", b"pencil", "c", Refusal.BAD_CREDENTIALS),
        ("bob", b"pencil", "c", Refusal.BAD_CREDENTIALS),
        ("cert", b"", "c", Refusal.BAD_CREDENTIALS),
    ],
)  # fmt: skip
def test_a_name_needs_its_password(
    name: str, password: bytes | None, client_id: str, refusal: Refusal | None
) -> None:
    logins = ScriptedLogins(users=(ALICE, BOB, CERT))
    answer = decided(logins, Login(PEER, client_id, name, password))
    assert code(answer) == refusal
    if refusal is None:
        assert answer == PEER.principal(client_id, name)


def test_names_are_those_of_a_tenant() -> None:
    logins = ScriptedLogins(users=(ALICE, BOB))
    answer = decided(logins, Login(PEER, "c", "bob", b"pencil", "acme"))
    assert answer == PEER.principal("c", "bob", "acme", superuser=True)


def test_a_password_that_was_right_is_looked_at_once_until_users_change() -> None:
    logins = ScriptedLogins(users=(BOB,))
    login = Login(PEER, "c", "bob", b"pencil", "acme")
    decided(logins, login)
    assert isinstance(logins.log_in(login, lambda _: None), Principal)
    assert logins.log_in(login._replace(password=b"pencils"), lambda _: None) is None
    logins.look()
    logins.replace(MqttAuth(), Users((BOB,)))
    assert logins.log_in(login, lambda _: None) is None
    logins.replace(MqttAuth(), Users((ALICE,)))
    logins.look()
    assert code(decided(logins, login)) == Refusal.BAD_CREDENTIALS


def test_who_is_unknown_costs_as_much_as_who_is_known() -> None:
    logins = ScriptedLogins(users=(ALICE, CERT))
    for name in ("alice", "nobody", "cert"):
        assert logins.log_in(Login(PEER, "c", name, b"x"), lambda _: None) is None
    assert logins.look() == [False] * 3


def test_too_many_at_once_are_told_so() -> None:
    logins = ScriptedLogins(users=(ALICE,), most=1)
    assert logins.log_in(Login(PEER, "c", "alice", b"x"), lambda _: None) is None
    assert code(logins.log_in(Login(PEER, "c", "alice", b"x"), lambda _: None)) == Refusal.BUSY


@pytest.mark.parametrize(
    ("mode", "password", "name", "refusal"),
    [
        ("off", None, None, Refusal.NOT_AUTHORIZED), ("alone", None, "alice", None),
        ("alone", b"pencil", "alice", None), ("alone", b"wrong", None, Refusal.BAD_CREDENTIALS),
        ("with_password", None, None, Refusal.BAD_CREDENTIALS),
        ("with_password", b"pencil", "alice", None),
    ],
)  # fmt: skip
def test_a_certificate_may_name_the_user(
    mode: Literal["off", "alone", "with_password"],
    password: bytes | None,
    name: str | None,
    refusal: Refusal | None,
) -> None:
    settings = MqttAuth(certificate_as_username=mode)
    logins = ScriptedLogins(settings, (ALICE,))
    peer = Peer("10.0.0.1", "tls", "alice")
    answer = decided(logins, Login(peer, "a-1[x]2", None, password))
    assert code(answer) == refusal
    assert isinstance(answer, Refused) or answer.username == name


def proof(logins: ScriptedLogins, client: ScramClient, login: Login, method: str) -> object:
    exchange = logins.exchange(method, login)
    assert exchange is not None
    challenge = exchange.step(client.first())
    assert isinstance(challenge, Step)
    assert challenge.principal is None
    return exchange.step(client.final(challenge.data))


@pytest.mark.parametrize("method", METHODS)
def test_a_proof(method: str) -> None:
    logins = ScriptedLogins(users=(ALICE, BOB))
    client = ScramClient("alice", "pencil", method)
    last = proof(logins, client, Login(PEER, "a-1[x]2"), method)
    assert isinstance(last, Step)
    assert client.is_server(last.data)
    assert last.principal == PEER.principal("a-1[x]2", "alice")


@pytest.mark.parametrize(
    ("name", "password", "login", "refusal"),
    [
        ("alice", "pencils", Login(PEER, "a-1[x]2"), Refusal.BAD_CREDENTIALS),
        ("nobody", "pencil", Login(PEER, "c"), Refusal.BAD_CREDENTIALS),
        ("bob", "pencil", Login(PEER, "c"), Refusal.BAD_CREDENTIALS),
        ("alice", "pencil", Login(PEER, "c"), Refusal.NOT_AUTHORIZED),
        ("alice", "pencil", Login(PEER, "a-1[x]2", "bob"), Refusal.NOT_AUTHORIZED),
        # Only the other method has a verifier of bob's.
        ("bob", "pencil", Login(PEER, "c", tenant="acme"), Refusal.BAD_CREDENTIALS),
    ],
)
def test_a_proof_that_fails(name: str, password: str, login: Login, refusal: Refusal) -> None:
    logins = ScriptedLogins(users=(ALICE, BOB))
    client = ScramClient(name, password, "SCRAM-SHA-512")
    answer = proof(logins, client, login, "SCRAM-SHA-512")
    assert isinstance(answer, Refused)
    assert answer.code == refusal


def test_asking_tells_nothing_of_who_there_is() -> None:
    """An unknown name has the same salt and rounds each time, on every core."""
    challenges = []
    for logins in (ScriptedLogins(users=(ALICE,)), ScriptedLogins(users=(ALICE,))):
        for name in ("nobody", "nobody", "other"):
            exchange = logins.exchange("SCRAM-SHA-256", Login(PEER, "c"))
            assert exchange is not None
            step = exchange.step(ScramClient(name, "").first())
            assert isinstance(step, Step)
            challenges.append(step.data.split(b",")[1:])
    assert challenges[0] == challenges[1] == challenges[3] == challenges[4]
    assert challenges[2] == challenges[5] != challenges[0]
    assert challenges[0][1] == b"i=1"


def test_what_is_no_message_of_the_method_is_refused() -> None:
    logins = ScriptedLogins(users=(ALICE,))
    exchange = logins.exchange("SCRAM-SHA-256", Login(PEER, "c"))
    assert exchange is not None
    assert code(exchange.step(b"hello")) == Refusal.NOT_AUTHORIZED
    assert logins.exchange("GS2-KRB5", Login(PEER, "c")) is None
