"""Medians, ratios, bars and verdicts from given measurements."""

import pytest

from perf import comparison
from perf.measurement import Measurement
from perf.scenarios import SCENARIOS, Scenario, select


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
