"""The command line of the measurements: `python -m perf --help`.

Exit status: 0 when every run was verified, also when a bar was missed; 1 when a run lost,
reordered or duplicated a message or a broker failed; 2 when the command line is wrong.
"""

import argparse
import json
import resource
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perf import brokers, comparison, generator, machine, processes
from perf.measurement import Measurement, Plan, measure
from perf.scenarios import Scenario, select
from perf.scenarios import peers as usual_peers

RESULTS = Path(__file__).parent / "results"
SECONDS = 3.0
QUICK_SECONDS = 1.0


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of one second for each")
    parser.add_argument(
        "--scenario", metavar="NAME,...", help="only these scenarios or groups (live; durable)"
    )
    parser.add_argument("--peers", metavar="NAME,...", help="others than those of the group")
    parser.add_argument("--runs", type=int, help="interleaved runs of each (3; --quick 1)")
    parser.add_argument("--seconds", type=float, help="measured seconds of a run (3; --quick 1)")
    parser.add_argument("-w", "--workers", type=int, default=2, help="workers of robustmq (2)")
    parser.add_argument(
        "--directory", type=Path, help="where all peers keep their data: it decides which disk"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of perf/results/DATE")
    parser.add_argument(
        "--peer-command",
        action="append",
        default=[],
        metavar="NAME=WORDS",
        help="a further peer: its command line with {port}, {folder}, {workers} in it",
    )
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    return parser.parse_args(words)


def _commands(words: list[str]) -> dict[str, str]:
    """The peers that the user added, by name; ValueError when one is not NAME=WORDS."""
    pairs = [word.partition("=") for word in words]
    for name, _, command in pairs:
        if not name or not command:
            raise ValueError(f"--peer-command needs NAME=WORDS, not {name!r}")
    return {name: command for name, _, command in pairs}


def _versions(named: list[str], usual: list[str], commands: dict[str, str]) -> dict[str, str]:
    """The version of each peer; the usual ones are left out, and that is said, when missing.

    Raises BrokerError when one that the user has named, or ours, is missing.
    """
    found: dict[str, str] = {}
    for peer in dict.fromkeys([*(named or usual), *commands]):
        try:
            found[peer] = brokers.version(peer, commands)
        except brokers.BrokerError as error:
            if named or peer.startswith(comparison.OURS):
                raise
            print(f"perf: {peer} is left out: {error}", file=sys.stderr)
    return found


def _compare(
    scenarios: list[Scenario], peers: list[str], runs: int, plan: Plan
) -> list[Measurement]:
    """All runs: the peers alternate within a run, so that a noisy minute meets all of them."""
    found: list[Measurement] = []
    for number in range(1, runs + 1):
        for scenario in scenarios:
            for peer in peers:
                result = measure(scenario, plan, number, peer)
                note = result.fault or f"{result.cpu_us:.3f} us, {result.rate / 1000:.1f} k/s"
                print(f"run {number} {scenario.name} {peer}: {note}", file=sys.stderr, flush=True)
                found.append(result)
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


def _stolen(before: tuple[float, float]) -> float:
    """Per cent of the processors' time since `before` that the hypervisor gave to others."""
    after = processes.steal_seconds()
    return 100.0 * (after[0] - before[0]) / max(after[1] - before[1], 1e-9)


def main(words: list[str] | None = None) -> int:
    """Runs the comparison that the command line asks for and returns the exit status."""
    options = _arguments(words)
    runs = options.runs or (1 if options.quick else 3)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    try:
        commands = _commands(options.peer_command)
        if options.list:
            listed = select(options.scenario or "live,durable")
            print("\n".join(f"{each.group:<8} {each.name:<16} {each.load}" for each in listed))
            return 0
        scenarios = select(options.scenario)
        named = [name for name in (options.peers or "").split(",") if name]
        versions = _versions(named, usual_peers(scenarios), commands)
        peers = list(versions)
        generator.binary()
    except (ValueError, brokers.BrokerError, generator.GeneratorError) as error:
        print(f"perf: {error}", file=sys.stderr)
        return 2
    plan = Plan(seconds, options.workers, commands, options.directory)
    # An ordinary end, so that the broker and the generator that run now are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Brokers inherit the limit; ten thousand connections need it.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    started, steal, about = (
        datetime.now(UTC),
        processes.steal_seconds(),
        machine.describe(options.directory),
    )
    measurements = _compare(scenarios, peers, runs, plan)
    bars = comparison.bars(scenarios, measurements)
    about["stolen_percent"] = round(_stolen(steal), 2)
    print(
        f"\n{about['processor']}, {about['cores']} cores, {about['stolen_percent']} % stolen; "
        f"medians of {runs} interleaved runs of {plan.seconds:g} s, {plan.workers} workers"
    )
    notes = [f"{peer}: {brokers.NOTES[peer]}" for peer in peers if peer in brokers.NOTES]
    print("\n".join(notes))
    print(f"\n{comparison.table(scenarios, peers, measurements)}")
    print(f"\n{comparison.verdicts(bars, measurements)}")
    _write(
        options.json or RESULTS / f"{started:%Y%m%d-%H%M%S}.json",
        {
            "date": started.isoformat(timespec="seconds"),
            "machine": about,
            "versions": versions,
            "notes": notes,
            "runs": runs,
            "seconds": plan.seconds,
            "workers": plan.workers,
            "bars": [asdict(bar) for bar in bars],
            "measurements": [asdict(each) for each in measurements],
        },
    )
    return 1 if any(each.fault for each in measurements) else 0


if __name__ == "__main__":
    raise SystemExit(main())
