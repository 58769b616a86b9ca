"""The load generator reports exactly what a broker does wrong, and nothing when it does nothing."""

import shutil
from collections.abc import Iterator

import pytest

from perf import brokers
from perf.generator import GeneratorError, Load, Report, binary, run
from tests.perf.faulty_broker import Fault, serving

COUNTS = (
    "lost",
    "reordered",
    "duplicates",
    "corrupt",
    "unacknowledged",
    "unordered_acks",
    "errors",
)
QUICK = ("--drain", "0.2", "--linger", "0.02", "--timeout", "5")


def short(load: Load, port: int, *more: str) -> Report:
    return run(load, port, seconds=0.1, warmup=0.02, options=(*QUICK, *more))


def wrong(report: Report) -> dict[str, int]:
    """What the report counts, without the zeros."""
    return {name: getattr(report, name) for name in COUNTS if getattr(report, name)}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "load",
    [
        Load("fan", 1, 3, window=4),
        Load("fan", 3, 1, window=4, topics=2, wildcard=True),
        Load("fan", 1, 2, qos=1, window=8, topics=3),
        Load("pair", 2, 2, qos=1, window=1),
        Load("pair", 2, 2, payload=300, window=8, batch=4),
        Load("pair", 2, 2, rate=500),
    ],
    ids=["fan-out", "fan-in", "topics", "window-1", "batch", "rate"],
)
def test_a_faithful_broker_is_clean(load: Load, protocol: int) -> None:
    options = ("--protocol", str(protocol))
    with serving(Fault.NONE) as port:
        report = short(load, port, *options)
    assert wrong(report) == {}, report.first_error
    assert report.clean
    assert report.published > 0
    copies = load.subscribers if load.topology == "fan" else 1
    assert report.deliveries == report.expected == report.published * copies
    assert 0 < report.latency_us.p50 <= report.latency_us.p99 <= report.latency_us.max
    assert 0 < report.latency_us.count <= report.deliveries


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.LOSE, {"lost": 1}),
        (Fault.SWAP, {"reordered": 1}),
        (Fault.DELAY, {"reordered": 1}),
        (Fault.DUPLICATE, {"duplicates": 1}),
    ],
    ids=["lose", "swap", "delay", "duplicate"],
)
def test_one_wrong_delivery_is_counted_as_what_it_is(
    fault: Fault, expected: dict[str, int], qos: int
) -> None:
    with serving(fault) as port:
        report = short(Load("fan", 1, 1, qos=qos, window=8), port)
    assert wrong(report) == expected, report.first_error
    assert report.published > 20, "the load went on behind the fault"
    assert not report.clean


def test_order_is_judged_for_each_topic() -> None:
    # The swapped messages belong to different topics, so nobody may call this disorder.
    with serving(Fault.SWAP) as port:
        report = short(Load("fan", 1, 1, window=8, topics=2), port)
    assert wrong(report) == {}, report.first_error


def test_a_delay_is_disorder_within_its_topic() -> None:
    with serving(Fault.DELAY) as port:
        report = short(Load("fan", 1, 1, window=8, topics=2), port)
    assert wrong(report) == {"reordered": 1}, report.first_error


@pytest.mark.parametrize("fault", [Fault.FLIP, Fault.CUT])
def test_a_damaged_payload_is_corrupt_and_lost(fault: Fault) -> None:
    with serving(fault) as port:
        report = short(Load("fan", 1, 1, window=8), port)
    assert report.corrupt == 1
    assert report.lost == 1
    assert "payload" in report.first_error


def test_a_delivery_to_the_wrong_subscriber_is_corrupt() -> None:
    with serving(Fault.MISROUTE) as port:
        report = short(Load("pair", 2, 2, window=1), port)
    assert report.corrupt == 1
    assert "not for this subscriber" in report.first_error


def test_a_lost_acknowledgement_is_unacknowledged() -> None:
    with serving(Fault.LOSE_ACK) as port:
        report = short(Load("fan", 1, 1, qos=1, window=8), port)
    assert wrong(report) == {"unacknowledged": 1}


def test_swapped_acknowledgements_are_unordered() -> None:
    with serving(Fault.SWAP_ACKS) as port:
        report = short(Load("fan", 1, 1, qos=1, window=8), port)
    assert wrong(report) == {"unordered_acks": 1}


def test_a_closed_connection_ends_the_run() -> None:
    with serving(Fault.HANG_UP) as port:
        report = short(Load("fan", 1, 2, window=8), port)
    assert report.errors
    assert "closed the connection" in report.first_error
    assert not report.clean


