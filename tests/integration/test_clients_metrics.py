"""/metrics after a known number of messages: what clients did is what the counters say."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.talker import PATIENCE, Talker, opened
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until

SETTINGS: Final = (
    "mqtt_runtime.inbox.max_messages=10",
    "runtime.restart_backoff_ms=50",
    # What the node says of itself and of a busy machine would be counted, too.
    "mqtt_runtime.system_monitor.enable=false",
    "mqtt_runtime.system_monitor.system_topic_interval_ms=0",
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=SETTINGS)
    yield node.ready()
    node.close()


def totals(node: Node, *names: str) -> dict[str, int]:
    """Return the sums over the cores of some metrics."""
    _, text = node.get("/metrics")
    found = dict.fromkeys(names, 0)
    for line in text.splitlines():
        name = line.split("{")[0].removesuffix("_total")
        if name in found and 'core="' in line:
            found[name] += int(float(line.rsplit(" ", 1)[1]))
    return found


def settled(node: Node, wanted: dict[str, int]) -> None:
    """Wait until the counters are as wanted; say what they are when they are not."""
    seen: list[dict[str, int]] = []

    def same() -> bool:
        seen.append(totals(node, *wanted))
        return seen[-1] == wanted

    try:
        until(same, "the counters")
    except AssertionError:
        assert seen[-1] == wanted
        raise


def test_the_sums_are_what_happened(node: Node) -> None:
    topics = [topic_on(owner, "metrics/{}") for owner in (0, 1)]

    async def scenario(check: Callable[[dict[str, int]], None]) -> None:
        address = node.address()
        listeners = [await opened(address, name_on(core, "listener"), 5) for core in (0, 1)]
        for listener in listeners:
            await listener.subscribe("metrics/#", 1)
        sleeper = await opened(address, name_on(1, "sleeper"), clean=False)
        await sleeper.subscribe(topics[0])
        await sleeper.close()
        speakers = [await opened(address, name_on(core, "speaker")) for core in (0, 1)]
        for speaker in speakers:
            for topic in topics:
                for number in range(25):
                    await speaker.say(topic, b"%d" % number)
            for _ in range(7):
                speaker.publish("nobody/cares", b"", 0)
            await speaker.ping()
        for listener in listeners:
            await listener.until_heard(100)
        for number in range(5):
            retain(speakers[0], f"kept/{number}")
        retain(speakers[0], "kept/0", b"")
        await speakers[0].ping()
        await asyncio.to_thread(
            check,
            {
                "mqtt_messages_received": 100 + 14 + 6,
                "mqtt_messages_sent": 200,
                # Two speakers have 25 each for the sleeper, whose inbox keeps 10.
                "mqtt_messages_dropped_queue": 40,
                "mqtt_messages_dropped_slow": 0,
                "mqtt_messages_unmatched": 14 + 6,
                "mqtt_connections": 4,
                "mqtt_connections_opened": 5,
                "mqtt_connections_closed": 1,
                "mqtt_sessions": 5,
                "mqtt_subscriptions": 3,
                "mqtt_retained_messages": 4,
                "mqtt_protocol_errors": 0,
                "shard_records": 100 + 14 + 6,
            },
        )
        assert totals(node, "mqtt_retained_bytes")["mqtt_retained_bytes"] > 0
        for talker in (*listeners, *speakers):
            await talker.close()
        await asyncio.to_thread(
            check,
            {
                "mqtt_connections": 0,
                "mqtt_connections_closed": 5,
                "mqtt_sessions": 1,
                "mqtt_subscriptions": 1,
            },
        )

    asyncio.run(asyncio.wait_for(scenario(lambda wanted: settled(node, wanted)), 240))


def retain(talker: Talker, topic: str, payload: bytes = b"kept") -> None:
    """Publish a retained message at QoS 0."""
    encoded = topic.encode()
    body = len(encoded).to_bytes(2, "big") + encoded + payload
    talker.send(bytes((0x31, len(body))) + body)


def test_health_and_counters_over_a_restart(node: Node) -> None:
    topic = topic_on(1, "metrics/{}")

    async def talk() -> None:
        speaker = await opened(node.address(), name_on(1, "speaker"))
        for number in range(10):
            await speaker.say(topic, b"%d" % number)
        await speaker.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE))
    assert node.get("/health/live")[0] == node.get("/health/ready")[0] == 200
    os.kill(node.children()["worker 1"], signal.SIGKILL)
    until(lambda: node.seen("process is back"), "the worker is back")
    assert node.get("/health/ready")[0] == 200
    asyncio.run(asyncio.wait_for(talk(), PATIENCE))
    settled(node, {"mqtt_messages_received": 20, "shard_records": 20, "mqtt_connections": 0})
    assert node.sample('robustmq_worker_restarts_total{core="1"}') == 1
    assert node.sample('robustmq_worker_up{core="1"}') == 1
