"""Publish rates: what is granted over time, to one, to all of a listener, and per filter."""

from array import array
from collections.abc import Callable

import pytest

from robustmq._kernel.intake import Intake
from robustmq._kernel.meter import Meter
from robustmq._kernel.outbox import Outbox
from robustmq._kernel.turn import Turn
from robustmq.config import Config
from robustmq.metrics import CELLS
from robustmq.policy.limit_names import ledger_names
from robustmq.policy.principal import Peer
from robustmq.policy.publish_quota import PublishQuota
from robustmq.settings.limits import MqttLimitClient, PublishLimit
from robustmq.settings.listener import MqttListener, MqttListeners
from robustmq.shm.ledger import Ledger

NOW_MS = 1_700_000_000_000
PEER = Peer("1.1.1.1", "tcp")


class Core:
    """One core's quota, its timers, and intakes that always have something to publish."""

    def __init__(
        self,
        client: MqttLimitClient | None = None,
        listeners: MqttListeners | None = None,
        topics: tuple[PublishLimit, ...] = (),
        *,
        ledger: Ledger | None = None,
        number: int = 0,
    ) -> None:
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = NOW_MS
        self.timers: list[tuple[int, Callable[[], None]]] = []
        shared = ledger or Ledger(1, ledger_names(Config(publish_limits=topics)), bytes(16))
        self.quota = PublishQuota(
            client or MqttLimitClient(),
            listeners or MqttListeners(),
            topics,
            turn=self.turn,
            at=lambda when_ms, callback: self.timers.append((when_ms, callback)),
            ledger=lambda: shared.of(number),
        )
        self.taken: dict[Intake, int] = {}
        self.meters: dict[Intake, list[Meter]] = {}

    def intake(self, meters: list[Meter] | None) -> Intake:
        intake = Intake(self.turn, Outbox(self.turn), None, 1_000)  # type: ignore[arg-type]
        assert meters is not None
        self.meters[intake] = meters
        self.taken[intake] = 0
        return intake

    def publish(self, intake: Intake, size: int = 10, most: int = 1_000) -> None:
        """Publish as much as the meters allow now."""
        for _ in range(most):
            for meter in self.meters[intake]:
                meter.check(intake)
            if intake.throttled:
                return
            self.taken[intake] += 1
            for meter in self.meters[intake]:
                meter.charge(intake, 1, size)

    def run(self, until_ms: int, size: int = 10) -> None:
        """Let time pass; whoever is released publishes on."""
        while self.timers and min(self.timers)[0] <= until_ms:
            when_ms, callback = min(self.timers, key=lambda each: each[0])
            self.timers.remove((when_ms, callback))
            self.turn.now_ms = max(when_ms, self.turn.now_ms)
            callback()
            resumes, self.turn.resumes[:] = self.turn.resumes[:], []
            for intake in resumes:
                self.publish(intake, size)
        self.turn.now_ms = until_ms


@pytest.mark.parametrize("rate", [1, 7, 20, 1_000])
def test_a_client_publishes_its_rate_and_a_second_at_once(rate: int) -> None:
    core = Core(MqttLimitClient(max_publish_rate=rate))
    intake = core.intake(core.quota.meters(PEER))
    core.publish(intake, most=10_000)
    assert core.taken[intake] == rate
    core.run(NOW_MS + 10_000)
    assert 10 * rate <= core.taken[intake] <= 11 * rate
    assert len(core.timers) == 1


def test_bytes_have_a_rate_and_a_debt_is_paid() -> None:
    core = Core(MqttLimitClient(max_publish_bytes=1_000))
    intake = core.intake(core.quota.meters(PEER))
    core.publish(intake, size=4_000)
    assert core.taken[intake] == 1
    core.run(NOW_MS + 2_900, size=4_000)
    assert core.taken[intake] == 1
    core.run(NOW_MS + 3_200, size=4_000)
    assert core.taken[intake] == 2


def test_the_clients_of_a_listener_share_its_rate_in_turn() -> None:
    listeners = MqttListeners(ws=MqttListener(max_publish_rate=100))
    core = Core(listeners=listeners)
    assert core.quota.meters(PEER) is None
    intakes = [core.intake(core.quota.meters(Peer("1.1.1.1", "ws"))) for _ in range(4)]
    for intake in intakes:
        core.publish(intake)
    core.run(NOW_MS + 20_000)
    total = sum(core.taken.values())
    assert 2_000 <= total <= 2_101
    assert min(core.taken.values()) > total / 8


def test_the_cores_of_a_node_share_the_rate_of_a_filter() -> None:
    topics = (
        PublishLimit(filter="a/b"),
        PublishLimit(filter="a/#", max_publish_rate=50),
        PublishLimit(filter="a/c", max_publish_rate=1),
    )
    ledger = Ledger(2, ledger_names(Config(publish_limits=topics)), bytes(16))
    cores = [Core(topics=topics, ledger=ledger, number=number) for number in range(2)]
    for core in cores:
        assert core.quota.of_topic(b"b") is None
        assert core.quota.of_topic(b"a/b") is None
        meter = core.quota.of_topic(b"a/c")
        assert meter is not None
        assert meter is core.quota.of_topic(b"a")
        core.publish(core.intake([meter]))
    for now_ms in range(NOW_MS, NOW_MS + 10_001, 50):
        for core in cores:
            core.run(now_ms)
    total = sum(sum(core.taken.values()) for core in cores)
    assert 450 <= total <= 610


def test_who_is_gone_is_not_waited_for() -> None:
    core = Core(listeners=MqttListeners(tcp=MqttListener(max_publish_rate=20)))
    intakes = [core.intake(core.quota.meters(PEER)) for _ in range(30)]
    for intake in intakes:
        core.publish(intake)
    for intake in intakes[:-1]:
        intake.close()
    before = core.taken[intakes[-1]]
    core.run(NOW_MS + 2_000)
    assert core.taken[intakes[-1]] > before


def test_without_limits_there_is_no_meter() -> None:
    core = Core()
    assert not core.quota.is_used
    assert core.quota.meters(PEER) is None
    assert core.quota.of_topic(b"a") is None