def test_a_refused_connect_is_said() -> None:
    with serving(Fault.REFUSE) as port, pytest.raises(GeneratorError, match="CONNECT was refused"):
        short(Load(), port)


def test_nobody_listens() -> None:
    with pytest.raises(GeneratorError, match="refused"):
        short(Load(), brokers.free_port())


def test_a_silent_server_is_left_in_time() -> None:
    with serving(Fault.SILENT) as port, pytest.raises(GeneratorError, match="0 of 2 clients"):
        run(Load(), port, options=("--timeout", "0.2"))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(GeneratorError, match=r"status 2.*payload"):
        short(Load(payload=8), 1)
    with pytest.raises(GeneratorError, match=r"status 2.*as many subscribers"):
        short(Load("pair", 2, 3), 1)


def test_the_binary_is_built_once() -> None:
    assert binary() == binary()
    assert binary().exists()


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[int]:
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/bin"):
        pytest.fail("mosquitto is not installed: run scripts/setup")
    with brokers.running("mosquitto", 1, {}) as broker:
        yield broker.port


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topology", ["fan", "pair"])
def test_mosquitto_is_clean(mosquitto: int, topology: str, qos: int, protocol: int) -> None:
    load = Load(topology, 5, 5, qos=qos, payload=200, window=16, protocol=protocol, topics=2)
    report = short(load, mosquitto)
    assert wrong(report) == {}, report.first_error
    assert report.published > 20


def test_mosquitto_takes_connections(mosquitto: int) -> None:
    report = short(Load("connect", 0, 200), mosquitto)
    assert report.connections == 200
    assert report.connect_rate > 10
    assert report.clean


def test_an_open_loop_keeps_its_rate(mosquitto: int) -> None:
    report = run(Load("pair", 4, 4, rate=1000), mosquitto, seconds=0.5, warmup=0.1, options=QUICK)
    assert report.clean
    # Without a rate it were thousands; a busy machine ends it sooner or later than asked.
    assert 300 <= report.published <= 1_000
    assert report.lag_us.count == report.latency_us.count


def test_the_gates_are_where_they_should_be(mosquitto: int) -> None:
    seen: list[str] = []
    run(
        Load("fan", 1, 1),
        mosquitto,
        seconds=0.05,
        ready=lambda: seen.append("ready"),
        done=lambda: seen.append("done"),
    )
    assert seen == ["ready", "done"]


@pytest.fixture
def persistent() -> Iterator[int]:
    with brokers.running("mosquitto-persistent", 1, {}) as broker:
        yield broker.port


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_backlog_waits_for_those_who_return(persistent: int, qos: int, protocol: int) -> None:
    load = Load("fan", 4, 2, qos=qos, window=20, protocol=protocol, wildcard=True, backlog=2_000)
    seen: list[str] = []
    report = run(
        load,
        persistent,
        options=QUICK,
        ready=lambda: seen.append("ready"),
        filled=lambda: seen.append("filled"),
        done=lambda: seen.append("done"),
    )
    assert wrong(report) == {}, report.first_error
    assert seen == ["ready", "filled", "done"]
    assert (report.published, report.deliveries) == (2_000, 4_000)
    assert report.throughput == pytest.approx(4_000 / report.seconds, rel=0.01)
    assert report.publish_rate == pytest.approx(2_000 / report.fill_seconds, rel=0.01)


def test_durable_sessions_are_found_by_the_next_run(persistent: int) -> None:
    load = Load("pair", 3, 3, qos=1, window=8, durable=True)
    assert short(load, persistent).clean
    assert short(load, persistent).clean


def test_offline_sessions_are_left_behind(persistent: int) -> None:
    report = short(Load("offline", 0, 300, qos=1), persistent, "--first", "7")
    assert wrong(report) == {}, report.first_error
    assert report.connections == 300


def test_a_forgotten_session_is_said() -> None:
    # This broker says `session present` 0 to everybody.
    with serving(Fault.NONE) as port:
        report = short(Load("fan", 1, 1, qos=1, window=8, backlog=40), port)
    assert "the session was forgotten" in report.first_error
    assert report.lost == 40


def test_a_backlog_is_shared_out_evenly() -> None:
    with pytest.raises(GeneratorError, match=r"status 2.*whole batches"):
        short(Load("fan", 3, 1, qos=1, backlog=100), 1)
    with pytest.raises(GeneratorError, match=r"status 2.*above QoS 0"):
        short(Load("fan", 2, 1, backlog=100), 1)
