"""The limits of the inbox, and a log whose filter is left and taken up again at once."""

from robustmq import metrics
from robustmq.broker.api import Options
from robustmq.settings.mqtt import MqttInbox
from tests.durable import DurableClient
from tests.fabric import Fabric


def fabric_with(limits: MqttInbox) -> Fabric:
    fabric = Fabric(1)
    fabric.nodes[0].parts.inbox._limits = limits
    return fabric


def sleeping(fabric: Fabric) -> DurableClient:
    client = DurableClient(fabric, 0)
    client.subscribe("t", Options(1))
    fabric.settle()
    return client


def publish(fabric: Fabric, *payloads: str) -> None:
    for payload in payloads:
        fabric.nodes[0].publish("t", payload, 1)
        fabric.settle()


def heard(fabric: Fabric, client: DurableClient) -> list[str]:
    client.connect()
    fabric.settle()
    while client.outbox is not None and client.outbox.size:
        client.read()
        fabric.settle()
    return [message.payload.decode() for message in client.messages]


def test_beyond_the_messages_the_oldest_go() -> None:
    fabric = fabric_with(MqttInbox(max_messages=3))
    client = sleeping(fabric)
    publish(fabric, *"abcde")
    assert fabric.nodes[0].turn.row[metrics.MESSAGES_DROPPED_QUEUE] == 2
    assert heard(fabric, client) == ["c", "d", "e"]


def test_beyond_the_bytes_the_oldest_go() -> None:
    fabric = fabric_with(MqttInbox(max_bytes=1_024))
    client = sleeping(fabric)
    publish(fabric, *(letter * 300 for letter in "abcde"))
    left = heard(fabric, client)
    assert left == [letter * 300 for letter in "cde"][-len(left) :]
    assert 1 <= len(left) < 5


def test_or_the_newest_are_refused() -> None:
    fabric = fabric_with(MqttInbox(max_messages=3, on_full="refuse_newest"))
    client = sleeping(fabric)
    publish(fabric, *"abcde")
    assert fabric.nodes[0].turn.row[metrics.MESSAGES_DROPPED_QUEUE] == 2
    assert heard(fabric, client) == ["a", "b", "c"]
    # What was acknowledged is noted, and makes room, a moment later.
    node = fabric.nodes[0]
    node.turn.now_ms += 1_000
    node.core.timers.run(node.turn.now_ms)
    fabric.settle()
    publish(fabric, "f")
    assert heard(fabric, client)[-1] == "f"


def test_what_is_too_old_is_not_delivered() -> None:
    fabric = fabric_with(MqttInbox(max_age_ms=10_000))
    client = sleeping(fabric)
    publish(fabric, "old")
    fabric.nodes[0].turn.now_ms += 6_000
    publish(fabric, "new")
    fabric.nodes[0].turn.now_ms += 6_000
    assert heard(fabric, client) == ["new"]


def test_a_filter_that_is_left_and_taken_up_in_one_turn_has_a_new_log() -> None:
    fabric = Fabric(1)
    client = sleeping(fabric)
    publish(fabric, "before")
    core = fabric.nodes[0].core
    core.unsubscribe(client.window, b"t")
    core.subscribe(client.window, b"t", Options(1), False, lambda _: None)
    publish(fabric, *"abc")
    assert heard(fabric, client) == ["a", "b", "c"]
