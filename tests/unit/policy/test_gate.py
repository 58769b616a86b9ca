"""The gate asks who is banned, and whether somebody comes again and again where that counts."""

from array import array

import msgspec

from robustmq.errors import Refusal
from robustmq.metrics import CELLS, FLAPPING_BANNED
from robustmq.policy.bans import Bans
from robustmq.policy.connection_quota import ConnectionQuota, Ledger
from robustmq.policy.flapping import Flapping
from robustmq.policy.gate import Gate
from robustmq.policy.principal import Principal
from robustmq.settings.limits import Ban, MqttFlappingDetect, MqttLimitCluster
from robustmq.settings.listener import MqttListeners

NOW_MS = 1_700_000_000_000
CLIENT = Principal("rdkafka", None, "192.0.2.1", "kafka_tcp")


def _no_ledger() -> Ledger:
    raise AssertionError("nothing is counted without a limit")


def _gate(cells: "array[int]", earned: list[Ban]) -> Gate:
    settings = msgspec.convert({"enable": True, "max_client_connections": 3}, MqttFlappingDetect)
    quota = ConnectionQuota(MqttLimitCluster(), MqttListeners(), _no_ledger)
    return Gate(Bans(()), Flapping(settings), quota, memoryview(cells), earned.append)


def test_a_client_with_many_connections_does_not_flap_and_another_does() -> None:
    cells, earned = array("Q", bytes(8 * CELLS)), list[Ban]()
    gate = _gate(cells, earned)
    for _ in range(10):
        assert gate.admit(CLIENT, NOW_MS, replaces=False, has_many=True) is None
    found = [gate.admit(CLIENT, NOW_MS, replaces=False) for _ in range(3)]
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2].code is Refusal.BANNED
    assert (len(earned), cells[FLAPPING_BANNED]) == (1, 1)
    refused = gate.admit(CLIENT, NOW_MS, replaces=False, has_many=True)
    assert refused is not None
    assert refused.code is Refusal.BANNED
