"""Shared subscriptions, in all versions (MQTT5 4.8.2)."""

import select
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from robustmq.mqtt.packets import V5, Properties, Puback, Publish, Pubrec
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import PATIENCE_SECONDS, Node, until
from tests.integration.wire_client import VERSIONS, Client, numbered, serve


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("shared") / "data")


def kept(version: int) -> Properties | None:
    return Properties(session_expiry_interval=100) if version == V5 else None


def hearing(*clients: Client) -> Client:
    """Return the first of the clients that is sent something."""
    ready, _, _ = select.select([client.socket for client in clients], [], [], PATIENCE_SECONDS)
    return next(client for client in clients if client.socket in ready)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("wildcard", [False, True])
def test_members_on_all_cores_take_turns(
    node: Node, version: int, owner: int, wildcard: bool
) -> None:
    topic = topic_on(owner, "turns/{}")
    topic_filter = topic + "/#" if wildcard else topic
    with ExitStack() as stack:
        members = [
            stack.enter_context(Client(node, name_on(core, "m"), version)) for core in (0, 1, 0, 1)
        ]
        for member in members:
            assert member.subscribe(f"$share/turns/{topic_filter}", 1) == [1]
        other_group = stack.enter_context(Client(node, name_on(0, "o"), version))
        other_group.subscribe(f"$share/other/{topic_filter}", 2)
        plain = stack.enter_context(Client(node, name_on(1, "n"), version))
        plain.subscribe(topic_filter, 0)
        says = stack.enter_context(Client(node, name_on(1, "p"), version))
        for payload in numbered(40):
            assert says.publish(topic, payload, 1) == 0
        heard = [member.payloads(10) for member in members]
        assert sorted(int(payload) for share in heard for payload in share) == list(range(40))
        for share in heard:
            # Round robin, and in order.
            numbers = [int(payload) for payload in share]
            assert numbers == list(range(numbers[0], 40, 4))
        assert other_group.payloads(40) == list(numbered(40))
        assert plain.payloads(40) == list(numbered(40))
        for client in (*members, other_group, plain):
            client.ping()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("core", [0, 1])
def test_what_a_member_leaves_goes_to_the_others(node: Node, version: int, core: int) -> None:
    topic = topic_on(1, "leaves/{}")
    shared = f"$share/g/{topic}"
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "stays"), version) as stays:
        leaves = Client(node, name_on(core, "leaves"), version)
        for member in (leaves, stays):
            member.subscribe(shared, 1)
        for payload in numbered(20):
            says.publish(topic, payload, 1)
        first = leaves.expect(Publish)
        leaves.send(Puback(first.packet_id))
        leaves.drop()
        heard = stays.payloads(19)
        assert sorted([*heard, first.payload], key=int) == list(numbered(20))
        stays.ping()
        says.publish(topic, b"20", 1)
        assert stays.payloads(1) == [b"20"]


def test_unsubscribing_gives_back_what_was_not_sent(node: Node) -> None:
    """What is in flight is completed by its member ([MQTT-3.10.4-3])."""
    topic = topic_on(0, "unsubscribes/{}")
    shared = f"$share/g/{topic}"
    with (
        Client(node, name_on(0, "p")) as says,
        Client(node, name_on(1, "l"), properties=Properties(receive_maximum=2)) as leaves,
        Client(node, name_on(1, "s")) as stays,
    ):
        for member in (leaves, stays):
            member.subscribe(shared, 1)
        for payload in numbered(20):
            says.publish(topic, payload, 1)
        flying = [leaves.expect(Publish) for _ in range(2)]
        leaves.unsubscribe(shared)
        leaves.send(*[Puback(message.packet_id) for message in flying])
        leaves.ping()
        heard = stays.payloads(18) + [message.payload for message in flying]
        assert sorted(heard, key=int) == list(numbered(20))
        stays.ping()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_group_without_a_ready_member_waits_for_one(node: Node, version: int) -> None:
    topic = topic_on(1, "waits/{}")
    shared = f"$share/g/{topic}"
    ids = [name_on(core, "w") for core in (0, 1)]
    with Client(node, name_on(0, "p")) as says:
        for client_id in ids:
            with Client(node, client_id, version, clean=False, properties=kept(version)) as member:
                member.subscribe(shared, 1)
                member.disconnect()
        for payload in numbered(10):
            assert says.publish(topic, payload, 1) == 0
        with Client(node, ids[1], version, clean=False, properties=kept(version)) as member:
            assert member.payloads(10) == list(numbered(10))
            says.publish(topic, b"10", 1)
            assert member.payloads(1) == [b"10"]
            member.ping()
        with Client(node, ids[0], version, clean=False, properties=kept(version)) as member:
            member.ping()


