"""MQTT over three real nodes: what one node promises its clients holds for those of all of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from robustmq.mqtt.packets import Disconnect, Properties, Will
from robustmq.mqtt.reasons import Reason
from tests.integration import test_clients_mosquitto as mosquitto
from tests.integration import test_clients_paho as by_paho
from tests.integration.cluster import Cluster, cluster
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, numbered

WORKERS = 2
ROUNDS = 200
MANY = 300
KEPT = Properties(session_expiry_interval=600)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("three"), workers=WORKERS) as nodes:
        yield nodes.start()


def all_live(nodes: Cluster) -> list[Node]:
    """Return the nodes, which are all there and linked with each other."""
    nodes.settled()
    for number, node in nodes.nodes.items():
        expected = sum(WORKERS for other in nodes.nodes if other != number) * WORKERS
        until(
            lambda n=node, e=expected: n.sum("link_connected") >= e,  # type: ignore[misc]
            "linked",
        )
    return [nodes.nodes[number] for number in nodes.first]


def test_every_quality_of_service_crosses_nodes_in_order(three: Cluster) -> None:
    one, two, three_ = all_live(three)
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(Client(node, name_on(core, "l")))
            for node in (one, two, three_)
            for core in range(WORKERS)
        ]
        speakers = [
            stack.enter_context(Client(node, name_on(core, "s")))
            for core, node in enumerate((one, three_))
        ]
        for listener in listeners:
            assert listener.subscribe("hall/+/#", 2) == [2]
        for qos in (0, 1, 2):
            for speaker in speakers:
                for payload in numbered(MANY // 3):
                    speaker.publish(f"hall/{speaker.client_id}/x", payload, qos)
        wanted = [*numbered(MANY // 3)] * 3
        for listener in listeners:
            heard = listener.messages(MANY * len(speakers))
            for speaker in speakers:
                topic = f"hall/{speaker.client_id}/x".encode()
                assert [each.payload for each in heard if each.topic == topic] == wanted
            assert Counter(each.qos for each in heard) == dict.fromkeys(range(3), len(heard) // 3)


def test_paho_and_mosquitto_on_three_nodes(three: Cluster) -> None:
    one, two, three_ = all_live(three)
    listener = by_paho.Client(two, 0, by_paho.V5)
    assert listener.subscribe("mixed/#", 2) == [2]
    reader = mosquitto.Subscriber(three_, 1, "-t", "mixed/+", "-q", "2", "-C", "21")
    speaker = by_paho.Client(one, 1, by_paho.V311)
    for number in range(20):
        speaker.publish("mixed/a", b"%d" % number, number % 3)
    mosquitto.publish(one, 0, "mixed/a", "-m", "20", "-q", "2")
    # Clients tell of a message of QoS 2 when its exchange is over: others may come before it.
    wanted = {str(number): 1 for number in range(21)}
    assert Counter(each.payload.decode() for each in listener.heard(21)) == wanted
    assert Counter(reader.heard()) == wanted
    speaker.close()
    listener.close()


def test_suback_means_the_cluster(three: Cluster) -> None:
    nodes = all_live(three)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(node, name_on(0, "c"))) for node in nodes]
        for number in range(ROUNDS):
            listener, speaker = clients[number % 3], clients[(number + 1 + number // 3 % 2) % 3]
            topic = f"at/once/{number}"
            assert listener.subscribe(topic, number % 3) == [number % 3]
            speaker.publish(topic, b"%d" % number, number % 3)
            assert listener.message().payload == b"%d" % number


def test_a_shared_group_of_three_nodes_gives_each_message_to_one(three: Cluster) -> None:
    nodes = all_live(three)
    with ExitStack() as stack:
        members = [stack.enter_context(Client(node, name_on(1, "m"))) for node in nodes]
        speakers = [stack.enter_context(Client(node, name_on(0, "s"))) for node in nodes[:2]]
        for member in members:
            assert member.subscribe("$share/crew/work/+", 1) == [1]
        until(lambda: has_all(members, speakers[0]), "the group knows its members")
        for payload in numbered(MANY):
            for speaker in speakers:
                assert speaker.publish(f"work/{speaker.client_id}", payload, 1) == 0
        heard: list[tuple[bytes, bytes]] = []
        until(lambda: gathered(members, heard) >= MANY * 2, "all are given out")
        assert Counter(heard) == {
            (f"work/{speaker.client_id}".encode(), payload): 1
            for speaker in speakers
            for payload in numbered(MANY)
        }


def has_all(members: Sequence[Client], speaker: Client) -> bool:
    """Say whether each of the members is given something."""
    for _ in range(len(members) * 4):
        assert speaker.publish("work/who", b"", 1) == 0
    given = [len(member.heard()) for member in members]
    return all(given)


def gathered(members: Sequence[Client], heard: list[tuple[bytes, bytes]]) -> int:
    """Add what members have been given of what is numbered; return how much there is."""
    for member in members:
        heard += [(each.topic, each.payload) for each in member.heard() if each.payload]
    return len(heard)


def test_what_is_retained_is_on_every_node(three: Cluster) -> None:
    nodes = all_live(three)
    with ExitStack() as stack:
        readers = [stack.enter_context(Client(node, name_on(0, "r"))) for node in nodes]
        speakers = [stack.enter_context(Client(node, name_on(1, "s"))) for node in nodes]
        for number, speaker in enumerate(speakers):
            topic = f"kept/{number}"
            assert speaker.publish(topic, b"old", 1, retain=True) < 0x80
            assert speaker.publish(topic, b"new", 1, retain=True) < 0x80
        wanted = {(f"kept/{number}".encode(), b"new", True) for number in range(3)}
        for reader in readers:
            until(lambda r=reader: retained(r, "kept/#") == wanted, "all is there")  # type: ignore[misc]
        assert speakers[2].publish("kept/0", b"", 1, retain=True) < 0x80
        left = {each for each in wanted if each[0] != b"kept/0"}
        for reader in readers:
            until(lambda r=reader: retained(r, "kept/#") == left, "one is not")  # type: ignore[misc]


def retained(reader: Client, topic_filter: str) -> set[tuple[bytes, bytes, bool]]:
    """Subscribe anew and return what there is."""
    assert reader.subscribe(topic_filter, 1) == [1]
    found = {(each.topic, each.payload, each.retain) for each in reader.heard()}
    reader.unsubscribe(topic_filter)
    return found


def test_a_client_on_another_node_does_not_hear_itself(three: Cluster) -> None:
    one, two, _ = all_live(three)
    name = name_on(0, "self")
    with Client(one, name, clean=False, properties=KEPT) as first:
        assert first.subscribe("local/+", 1, no_local=True) == [1]
        # It comes again at another node: its session, and who it is, stay on the first.
        with (
            Client(two, name, clean=False, properties=KEPT) as again,
            Client(two, name_on(0, "other")) as other,
        ):
            assert again.connack.session_present
            assert other.subscribe("local/+", 1) == [1]
            assert again.publish("local/a", b"mine", 1) == 0
            assert other.message().payload == b"mine"
            assert other.publish("local/a", b"other's", 1) == 0
            assert again.message().payload == b"other's"
            assert again.heard() == []
    Client(one, name).disconnect()


@pytest.mark.parametrize("clean", [True, False])
def test_a_client_is_taken_over_by_itself_on_another_node(three: Cluster, clean: bool) -> None:
    one, two, three_ = all_live(three)
    name = name_on(1, "moves")
    properties = None if clean else KEPT
    with Client(three_, name_on(0, "speaker")) as speaker:
        before = Client(one, name, properties=properties)
        assert before.subscribe("moves/+", 2) == [2]
        for number, node in enumerate((two, three_, one, two)):
            after = Client(node, name, clean=clean, properties=properties)
            ending = before.ending()
            assert [type(each) for each in ending] == [Disconnect]
            assert isinstance(ending[0], Disconnect)
            assert ending[0].reason == Reason.SESSION_TAKEN_OVER
            before.close()
            assert after.connack.session_present is not clean
            if clean:
                assert after.subscribe("moves/+", 2) == [2]
            assert speaker.publish("moves/a", b"%d" % number, number % 3) == 0
            heard = after.message()
            assert (heard.payload, heard.qos) == (b"%d" % number, number % 3)
            after.ping()  # what it confirmed is known, before it comes by another node
            before = after
        before.disconnect()
    if not clean:
        Client(one, name).disconnect()


def test_what_a_session_is_owed_waits_for_it_wherever_it_comes(three: Cluster) -> None:
    one, two, three_ = all_live(three)
    name = name_on(0, "away")
    with Client(two, name_on(0, "speaker")) as speaker:
        with Client(one, name, properties=KEPT) as before:
            assert before.subscribe("owed/#", 2) == [2]
            before.disconnect()
        for place in (three_, two, one):
            for payload in numbered(30):
                assert speaker.publish("owed/a", payload, 1 + int(payload) % 2) == 0
            with Client(place, name, clean=False, properties=KEPT) as again:
                assert again.connack.session_present
                assert again.payloads(30) == [*numbered(30)]
                again.disconnect()
    Client(three_, name).disconnect()


def test_an_exclusive_filter_has_one_client_of_all_nodes(three: Cluster) -> None:
    nodes = all_live(three)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(node, name_on(0, "x"))) for node in nodes]
        for number in range(10):
            topic_filter = f"$exclusive/only/{number}"
            owner = clients[number % 3]
            assert owner.subscribe(topic_filter, 1) == [1]
            for other in clients:
                if other is not owner:
                    assert other.subscribe(topic_filter, 1) == [Reason.QUOTA_EXCEEDED]
            owner.unsubscribe(topic_filter)
            heir = clients[(number + 1) % 3]
            until(lambda f=topic_filter, h=heir: h.subscribe(f, 1) == [1], "it is free")  # type: ignore[misc]


def test_a_will_reaches_all_nodes_once(three: Cluster) -> None:
    nodes = all_live(three)
    with ExitStack() as stack:
        listeners = [stack.enter_context(Client(node, name_on(1, "l"))) for node in nodes]
        for listener in listeners:
            assert listener.subscribe("will/+", 1) == [1]
        for node in nodes:
            Client(node, name_on(0, "dies"), will=Will(b"will/of", b"gone", 1)).drop()
            for listener in listeners:
                assert listener.message().payload == b"gone"
        for listener in listeners:
            listener.ping()


def test_a_node_that_is_killed_leaves_wills_members_and_sessions_to_the_others(
    three: Cluster,
) -> None:
    all_live(three)
    # Who leads leaves the most behind; clients of the others stay connected all the same.
    killed = three.leader()
    one, two = (three.nodes[number] for number in three.first if number != killed)
    watcher = next(number for number in three.first if number != killed)
    lost_node = three.nodes[killed]
    will = Will(b"last/words", b"of one", 1)
    with ExitStack() as stack:
        listeners = [stack.enter_context(Client(node, name_on(1, "l"))) for node in (one, two)]
        for listener in listeners:
            assert listener.subscribe("last/#", 1) == [1]
        speaker = stack.enter_context(Client(one, name_on(0, "speaker")))
        members = [stack.enter_context(Client(node, name_on(0, "m"))) for node in (one, two)]
        lost = stack.enter_context(Client(lost_node, name_on(0, "m")))
        for member in (*members, lost):
            assert member.subscribe("$share/crew/work/+", 1) == [1]
        until(lambda: has_all([*members, lost], speaker), "the group knows its members")
        names = [name_on(core, "durable") for core in range(WORKERS)]
        for name in names:
            durable = stack.enter_context(Client(lost_node, name, properties=KEPT, will=will))
            assert durable.subscribe(f"to/{name}", 1) == [1]
            assert durable.subscribe(f"$exclusive/for/{name}", 1) == [1]
        stack.enter_context(Client(lost_node, name_on(0, "ends"), will=will))
        three.kill(killed)
        three.until(watcher, lambda s: s["nodes"][str(killed)]["state"] == "fenced", "fenced")
        for place, name in zip((one, two), names, strict=True):
            again = stack.enter_context(Client(place, name, clean=False, properties=KEPT))
            assert again.connack.session_present
            assert speaker.publish(f"to/{name}", b"here", 1) == 0
            assert again.message().payload == b"here"
            other = stack.enter_context(Client(two, name_on(0, "other")))
            assert other.subscribe(f"$exclusive/for/{name}", 1) == [Reason.QUOTA_EXCEEDED]
            again.disconnect()
        for listener in listeners:
            assert [each.payload for each in listener.messages(len(names) + 1)] == [b"of one"] * (
                len(names) + 1
            )
        until(lambda: has_all(members, speaker), "the group has a leader again")
        for payload in numbered(MANY):
            assert speaker.publish("work/a", payload, 1) == 0
        heard: list[tuple[bytes, bytes]] = []
        until(lambda: gathered(members, heard) >= MANY, "all are given out")
        assert Counter(heard) == {(b"work/a", payload): 1 for payload in numbered(MANY)}
        three.start(killed)
        all_live(three)
        # Wills were said once for all time, and what was adopted stays where it is.
        for name in names:
            again = stack.enter_context(
                Client(three.nodes[killed], name, clean=False, properties=KEPT)
            )
            assert again.connack.session_present
            assert speaker.publish(f"to/{name}", b"there", 1) == 0
            assert again.message().payload == b"there"
            again.disconnect(Properties(session_expiry_interval=0))
        for listener in listeners:
            listener.ping()


def test_nodes_without_votes_and_nodes_without_workers(three: Cluster) -> None:
    all_live(three)
    three.launch(4, 'roles=["broker", "engine"]').ready()
    three.launch(5, 'roles=["meta"]').ready()
    one, four, five = (three.nodes[number] for number in (1, 4, 5))
    assert "mqtt_tcp" not in five.facts
    assert sorted(five.children()) == ["meta", "server"]
    until(lambda: three.status(1)["nodes"].keys() >= {"4", "5"}, "both are known")
    with Client(four, name_on(0, "l")) as listener, Client(one, name_on(0, "s")) as speaker:
        assert listener.subscribe("roles/#", 1) == [1]
        assert speaker.publish("roles/a", b"to", 1) == 0
        assert listener.message().payload == b"to"
        assert speaker.subscribe("roles/#", 1) == [1]
        assert listener.publish("roles/b", b"and back", 2) == 0
        assert speaker.message().payload == b"and back"
    for number in (4, 5):
        assert three.ask(1, "node/leave", {"node_id": number})[0] == 200
        three.kill(number)
        del three.nodes[number]
