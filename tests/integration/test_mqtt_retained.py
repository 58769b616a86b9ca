"""Retained messages: kept by topic, told to whoever subscribes (MQTT5 3.3.1.3)."""

from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import V5, Properties, Publish, Suback, Subscribe, Subscription
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, serve


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("retained") / "data")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("owner", [0, 1])
def test_the_last_message_is_kept_after_suback_with_its_qos(
    node: Node, version: int, owner: int
) -> None:
    topic = topic_on(owner, "kept/{}")
    with Client(node, name_on(0, "p"), version) as says:
        for qos in (0, 1, 2):
            says.publish(topic, b"old", 1, retain=True)
            says.publish(topic, b"%d" % qos, qos, retain=True)
            # QoS 0 has no answer: what follows on the same topic has.
            says.publish(topic, b"not kept", 1)
            for core in (0, 1):
                for granted in (0, 1, 2):
                    with Client(node, name_on(core, "s"), version) as hears:
                        hears.send(Subscribe(1, [Subscription(topic, granted)]))
                        assert hears.expect(Suback) == Suback(1, [Reason(granted)])
                        message = hears.message()
                        assert message.retain
                        assert (message.payload, message.qos) == (b"%d" % qos, min(qos, granted))
                        hears.ping()


def test_properties_are_kept(node: Node) -> None:
    topic = topic_on(1, "properties/{}")
    given = Properties(
        payload_format=1,
        content_type="application/json",
        response_topic="answers/1",
        correlation_data=b"\0\xff",
        user_properties=(("a", "1"), ("a", "2"), ("ü", "")),
    )
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "s")) as hears:
        says.publish(topic, b"x", 1, retain=True, properties=given)
        hears.subscribe(topic, 1, identifier=7)
        given.subscription_identifiers = (7,)
        assert hears.message().properties == given


def test_the_remaining_time_is_told_and_what_has_expired_is_not(node: Node) -> None:
    topic = topic_on(1, "expiring/{}")
    with Client(node, name_on(0, "p")) as says:
        for seconds, suffix in ((2, "/brief"), (1_000, "/long")):
            says.publish(
                topic + suffix,
                b"x",
                1,
                retain=True,
                properties=Properties(message_expiry_interval=seconds),
            )
        with Client(node, name_on(0, "s")) as hears:
            hears.subscribe(topic + "/#", 1)
            for message in hears.messages(2):
                assert message.properties is not None
                remaining = message.properties.message_expiry_interval
                assert remaining in (
                    {1, 2} if message.topic.endswith(b"brief") else {999, 1_000, 998}
                )

        def left() -> list[bytes]:
            with Client(node, name_on(0, "s")) as late:
                late.subscribe(topic + "/#", 1)
                return [message.topic for message in late.heard()]

        until(lambda: left() == [topic.encode() + b"/long"], "one of them expires")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_payload_removes_and_is_delivered(node: Node, version: int) -> None:
    topic = topic_on(1, "removed/{}")
    with Client(node, name_on(0, "p"), version) as says, Client(node, name_on(1, "s")) as hears:
        says.publish(topic, b"x", 1, retain=True)
        hears.subscribe(topic, 1)
        assert hears.message().retain
        says.publish(topic, b"", 1, retain=True)
        message = hears.message()
        assert (message.payload, message.retain) == (b"", False)
        with Client(node, name_on(0, "late")) as late:
            late.subscribe(topic, 1)
            says.publish(topic, b"end", 1)
            assert late.message().payload == b"end"


def test_retain_handling(node: Node) -> None:
    topic = topic_on(0, "handling/{}")
    with Client(node, name_on(1, "p")) as says, Client(node, name_on(0, "s")) as hears:
        says.publish(topic, b"x", 1, retain=True)

        def heard() -> list[bool]:
            says.publish(topic, b"end", 1)
            flags: list[bool] = []
            while (message := hears.message()).payload != b"end":
                flags.append(message.retain)
            return flags

        hears.subscribe(topic, 1, retain_handling=2)
        assert heard() == []
        hears.subscribe(topic, 1, retain_handling=1)
        assert heard() == []
        hears.subscribe(topic, 1, retain_handling=0)
        assert heard() == [True]
        hears.unsubscribe(topic)
        hears.subscribe(topic, 1, retain_handling=1)
        assert heard() == [True]
        # The group of a shared subscription is told nothing (MQTT5 4.8.2).
        hears.unsubscribe(topic)
        hears.subscribe(f"$share/g/{topic}", 1)
        assert heard() == []


