"""Whom the gate is asked about: a client of its tenant, who may replace only itself."""

from robustmq.errors import Refused
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.principal import Peer, Principal
from tests.unit.mqtt.scripted import Scene, connected


class Gate:
    """Admits everybody, and remembers who replaced a connection."""

    def __init__(self) -> None:
        self.replaced: list[bool] = []

    def admit(
        self, principal: Principal, now_ms: int, replaces: bool, *, has_many: bool = False
    ) -> Refused | None:
        assert not has_many
        del principal, now_ms
        self.replaced.append(replaces)
        return None

    def banned(self, _principal: Principal, _now_ms: int) -> Refused | None:
        return None

    def opened(self, _peer: Peer) -> None: ...

    def closed(self, _peer: Peer) -> None: ...


def test_a_client_of_another_tenant_replaces_nobody() -> None:
    scene = Scene()
    connected(scene, "c")
    mqtt: Mqtt = scene.mqtt
    gate = Gate()
    mqtt._gate = gate
    mqtt.admit(Principal("c"))
    mqtt.admit(Principal("c", tenant="acme"))
    assert gate.replaced == [True, False]
