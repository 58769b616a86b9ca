"""More than fits: full rings, stopped readers, storms of connections. Bounded, and nothing lost."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.chaos.talker import PATIENCE, Talker, opened
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node

Start = Callable[..., Node]
SUPERVISOR: Final = "robustmq.cli.supervisor"
CONNECTIONS: Final = 2_000
PAYLOAD: Final = 50_000
MESSAGES: Final = 1_000
STOPPED_SECONDS: Final = 1.0
MEMORY_LIMIT: Final = 40 << 20
"""What a worker may hold for one that is stopped: `runtime.pressure_bytes` and some buffers."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[Node] = []

    def begin(*settings: str) -> Node:
        nodes.append(Node(tmp_path / f"data{len(nodes)}", module=SUPERVISOR, settings=settings))
        return nodes[-1].ready()

    yield begin
    for node in nodes:
        node.close()


async def send_all(talker: Talker, topic: str, retain: bool) -> None:
    """Publish everything at QoS 1 as fast as the server reads, then wait for the answers."""
    answers = []
    for number in range(MESSAGES):
        payload = number.to_bytes(4, "big") * (PAYLOAD // 4)
        answer = talker.publish(topic, payload, retain=retain)
        assert answer is not None
        answers.append(answer)
        await talker.drain()
    await asyncio.gather(*answers)


@pytest.mark.parametrize("retain", [False, True], ids=["deliveries wait", "retained wait"])
def test_a_full_ring_pauses_the_publisher_and_loses_nothing(start: Start, retain: bool) -> None:
    # Core 1 is stopped: it has the listener, or it keeps what the listener beside the publisher
    # hears at once, and owes the answers.
    node = start("runtime.heartbeat_timeout_ms=60000")
    workers = [node.children()[f"worker {core}"] for core in (0, 1)]

    def resident() -> int:
        return int(psutil.Process(workers[0]).memory_info().rss)

    def paused() -> bool:
        return node.sample('mqtt_publishers_paused_total{core="0"}') > 0

    async def scenario() -> None:
        address = node.address()
        topic = topic_on(1, "pressure/{}")
        listener = await opened(address, name_on(0 if retain else 1, "listener"))
        await listener.subscribe(topic)
        speaker = await opened(address, name_on(0, "speaker"))
        await speaker.say(topic, b"")
        await listener.until_heard(1)
        before = most = resident()
        os.kill(workers[1], signal.SIGSTOP)
        sending = asyncio.create_task(send_all(speaker, topic, retain))
        begin = time.monotonic()
        while not paused() or time.monotonic() - begin < STOPPED_SECONDS:
            assert time.monotonic() - begin < PATIENCE, "the publisher is paused"
            await asyncio.sleep(0.05)
            most = max(most, resident())
        assert not sending.done(), "the publisher has to wait for a core that is stopped"
        os.kill(workers[1], signal.SIGCONT)
        await asyncio.wait_for(sending, PATIENCE)
        heard = await listener.until_heard(1 + MESSAGES)
        assert [int.from_bytes(payload[:4], "big") for _, payload in heard[1:]] == [
            *range(MESSAGES)
        ]
        assert {len(payload) for _, payload in heard[1:]} == {PAYLOAD}
        assert most - before < MEMORY_LIMIT, f"{most - before} bytes for a stopped worker"

    asyncio.run(asyncio.wait_for(scenario(), 240))
    assert not node.seen("process ended")


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * CONNECTIONS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(3 * CONNECTIONS, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_storm_of_connections_while_workers_are_replaced(start: Start) -> None:
    node = start("runtime.restart_backoff_ms=50", "runtime.restart_backoff_max_ms=100")

    def counted() -> list[float]:
        return [node.sample(f'mqtt_connections{{core="{core}"}}') for core in (0, 1)]

    async def stay(client_id: str) -> Talker:
        """Be connected, again after each loss, until a ping is answered at the end."""
        while True:
            talker = await opened(node.address(), client_id)
            if calm.is_set():
                return talker
            waits = [asyncio.create_task(event.wait()) for event in (talker.ended, calm)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if not talker.ended.is_set():
                return talker

    async def scenario() -> None:
        clients = [
            asyncio.create_task(stay(name_on(number % 2, "storm"))) for number in range(CONNECTIONS)
        ]
        for kill in range(4):
            await asyncio.sleep(0.3)
            os.kill(node.children()[f"worker {kill % 2}"], signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                while len(node.seen("process is back")) <= kill:
                    await asyncio.sleep(0.02)
        calm.set()
        talkers = await asyncio.gather(*clients)
        await asyncio.gather(*(talker.ping() for talker in talkers))
        async with asyncio.timeout(PATIENCE):
            while counted() != [CONNECTIONS / 2, CONNECTIONS / 2]:
                await asyncio.sleep(0.05)
        for talker in talkers:
            await talker.close()

    calm = asyncio.Event()
    asyncio.run(asyncio.wait_for(scenario(), 240))
