"""Sessions: taken over, kept, expired, and how long a client may be silent."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Publish,
    Pubrec,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, Ended, Wire, numbered, serve

FOR_EVER = 0xFFFFFFFF


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("sessions") / "data",
        "mqtt_runtime.protocol.max_session_expiry_interval=4294967295",
        "mqtt_runtime.protocol.default_session_expiry_interval=4294967295",
        "mqtt_runtime.keep_alive.max_time=100",
    )


def expiring(seconds: int | None) -> Properties:
    return Properties(session_expiry_interval=seconds)


def kept(version: int) -> Properties | None:
    return expiring(3_600) if version == V5 else None


@pytest.mark.parametrize("first", VERSIONS)
@pytest.mark.parametrize("second", VERSIONS)
def test_a_second_connection_takes_the_first_ones_place(
    node: Node, first: int, second: int
) -> None:
    client_id = name_on(1, "taken")
    with Client(node, client_id, first) as old, Client(node, client_id, second) as new:
        assert old.ending() == ([Disconnect(Reason.SESSION_TAKEN_OVER)] if first == V5 else [])
        new.ping()


def test_a_storm_of_connections_for_one_id_leaves_one(node: Node) -> None:
    client_id, topic = name_on(0, "storm"), topic_on(1, "storm/{}")
    sessions = sum(node.sample(f'mqtt_sessions{{core="{core}"}}') for core in (0, 1))
    wires = [Wire(node) for _ in range(200)]
    connect = Connect(client_id, clean_start=False, properties=kept(V5))
    for wire in wires:
        wire.send(connect)
    alive = []
    for wire in wires:
        assert wire.expect(Connack).reason == 0
        with contextlib.suppress(ConnectionError):
            wire.send(Pingreq())
    for wire in wires:
        packets: list[Packet] = []
        try:
            while not (packets and isinstance(packets[-1], Pingresp)):
                packets.append(wire.receive())
        except Ended:
            assert packets[-1:] == [Disconnect(Reason.SESSION_TAKEN_OVER)]
        else:
            alive.append(wire)
    # Those that got their answer before they were taken over are told now.
    ended = [wire for wire in alive if _is_taken_over(wire)]
    assert len(alive) - len(ended) == 1
    with Client(node, client_id, clean=False, properties=kept(V5)) as last:
        assert last.connack.session_present
        last.subscribe(topic, 1)
        assert last.publish(topic, b"x", 1) == 0
        assert last.message().payload == b"x"
        last.disconnect(expiring(0))
    for wire in wires:
        wire.close()

    def count() -> float:
        return sum(node.sample(f'mqtt_sessions{{core="{core}"}}') for core in (0, 1))

    until(lambda: count() <= sessions, "sessions that ended are gone")


def _is_taken_over(wire: Wire) -> bool:
    try:
        wire.send(Pingreq())
        return isinstance(wire.receive(), Disconnect)
    except (Ended, ConnectionError):
        return True


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_is_kept_has_its_subscriptions_and_messages(
    node: Node, version: int
) -> None:
    client_id = name_on(1, "kept")
    topics = [topic_on(core, "kept/{}") for core in (0, 1)]
    with Client(node, name_on(0, "p")) as says:
        hears = Client(node, client_id, version, clean=False, properties=kept(version))
        assert not hears.connack.session_present
        for topic in topics:
            hears.subscribe(topic, 2)
        hears.disconnect()
        for topic in topics:
            for qos in (0, 1, 2):
                assert says.publish(topic, b"%d" % qos, qos) == 0
        with Client(node, client_id, version, clean=False, properties=kept(version)) as hears:
            assert hears.connack.session_present or version == V31
            heard = hears.messages(4)
            assert sorted((m.topic.decode(), m.qos) for m in heard) == sorted(
                (topic, qos) for topic in topics for qos in (1, 2)
            )
            hears.ping()
        with Client(node, client_id, version, clean=True) as hears:
            assert not hears.connack.session_present
            says.publish(topics[0], b"nobody", 1)
            hears.ping()
        with Client(node, client_id, version, clean=False, properties=kept(version)) as hears:
            assert not hears.connack.session_present
            hears.disconnect(expiring(0) if version == V5 else None)


def test_session_present_is_unknown_to_mqtt_3_1(node: Node) -> None:
    """MQTT 3.1 has a reserved byte there; clients of that time do not look at it."""
    client_id = name_on(0, "old")
    with Client(node, client_id, V31, clean=False) as client:
        client.subscribe("old", 1)
        client.disconnect()
    with Client(node, client_id, V31, clean=False) as client:
        assert client.connack.reason == 0


@pytest.mark.parametrize("expiry", [None, 0])
def test_a_session_ends_with_its_connection_by_default(node: Node, expiry: int | None) -> None:
    client_id, topic = name_on(0, "brief"), topic_on(0, "brief/{}")
    given = expiring(expiry)
    with Client(node, client_id, clean=False, properties=given) as client:
        client.subscribe(topic, 1)
        client.drop()
    with Client(node, name_on(1, "p")) as says:
        # The publisher's core hears of it a moment later.
        until(lambda: says.publish(topic, b"x", 1) == Reason.NO_MATCHING_SUBSCRIBERS, "its end")
    with Client(node, client_id, clean=False, properties=given) as client:
        assert not client.connack.session_present


def test_a_session_expires(node: Node) -> None:
    client_id, topic = name_on(0, "expires"), topic_on(1, "expires/{}")
    with Client(node, client_id, clean=False, properties=expiring(FOR_EVER)) as client:
        client.subscribe(topic, 1)
        client.drop()
    with Client(node, client_id, clean=False, properties=expiring(1)) as client:
        assert client.connack.session_present
        # A session does not expire under its client.
        time.sleep(1.5)
        client.ping()
        begin = time.monotonic()
        client.drop()
    with Client(node, name_on(1, "p")) as says:
        until(lambda: says.publish(topic, b"x", 1) == Reason.NO_MATCHING_SUBSCRIBERS, "expiry")
        assert time.monotonic() - begin > 0.8
    with Client(node, client_id, clean=False, properties=expiring(1)) as client:
        assert not client.connack.session_present


def test_disconnect_changes_the_expiry(node: Node) -> None:
    client_id = name_on(1, "changes")
    with Client(node, client_id, clean=False, properties=expiring(1)) as client:
        client.disconnect(expiring(FOR_EVER))
    time.sleep(1.5)
    with Client(node, client_id, clean=False, properties=expiring(FOR_EVER)) as client:
        assert client.connack.session_present
        assert client.connack.properties is None or (
            client.connack.properties.session_expiry_interval is None
        )
        client.disconnect(expiring(0))
    with Client(node, client_id, clean=False) as client:
        assert not client.connack.session_present
        client.send(Disconnect(properties=Properties(session_expiry_interval=5)))
        assert client.ending() == [Disconnect(Reason.PROTOCOL_ERROR)]


def test_a_session_for_ever_outlives_a_taken_over_connection(node: Node) -> None:
    client_id, topic = name_on(1, "ever"), topic_on(0, "ever/{}")
    with Client(node, client_id, clean=False, properties=expiring(FOR_EVER)) as old:
        old.subscribe(topic, 1)
        with Client(node, client_id, clean=False) as new:
            assert new.connack.session_present
            assert old.ending() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
            assert new.publish(topic, b"x", 1) == 0
            assert new.message().payload == b"x"


@pytest.mark.parametrize("version", [V311, V5])
def test_the_server_assigns_client_ids(node: Node, version: int) -> None:
    with Client(node, "", version) as one, Client(node, "", version) as other:
        if version == V5:
            assigned = [
                client.connack.properties.assigned_client_id
                for client in (one, other)
                if client.connack.properties
            ]
            assert len(set(assigned)) == 2
            with Client(node, str(assigned[0])) as taker:
                assert one.ending() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
                taker.ping()
        other.ping()


@pytest.mark.parametrize(("version", "clean"), [(V31, True), (V31, False), (V311, False)])
def test_an_empty_client_id_is_refused_where_it_means_nothing(
    node: Node, version: int, clean: bool
) -> None:
    with Wire(node, version) as wire:
        wire.send(Connect("", version, clean_start=clean))
        assert wire.ending() == [Connack(Reason.CLIENT_IDENTIFIER_NOT_VALID)]


@pytest.mark.parametrize("core", [0, 1])
@pytest.mark.parametrize("length", [23, 2_100, 30_000])
def test_a_long_client_id_has_one_home(node: Node, core: int, length: int) -> None:
    """Whatever core accepts: a session that lived on two cores could not be taken over."""
    client_id = name_on(core, "x" * (length - 8))
    client = Client(node, client_id, clean=False, properties=kept(V5))
    for _ in range(10):
        taker = Client(node, client_id, clean=False, properties=kept(V5))
        assert taker.connack.session_present
        assert client.ending() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
        client.close()
        client = taker
    client.close()


def test_a_client_id_behind_too_much_is_refused(node: Node) -> None:
    """Its home cannot be told before it is read: no second session must come of it."""
    far = Properties(user_properties=tuple(("key", "v" * 30_000) for _ in range(2)))
    for _ in range(6):
        with Wire(node) as wire:
            wire.send(Connect(name_on(0, "far"), properties=far))
            assert wire.ending() == [Connack(Reason.PACKET_TOO_LARGE)]
    near = Properties(user_properties=(("key", "v" * 20_000),))
    client_id = name_on(1, "near")
    clients = [Client(node, client_id, properties=near) for _ in range(6)]
    for client in clients[:-1]:
        assert client.ending() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
    clients[-1].ping()


@pytest.mark.parametrize(("asked", "told"), [(0, 100), (101, 100), (100, None), (3, None)])
def test_the_server_has_the_last_word_on_keep_alive(
    node: Node, asked: int, told: int | None
) -> None:
    with Client(node, name_on(0, "k"), keep_alive=asked) as client:
        assert client.connack.properties is not None
        assert client.connack.properties.server_keep_alive == told


@pytest.mark.parametrize("version", VERSIONS)
def test_silence_ends_a_connection_and_any_packet_is_none(node: Node, version: int) -> None:
    topic = topic_on(0, "silence/{}").encode()
    with (
        Client(node, name_on(0, "silent"), version, keep_alive=2) as silent,
        Client(node, name_on(0, "talks"), version, keep_alive=2) as talks,
        Client(node, name_on(1, "halves"), version, keep_alive=2) as halves,
    ):
        begin = time.monotonic()
        packet = b"\x30\x80\x01\x00" + bytes((len(topic),)) + topic
        halves.send_bytes(packet)
        silent.socket.settimeout(0.2)
        packets = []
        while True:
            talks.send(Publish(topic, b"x"))
            halves.send_bytes(b"x")
            try:
                packets.append(silent.receive())
            except TimeoutError:
                assert time.monotonic() - begin < 60
            except Ended:
                break
        waited = time.monotonic() - begin
        assert waited > 2.9
        assert packets == ([Disconnect(Reason.KEEP_ALIVE_TIMEOUT)] if version == V5 else [])
        talks.ping()


def test_who_may_be_silent_for_ever(node: Node) -> None:
    with Client(node, name_on(0, "calm"), V311, keep_alive=0) as client:
        time.sleep(2)
        client.ping()


def test_a_client_whose_packets_we_do_not_read_is_not_silent(node: Node) -> None:
    """It is we who paused: what it said lies in the socket."""
    topic = topic_on(1, "paused/{}").encode()
    with Client(node, name_on(0, "paused"), V311, keep_alive=1) as client:
        begin = time.monotonic()
        sent = 0
        while time.monotonic() - begin < 2.5:
            client.send(*[Publish(topic, bytes(1_000), 1, packet_id=i + 1) for i in range(2_000)])
            for i in range(2_000):
                answer = client.receive()
                assert getattr(answer, "packet_id", 0) == i + 1
            sent += 2_000
        client.ping()


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_2_state_goes_with_a_clean_start(node: Node, version: int) -> None:
    client_id, topic = name_on(0, "forgets"), topic_on(0, "forgets/{}")
    with Client(node, name_on(1, "s")) as hears:
        hears.subscribe(topic, 0)
        for payload in numbered(3):
            with Client(node, client_id, version, clean=True) as says:
                says.send(Publish(topic.encode(), payload, 2, packet_id=1))
                assert says.expect(Pubrec) == Pubrec(1)
        assert hears.payloads(3) == list(numbered(3))


@pytest.mark.parametrize(("before", "after"), [(V311, V5), (V5, V311), (V31, V5)])
def test_a_session_may_return_in_another_version(node: Node, before: int, after: int) -> None:
    """What waits for it is told in the words of the version that it speaks now."""
    client_id, topic = name_on(0, "version"), topic_on(1, "version/{}")
    named = Properties(user_properties=(("a", "b"),))
    with Client(node, name_on(1, "p")) as says:
        hears = Client(node, client_id, before, clean=False, properties=kept(before))
        hears.subscribe(topic, 2)
        says.publish(topic, b"0", 2, properties=named)
        assert hears.expect(Publish).payload == b"0"
        hears.drop()
        for number in (1, 2):
            says.publish(topic, b"%d" % number, number, properties=named)
        hears = Client(node, client_id, after, clean=False, properties=kept(after))
        assert hears.connack.session_present
        heard = hears.messages(3)
        assert [message.payload for message in heard] == [b"0", b"1", b"2"]
        assert [message.topic for message in heard] == [topic.encode()] * 3
        says.publish(topic, b"3", 1, properties=named)
        assert hears.message().payload == b"3"
        hears.close()