def test_retain_as_published(node: Node) -> None:
    topic = topic_on(1, "published/{}")
    with (
        Client(node, name_on(0, "p")) as says,
        Client(node, name_on(1, "k")) as keeps,
        Client(node, name_on(1, "c")) as clears,
    ):
        keeps.subscribe(topic, 1, retain_as_published=True)
        clears.subscribe(topic, 1)
        for retain in (True, False):
            says.publish(topic, b"x", 1, retain=retain)
            assert keeps.message().retain is retain
            assert clears.message().retain is False


@pytest.mark.parametrize("version", VERSIONS)
def test_wildcards_find_what_they_match(node: Node, version: int) -> None:
    root = topic_on(0, "tree/{}")
    names = [f"{root}{rest}" for rest in ("", "/a", "/a/b", "/a/c", "/b/b", "/a/b/c", "//b")]
    expected = {
        f"{root}/#": set(names),
        f"{root}/+": {names[1]},
        f"{root}/+/b": {names[2], names[4], names[6]},
        f"{root}/a/+": {names[2], names[3]},
        f"{root}/a/#": {names[1], names[2], names[3], names[5]},
        f"{root}/+/+/#": {names[2], names[3], names[4], names[5], names[6]},
        root: {root},
    }
    with Client(node, name_on(1, "p"), version) as says:
        for name in names:
            says.publish(name, name.encode(), 1, retain=True)
        says.publish(f"${root}", b"hidden", 1, retain=True)
    for topic_filter, topics in expected.items():
        with Client(node, name_on(0, "s"), version) as hears:
            hears.subscribe(topic_filter, 1)
            heard = hears.messages(len(topics))
            assert {message.topic.decode() for message in heard} == topics
            assert all(message.topic == message.payload and message.retain for message in heard)
            hears.ping()


def test_thousands_come_once_each_while_they_change(node: Node) -> None:
    """Over many pages of the owner's scan: none is missed, none is older than what came live."""
    count, changed = 5_000, 500
    root = topic_on(1, "many/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        for start in range(0, count, 500):
            packets = [
                Publish(f"{root}/{i}".encode(), b"0", 1, True, packet_id=i % 500 + 1)
                for i in range(start, start + 500)
            ]
            says.send(*packets)
            for _ in packets:
                says.receive()
        hears.send(Subscribe(1, [Subscription(f"{root}/#", 0)]))
        says.send(
            *[
                Publish(f"{root}/{i * 7 % count}".encode(), b"1", 1, True, packet_id=i + 1)
                for i in range(changed)
            ]
        )
        last: dict[bytes, bytes] = {}
        retained: dict[bytes, int] = {}
        while len(retained) < count or list(last.values()).count(b"1") < changed:
            packet = hears.receive()
            if isinstance(packet, Publish):
                assert packet.payload >= last.get(packet.topic, b"")
                last[packet.topic] = packet.payload
                if packet.retain:
                    retained[packet.topic] = retained.get(packet.topic, 0) + 1
                else:
                    # A live message tells of the change; the retained one need not come, too.
                    retained.setdefault(packet.topic, 0)
        hears.ping()
        assert len(last) == count
        assert max(retained.values()) == 1


def test_messages_that_are_retained_reach_version_5_and_3_alike(node: Node) -> None:
    topic = topic_on(0, "alike/{}")
    with Client(node, name_on(0, "p")) as says:
        says.publish(
            topic, b"x", 1, retain=True, properties=Properties(user_properties=(("a", "b"),))
        )
    for version in VERSIONS:
        with Client(node, name_on(1, "s"), version) as hears:
            hears.subscribe(topic, 1)
            message = hears.message()
            assert (message.payload, message.retain) == (b"x", True)
            assert (message.properties is not None) == (version == V5)
