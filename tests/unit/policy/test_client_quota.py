"""Quotas of clients: whose holds, who shares it, and how long somebody waits."""

from collections import Counter

import msgspec
import pytest

from robustmq.meta.records import ClientQuota, encoded
from robustmq.policy.client_quota import (
    CONSUMER_BYTES,
    PRODUCER_BYTES,
    REQUEST_PERCENTAGE,
    ClientQuotas,
    record_name,
)
from robustmq.policy.principal import Principal

NOW_MS = 1_700_000_000_000
MOST_MS = 30_000


class _Ledger:
    """What all cores have counted."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def add(self, name: str, amount: int) -> None:
        raise AssertionError(f"{name} was not agreed: {amount}")

    def total(self, name: str) -> int:
        raise AssertionError(f"{name} was not agreed")

    def add_of(self, address: str, amount: int) -> None:
        self.counted[address] += amount

    def total_of(self, address: str) -> int:
        return self.counted[address]


class _Node:
    """Quotas on several cores, which count together."""

    def __init__(self, cores: int = 1) -> None:
        self.ledger = _Ledger()
        self.cores = [ClientQuotas(lambda: self.ledger, MOST_MS) for _ in range(cores)]

    def set(self, quotas: dict[str, float], **entity: str | None) -> str:
        quota = ClientQuota(
            entity={"user" if k == "user" else "client-id": v for k, v in entity.items()},
            quotas=quotas,
        )
        name = record_name(quota)
        for core in self.cores:
            core.apply(name, msgspec.msgpack.decode(encoded(quota)))
        return name

    def produce(  # noqa: PLR0917
        self,
        size: int,
        user: str | None = "alice",
        client: str | None = "c",
        now_ms: int = NOW_MS,
        core: int = 0,
        tenant: str = "default",
    ) -> int:
        allowance = self.cores[core].of(Principal("", user, tenant=tenant), client)
        return 0 if allowance is None else allowance.take(size, 0, 0, now_ms)


def _rate(bytes_s: float) -> dict[str, float]:
    return {PRODUCER_BYTES: bytes_s}


def test_without_a_quota_nobody_waits() -> None:
    node = _Node()
    assert node.produce(10**9) == 0
    node.set(_rate(1), user="bob")
    assert node.produce(10**9) == 0


def test_who_takes_more_than_a_second_s_worth_waits_until_it_is_there() -> None:
    node = _Node()
    node.set(_rate(1_000), user="alice")
    assert node.produce(1_000) == 0
    assert node.produce(500) == 501
    assert node.produce(0, now_ms=NOW_MS + 500) == 0
    assert node.produce(1_000, now_ms=NOW_MS + 501) == pytest.approx(1_000, abs=2)
    assert node.produce(10**9) == MOST_MS


@pytest.mark.parametrize(
    "entities",
    [
        [{"user": "alice", "client": "c"}, {"user": "alice", "client": None}],
        [{"user": "alice", "client": None}, {"user": "alice"}],
        [{"user": "alice"}, {"user": None, "client": "c"}],
        [{"user": None, "client": "c"}, {"user": None, "client": None}],
        [{"user": None, "client": None}, {"user": None}],
        [{"user": None}, {"client": "c"}],
        [{"client": "c"}, {"client": None}],
    ],
)
def test_the_most_specific_quota_holds(entities: list[dict[str, str | None]]) -> None:
    node = _Node()
    specific, general = entities
    node.set(_rate(1_000_000), **specific)
    node.set(_rate(1), **general)
    assert node.produce(1_000) == 0
    node = _Node()
    node.set(_rate(1), **specific)
    node.set(_rate(1_000_000), **general)
    assert node.produce(1_000) > 0


def test_of_each_kind_another_quota_may_hold() -> None:
    node = _Node()
    node.set(_rate(1), client=None)
    node.set({CONSUMER_BYTES: 1, REQUEST_PERCENTAGE: 50}, user="alice")
    allowance = node.cores[0].of(Principal("", "alice"), "c")
    assert allowance is not None
    assert allowance.take(0, 0, 500_000_000, NOW_MS) == 0
    assert allowance.take(0, 0, 500_000_000, NOW_MS) == 1_001
    assert allowance.take(0, 2, 0, NOW_MS) == 1_001


def test_the_default_is_for_each_by_itself_and_a_user_s_for_all_its_clients() -> None:
    node = _Node()
    node.set(_rate(1_000), user=None)
    assert node.produce(1_500, "alice") > 0
    assert node.produce(1_000, "bob") == 0
    assert node.produce(10, "alice", "another") > 0
    assert node.produce(1_000, None) == 0
    assert node.produce(1_000, "alice", tenant="acme") == 0


def test_the_cores_of_a_node_count_together() -> None:
    node = _Node(cores=2)
    node.set(_rate(1_000), user="alice")
    assert node.produce(0, core=1) == 0
    assert node.produce(900, core=0) == 0
    assert node.produce(200, core=1) > 0


def test_a_quota_that_is_gone_or_other_holds_as_it_is() -> None:
    node = _Node()
    name = node.set(_rate(1), user="alice")
    assert node.produce(1_000) > 0
    node.set(_rate(10_000), user="alice")
    assert node.produce(1_000) == 0
    (core,) = node.cores
    core.apply(name, None)
    assert core.by_entity == {}
    node.set(_rate(1), client=None)
    core.clear()
    assert node.produce(10**6) == 0


def test_what_is_no_quota_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        _Node().cores[0].apply("x", {"entity": {"planet": "x"}, "quotas": {}})


def test_as_many_clients_as_there_are_take_no_more_memory() -> None:
    node = _Node()
    node.set(_rate(1_000_000), client=None)
    for n in range(10_100):
        node.produce(1, client=str(n))
    assert len(node.cores[0]._known) <= 10_000
