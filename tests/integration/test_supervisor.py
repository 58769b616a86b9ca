"""The real supervisor, server and workers; a stand-in for a worker where it has to misbehave."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.supervised import ROOT, Node, until

Start = Callable[..., Node]
REAL = "robustmq.cli.supervisor"
STANDIN = "tests.integration.standin"
CONNECT = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c"
CONNACK = b"\x20\x02\0\0"
PATIENT = "runtime.drain_timeout_ms=60000"
QUICK = ("runtime.restart_backoff_ms=50",)
WATCHED = (*QUICK, "runtime.heartbeat_timeout_ms=2000")
HURRIED = (*QUICK, "runtime.start_timeout_ms=1500")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[Node] = []

    def begin(
        *arguments: str,
        data: Path | None = None,
        workers: int = 2,
        settings: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        shell_prefix: str = "",
        module: str = REAL,
    ) -> Node:
        place = tmp_path / f"data{len(nodes)}"
        if data is not None:
            place.symlink_to(data)
        nodes.append(
            Node(
                place,
                *arguments,
                workers=workers,
                module=module,
                settings=settings,
                environment=environment,
                shell_prefix=shell_prefix,
            )
        )
        return nodes[-1]

    yield begin
    for node in nodes:
        node.close()


def refusal(node: Node) -> str:
    """Wait for a start that fails; return its one line on standard error."""
    assert node.wait() == 1
    lines = [line for line in node.errors().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("robustmq-supervisor: ")
    assert not node.survivors()
    return lines[0].removeprefix("robustmq-supervisor: ")


def served_by(node: Node, say: bytes = b"bye") -> int:
    """Connect, have the worker do something, and return which one it was."""
    with node.connect() as client:
        index = int(client.recv(1))
        client.sendall(say)
        client.recv(1)
        return index


def restarts(node: Node) -> float:
    return sum(node.sample(f'robustmq_worker_restarts_total{{core="{i}"}}') for i in (0, 1))


def test_names_places_and_health_of_a_ready_node(start: Start, tmp_path: Path) -> None:
    node = start().ready()
    assert node.facts["workers"] == 2
    assert node.facts["kernel"] in {"compiled", "pure"}
    assert node.facts["pid"] == node.process.pid
    assert node.facts["data_path"] == str(tmp_path / "data0")
    assert sorted(node.children()) == ["meta", "server", "worker 0", "worker 1"]
    title = Path(f"/proc/{node.process.pid}/cmdline").read_bytes().rstrip(b"\0 ")
    assert title == b"robustmq: supervisor"
    assert len([*Path(f"/proc/{node.process.pid}/task").iterdir()]) == 1
    first = node.seen("process is ready")[:2]
    assert {each["name"] for each in first} == {"server", "meta"}
    assert json.loads(node.get("/health/live")[1]) == {"status": "live"}
    assert node.get("/health/ready") == (200, '{"status":"ready"}')
    assert node.get("/nothing")[0] == 404
    assert node.sample('robustmq_worker_up{core="1"}') == 1
    assert node.sample('robustmq_process_resident_memory_bytes{process="worker 1"}') > 0


def test_workers_are_pinned_only_when_there_are_cores_enough(start: Start) -> None:
    cores = sorted(os.sched_getaffinity(0))
    fitting, crowded = start(workers=1).ready(), start(workers=len(cores) + 1).ready()
    assert os.sched_getaffinity(fitting.children()["worker 0"]) == {cores[0]}
    assert os.sched_getaffinity(fitting.children()["server"]) == set(cores)
    for name, pid in crowded.children().items():
        assert os.sched_getaffinity(pid) == set(cores), name


def test_workers_go_where_there_is_room_when_they_are_not_to_be_pinned(start: Start) -> None:
    node = start(workers=1, settings=("runtime.pin=false",)).ready()
    assert os.sched_getaffinity(node.children()["worker 0"]) == os.sched_getaffinity(0)


def test_counters_of_all_cores_are_seen_by_the_server(start: Start) -> None:
    node = start(module=STANDIN).ready()
    served = [0, 0]
    for _ in range(20):
        served[served_by(node)] += 1
    assert [node.sample(f'mqtt_bytes_received_total{{core="{core}"}}') for core in (0, 1)] == served


def test_a_killed_worker_is_replaced_while_the_other_goes_on(start: Start) -> None:
    node = start(settings=QUICK, module=STANDIN).ready()
    before = node.children()
    for _ in range(10):
        served_by(node)
    counted = node.sample('mqtt_bytes_received_total{core="0"}')
    os.kill(before["worker 0"], signal.SIGKILL)
    until(lambda: node.seen("process is back"), "worker 0 is back")
    after = node.children()
    assert after.pop("worker 0") != before.pop("worker 0")
    assert after == before
    assert node.sample('robustmq_worker_restarts_total{core="0"}') == 1
    assert node.sample('robustmq_worker_restarts_total{core="1"}') == 0
    assert node.sample('mqtt_bytes_received_total{core="0"}') == counted
    assert node.sample('mqtt_connections{core="0"}') == 0
    assert {served_by(node) for _ in range(40)} == {0, 1}
    ended = node.seen("process ended")
    assert [(line["name"], line["end"]) for line in ended] == [("worker 0", "signal SIGKILL")]


def test_a_killed_server_process_is_replaced(start: Start) -> None:
    node = start(settings=QUICK).ready()
    os.kill(node.children()["server"], signal.SIGKILL)
    until(lambda: node.seen("process is back"), "the server is back")
    assert node.get("/health/ready")[0] == 200


@pytest.mark.parametrize("how", ["stopped", "stuck"])
def test_a_hanging_worker_is_replaced(start: Start, how: str) -> None:
    node = start(settings=WATCHED, module=REAL if how == "stopped" else STANDIN).ready()
    if how == "stopped":
        os.kill(node.children()["worker 1"], signal.SIGSTOP)
    else:
        served_by(node, b"hang")
    until(lambda: node.seen("process is back"), "the worker is back")
    assert node.seen("process hangs and is killed")[0]["silent_ms"] >= 2000
    assert restarts(node) == 1


@pytest.mark.parametrize("stage", ["slow", "waits"])
def test_a_worker_that_neither_works_nor_shows_life_is_given_up(start: Start, stage: str) -> None:
    sentence = refusal(
        start(workers=1, settings=HURRIED, environment={"STANDIN": stage}, module=STANDIN)
    )
    assert sentence == "worker 0 ended 3 times before it was ready (signal SIGKILL)"


@pytest.mark.parametrize("stage", ["loads", "recovers"])
def test_a_worker_that_works_has_the_time_that_it_needs(start: Start, stage: str) -> None:
    node = start(workers=1, settings=HURRIED, environment={"STANDIN": stage}, module=STANDIN)
    (ready,) = (
        line for line in node.ready().seen("process is ready") if line["name"] == "worker 0"
    )
    assert ready["after_ms"] > 3_000
    assert not node.seen("process ended")
    told = [line["seconds"] for line in node.seen("process reads what is stored")]
    if stage == "recovers":
        assert told[-1] > 1.5
    else:
        assert not told


@pytest.mark.parametrize("what", ["node", "core", "unreadable"])
def test_data_that_is_not_understood_is_refused_before_anything_starts(
    what: str, start: Start, tmp_path: Path
) -> None:
    data = tmp_path / "found"
    (data / "g1" / "core-1").mkdir(parents=True)
    formats = {"node": "2", "core": "1", "unreadable": '"x"'}
    (data / "format.json").write_text(
        f'{{"format": {formats[what]}, "workers": 2, "generation": 1}}'
    )
    if what == "core":
        (data / "g1" / "core-1" / "format").write_text("rocksdb 2\n")
    node = start(data=data)
    assert node.wait() == 2
    (line,) = (line for line in node.errors().splitlines() if not line.startswith("{"))
    place = {"node": "data0", "core": "g1/core-1", "unreadable": "format.json"}[what]
    assert place in line
    assert ("newer robustmq (format 2" in line) == (what != "unreadable")
    assert not node.seen("process is ready")
    assert not node.survivors()
    assert not (data / "g1" / "core-0").exists()


def test_a_database_that_cannot_be_opened_is_told_in_a_line(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "found"
    (data / "g1" / "core-0").mkdir(parents=True)
    (data / "g1" / "core-0" / "db").write_text("no directory")
    node = start(data=data, workers=1, settings=QUICK)
    assert refusal(node) == "worker 0 ended 3 times before it was ready (exit status 1)"
    told = node.seen("the database cannot be opened")
    assert len(told) == 3
    assert "core-0" in told[0]["path"]
    assert told[0]["reason"]
    assert "traceback" not in told[0]


def test_a_supervisor_that_was_stopped_itself_kills_nobody(start: Start) -> None:
    node = start(settings=WATCHED).ready()
    before = node.children()
    for pid in (node.process.pid, *before.values()):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.0)
    # The supervisor wakes first: all heartbeats look old to it.
    for pid in (node.process.pid, *before.values()):
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    assert node.children() == before
    assert not node.seen("process hangs and is killed")


def test_a_connection_waits_for_the_workers_successor(start: Start) -> None:
    node = start(workers=1, settings=QUICK).ready()
    worker = node.children()["worker 0"]
    os.kill(worker, signal.SIGSTOP)
    with node.connect() as client:
        client.sendall(CONNECT)
        os.kill(worker, signal.SIGKILL)
        assert client.recv(4) == CONNACK
    assert node.children()["worker 0"] != worker


def test_ready_is_told_while_a_worker_is_away(start: Start) -> None:
    away = ("runtime.restart_backoff_ms=60000", "runtime.restart_backoff_max_ms=60000")
    node = start(settings=(*away, PATIENT)).ready()
    os.kill(node.children()["worker 1"], signal.SIGKILL)
    until(lambda: node.seen("process ended"), "the end is noticed")
    status, body = node.get("/health/ready")
    assert status == 503
    assert json.loads(body) == {"status": "not ready", "waiting": {"worker 1": "stopped"}}
    assert node.sample('robustmq_worker_up{core="1"}') == 0
    assert node.get("/health/live")[0] == 200
    begin = time.monotonic()
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean_and_does_not_wait_for_nothing(
    start: Start, signum: signal.Signals
) -> None:
    node = start(settings=(PATIENT,)).ready()
    begin = time.monotonic()
    node.send(signum)
    assert node.wait(50) == 0
    assert time.monotonic() - begin < 30
    assert not node.survivors()
    order = [line["name"] for line in node.seen("process stopped")]
    # Those of a stage stop together.
    assert {*order[:2]} == {"worker 0", "worker 1"}
    assert {*order[2:]} == {"server", "meta"}
    with socket.socket() as client:
        assert client.connect_ex(node.address()) != 0
    again = start(settings=(f"mqtt_runtime.server.tcp_port={node.address()[1]}",)).ready()
    assert again.address() == node.address()


def test_a_worker_that_does_not_drain_is_killed_in_time(start: Start) -> None:
    node = start(settings=("runtime.drain_timeout_ms=700",), module=STANDIN).ready()
    served_by(node, b"deaf")
    begin = time.monotonic()
    node.send(signal.SIGTERM)
    assert node.wait() == 1
    assert time.monotonic() - begin >= 0.7
    assert node.seen("process did not stop in time")
    assert not node.survivors()


def test_a_signal_during_the_start_ends_it(start: Start) -> None:
    node = start(environment={"STANDIN": "slow"}, module=STANDIN)
    until(lambda: node.seen("process is ready"), "the server is ready")
    node.children()
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    assert not node.survivors()


def test_a_second_signal_ends_everything_at_once(start: Start) -> None:
    node = start(settings=(PATIENT,), module=STANDIN).ready()
    served_by(node, b"deaf")
    node.send(signal.SIGTERM)
    until(lambda: node.seen("stopping"), "the first signal is seen")
    begin = time.monotonic()
    node.send(signal.SIGTERM)
    assert node.wait() == 1
    assert time.monotonic() - begin < 30
    assert not node.survivors()


def test_nothing_survives_a_killed_supervisor(start: Start, tmp_path: Path) -> None:
    node = start().ready()
    assert len(node.children()) == 4
    node.send(signal.SIGKILL)
    node.wait()
    until(lambda: not node.survivors(), "the children end")
    again = start(data=tmp_path / "data0").ready()
    assert again.get("/health/ready")[0] == 200


@pytest.mark.parametrize("key", ["mqtt_runtime.server.tcp_port", "http_port"])
def test_a_port_in_use_is_refused(start: Start, key: str) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen(1)
        port = stranger.getsockname()[1]
        sentence = refusal(start(settings=(f"{key}={port}",)))
    assert sentence == f"cannot listen on 127.0.0.1:{port} ({key}): it is in use"


def test_two_nodes_cannot_share_a_port_or_a_data_directory(start: Start, tmp_path: Path) -> None:
    first = start().ready()
    port = first.address()[1]
    sentence = refusal(start(settings=(f"mqtt_runtime.server.tcp_port={port}",)))
    assert sentence.endswith("(mqtt_runtime.server.tcp_port): it is in use")
    second = start(data=tmp_path / "data0")
    assert refusal(second) == (
        f"the data directory {tmp_path / 'data2'} is in use by another server "
        f"(process {first.process.pid})"
    )
    assert first.get("/health/ready")[0] == 200


def test_too_few_file_descriptors_are_refused(start: Start) -> None:
    sentence = refusal(start(shell_prefix="ulimit -n 64"))
    assert sentence.startswith("too few file descriptors: 2 workers with 256 connections need ")
    assert "the hard limit is 64" in sentence


def test_a_low_soft_limit_is_raised(start: Start) -> None:
    node = start(shell_prefix="ulimit -Sn 64").ready()
    limits = Path(f"/proc/{node.children()['worker 0']}/limits").read_text(encoding="utf-8")
    soft, hard = next(line for line in limits.splitlines() if "open files" in line).split()[3:5]
    assert soft == hard != "64"


def test_a_worker_that_never_becomes_ready_ends_the_start(start: Start) -> None:
    node = start(settings=QUICK, environment={"STANDIN": "fail"}, module=STANDIN)
    sentence = refusal(node)
    assert "ended 3 times before it was ready (exit status 3)" in sentence
    assert len(node.seen("process ended")) >= 2


def test_a_broken_program_says_why_in_the_log(start: Start) -> None:
    node = start(settings=QUICK, environment={"STANDIN": "raise"}, module=STANDIN)
    assert "ended 3 times before it was ready (exit status 1)" in refusal(node)
    failures = node.seen("process failed")
    assert failures[0]["process"].startswith("worker ")
    assert "RuntimeError: as the test wants" in failures[0]["traceback"]


def test_hup_applies_the_level_and_names_what_needs_a_restart(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[log]\nlevel = "info"\n', encoding="utf-8")
    node = start("-c", str(path), settings=QUICK).ready()
    assert not node.seen("process started")
    path.write_text(
        '[log]\nlevel = "debug"\n[mqtt_runtime.protocol]\nreceive_max = 9\n', encoding="utf-8"
    )
    node.send(signal.SIGHUP)
    until(lambda: node.seen("configuration reloaded"), "the reload is seen")
    line = node.seen("configuration reloaded")[0]
    assert line["applied"] == ["log.level"]
    assert line["needs_restart"] == ["mqtt_runtime.protocol.receive_max"]
    os.kill(node.children()["worker 0"], signal.SIGKILL)
    until(lambda: node.seen("process started"), "debug lines are written")
    path.write_text("[lgo]\n", encoding="utf-8")
    node.send(signal.SIGHUP)
    until(lambda: node.seen("the configuration was not reloaded"), "the fault is told")
    assert "did you mean log?" in node.seen("the configuration was not reloaded")[0]["reason"]
    assert node.get("/health/ready")[0] in {200, 503}


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "robustmq.cli.supervisor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_a_configuration_is_checked_without_a_start() -> None:
    good = command("--check-config", "-c", "config/server.toml", "-w", "auto", "--data", "/nowhere")
    assert (good.returncode, good.stdout, good.stderr) == (0, "ok\n", "")
    bad = command("--check-config", "--set", "mqtt_runtime.server.tcp_prot=1")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == (
        "robustmq-supervisor: --set: the configuration has no mqtt_runtime.server.tcp_prot; "
        "did you mean mqtt_runtime.server.tcp_port?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-w", "0"), "runtime.workers = 0 is refused"),
        (("-c", "/nowhere.toml"), "cannot be read: No such file or directory"),
        (("--set", "http_prot=1"), "did you mean http_port?"),
    ],
)
def test_a_bad_configuration_is_one_line_and_status_2(
    arguments: tuple[str, ...], reason: str
) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr


def test_the_version_is_printed() -> None:
    result = command("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("robustmq ")


def test_children_hold_nothing_that_is_the_supervisors(start: Start) -> None:
    node = start().ready()
    os.kill(node.children()["server"], signal.SIGKILL)
    until(lambda: node.seen("process is back"), "the server is back")
    for name, pid in node.children().items():
        held = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        listeners = [held_by for held_by in held if held_by.startswith("socket:")]
        # A worker: its two listeners, its door, a sender to each, two channels; the server and the
        # meta process: a channel to each of the others; all: two of asyncio's own.
        assert len(listeners) <= 10, (name, held)
        assert sum("pidfd" in entry for entry in held) == 0, (name, held)


def test_a_reader_of_the_banner_may_go_away(start: Start) -> None:
    node = start(workers=1)
    assert node.process.stdout is not None
    node.process.stdout.close()
    until(lambda: len(node.seen("process is ready")) == 3, "the node is ready")
    node.children()
    node.send(signal.SIGTERM)
    assert node.wait() == 0


def test_people_get_a_banner(start: Start) -> None:
    node = start("--set", "log.format=human", workers=1)
    assert node.process.stdout is not None
    lines = [node.process.stdout.readline().split() for _ in range(6)]
    with contextlib.suppress(ProcessLookupError):
        node.children()
    assert lines[0] == ["robustmq", "is", "ready"]
    facts = dict(pair for pair in lines[1:])
    assert facts["mqtt_tcp"].startswith("127.0.0.1:")
    assert facts["workers"] == "1"
