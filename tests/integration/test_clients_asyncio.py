"""aiomqtt and gmqtt, two asyncio clients, against two workers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiomqtt
import gmqtt
import pytest
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node

PATIENCE = 60.0
MANY = 10_000
LARGE = b"0123456789abcdef" * (5 * 65_536)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("asyncio") / "data", module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


# ---------------------------------------------------------------------- aiomqtt


def aio(node: Node, core: int, **options: object) -> aiomqtt.Client:
    host, port = node.address()
    chosen: dict[str, Any] = {"identifier": name_on(core, "aiomqtt"), **options}
    return aiomqtt.Client(host, port, **chosen)


async def aio_heard(client: aiomqtt.Client, count: int) -> list[aiomqtt.Message]:
    messages: list[aiomqtt.Message] = []
    async with asyncio.timeout(PATIENCE):
        async for message in client.messages:
            messages.append(message)
            if len(messages) == count:
                break
    return messages


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_aiomqtt_hears_live_retained_and_large_messages(
    node: Node, version: aiomqtt.ProtocolVersion, qos: int
) -> None:
    async def talk(publisher_core: int, subscriber_core: int) -> None:
        topic = topic_on(1 - subscriber_core, "aiomqtt/{}/state")
        beginning, last = topic.rsplit("/", 1)
        async with (
            aio(node, publisher_core, protocol=version) as publisher,
            aio(node, subscriber_core, protocol=version) as subscriber,
        ):
            await publisher.publish(topic, b"kept", max(qos, 1), retain=True)
            await subscriber.subscribe(f"{beginning}/+", qos)
            (kept,) = await aio_heard(subscriber, 1)
            assert (kept.payload, kept.retain, kept.qos) == (b"kept", True, qos)
            await publisher.publish(topic, LARGE, qos)
            (large,) = await aio_heard(subscriber, 1)
            assert (large.payload, large.retain, large.qos) == (LARGE, False, qos)
            assert str(large.topic) == f"{beginning}/{last}"

    for places in PLACES:
        asyncio.run(talk(*places))


def test_aiomqtt_keeps_its_session_and_its_will(node: Node) -> None:
    async def talk(publisher_core: int, subscriber_core: int) -> None:
        identifier = name_on(subscriber_core, "aiomqtt")
        topics = [topic_on(owner, "aiomqtt/{}/offline") for owner in (0, 1)]
        will = aiomqtt.Will(topics[0], b"gone", 1)
        same: dict[str, object] = {
            "identifier": identifier,
            "clean_session": False,
            "protocol": aiomqtt.ProtocolVersion.V311,
        }
        async with aio(node, subscriber_core, **same) as subscriber:
            for topic in topics:
                await subscriber.subscribe(topic, 1)
        lost = aio(node, publisher_core, will=will)
        async with aio(node, publisher_core) as publisher:
            for number in range(100):
                await publisher.publish(topics[number % 2], b"%d" % number, 1)
            await lost.__aenter__()
            async with aio(node, publisher_core, identifier=lost.identifier):
                pass
        async with aio(node, subscriber_core, **same) as subscriber:
            messages = await aio_heard(subscriber, 101)
        for parity, topic in enumerate(topics):
            numbers = [bytes(m.payload) for m in messages if str(m.topic) == topic]
            wanted = [b"%d" % number for number in range(parity, 100, 2)]
            assert numbers == (wanted if parity else [*wanted, b"gone"])

    for places in PLACES:
        asyncio.run(talk(*places))


# ---------------------------------------------------------------------- gmqtt


class Gmqtt:
    """A gmqtt client whose messages are in a queue."""

    def __init__(self, identifier: str, clean: bool = True, **properties: int) -> None:
        self.client = gmqtt.Client(identifier, clean_session=clean, **properties)
        self.messages: asyncio.Queue[tuple[str, bytes, int, dict[str, Any]]] = asyncio.Queue()
        self.subscribed = asyncio.Event()
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self.subscribed.set()

    async def open(self, node: Node, version: int) -> "Gmqtt":
        host, port = node.address()
        async with asyncio.timeout(PATIENCE):
            await self.client.connect(host, port, version=version)
        return self

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        self.subscribed.clear()
        self.client.subscribe(topic_filter, qos=qos)
        async with asyncio.timeout(PATIENCE):
            await self.subscribed.wait()

    async def heard(self, count: int) -> list[tuple[str, bytes, int, dict[str, Any]]]:
        async with asyncio.timeout(PATIENCE):
            return [await self.messages.get() for _ in range(count)]

    def _on_message(
        self, _client: object, topic: str, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> int:
        self.messages.put_nowait((topic, payload, qos, properties))
        return 0


@pytest.mark.parametrize("version", [MQTTv311, MQTTv50])
def test_gmqtt_hears_live_and_retained_messages(node: Node, version: int) -> None:
    async def talk(publisher_core: int, subscriber_core: int) -> None:
        publisher = await Gmqtt(name_on(publisher_core, "gmqtt")).open(node, version)
        subscriber = await Gmqtt(name_on(subscriber_core, "gmqtt")).open(node, version)
        topic = topic_on(1 - subscriber_core, "gmqtt/{}/a")
        await publisher.subscribe(topic, 1)
        publisher.client.publish(topic, b"kept", qos=1, retain=True)
        # gmqtt does not say when it has the acknowledgement; the echo does.
        await publisher.heard(1)
        for qos in (0, 1, 2):
            await subscriber.subscribe(topic.replace("/a", "/#"), qos)
            topic_heard, payload, _, properties = (await subscriber.heard(1))[0]
            assert (topic_heard, payload, properties["retain"]) == (topic, b"kept", 1)
            publisher.client.publish(topic, LARGE, qos=qos)
            assert (await subscriber.heard(1))[0][:3] == (topic, LARGE, qos)
        await publisher.client.disconnect()
        await subscriber.client.disconnect()

    asyncio.run(talk(0, 1))
    asyncio.run(talk(1, 1))


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_gmqtt_hears_many_messages_in_order(node: Node, qos: int) -> None:
    async def talk() -> None:
        publisher = await Gmqtt(name_on(0, "gmqtt")).open(node, MQTTv50)
        subscriber = await Gmqtt(name_on(1, "gmqtt")).open(node, MQTTv50)
        topic = topic_on(0, "gmqtt/{}/order")
        await subscriber.subscribe(topic, qos)
        heard: list[int] = []
        # At most 200 at a time: gmqtt does not wait when it has no packet identifier left.
        for start in range(0, MANY, 200):
            for number in range(start, start + 200):
                publisher.client.publish(topic, b"%d" % number, qos=qos)
            heard += [int(message[1]) for message in await subscriber.heard(200)]
        assert heard == [*range(MANY)]
        await publisher.client.disconnect()
        await subscriber.client.disconnect()

    asyncio.run(talk())


def test_gmqtt_keeps_its_session(node: Node) -> None:
    async def talk(publisher_core: int, subscriber_core: int) -> None:
        identifier = name_on(subscriber_core, "gmqtt")
        topic = topic_on(publisher_core, "gmqtt/{}/offline")
        first = await Gmqtt(identifier, False, session_expiry_interval=600).open(node, MQTTv50)
        await first.subscribe(topic, 1)
        await first.client.disconnect()
        publisher = await Gmqtt(name_on(publisher_core, "gmqtt")).open(node, MQTTv50)
        for number in range(50):
            publisher.client.publish(topic, b"%d" % number, qos=1)
        again = await Gmqtt(identifier, False, session_expiry_interval=600).open(node, MQTTv50)
        assert [int(message[1]) for message in await again.heard(50)] == [*range(50)]
        await again.client.disconnect()
        await publisher.client.disconnect()

    for places in PLACES:
        asyncio.run(talk(*places))
