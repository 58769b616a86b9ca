"""Wills: published when a client is gone without a word, and when not (MQTT5 3.1.2.5)."""

import time
from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import V5, V311, Connack, Connect, Disconnect, Properties, Will
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node
from tests.integration.wire_client import VERSIONS, Client, Wire, serve

SESSION = Properties(session_expiry_interval=3_600)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("wills") / "data")


@pytest.fixture
def hears(node: Node) -> Iterator[Client]:
    with Client(node, name_on(0, "hears")) as client:
        yield client


def delayed(topic: str, seconds: int, payload: bytes = b"will") -> Will:
    return Will(topic.encode(), payload, 1, False, Properties(will_delay_interval=seconds))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("core", "owner"), PLACES)
def test_a_lost_client_has_a_will_and_one_that_takes_leave_has_none(
    node: Node, hears: Client, version: int, core: int, owner: int
) -> None:
    topic = topic_on(owner, "will/{}")
    hears.subscribe(topic, 2)
    for qos in (0, 1, 2):
        will = Will(topic.encode(), b"gone %d" % qos, qos)
        with Client(node, name_on(core, "leaves"), version, will=will) as client:
            client.disconnect()
        with Client(node, name_on(core, "lost"), version, will=will) as client:
            client.close()
        message = hears.message()
        assert (message.payload, message.qos, message.retain) == (b"gone %d" % qos, qos, False)
    hears.ping()


def test_a_client_that_breaks_the_protocol_has_a_will(node: Node, hears: Client) -> None:
    topic = topic_on(1, "breaks/{}")
    hears.subscribe(topic)
    with Client(node, name_on(0, "breaks"), will=Will(topic.encode(), b"broken")) as client:
        client.send_bytes(b"\xf0\x00" * 2)
        assert client.ending() == [Disconnect(Reason.PROTOCOL_ERROR)]
    assert hears.message().payload == b"broken"


def test_disconnect_with_will(node: Node, hears: Client) -> None:
    topic = topic_on(1, "wished/{}")
    hears.subscribe(topic)
    with Client(node, name_on(1, "wishes"), will=Will(topic.encode(), b"so be it")) as client:
        client.send(Disconnect(Reason.DISCONNECT_WITH_WILL))
        assert client.ending() == []
    assert hears.message().payload == b"so be it"


def test_a_will_keeps_its_properties(node: Node, hears: Client) -> None:
    topic = topic_on(1, "rich/{}")
    hears.subscribe(topic, 1)
    given = Properties(
        payload_format=1,
        content_type="text/plain",
        response_topic="answers",
        correlation_data=b"\0\1",
        user_properties=(("a", "1"), ("b", "2"), ("a", "3")),
    )
    will = Will(topic.encode(), b"x", 1, False, given)
    Client(node, name_on(1, "rich"), will=will).close()
    assert hears.message().properties == given


def test_the_expiry_of_a_will_begins_when_it_is_published(node: Node, hears: Client) -> None:
    topic = topic_on(0, "expiring/{}")
    hears.subscribe(topic, 1)
    given = Properties(message_expiry_interval=100, will_delay_interval=1)
    will = Will(topic.encode(), b"x", 1, False, given)
    Client(node, name_on(1, "e"), will=will, properties=SESSION).close()
    properties = hears.message().properties
    assert properties is not None
    assert properties.message_expiry_interval in range(40, 101)
    assert properties.will_delay_interval is None


@pytest.mark.parametrize("core", [0, 1])
def test_a_will_waits_for_its_delay(node: Node, hears: Client, core: int) -> None:
    topic = topic_on(1, "delayed/{}")
    hears.subscribe(topic)
    client = Client(node, name_on(core, "d"), will=delayed(topic, 1), properties=SESSION)
    begin = time.monotonic()
    client.drop()
    assert hears.message().payload == b"will"
    assert 0.8 < time.monotonic() - begin < 60


