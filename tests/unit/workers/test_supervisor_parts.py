"""The supervisor's parts without a fork: what it loads, numbers, inherits and waits for."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from robustmq.config import Config, load
from robustmq.shm.region import Phase
from robustmq.workers.estate import Estate
from robustmq.workers.inheritance import (
    HTTP,
    MQTT_TCP,
    ServerInheritance,
    endpoint_count,
    meta_endpoint,
    server_endpoint,
)
from robustmq.workers.limits import StartError
from robustmq.workers.process import STEADY_NS, Process

HEAVY = (
    *("aiofiles", "anyio", "asyncio", "grpclib", "multiprocessing", "prometheus_client", "psutil"),
    *("pysyncobj", "rocksdict", "ssl", "starlette", "uvicorn", "uvloop"),
)


def configured(*overrides: str) -> Config:
    keys = ("tcp_port", "websocket_port", "websockets_port")
    ports = [f"mqtt_runtime.server.{key}=0" for key in keys]
    kafka = ("kafka_runtime.tcp_port=0", "kafka_runtime.tls_port=0")
    return load(None, ("http_port=0", *kafka, "broker_ip=127.0.0.1", *ports, *overrides), {})


@pytest.fixture
def estate() -> Iterator[Estate]:
    config = configured()
    made = Estate(config, 3, lambda: config)
    yield made
    made.close_all_but(made.of_server(config))
    made.of_server(config).listeners[HTTP].close()
    for bell in (*made.doorbells, made.bell):
        bell.close()


def test_nothing_heavy_is_loaded_and_no_thread_runs_before_the_fork() -> None:
    code = (
        "import os, sys, robustmq.cli.supervisor, robustmq.workers.supervisor\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert seen.stdout.split() == ["[]", "1"]


def test_the_server_comes_after_the_workers() -> None:
    assert (server_endpoint(2), meta_endpoint(2), endpoint_count(2)) == (2, 3, 4)


def test_each_worker_inherits_its_own_listener_on_one_port(estate: Estate) -> None:
    parts = [estate.of_worker(configured(), index) for index in range(3)]
    listeners = [part.listeners[MQTT_TCP] for part in parts]
    assert len({listener.fileno() for listener in listeners}) == 3
    assert len({listener.getsockname() for listener in listeners}) == 1
    assert estate.addresses()[MQTT_TCP] == f"127.0.0.1:{listeners[0].getsockname()[1]}"
    assert not any(listener.getblocking() for listener in listeners)


def test_a_port_is_shut_until_a_worker_listens(estate: Estate) -> None:
    listener = estate.of_worker(configured(), 0).listeners[MQTT_TCP]
    with socket.socket() as client:
        assert client.connect_ex(listener.getsockname()) != 0
    listener.listen(1)
    with socket.socket() as client:
        assert client.connect_ex(listener.getsockname()) == 0


def test_a_socket_is_handed_from_any_worker_to_its_own_door(estate: Estate) -> None:
    parts = [estate.of_worker(configured(), index) for index in range(3)]
    given, kept = socket.socketpair()
    socket.send_fds(parts[2].handover_out[1], [b"hello"], [given.fileno()])
    message, fds, _, _ = socket.recv_fds(parts[1].handover_in, 16, 1)
    received = socket.socket(fileno=fds[0])
    received.sendall(b"x")
    assert (message, kept.recv(1)) == (b"hello", b"x")
    for part in (parts[0], parts[2]):
        with pytest.raises(BlockingIOError):
            part.handover_in.recv(1)
    for sock in (given, kept, received):
        sock.close()


def test_many_handovers_wait_for_a_worker_that_restarts(estate: Estate) -> None:
    parts = [estate.of_worker(configured(), index) for index in range(2)]
    for number in range(200):
        parts[0].handover_out[1].send(number.to_bytes(2))
    assert [int.from_bytes(parts[1].handover_in.recv(2)) for _ in range(200)] == [*range(200)]


def test_a_child_closes_what_belongs_to_others(estate: Estate) -> None:
    config = configured()
    mine, other = estate.of_worker(config, 1), estate.of_worker(config, 0)
    estate.close_all_but(mine)
    assert mine.listeners[MQTT_TCP].fileno() != -1
    assert mine.handover_in.fileno() != -1
    assert all(sender.fileno() != -1 for sender in mine.handover_out)
    assert other.listeners[MQTT_TCP].fileno() == other.handover_in.fileno() == -1
    assert estate.of_server(config).listeners[HTTP].fileno() == -1


def test_a_phase_is_published_with_the_supervisors_bell(estate: Estate) -> None:
    part = estate.of_worker(configured(), 2)
    part.enter(Phase.READY)
    assert estate.region.state(2).phase is Phase.READY
    assert estate.bell.answer()


def test_ports_of_cores_beyond_the_last_one_are_refused() -> None:
    config = configured("kafka_runtime.advertise=core", "kafka_runtime.tcp_port=65534")
    with pytest.raises(StartError, match=r"above 65534 \(kafka_runtime.tcp_port\)"):
        Estate(config, 2, lambda: config)


def test_each_core_has_a_port_behind_the_common_one() -> None:
    config = configured("kafka_runtime.advertise=core")
    estate = Estate(config, 2, lambda: config)
    addresses = estate.addresses()
    names = ["kafka_tcp", "kafka_tcp_core_0", "kafka_tcp_core_1"]
    assert len({addresses[name] for name in names}) == 3
    own = [estate.of_worker(config, core).listeners["kafka_tcp_core"] for core in (0, 1)]
    assert ["{}:{}".format(*each.getsockname()) for each in own] == [
        addresses[name] for name in names[1:]
    ]


def test_a_port_of_a_stranger_is_refused_even_when_it_would_share() -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen(1)
        port = stranger.getsockname()[1]
        config = configured(f"mqtt_runtime.server.tcp_port={port}")
        sentence = (
            rf"cannot listen on 127.0.0.1:{port} \(mqtt_runtime.server.tcp_port\): it is in use"
        )
        with pytest.raises(StartError, match=sentence):
            Estate(config, 1, lambda: config)


def test_an_address_of_another_machine_is_refused() -> None:
    config = configured("broker_ip=192.0.2.1")
    with pytest.raises(StartError, match="Cannot assign requested address"):
        Estate(config, 1, lambda: config)


def process() -> Process:
    part = cast("ServerInheritance", SimpleNamespace(index=0))
    return Process("worker 0", "none", None, lambda: part)


def test_the_wait_before_a_restart_doubles_up_to_its_bound() -> None:
    child = process()
    assert [child.back_off(0, 200, 1_000) for _ in range(5)] == [200, 400, 800, 1_000, 1_000]
    assert child.restart_ns == 1_000_000_000
    for _ in range(100):
        assert child.back_off(0, 200, 10_000) <= 10_000


def test_a_steady_life_forgives_earlier_failures() -> None:
    child = process()
    for _ in range(4):
        child.back_off(0, 200, 10_000)
    assert child.back_off(STEADY_NS, 200, 10_000) == 200
