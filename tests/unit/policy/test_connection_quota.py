"""Limits of connections over cores that share a ledger."""

import pytest

from robustmq.config import Config
from robustmq.errors import Refusal
from robustmq.policy.connection_quota import ConnectionQuota
from robustmq.policy.limit_names import ledger_names
from robustmq.policy.principal import Peer
from robustmq.policy.token_bucket import TokenBucket
from robustmq.settings.limits import MqttLimitCluster
from robustmq.settings.listener import MqttListener, MqttListeners
from robustmq.shm.ledger import Ledger

NOW_MS = 1_700_000_000_000


class Cores:
    def __init__(self, limits: MqttLimitCluster, listeners: MqttListeners | None = None) -> None:
        self.limits = limits
        self.listeners = listeners or MqttListeners()
        self.ledger = Ledger(2, ledger_names(Config()), bytes(16))
        self.quotas = [self.make(core) for core in range(2)]

    def make(self, core: int) -> ConnectionQuota:
        return ConnectionQuota(self.limits, self.listeners, lambda: self.ledger.of(core))

    def connect(
        self, core: int, peer: Peer, now_ms: int = NOW_MS, replaces: bool = False
    ) -> Refusal | None:
        refused = self.quotas[core].admit(peer.principal("c", None), now_ms, replaces)
        if refused is None:
            self.quotas[core].opened(peer)
        return None if refused is None else refused.code


def test_the_node_is_full_wherever_its_clients_are() -> None:
    cores = Cores(MqttLimitCluster(max_connections_per_node=3))
    peer = Peer("1.1.1.1")
    assert [cores.connect(core, peer) for core in (0, 1, 1)] == [None] * 3
    for core in range(2):
        assert cores.connect(core, peer) is Refusal.QUOTA_EXCEEDED
    assert cores.connect(0, peer, replaces=True) is None
    cores.quotas[0].closed(peer)
    assert cores.connect(1, peer) is Refusal.QUOTA_EXCEEDED
    cores.quotas[1].closed(peer)
    assert cores.connect(1, peer) is None


def test_a_core_that_was_replaced_has_nobody() -> None:
    cores = Cores(MqttLimitCluster(max_connections_per_node=2, max_connections_per_address=2))
    peer = Peer("1.1.1.1")
    assert [cores.connect(0, peer) for _ in range(3)] == [None, None, Refusal.QUOTA_EXCEEDED]
    cores.quotas[0] = cores.make(0)
    assert cores.connect(1, peer) is None


def test_an_address_has_its_own_limit() -> None:
    cores = Cores(MqttLimitCluster(max_connections_per_address=2))
    for number in range(50):
        peer = Peer(f"10.0.0.{number}")
        assert [cores.connect(number % 2, peer), cores.connect(1, peer)] == [None, None]
        assert cores.connect(0, peer) is Refusal.QUOTA_EXCEEDED
    for _ in range(5):
        assert cores.connect(0, Peer("", "unix")) is None
    cores.quotas[1].closed(Peer("10.0.0.9"))
    assert cores.connect(0, Peer("10.0.0.9")) is None


def test_a_listener_has_its_own_limits() -> None:
    listeners = MqttListeners(ws=MqttListener(max_connections=1, max_connection_rate=2))
    cores = Cores(MqttLimitCluster(), listeners)
    web = Peer("1.1.1.1", "ws")
    assert cores.connect(0, web) is None
    assert cores.connect(1, web) is Refusal.QUOTA_EXCEEDED
    cores.quotas[0].closed(web)
    assert cores.connect(1, web) is None
    cores.quotas[1].closed(web)
    assert cores.connect(1, web) is Refusal.RATE_EXCEEDED
    assert [cores.connect(1, Peer("1.1.1.1", "tcp")) for _ in range(9)] == [None] * 9
    assert cores.connect(0, web, NOW_MS + 500) is None


def test_the_rate_is_that_of_all_cores() -> None:
    cores = Cores(MqttLimitCluster(max_connection_rate=10))
    peer = Peer("1.1.1.1")
    outcomes = [cores.connect(number % 2, peer) for number in range(20)]
    assert outcomes.count(None) == 10
    assert outcomes[-1] is Refusal.RATE_EXCEEDED
    later = [cores.connect(number % 2, peer, NOW_MS + 300) for number in range(20)]
    assert later.count(None) == 3


def test_without_limits_nothing_is_counted() -> None:
    def none() -> Ledger:
        raise AssertionError("no ledger is needed")

    quota = ConnectionQuota(MqttLimitCluster(), MqttListeners(), none)  # type: ignore[arg-type]
    peer = Peer("1.1.1.1")
    assert quota.admit(peer.principal("c", None), NOW_MS, False) is None
    quota.opened(peer)
    quota.closed(peer)


@pytest.mark.parametrize("rate", [1, 7, 1_000])
def test_a_bucket_gives_its_rate_and_a_second_at_once(rate: int) -> None:
    bucket = TokenBucket(rate)
    assert bucket.take(rate, NOW_MS) == 0
    wait_ms = bucket.wait_ms()
    assert bucket.take(0, NOW_MS + wait_ms) >= 1
    assert bucket.take(0, NOW_MS + 60_000) == rate
    assert bucket.take(3 * rate, NOW_MS + 60_000) == -2 * rate
    assert bucket.take(0, NOW_MS + 62_000) == 0
