"""Many measurements to one answer: medians, ratios to robustmq, and the bars that it must clear."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from perf.measurement import Measurement
from perf.scenarios import DURABLE, Scenario

OURS = "robustmq"
BAR_PEER = "mosquitto"


@dataclass(frozen=True, slots=True)
class Median:
    """The medians of the runs of one peer in one scenario; units as in Measurement."""

    peer: str
    runs: int
    cpu_us: float
    rate: float
    publish_rate: float
    p50_us: float
    p99_us: float
    p999_us: float
    generator_cpu_us: float
    connection_bytes: float
    idle_cores: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that is asked of robustmq, and whether it holds."""

    scenario: str
    asked: str
    found: str
    passed: bool


def summarize(measurements: Iterable[Measurement], scenario: str, peer: str) -> Median | None:
    """The medians of those runs that delivered figures, or None when none did."""
    rows = [m for m in measurements if (m.scenario, m.peer) == (scenario, peer) and m.report]
    if not rows:
        return None
    return Median(
        peer,
        len(rows),
        cpu_us=median(m.cpu_us for m in rows),
        rate=median(m.rate for m in rows),
        publish_rate=median(m.publish_rate for m in rows),
        p50_us=median(m.p50_us for m in rows),
        p99_us=median(m.p99_us for m in rows),
        p999_us=median(m.p999_us for m in rows),
        generator_cpu_us=median(m.generator_cpu_us for m in rows),
        connection_bytes=median(m.connection_bytes for m in rows),
        idle_cores=median(m.idle_cores for m in rows),
    )


def ratio(theirs: Median, ours: Median) -> float:
    """How many times our CPU time for a delivery the peer needs; 0 when ours is not known."""
    return theirs.cpu_us / ours.cpu_us if ours.cpu_us else 0.0


def bars(scenarios: Iterable[Scenario], measurements: list[Measurement]) -> list[Bar]:
    """The bars of these scenarios; those for which a side has no figures are left out."""
    found: list[Bar] = []
    for scenario in scenarios:
        found += _own_bars(scenario, measurements)
        ours = summarize(measurements, scenario.name, OURS)
        theirs = summarize(measurements, scenario.name, BAR_PEER)
        if ours is None or theirs is None:
            continue
        if scenario.cpu_ratio:
            times = ratio(theirs, ours)
            asked = f"CPU of {BAR_PEER} >= {scenario.cpu_ratio:g} x ours"
            passed = times >= scenario.cpu_ratio
            found.append(Bar(scenario.name, asked, f"{times:.1f} x", passed))
        if scenario.p99_bar:
            asked = f"p99 <= {BAR_PEER}'s"
            values = f"{ours.p99_us:.0f} against {theirs.p99_us:.0f} us"
            found.append(Bar(scenario.name, asked, values, ours.p99_us <= theirs.p99_us))
    return found


def _own_bars(scenario: Scenario, measurements: list[Measurement]) -> Iterator[Bar]:
    """What is asked of robustmq alone: what durability may cost, and rates."""
    durable = summarize(measurements, scenario.name, OURS)
    live = summarize(measurements, scenario.live, OURS)
    if durable is not None and live is not None:
        cost = durable.cpu_us / live.cpu_us
        values = f"{cost:.2f} x ({durable.cpu_us:.3f} against {live.cpu_us:.3f} us)"
        asked = f"CPU <= {DURABLE:g} x {scenario.live}'s"
        yield Bar(scenario.name, asked, values, cost <= DURABLE)
    for peer, floor in scenario.rates:
        row = summarize(measurements, scenario.name, peer)
        if row is not None:
            rate, what = row.publish_rate, "acknowledged/s"
            if scenario.load.backlog:
                rate, what = row.rate, "deliveries/s"
            passed = rate >= floor
            yield Bar(scenario.name, f"{peer}: {what} >= {floor:,.0f}", f"{rate:,.0f}", passed)


def _figures(scenario: Scenario, row: Median) -> str:
    text = f"{row.cpu_us:10.3f} {row.rate / 1000:10.1f}"
    if scenario.load.topology == "connect":
        return f"{text}   {row.connection_bytes / 1024:.2f} KiB, {row.idle_cores:.3f} cores idle"
    acked = f"{row.publish_rate / 1000:10.1f}" if scenario.load.qos else f"{'':10}"
    quantiles = f"{row.p50_us:9.0f} {row.p99_us:9.0f} {row.p999_us:9.0f}"
    return f"{text} {acked} {quantiles} {row.generator_cpu_us:8.3f}"


def table(scenarios: list[Scenario], peers: list[str], measurements: list[Measurement]) -> str:
    """The printed table: a line for each scenario and peer, medians of the runs."""
    head = f"{'scenario':<16} {'peer':<20} {'us/deliv':>10} {'k/s':>10} {'acked k/s':>10}"
    head += f" {'p50 us':>9} {'p99 us':>9} {'p99.9 us':>9} {'gen us':>8}  peer/robustmq"
    lines = [head]
    for scenario in scenarios:
        ours = summarize(measurements, scenario.name, OURS)
        for peer in peers:
            row = summarize(measurements, scenario.name, peer)
            place = f"{scenario.name:<16} {peer:<20}"
            if row is None:
                lines.append(f"{place} {'no figures':>10}")
                continue
            line = f"{place} {_figures(scenario, row)}"
            if peer == OURS and scenario.target_us:
                line += f"  (target {scenario.target_us:g})"
            elif peer != OURS and ours is not None:
                line += f"  {ratio(row, ours):.2f}"
            lines.append(line)
    return "\n".join(lines)


def verdicts(found: list[Bar], measurements: list[Measurement]) -> str:
    """The bars with pass or fail, then every verification that failed."""
    lines = [
        f"{'pass' if bar.passed else 'FAIL'}  {bar.scenario:<16} {bar.asked}: {bar.found}"
        for bar in found
    ]
    faults = [m for m in measurements if m.fault]
    done = [m for m in measurements if m.p99_us]
    lines += [f"FAULT {m.scenario} {m.peer} run {m.number}: {m.fault}" for m in faults]
    if any(m.report and m.report["lag_us"]["count"] and not m.report["realtime"] for m in done):
        lines.append("note: no real-time priority, so latencies hold the generator's own delays")
    if not faults:
        lines.append(f"verified: no loss, disorder or duplicate in {len(measurements)} runs")
    return "\n".join(lines)
