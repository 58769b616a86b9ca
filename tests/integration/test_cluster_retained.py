"""Retained messages and shared groups of real nodes: published on one, known on the others."""

from pathlib import Path

from tests.integration.cluster import cluster
from tests.integration.homes import name_on
from tests.integration.supervised import until
from tests.integration.test_cluster_links import are_linked
from tests.integration.wire_client import Client

WORKERS = 2
TOPICS = [f"kept/{number}" for number in range(8)]


def test_what_one_node_retains_all_nodes_have_until_it_is_cleared(tmp_path: Path) -> None:
    with cluster(tmp_path, 2, workers=WORKERS) as nodes:
        nodes.start()
        until(lambda: are_linked(nodes), "every core is linked with every one of the other node")
        one, two = nodes.nodes[1], nodes.nodes[2]
        with Client(one, name_on(0, "speaker")) as speaker:
            for topic in TOPICS:
                speaker.publish(topic, b"old", 1, retain=True)
                speaker.publish(topic, topic.encode(), 1, retain=True)
            speaker.publish(TOPICS[0], b"", 1, retain=True)
        for node in (two, one):
            for core in range(WORKERS):
                with Client(node, name_on(core, "listener")) as listener:
                    listener.subscribe("kept/+", 1)
                    found = {each.topic.decode(): each for each in listener.messages(7)}
                    assert {name: each.payload for name, each in found.items()} == {
                        topic: topic.encode() for topic in TOPICS[1:]
                    }
                    assert all(each.retain for each in found.values())
                    listener.ping()
                    assert not listener.heard()


def test_a_group_has_members_on_both_nodes_and_each_message_goes_to_one(tmp_path: Path) -> None:
    with cluster(tmp_path, 2, workers=WORKERS) as nodes:
        nodes.start()
        until(lambda: are_linked(nodes), "every core is linked with every one of the other node")
        one, two = nodes.nodes[1], nodes.nodes[2]
        with (
            Client(one, name_on(0, "first")) as first,
            Client(two, name_on(1, "second")) as second,
            Client(two, name_on(0, "speaker")) as speaker,
        ):
            for member in (first, second):
                member.subscribe("$share/group/work/+", 1)
            for number in range(40):
                speaker.publish("work/a", b"%d" % number, 1)
            mine, others = first.payloads(20), second.payloads(20)
            assert sorted(map(int, [*mine, *others])) == list(range(40))
