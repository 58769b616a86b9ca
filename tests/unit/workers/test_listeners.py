import msgspec
import pytest

from robustmq.config import Config
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.server import MqttServer
from robustmq.settings.tls import MqttTls
from robustmq.workers.listeners import configured


def _names(server: MqttServer, tls: MqttTls) -> list[str]:
    config = msgspec.structs.replace(Config(), mqtt_runtime=MqttRuntime(server=server, tls=tls))
    return [listener.name for listener in configured(config)]


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
