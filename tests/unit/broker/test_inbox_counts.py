"""The figures of the inbox: what is kept now, what was ever kept, and what was removed."""

from robustmq import metrics
from robustmq.broker.api import Options
from robustmq.settings.mqtt import MqttInbox
from tests.durable import DurableClient
from tests.fabric import Fabric

LATER_MS = 1_000


def figures(fabric: Fabric) -> tuple[int, int, int]:
    """Messages kept now, kept so far, removed so far; once for each filter."""
    row = fabric.nodes[0].turn.row
    return row[metrics.INBOX_MESSAGES], row[metrics.INBOX_KEPT], row[metrics.INBOX_REMOVED]


def sleeping(fabric: Fabric, *filters: str) -> DurableClient:
    client = DurableClient(fabric, 0)
    for topic_filter in filters:
        client.subscribe(topic_filter, Options(1))
    fabric.settle()
    return client


def publish(fabric: Fabric, count: int, topic: str = "t/0") -> None:
    for number in range(count):
        fabric.nodes[0].publish(topic, str(number), 1)
    fabric.settle()


def read_all(fabric: Fabric, client: DurableClient) -> None:
    """Read, and acknowledge, until nothing more comes."""
    fabric.settle()
    while client.outbox is not None and client.outbox.size:
        client.read()
        fabric.settle()


def later(fabric: Fabric) -> None:
    """Let the time pass after which acknowledgements are noted."""
    node = fabric.nodes[0]
    node.turn.now_ms += LATER_MS
    node.core.timers.run(node.turn.now_ms)
    fabric.settle()


def test_a_message_counts_once_for_each_filter_until_all_have_it() -> None:
    fabric = Fabric(1)
    one = sleeping(fabric, "t/#")
    two = sleeping(fabric, "t/#", "t/0")
    assert fabric.nodes[0].turn.row[metrics.SESSIONS_DURABLE] == 2
    publish(fabric, 10)
    assert figures(fabric) == (20, 20, 0)
    publish(fabric, 3, "t/1")
    assert figures(fabric) == (23, 23, 0)
    for client, left in ((one, 23), (two, 0)):
        client.connect()
        read_all(fabric, client)
        later(fabric)
        assert figures(fabric)[0] == left
    assert figures(fabric) == (0, 23, 23)


def test_the_end_of_a_session_takes_what_it_alone_was_owed() -> None:
    fabric = Fabric(1)
    client = sleeping(fabric, "t/#")
    publish(fabric, 10)
    node = fabric.nodes[0]
    node.core.unsubscribe(client.window, b"t/#")
    node.core.drop(client.window)
    fabric.settle()
    assert figures(fabric) == (0, 10, 10)
    assert node.turn.row[metrics.SESSIONS_DURABLE] == 0


def test_after_a_restart_what_is_there_is_counted_again() -> None:
    fabric = Fabric(1)
    client = sleeping(fabric, "t/#", "t/0")
    publish(fabric, 7)
    fabric.crash(0, 0, [client.restore])
    fabric.settle()
    assert figures(fabric) == (14, 0, 0)
    assert fabric.nodes[0].turn.row[metrics.SESSIONS_DURABLE] == 1
    publish(fabric, 1)
    assert figures(fabric) == (16, 2, 0)
    client.connect()
    read_all(fabric, client)
    later(fabric)
    assert figures(fabric) == (0, 2, 16)


def test_the_oldest_that_are_dropped_are_gone() -> None:
    fabric = Fabric(1)
    sleeping(fabric, "t/#")
    node = fabric.nodes[0]
    node.parts.inbox._limits = MqttInbox(max_messages=4)
    publish(fabric, 5)
    publish(fabric, 5)
    dropped = node.turn.row[metrics.MESSAGES_DROPPED_QUEUE]
    assert figures(fabric) == (10 - dropped, 10, dropped)
    assert dropped > 0
