"""Users of Kafka against a node where they have to authenticate: each mechanism, real clients."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka import KafkaAdminClient
from kafka.errors import KafkaTimeoutError

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import (
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
)
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.policy.passwords import METHODS, written
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.supervised import Node, until
from tests.integration.wire_client import serve

SECRET: Final = b"0123456789abcdef0123456789abcdef"
_KEYS: Final = {
    "mechanism": "sasl.mechanism",
    "username": "sasl.username",
    "password": "sasl.password",
}
NO_TOPICS: Final = MetadataRequest(topics=[])
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def _user(name: str) -> str:
    kept = [written(method, "pencil", b"a salt", 4_096) for method in METHODS]
    return f'[[users]]\nusername = "{name}"\npassword = {kept}\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("kafka")
    secret = directory / "token.secret"
    secret.write_bytes(SECRET)
    settings = (
        "kafka_runtime.sasl.enabled=true",
        f"kafka_runtime.sasl.mechanisms={json.dumps([*MECHANISMS, 'OAUTHBEARER'])}",
        f"kafka_runtime.oauth.key_files={json.dumps([str(secret)])}",
        "kafka_runtime.oauth.audience=robustmq",
        "kafka_runtime.sasl.session_lifetime_ms=4000",
    )
    yield from serve(directory / "data", *settings, config=_user("alice"))


def _servers(node: Node) -> str:
    return "{}:{}".format(*node.address("kafka_tcp"))


def _confluent(node: Node, **more: Any) -> AdminClient:  # noqa: ANN401
    return AdminClient(_given(node, **more))


def _given(node: Node, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a client of confluent-kafka."""
    return {
        "bootstrap.servers": _servers(node),
        "security.protocol": "SASL_PLAINTEXT",
        **{_KEYS.get(name, name): value for name, value in more.items()},
    }


def _as(node: Node, mechanism: str, name: str, password: str) -> AdminClient:
    return _confluent(node, mechanism=mechanism, username=name, password=password)


def _token(**claims: object) -> str:
    said = {"sub": "alice", "aud": "robustmq", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(said, SECRET, "HS256")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_confluent_kafka(node: Node, mechanism: str) -> None:
    assert _as(node, mechanism, "alice", "pencil").list_topics(timeout=60).brokers


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python(node: Node, mechanism: str) -> None:
    admin = KafkaAdminClient(
        bootstrap_servers=_servers(node),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username="alice",
        sasl_plain_password="pencil",
    )
    assert admin.describe_cluster()["brokers"]
    admin.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_aiokafka(node: Node, mechanism: str) -> None:
    async def look() -> object:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=_servers(node),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            sasl_plain_username="alice",
            sasl_plain_password="pencil",
        )
        await admin.start()
        try:
            return await admin.list_topics()
        finally:
            await admin.close()

    assert isinstance(asyncio.run(look()), list)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat(node: Node, mechanism: str) -> None:
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": mechanism,
        "sasl.username": "alice",
        "sasl.password": "pencil",
    }
    given = [part for name, value in options.items() for part in ("-X", f"{name}={value}")]
    command = ["kcat", "-L", "-b", _servers(node), *given]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "1 brokers" in shown.stdout


def test_a_token_lets_its_bearer_in(node: Node) -> None:
    def bring(_config: str) -> tuple[str, float]:
        return _token(), time.time() + 600

    admin = _confluent(node, mechanism="OAUTHBEARER", oauth_cb=bring)
    admin.poll(0)
    assert admin.list_topics(timeout=60).brokers


def _failure(node: Node, login: Callable[[Callable[..., None]], AdminClient]) -> str:
    """Return what a client says that cannot authenticate."""
    said: list[str] = []

    def failed(error: KafkaError, *_: object) -> None:
        said.append(str(error))

    del node
    admin = login(failed)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    until(lambda: admin.poll(0.1) or said, "the client is told")
    return said[0]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_is_told(node: Node, mechanism: str) -> None:
    said = _failure(
        node,
        lambda failed: _confluent(
            node,
            mechanism=mechanism,
            username="alice",
            password="wrong",
            error_cb=failed,
        ),
    )
    assert "the user name or the password is wrong" in said


