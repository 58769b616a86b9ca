"""Real nodes that form a cluster, lose members, and take new ones."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import Cluster, cluster
from tests.integration.supervised import until


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("three")) as nodes:
        yield nodes.start()


def test_three_nodes_started_at_once_are_one_cluster(three: Cluster) -> None:
    three.settled()
    said = [three.status(number) for number in three.first]
    assert len({each["cluster_id"] for each in said}) == 1
    assert len({each["store_id"] for each in said}) == 3
    for each in said:
        assert {number: node["state"] for number, node in each["nodes"].items()} == {
            "1": "live",
            "2": "live",
            "3": "live",
        }
        assert all(group["voters"] == [1, 2, 3] for group in each["groups"].values())
        assert each["groups"] == said[0]["groups"]


def test_a_leader_that_is_killed_is_followed_by_another_and_comes_back(three: Cluster) -> None:
    three.settled()
    leader = three.leader()
    three.kill_meta(leader)
    begin = time.monotonic()
    others = [number for number in three.first if number != leader]
    three.until(others[0], lambda s: s["leader"] in others, "another leader")
    # The next change that is committed: the node that was killed registers, or is fenced.
    before = three.status(others[0])["groups"]["metadata"]["commit"]
    three.until(
        others[0],
        lambda s: s["groups"]["metadata"]["commit"] > before or _lives(s, leader),
        "commit",
    )
    assert time.monotonic() - begin < 15
    three.settled()


def test_a_node_that_is_lost_is_fenced_and_lives_again_when_it_is_back(three: Cluster) -> None:
    three.settled()
    lost = next(number for number in three.first if number != three.leader())
    other = three.leader()
    incarnation = three.status(other)["nodes"][str(lost)]["incarnation"]
    three.kill(lost)
    three.until(other, lambda s: s["nodes"][str(lost)]["state"] == "fenced", "fenced")
    three.start(lost)
    three.settled()
    found = three.status(other)["nodes"][str(lost)]
    assert (found["state"], found["incarnation"]) == ("live", incarnation + 1)


def test_all_nodes_are_restarted_one_after_the_other(three: Cluster) -> None:
    for number in three.first:
        three.settled()
        assert three.stop(number) == 0
        three.start(number)
    three.settled()
    assert len({three.status(number)["cluster_id"] for number in three.first}) == 1


def test_a_foreign_node_is_refused_and_both_say_why(three: Cluster, tmp_path: Path) -> None:
    three.settled()
    with cluster(tmp_path, 1) as foreign:
        foreign.start()
        foreign.until(1, lambda s: s["cluster_id"], "a cluster of its own")
        foreign.stop(1)
        (three.path / "node-9.log").unlink(missing_ok=True)
        foreign.path.joinpath("node-1").rename(three.path / "node-9")
    # As somebody would who has given a node the wrong directory.
    _renumber(three.path / "node-9", 9)
    node = three.launch(9)
    until(lambda: _said(node, "belongs to the cluster"), "the foreign node says why")
    until(
        lambda: any(_said(three.nodes[each], "belongs to the cluster") for each in three.first),
        "a node of the cluster says why",
    )
    three.kill(9)
    del three.nodes[9]


def test_a_node_with_another_secret_is_refused_and_both_say_why(three: Cluster) -> None:
    three.settled()
    node = three.launch(8, "cluster.secret=quite another one, of enough length")
    until(lambda: _said(node, "cluster.secret"), "the stranger says why")
    until(
        lambda: any(_said(three.nodes[each], "another cluster.secret") for each in three.first),
        "a node of the cluster says why",
    )
    three.kill(8)
    del three.nodes[8]


def test_an_emptied_node_is_refused_until_it_was_replaced(three: Cluster) -> None:
    three.settled()
    lost = next(number for number in three.first if number != three.leader())
    leader = three.leader()
    three.kill(lost)
    three.wipe(lost)
    node = three.launch(lost)
    until(lambda: _said(node, "another data directory"), "the emptied node says why")
    three.until(leader, lambda s: s["nodes"][str(lost)]["state"] == "fenced", "fenced")
    code, answer = three.ask(leader, "node/replace", {"node_id": lost})
    assert (code, answer["data"]) == (200, "success"), answer
    node.ready()
    three.until(leader, lambda s: lost in s["groups"]["data_0"]["learners"], "it learns")
    code, answer = three.ask(lost, "node/promote", {"node_id": lost})
    assert code == 200, answer
    three.settled()


def test_a_fourth_node_learns_votes_and_leaves(three: Cluster) -> None:
    three.settled()
    three.start(4)
    leader = three.leader()
    three.until(leader, lambda s: _lives(s, 4), "the fourth is known")
    members = three.status(leader)["groups"]["metadata"]
    assert (members["voters"], members["learners"]) == ([1, 2, 3], [4])
    assert three.ask(4, "node/promote", {"node_id": 4})[0] == 200
    three.until(4, lambda s: s["groups"]["data_0"]["voters"] == [1, 2, 3, 4], "it votes")
    assert three.ask(1, "node/leave", {"node_id": 4})[0] == 200
    three.until(leader, lambda s: "4" not in s["nodes"], "it is forgotten")
    for name, group in three.status(leader)["groups"].items():
        assert (name, group["voters"]) == (name, [1, 2, 3])
    three.kill(4)
    del three.nodes[4]


def test_who_leaves_the_cluster_without_a_majority_is_refused(three: Cluster) -> None:
    three.settled()
    leader = three.leader()
    gone, other = (number for number in three.first if number != leader)
    three.kill(gone)
    three.until(leader, lambda s: s["nodes"][str(gone)]["state"] == "fenced", "fenced")
    code, answer = three.ask(leader, "node/leave", {"node_id": other})
    assert code == 409
    assert "lose the majority" in answer["error"]
    three.start(gone)
    three.settled()


def test_nodes_without_broker_have_no_workers_and_without_meta_no_vote(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as nodes:
        nodes.launch(1, 'roles=["meta"]').ready()
        assert sorted(nodes.nodes[1].children()) == ["meta", "server"]
        nodes.launch(2, 'roles=["broker", "engine"]').ready()
        assert sorted(nodes.nodes[2].children()) == ["meta", "server", "worker 0"]
        nodes.until(1, lambda s: _lives(s, 2), "the second is known")
        code, answer = nodes.ask(1, "node/promote", {"node_id": 2})
        assert (code, "role meta" in answer["error"]) == (409, True)
        assert nodes.status(1)["groups"]["metadata"]["learners"] == [2]


def _lives(status: dict[str, Any], number: int) -> bool:
    node = status["nodes"].get(str(number))
    return node is not None and node["state"] == "live"


def _said(node: Any, part: str) -> bool:  # noqa: ANN401
    return any(part in str(line.get("reason")) for line in node.events())


def _renumber(path: Path, number: int) -> None:
    file = path / "meta" / "identity.json"
    file.write_text(file.read_text().replace('"node":1', f'"node":{number}'))