def test_a_client_that_returns_in_time_has_no_will(node: Node, hears: Client) -> None:
    topic, client_id = topic_on(1, "returns/{}"), name_on(1, "returns")
    hears.subscribe(topic)
    client = Client(node, client_id, will=delayed(topic, 2), properties=SESSION)
    client.drop()
    with Client(node, client_id, clean=False, properties=SESSION) as client:
        assert client.connack.session_present
        time.sleep(2.5)
        hears.ping()
        client.close()
    hears.ping()


def test_the_end_of_the_session_does_not_wait_for_the_delay(node: Node, hears: Client) -> None:
    topic = topic_on(0, "ends/{}")
    hears.subscribe(topic)
    # It ends with its connection.
    Client(node, name_on(1, "n"), will=delayed(topic, 3_600, b"none")).drop()
    assert hears.message().payload == b"none"
    # It expires.
    brief = Properties(session_expiry_interval=1)
    Client(node, name_on(1, "b"), will=delayed(topic, 3_600, b"brief"), properties=brief).drop()
    assert hears.message().payload == b"brief"
    # DISCONNECT shortens it.
    client = Client(node, name_on(0, "s"), will=delayed(topic, 3_600, b"short"), properties=SESSION)
    client.send(Disconnect(Reason.DISCONNECT_WITH_WILL, Properties(session_expiry_interval=0)))
    assert client.ending() == []
    assert hears.message().payload == b"short"
    # A clean start ends it, long after its connection.
    client_id = name_on(1, "c")
    Client(node, client_id, will=delayed(topic, 3_600, b"clean"), properties=SESSION).drop()
    hears.ping()
    with Client(node, client_id) as client:
        assert hears.message().payload == b"clean"
        client.ping()


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize(
    ("delay", "clean", "published"),
    [(0, False, True), (0, True, True), (3_600, False, False), (3_600, True, True)],
)
def test_the_will_of_a_connection_that_was_taken_over(  # noqa: PLR0917
    node: Node, hears: Client, version: int, delay: int, clean: bool, published: bool
) -> None:
    """MQTT5 3.1.4: the delay saves from the will, unless the session ends."""
    topic, client_id = topic_on(1, "taken/{}"), name_on(1, "taken")
    hears.subscribe(topic)
    will = delayed(topic, delay) if version == V5 else Will(topic.encode(), b"will", 1)
    kept = SESSION if version == V5 else None
    with (
        Client(node, client_id, version, clean=False, will=will, properties=kept) as old,
        Client(node, client_id, version, clean=clean) as new,
    ):
        old.ending()
        if published or version == V311:
            assert hears.message().payload == b"will"
        new.publish(topic, b"end", 1)
        assert hears.message().payload == b"end"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retained_will_is_retained(node: Node, version: int) -> None:
    topic = topic_on(0, "retained/{}")
    will = Will(topic.encode(), b"offline", 1, True)
    with Client(node, name_on(1, "device"), version, will=will) as device:
        device.publish(topic, b"online", 1, retain=True)
        with Client(node, name_on(0, "early")) as early:
            early.subscribe(topic, 1)
            assert early.message().payload == b"online"
            device.close()
            message = early.message()
            assert (message.payload, message.retain) == (b"offline", False)
    with Client(node, name_on(0, "late")) as late:
        late.subscribe(topic, 1)
        message = late.message()
        assert (message.payload, message.retain) == (b"offline", True)


def test_a_will_that_may_not_be_published_is_refused_at_once(node: Node) -> None:
    with Wire(node) as wire:
        wire.send(Connect(name_on(0, "w"), will=Will(b"$SYS/broker", b"x")))
        assert wire.ending() == [Connack(Reason.NOT_AUTHORIZED)]
    with Wire(node, V311) as wire:
        wire.send(Connect(name_on(0, "w"), V311, will=Will(b"$SYS/broker", b"x")))
        assert wire.ending() == [Connack(Reason.NOT_AUTHORIZED)]
