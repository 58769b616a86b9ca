"""What must come once: written before it is sent, asked for again by the next life, taken once."""

import pytest

from robustmq.broker import frames
from robustmq.broker.frames import Kind
from robustmq.message.batch import count_of
from robustmq.message.record import Record
from robustmq.policy.principal import Principal
from tests.durable import DurableClient
from tests.fabric import Fabric
from tests.unit.broker.links import durable, payloads, subscribed, under_way


@pytest.mark.parametrize("qos", [1, 2])
def test_only_what_must_come_once_is_replayed(qos: int) -> None:
    """The rest is sent again by its publisher, behind what that has sent before.

    A will has nobody who would send it again, whatever its QoS.
    """
    fabric = Fabric(2)
    node = durable(fabric, 1)
    node.publish("t/0", "at least once", 1)
    record = Record(key=b"t/0", value=b"once", qos=qos, timestamp=node.turn.now_ms)
    node.core.publish(Principal("publisher"), record, None, once=True)
    node.publish("t/0", "at least once", 1)
    fabric.turn(0)
    ((_, batch),) = node.table.walk(b"O", b"P")
    assert payloads([batch]) == [b"once"]


@pytest.mark.parametrize("dies", [False, True])
def test_what_must_come_once_is_written_before_it_is_known_who_wants_it(dies: bool) -> None:
    """The rows that were put with it are written in that turn too."""
    fabric = Fabric(2)
    client = DurableClient(fabric, 1)
    client.subscribe("t/#")
    fabric.settle()
    node = fabric.crash(0, 0, [])
    node.publish("t/0", "once", 2)
    assert node.router.blocked
    fabric.turn(0)
    node.publish("t/0", "behind it", 1)
    fabric.turn(0)
    ((_, batch),) = node.table.walk(b"O", b"P")
    assert payloads([batch]) == [b"once"]
    if dies:
        fabric.crash(0, 1 << 30, [])
    client.connect()
    fabric.settle()
    client.read()
    behind = [] if dies else [b"behind it"]
    assert [message.payload for message in client.messages] == [b"once", *behind]


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_who_only_listens_hears_once_what_must_come_once(turns: int) -> None:
    """Whether it left the core that dies or not; the publisher's resend is no new message."""
    fabric = Fabric(2)
    client = subscribed(fabric, 1)
    node = fabric.crash(0, 0, [])
    node.publish("t/0", "once", 2)
    for _ in range(turns):
        fabric.turn(0)
        fabric.turn(1)
    fabric.turn(0)
    fabric.crash(0, 0, [])
    fabric.settle()
    assert client.payloads == ["once"]
    assert not list(fabric.nodes[0].table.walk(b"O", b"P"))


def test_what_must_come_once_is_one_part_for_a_core() -> None:
    """A number is taken once, whether the core keeps some of it or not."""
    fabric = Fabric(2)
    sleeper = DurableClient(fabric, 1)
    sleeper.subscribe("kept/#")
    client = subscribed(fabric, 1, "#")
    node = fabric.nodes[0]
    sent = [str(number) for number in range(6)]
    for number in range(0, 6, 2):
        node.publish("live/0", sent[number], 1)
        node.publish("kept/0", sent[number + 1], 2)
    fabric.turn(0)
    (frame,) = under_way(fabric, 0, 1, Kind.STORE)
    assert count_of(frames.read_store(frame)[2]) == len(sent)
    fabric.settle()
    assert client.payloads == sent
    sleeper.connect()
    fabric.settle()
    sleeper.read()
    assert [message.payload.decode() for message in sleeper.messages] == sent[1::2]


def test_who_subscribed_after_it_was_sent_does_not_hear_the_replay() -> None:
    """A newer message may have come to him in between."""
    fabric = Fabric(3)
    sleeper = DurableClient(fabric, 1)
    sleeper.subscribe("t/#")
    fabric.settle()
    fabric.stalled = {(0, 1)}
    fabric.nodes[0].publish("t/0", "once", 2)
    fabric.settle()
    late = subscribed(fabric, 2)
    fabric.nodes[0].publish("t/0", "newer", 0)
    fabric.settle()
    fabric.crash(0, 0, [])
    fabric.stalled = set()
    fabric.settle()
    assert late.payloads == ["newer"]
    sleeper.connect()
    fabric.settle()
    sleeper.read()
    assert [message.payload for message in sleeper.messages] == [b"once"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_subscription_did_not_hear_does_not_come_after_a_restart(qos: int) -> None:
    """It lies in the log of the filter, behind a message that is not acknowledged yet."""
    fabric = Fabric(2)
    other, late = DurableClient(fabric, 1), DurableClient(fabric, 1)
    other.subscribe("#")
    fabric.settle()
    late.connect()
    late.subscribe("t")
    fabric.turn(1)
    fabric.nodes[1].publish("t", "of its own core", qos)
    fabric.turn(1)
    fabric.nodes[0].publish("t", "too early", qos)
    fabric.turn(0, 0)
    fabric.settle()
    fabric.nodes[0].publish("t", "newer", qos)
    fabric.settle()
    late.reads_on = False
    late.read(2)
    heard = [message.payload for message in late.messages]
    assert heard == [b"of its own core", b"newer"]
    fabric.crash(1, 0, [other.restore, late.restore])
    late.connect()
    fabric.settle()
    late.reads_on = True
    late.read()
    fabric.settle()
    assert [message.payload for message in late.messages] == heard * (3 - qos)
    node = fabric.nodes[1]
    node.turn.now_ms += 1_000
    node.core.timers.run(node.turn.now_ms)
    fabric.settle()
    assert not [*node.table.walk(b"X", b"Y")]