def test_kafka_python_is_told_of_a_wrong_password(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KafkaTimeoutError):
        KafkaAdminClient(
            bootstrap_timeout_ms=1_000,
            bootstrap_servers=_servers(node),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_plain_username="alice",
            sasl_plain_password="wrong",
        )
    assert "the user name or the password is wrong" in caplog.text


@pytest.mark.parametrize(
    ("claims", "status"), [({"exp": 1}, "invalid_token"), ({"aud": "other"}, "invalid_token")]
)
def test_a_token_that_is_not_believed(node: Node, claims: dict[str, Any], status: str) -> None:
    message = f"n,,\x01auth=Bearer {_token(**claims)}\x01\x01".encode()
    with KafkaWire(node) as wire:
        wire.ask(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="OAUTHBEARER"))
        said = wire.ask(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=message))
        assert status.encode() in said.auth_bytes
        last = SaslAuthenticateRequest(auth_bytes=b"\x01")
        answer = wire.ask(ApiKey.SASL_AUTHENTICATE, 2, last)
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert "the token" in answer.error_message
        with pytest.raises(Ended):
            wire.frame()


def test_the_session_of_a_token_ends_with_it(node: Node) -> None:
    message = f"n,,\x01auth=Bearer {_token(exp=int(time.time()) + 60)}\x01\x01".encode()
    with KafkaWire(node) as wire:
        wire.ask(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="OAUTHBEARER"))
        said = wire.ask(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=message))
    assert 0 < said.session_lifetime_ms <= 4_000


def test_a_client_that_stays_authenticates_again(node: Node) -> None:
    def logins() -> float:
        return node.sum("mqtt_auth_success_total")

    given = _given(node, mechanism="SCRAM-SHA-256", username="alice", password="pencil")
    producer = Producer(given)
    failed: list[object] = []

    def produce() -> None:
        producer.produce("stays", b"here", on_delivery=lambda error, _: failed.append(error))
        assert producer.flush(60) == 0

    def goes_on() -> bool:
        produce()
        return logins() >= before + 2

    produce()
    before = logins()
    until(goes_on, "it authenticates again and again")
    assert set(failed) == {None}
    reasons = [event["reason"] for event in node.seen("client sent away")]
    assert "it was to authenticate again before anything else" not in reasons


def test_nothing_is_asked_without_a_user(node: Node) -> None:
    with KafkaWire(node) as wire:
        wire.send(ApiKey.METADATA, 12, NO_TOPICS)
        with pytest.raises(Ended):
            wire.frame()


def test_a_user_is_made_and_removed_by_an_administrator(node: Node) -> None:
    admin = _as(node, "PLAIN", "alice", "pencil")
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4_096)
    made = UserScramCredentialUpsertion("bob", info, b"secret", b"a salt")
    admin.alter_user_scram_credentials([made])["bob"].result(timeout=60)

    def comes() -> bool:
        try:
            return bool(_as(node, "SCRAM-SHA-256", "bob", "secret").list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    until(comes, "bob is known to all cores")
    futures: Any = admin.describe_user_scram_credentials(["bob"])
    told = futures["bob"].result(timeout=60)
    (credential,) = told.scram_credential_infos
    assert (credential.mechanism, credential.iterations) == (ScramMechanism.SCRAM_SHA_256, 4_096)
    gone = UserScramCredentialDeletion("bob", ScramMechanism.SCRAM_SHA_256)
    admin.alter_user_scram_credentials([gone])["bob"].result(timeout=60)
    configured = UserScramCredentialUpsertion("alice", info, b"secret", b"a salt")
    refused = admin.alter_user_scram_credentials([configured])["alice"]
    with pytest.raises(KafkaException, match="configuration"):
        refused.result(timeout=60)


def test_a_secret_that_is_too_short_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "token.secret"
    path.write_bytes(b"short")
    settings = (
        "kafka_runtime.sasl.enabled=true",
        'kafka_runtime.sasl.mechanisms=["OAUTHBEARER"]',
        f'kafka_runtime.oauth.key_files=["{path}"]',
    )
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=settings)
    assert node.process.wait(timeout=60) != 0
    assert f"{path} is neither PEM" in node.errors()
    node.close()