def test_an_offline_member_is_passed_over(node: Node) -> None:
    topic = topic_on(0, "offline/{}")
    shared = f"$share/g/{topic}"
    client_id = name_on(1, "offline")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "online")) as online:
        online.subscribe(shared, 1)
        member = Client(node, client_id, clean=False, properties=kept(V5))
        member.subscribe(shared, 1)
        member.disconnect()
        for payload in numbered(10):
            says.publish(topic, payload, 1)
        assert online.payloads(10) == list(numbered(10))
        with Client(node, client_id, clean=False, properties=kept(V5)) as member:
            assert member.connack.session_present
            # The core that leads the group hears a moment later that the member is back.
            says.publish(topic, b"first", 1)
            while hearing(online, member) is online:
                assert online.payloads(1) == [b"first"]
                says.publish(topic, b"first", 1)
            assert member.payloads(1) == [b"first"]
            for payload in numbered(10):
                says.publish(topic, payload, 1)
            heard = online.payloads(5) + member.payloads(5)
            assert sorted(heard) == list(numbered(10))


def test_a_qos_2_message_that_was_sent_is_nobody_elses(node: Node) -> None:
    """[MQTT-4.8.2-5]: it waits for its client, or goes with its session."""
    topic = topic_on(0, "exactly/{}")
    shared = f"$share/g/{topic}"
    client_id = name_on(1, "exactly")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "s")) as stays:
        member = Client(node, client_id, clean=False, properties=kept(V5))
        member.subscribe(shared, 2)
        says.publish(topic, b"1", 2)
        sent = member.expect(Publish)
        member.drop()
        stays.subscribe(shared, 2)
        says.publish(topic, b"2", 2)
        assert stays.payloads(1) == [b"2"]
        stays.ping()
        with Client(node, client_id, clean=False, properties=kept(V5)) as member:
            again = member.expect(Publish)
            assert (again.payload, again.packet_id, again.dup) == (b"1", sent.packet_id, True)
            member.send(Pubrec(again.packet_id))


def test_the_last_member_ends_the_group(node: Node) -> None:
    topic = topic_on(1, "last/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "m")) as member:
        member.subscribe(f"$share/g/{topic}", 1)
        assert says.publish(topic, b"1", 1) == 0
        assert member.payloads(1) == [b"1"]
        member.unsubscribe(f"$share/g/{topic}")
        until(
            lambda: says.publish(topic, b"2", 1) == Reason.NO_MATCHING_SUBSCRIBERS,
            "nobody wants it any more",
        )
        member.ping()


def test_options_of_a_shared_subscription(node: Node) -> None:
    topic = topic_on(1, "options/{}")
    shared = f"$share/g/{topic}"
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "m")) as member:
        member.subscribe(shared, 2, retain_as_published=True, identifier=3)
        says.publish(topic, b"1", 2, retain=True)
        message = member.message()
        assert (message.qos, message.retain) == (2, True)
        assert message.properties == Properties(subscription_identifiers=(3,))
        member.subscribe(shared, 0, identifier=4)
        says.publish(topic, b"2", 2)
        message = member.message()
        assert (message.qos, message.retain) == (0, False)
        assert message.properties == Properties(subscription_identifiers=(4,))
