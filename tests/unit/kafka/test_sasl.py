"""Clients of Kafka say who they are, by each mechanism, and once more after a while."""

import pytest

from robustmq import metrics
from robustmq.broker.api import Peer
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import (
    ApiVersionsRequest,
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)
from robustmq.kafka.messages.metadata import MetadataRequest, MetadataResponse
from robustmq.policy.passwords import written
from robustmq.settings.kafka import KafkaRuntime, KafkaSasl
from robustmq.settings.users import MqttAuth, User
from tests.kafka_front import Client, Desk
from tests.scram_client import ScramClient

ROUNDS = 8


def _user(name: str, tenant: str = "", method: str = "SCRAM-SHA-256") -> User:
    kept = written(method, f"{name}'s secret", b"salt", ROUNDS)
    return User(username=name, tenant=tenant, password=kept)


def _desk(*users: User, lifetime_ms: int = 0, auth: MqttAuth | None = None) -> Desk:
    sasl = KafkaSasl(enabled=True, session_lifetime_ms=lifetime_ms)
    return Desk(KafkaRuntime(sasl=sasl), users=users or (_user("alice"),), auth=auth)


def _shake(client: Client, mechanism: str, version: int = 1) -> SaslHandshakeResponse:
    request = SaslHandshakeRequest(mechanism=mechanism)
    answer = client.ask(ApiKey.SASL_HANDSHAKE, version, request)
    assert isinstance(answer, SaslHandshakeResponse)
    return answer


def _say(client: Client, data: bytes) -> SaslAuthenticateResponse:
    request = SaslAuthenticateRequest(auth_bytes=data)
    answer = client.ask(ApiKey.SASL_AUTHENTICATE, 2, request)
    assert isinstance(answer, SaslAuthenticateResponse)
    return answer


def _plain(desk: Desk, client: Client, data: bytes) -> SaslAuthenticateResponse:
    client.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=data))
    desk.logins.look()
    ((_, answer),) = client.read()
    assert isinstance(answer, SaslAuthenticateResponse)
    return answer


def _closed(desk: Desk, client: Client) -> bool:
    """Say whether it is closed, after the moment that a client has to hear why."""
    desk.wait(100)
    return client.closed


def _username(client: Client) -> tuple[str | None, str] | None:
    principal = client.connection.principal
    return None if principal is None else (principal.username, principal.tenant)


def _asks(desk: Desk, client: Client) -> bool:
    """Say whether a request reaches its handler."""
    before = len(desk.calls)
    client.send(ApiKey.METADATA, 9, MetadataRequest())
    return len(desk.calls) > before


def test_before_a_client_is_known_it_may_ask_for_nothing() -> None:
    desk = _desk()
    client = desk.client()
    assert not _asks(desk, client)
    assert _closed(desk, client)
    assert desk.said == ["it must authenticate by SASL first"]


def test_versions_are_told_to_everybody() -> None:
    client = _desk().client()
    software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
    assert client.ask(ApiKey.API_VERSIONS, 3, software).error_code == 0


def test_plain() -> None:
    desk = _desk()
    client = desk.client()
    answer = _shake(client, "PLAIN")
    assert (answer.error_code, answer.mechanisms) == (
        0,
        ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    )
    assert _plain(desk, client, b"\0alice\0alice's secret").error_code == 0
    assert _username(client) == ("alice", "default")
    assert _asks(desk, client)
    assert desk.cell(metrics.LOGINS_ACCEPTED) == 1


def test_nothing_is_taken_while_a_password_is_looked_at_and_all_of_it_afterwards() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN")
    wanted = SaslAuthenticateRequest(auth_bytes=b"\0alice\0alice's secret")
    client.send(ApiKey.SASL_AUTHENTICATE, 1, wanted)
    assert not _asks(desk, client)
    assert client.connection.paused
    desk.logins.look()
    assert len(desk.calls) == 1


def test_a_client_that_goes_while_its_password_is_looked_at() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN")
    wanted = SaslAuthenticateRequest(auth_bytes=b"\0alice\0alice's secret")
    client.send(ApiKey.SASL_AUTHENTICATE, 1, wanted)
    client.connection.lost()
    desk.logins.look()
    assert desk.gate.inside == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\0alice\0wrong",
        b"\0nobody\0alice's secret",
        b"bob\0alice\0alice's secret",
        b"alice",
        b"\0\0",
        b"\0\xff\0\xff",
        b"",
    ],
)
def test_wrong_credentials_are_told_and_end_the_connection(data: bytes) -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN")
    answer = _plain(desk, client, data)
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert answer.error_message
    assert _closed(desk, client)
    assert desk.cell(metrics.LOGINS_REFUSED) == 1


