import msgspec
import pytest

from robustmq.config import Config
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.server import MqttServer
from robustmq.settings.tls import MqttTls
from robustmq.workers.listeners import configured, kafka_host, kafka_ports, port, port_key


def _names(server: MqttServer, tls: MqttTls) -> list[str]:
    config = msgspec.structs.replace(Config(), mqtt_runtime=MqttRuntime(server=server, tls=tls))
    return [listener.name for listener in configured(config) if listener.protocol == "mqtt"]


def test_what_needs_a_certificate_is_open_once_there_is_one() -> None:
    tls = MqttTls(tls_cert=("server.pem",), tls_key=("server.key",))
    assert _names(MqttServer(), MqttTls()) == ["tcp", "ws"]
    assert _names(MqttServer(), tls) == ["tcp", "tls", "ws", "wss", "quic"]


@pytest.mark.parametrize(("verify", "is_open"), [("optional", True), ("required", False)])
def test_quic_is_not_open_where_certificates_of_clients_are_required(
    verify: str, is_open: bool
) -> None:
    settings = {"tls_cert": ["a"], "tls_key": ["b"], "verify": verify, "ca_file": "ca"}
    tls = msgspec.convert(settings, MqttTls)
    assert ("quic" in _names(MqttServer(), tls)) is is_open


def test_a_listener_that_is_not_named_is_not_open() -> None:
    tls = MqttTls(tls_cert=("server.pem",), tls_key=("server.key",))
    assert _names(MqttServer(listeners=("quic",)), tls) == ["quic"]


def _kafka(settings: KafkaRuntime, tls: MqttTls | None = None) -> list[str]:
    mqtt = MqttRuntime(tls=tls or MqttTls())
    config = msgspec.structs.replace(Config(), kafka_runtime=settings, mqtt_runtime=mqtt)
    return [each.address_name for each in configured(config) if each.protocol == "kafka"]


def test_each_core_has_a_port_of_its_own_where_cores_are_advertised() -> None:
    tls = MqttTls(tls_cert=("server.pem",), tls_key=("server.key",))
    assert _kafka(KafkaRuntime()) == ["kafka_tcp"]
    assert _kafka(KafkaRuntime(listeners=("tls",))) == []
    assert _kafka(KafkaRuntime(), tls) == ["kafka_tcp", "kafka_tls"]
    assert _kafka(KafkaRuntime(advertise="core", listeners=("tcp",)), tls) == [
        "kafka_tcp",
        "kafka_tcp_core",
    ]


def test_the_ports_of_kafka_are_told_by_listener_the_common_one_first() -> None:
    addresses = {
        "mqtt_tcp": "0.0.0.0:1883",
        "kafka_tcp": "0.0.0.0:9092",
        "kafka_tcp_core_0": "0.0.0.0:9093",
        "kafka_tcp_core_1": "0.0.0.0:9094",
        "kafka_tls": "[::]:9193",
    }
    assert kafka_ports(addresses, 2) == {"kafka_tcp": (9092, 9093, 9094), "kafka_tls": (9193,)}


def test_a_port_is_said_as_an_administrator_writes_it() -> None:
    listeners = {each.address_name: each for each in configured(Config())}
    assert port_key(Config(), listeners["mqtt_tcp"]) == "mqtt_runtime.server.tcp_port"
    assert port_key(Config(), listeners["kafka_tcp"]) == "kafka_runtime.tcp_port"
    assert port(Config(), listeners["kafka_tcp"]) == 9092


def test_clients_are_told_where_to_connect() -> None:
    config = msgspec.structs.replace(Config(), broker_ip="192.0.2.7")
    assert kafka_host(config) == "192.0.2.7"
    assert kafka_host(Config()) not in {"", "0.0.0.0"}
    said = KafkaRuntime(advertised_host="kafka.example")
    assert kafka_host(msgspec.structs.replace(config, kafka_runtime=said)) == "kafka.example"
