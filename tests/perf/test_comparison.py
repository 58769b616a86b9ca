"""Medians, ratios, bars and verdicts from given measurements."""

import pytest

from perf import comparison
from perf.measurement import Measurement
from perf.scenarios import DURABLE_PEERS, LIVE_PEERS, SCENARIOS, Scenario, peers, select


def known(scenario: str, ours: list[float], theirs: list[float]) -> list[Measurement]:
    """Measurements of both sides; the value is CPU time and p99 at once."""
    return [
        Measurement(scenario, peer, number, "", value, 1e5, p99_us=value, report={"deliveries": 1})
        for peer, values in (("robustmq", ours), ("mosquitto", theirs))
        for number, value in enumerate(values)
    ]


def one(name: str) -> Scenario:
    return select(name)[0]


def test_the_median_ignores_one_noisy_run() -> None:
    found = comparison.summarize(
        known("fo100_q0_64", [0.1, 9.0, 0.2], []), "fo100_q0_64", "robustmq"
    )
    assert found is not None
    assert found.cpu_us == 0.2
    assert found.runs == 3


@pytest.mark.parametrize(
    ("name", "theirs", "passed"),
    [
        ("fo100_q0_64", 8.0, True),
        ("fo100_q0_64", 7.9, False),
        ("fi100_q1_256", 2.0, True),
        ("pr100_q0_256", 1.9, False),
    ],
)
def test_cpu_bars(name: str, theirs: float, passed: bool) -> None:
    (bar,) = comparison.bars([one(name)], known(name, [1.0], [theirs]))
    assert bar.passed is passed


@pytest.mark.parametrize(("ours", "passed"), [(99.0, True), (100.0, True), (101.0, False)])
def test_p99_bar(ours: float, passed: bool) -> None:
    (bar,) = comparison.bars([one("rate10k_q0")], known("rate10k_q0", [ours], [100.0]))
    assert bar.passed is passed


def test_no_bar_without_the_other_side() -> None:
    assert comparison.bars([one("fo100_q0_64")], known("fo100_q0_64", [1.0], [])) == []


def test_a_failed_run_has_no_figures_and_is_named() -> None:
    broken = Measurement("fo100_q0_64", "robustmq", 2, "it did not start")
    assert comparison.summarize([broken], "fo100_q0_64", "robustmq") is None
    assert "no figures" in comparison.table([one("fo100_q0_64")], ["robustmq"], [broken])
    assert "FAULT fo100_q0_64 robustmq run 2: it did not start" in comparison.verdicts([], [broken])


def test_the_table_shows_the_ratio() -> None:
    name = "fo100_q0_64"
    lines = comparison.table(
        [one(name)], ["robustmq", "mosquitto"], known(name, [0.5], [5.0])
    ).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("10.00")


def test_scenario_names() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert [scenario.name for scenario in select("conn10k,rate1k_q0")] == ["conn10k", "rate1k_q0"]
    with pytest.raises(ValueError, match="unknown scenario nonsense"):
        select("nonsense,conn10k")


def test_durable_scenarios_are_a_group_of_their_own() -> None:
    usual = select(None)
    assert usual == select("live")
    assert {scenario.group for scenario in usual} == {"live"}
    assert peers(usual) == list(LIVE_PEERS)
    durable = select("durable")
    assert peers(durable) == list(DURABLE_PEERS)
    assert {scenario.name for scenario in durable if scenario.group == "live"} == {
        scenario.live for scenario in durable if scenario.live
    }
    assert len(select("live,durable")) == len(SCENARIOS)
    assert all(scenario.load.durable and scenario.load.qos for scenario in durable[2:])


def of(scenario: str, peer: str, cpu_us: float, rate: float = 0.0) -> Measurement:
    return Measurement(
        scenario, peer, 1, "", cpu_us, rate=rate, publish_rate=rate, report={"deliveries": 1}
    )


@pytest.mark.parametrize(("cpu_us", "passed"), [(2.0, True), (2.1, False)])
def test_the_bar_on_what_durability_costs(cpu_us: float, passed: bool) -> None:
    measured = [of("pr100_q1_256", "robustmq", 1.0), of("dpr100_q1_256", "robustmq", cpu_us)]
    (bar,) = comparison.bars([one("dpr100_q1_256")], measured)
    assert bar.passed is passed
    assert comparison.bars([one("dpr100_q1_256")], measured[1:]) == []


@pytest.mark.parametrize(
    ("name", "peer", "rate", "passed"),
    [
        ("dfi200_q1_64_w32", "robustmq-always", 50_000, True),
        ("dfi200_q1_64_w32", "robustmq-always", 49_999, False),
        ("backlog1_q1_64", "robustmq", 100_000, True),
        ("backlog1_q1_64", "robustmq", 99_999, False),
    ],
)
def test_bars_on_rates(name: str, peer: str, rate: float, passed: bool) -> None:
    (bar,) = comparison.bars([one(name)], [of(name, peer, 1.0, rate)])
    assert bar.passed is passed
    assert comparison.bars([one(name)], [of(name, "nats", 1.0, rate)]) == []