@pytest.mark.parametrize("method", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram(method: str) -> None:
    desk = _desk(_user("alice", method=method))
    client, proof = desk.client(), ScramClient("alice", "alice's secret", method)
    _shake(client, method)
    challenge = _say(client, proof.first())
    last = _say(client, proof.final(challenge.auth_bytes))
    assert (last.error_code, proof.is_server(last.auth_bytes)) == (0, True)
    assert _asks(desk, client)


def test_scram_with_a_wrong_password() -> None:
    desk = _desk()
    client, proof = desk.client(), ScramClient("alice", "wrong")
    _shake(client, "SCRAM-SHA-256")
    challenge = _say(client, proof.first())
    last = _say(client, proof.final(challenge.auth_bytes))
    assert last.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert _closed(desk, client)


def test_the_name_of_a_user_may_begin_with_its_tenant() -> None:
    desk = _desk(_user("alice", "acme"), auth=MqttAuth(tenants=("acme",)))
    client = desk.client()
    _shake(client, "PLAIN")
    assert _plain(desk, client, b"\0acme@alice\0alice's secret").error_code == 0
    assert _username(client) == ("alice", "acme")
    other, proof = desk.client(), ScramClient("acme@alice", "alice's secret")
    _shake(other, "SCRAM-SHA-256")
    _say(other, proof.final(_say(other, proof.first()).auth_bytes))
    assert _username(other) == ("alice", "acme")


def test_a_mechanism_that_is_not_offered_is_refused_with_those_that_are() -> None:
    desk = _desk()
    client = desk.client()
    answer = _shake(client, "GSSAPI")
    assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert "PLAIN" in answer.mechanisms
    assert _closed(desk, client)


def test_where_nobody_authenticates_a_handshake_is_out_of_place() -> None:
    desk = Desk()
    client = desk.client()
    assert _shake(client, "PLAIN").error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert _closed(desk, client)


def test_a_proof_without_a_handshake_is_out_of_place() -> None:
    desk = _desk()
    client = desk.client()
    assert _say(client, b"\0alice\0alice's secret").error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert _closed(desk, client)


def test_between_handshake_and_proof_there_is_nothing_else_to_ask() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN")
    assert not _asks(desk, client)
    assert _closed(desk, client)


def _token(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def test_after_the_first_handshake_version_tokens_are_bare() -> None:
    desk = _desk()
    client, proof = desk.client(), ScramClient("alice", "alice's secret")
    _shake(client, "SCRAM-SHA-256", version=0)
    client.connection.feed(_token(proof.first()))
    (challenge,) = client.frames()
    client.connection.feed(_token(proof.final(challenge)))
    (last,) = client.frames()
    assert proof.is_server(last)
    assert _asks(desk, client)


def test_a_bare_token_that_is_wrong_ends_the_connection() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN", version=0)
    client.connection.feed(_token(b"\0alice\0wrong"))
    desk.logins.look()
    assert client.frames() == []
    assert _closed(desk, client)


def test_a_bare_token_of_plain_is_answered_by_an_empty_one() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN", version=0)
    client.connection.feed(_token(b"\0alice\0alice's secret"))
    desk.logins.look()
    assert client.frames() == [b""]
    assert _asks(desk, client)


def test_a_session_ends_unless_the_client_authenticates_again() -> None:
    desk = _desk(lifetime_ms=5_000)
    client = desk.client()
    _shake(client, "PLAIN")
    answer = _plain(desk, client, b"\0alice\0alice's secret")
    assert answer.session_lifetime_ms == 5_000
    desk.wait(4_000)
    assert _asks(desk, client)
    desk.calls[-1].answer(MetadataResponse())
    other = desk.client()
    _shake(other, "PLAIN")
    _plain(desk, other, b"\0alice\0alice's secret")
    _shake(other, "PLAIN")
    assert _say(other, b"\0alice\0alice's secret").session_lifetime_ms == 5_000
    desk.wait(4_000)
    assert _asks(desk, other)
    assert not _asks(desk, client)
    assert _closed(desk, client)
    assert desk.said == ["it was to authenticate again before anything else"]


def test_who_authenticates_again_stays_who_it_is() -> None:
    desk = _desk(_user("alice"), _user("bob"))
    client = desk.client()
    _shake(client, "PLAIN")
    _plain(desk, client, b"\0alice\0alice's secret")
    _shake(client, "PLAIN")
    answer = _plain(desk, client, b"\0bob\0bob's secret")
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert _closed(desk, client)


def test_who_may_not_come_in_is_told_why() -> None:
    desk = _desk()
    desk.gate.refusal = Refused(Refusal.QUOTA_EXCEEDED, "too many are here")
    client = desk.client()
    _shake(client, "PLAIN")
    answer = _plain(desk, client, b"\0alice\0alice's secret")
    assert answer.error_message == "too many are here"
    assert _closed(desk, client)


def test_a_certificate_that_names_its_user_is_enough_where_it_is_said_so() -> None:
    auth = MqttAuth(certificate_as_username="alone")
    desk = _desk(auth=auth)
    client = desk.client(Peer("192.0.2.1", "kafka_tls", "alice"))
    assert _asks(desk, client)
    assert _username(client) == ("alice", "default")


def test_a_stranger_may_send_only_so_much() -> None:
    desk = _desk()
    client = desk.client()
    client.connection.feed((524_289).to_bytes(4, "big"))
    assert _closed(desk, client)


def test_who_has_failed_is_heard_no_more() -> None:
    desk = _desk()
    client = desk.client()
    _shake(client, "PLAIN")
    _plain(desk, client, b"\0alice\0wrong")
    assert not client.closed
    assert not _asks(desk, client)
    client.send(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))
    assert client.frames() == []
    assert _closed(desk, client)
