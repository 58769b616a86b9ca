"""Kafka over TLS: real clients, users that certificates name, and SASL above it."""

import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaAdminClient

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.connection import SaslAuthenticateRequest, SaslHandshakeRequest
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.policy.passwords import written
from tests import authority
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.secure import context, settings
from tests.integration.supervised import Node
from tests.integration.wire_client import serve

NO_TOPICS = MetadataRequest(topics=[])
USERS = f"""
[[users]]
username = "alice"
password = "{written("SCRAM-SHA-256", "pencil", b"a salt")}"
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    lines = settings(
        directory, verify="optional", ca_file=str(directory / "ca.pem"), user_from="common_name"
    )
    kafka = (
        "kafka_runtime.sasl.enabled=true",
        "kafka_runtime.advertised_host=localhost",
        "mqtt_runtime.auth.certificate_as_username=alone",
    )
    data = tmp_path_factory.mktemp("kafka") / "data"
    yield from serve(data, *lines, *kafka, config=USERS)


def _servers(node: Node) -> str:
    return f"localhost:{node.address('kafka_tls')[1]}"


def _certified(node: Node, directory: Path) -> dict[str, str | int | float | bool]:
    return {
        "bootstrap.servers": _servers(node),
        "security.protocol": "SSL",
        "ssl.ca.location": str(directory / "ca.pem"),
        "ssl.certificate.location": str(directory / "client.pem"),
        "ssl.key.location": str(directory / "client.key"),
    }


def test_what_is_sent_over_tls_comes_back(node: Node, directory: Path) -> None:
    producer = Producer(_certified(node, directory))
    large = bytes(range(256)) * 2_000
    producer.produce("secure", large)
    assert producer.flush(30) == 0
    consumer = Consumer(
        {**_certified(node, directory), "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["secure"])
    message = consumer.poll(30)
    assert message is not None
    assert (message.error(), message.value()) == (None, large)
    consumer.close()


def test_kafka_python_over_tls_with_a_password(node: Node, directory: Path) -> None:
    admin = KafkaAdminClient(
        bootstrap_servers=_servers(node),
        security_protocol="SASL_SSL",
        ssl_cafile=str(directory / "ca.pem"),
        sasl_mechanism="PLAIN",
        sasl_plain_username="alice",
        sasl_plain_password="pencil",
    )
    assert admin.describe_cluster()["brokers"][0]["port"] == node.address("kafka_tls")[1]
    admin.close()


def test_kcat_over_tls_with_a_proof(node: Node, directory: Path) -> None:
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(directory / "ca.pem"),
        "sasl.mechanisms": "SCRAM-SHA-256",
        "sasl.username": "alice",
        "sasl.password": "pencil",
    }
    given = [part for name, value in options.items() for part in ("-X", f"{name}={value}")]
    command = ["kcat", "-L", "-b", _servers(node), *given]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"localhost:{node.address('kafka_tls')[1]}" in shown.stdout


def test_a_certificate_is_enough_and_without_one_there_must_be_a_proof(
    node: Node, directory: Path
) -> None:
    with KafkaWire(node, "kafka_tls", context(directory, "client")) as wire:
        assert wire.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers
    with KafkaWire(node, "kafka_tls", context(directory)) as wire:
        wire.send(ApiKey.METADATA, 12, NO_TOPICS)
        with pytest.raises(Ended):
            wire.frame()
    with KafkaWire(node, "kafka_tls", context(directory)) as wire:
        wire.ask(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))
        proof = SaslAuthenticateRequest(auth_bytes=b"\0alice\0pencil")
        assert wire.ask(ApiKey.SASL_AUTHENTICATE, 2, proof).error_code == 0
        assert wire.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers


def test_requests_that_come_with_the_handshake_are_not_lost(node: Node, directory: Path) -> None:
    with KafkaWire(node, "kafka_tls", context(directory, "client")) as wire:
        many = b"".join(wire.bytes_of(ApiKey.METADATA, 12, NO_TOPICS) for _ in range(300))
        wire.socket.sendall(many)
        answers = [wire.receive(ApiKey.METADATA, 12)[0] for _ in range(300)]
    assert answers == [*range(1, 301)]


def test_a_stranger_s_authority_and_plain_bytes_are_turned_away(
    node: Node, directory: Path
) -> None:
    with pytest.raises(ssl.SSLError):
        KafkaWire(node, "kafka_tls", context(directory, authority="other"))
    with KafkaWire(node, "kafka_tls") as wire:
        wire.send(ApiKey.METADATA, 12, NO_TOPICS)
        assert _is_ended(wire)


def _is_ended(wire: KafkaWire) -> bool:
    """Wait for the end of a connection; an alert of TLS may come first."""
    try:
        while wire.socket.recv(65_536):
            pass
    except ConnectionError:
        pass
    return True


def test_certificates_are_read_anew_while_clients_are_there(node: Node, directory: Path) -> None:
    with KafkaWire(node, "kafka_tls", context(directory, "client")) as wire:
        wire.ask(ApiKey.METADATA, 12, NO_TOPICS)
        node.send(signal.SIGHUP)
        assert wire.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers
