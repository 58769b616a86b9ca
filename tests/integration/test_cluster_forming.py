"""Real nodes that form a cluster, lose members, and take new ones."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.integration.cluster import Cluster, cluster
from tests.integration.supervised import until


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What is shown here needs no workers, and fewer processes start sooner.
    with cluster(tmp_path_factory.mktemp("three"), settings=['roles=["meta"]']) as nodes:
        yield nodes.start()
        for number, node in nodes.nodes.items():
            assert "Traceback" not in node.errors(), (number, node.errors())


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


def test_a_leader_that_is_killed_is_followed_and_fenced_and_lives_again(three: Cluster) -> None:
    three.settled()
    lost = three.leader()
    other = next(number for number in three.first if number != lost)
    before = three.status(other)
    three.kill(lost)
    begin = time.monotonic()
    three.until(other, lambda s: _led_anew(s, before), "another leader, and its first commit")
    seconds = time.monotonic() - begin
    sys.stdout.write(f"from the kill of the leader to the next commit: {seconds:.2f} s\n")
    three.until(other, lambda s: s["nodes"][str(lost)]["state"] == "fenced", "fenced")
    three.start(lost)
    three.settled()
    found, known = (each["nodes"][str(lost)] for each in (three.status(other), before))
    assert (found["state"], found["incarnation"] > known["incarnation"]) == ("live", True)


def test_a_leader_that_stands_still_is_followed_and_finds_itself_deposed(three: Cluster) -> None:
    three.settled()
    still = three.leader()
    other = next(number for number in three.first if number != still)
    before = three.status(other)
    three.pause(still)
    three.until(other, lambda s: _led_anew(s, before), "another leader")
    three.until(other, lambda s: s["nodes"][str(still)]["state"] == "fenced", "fenced")
    three.resume(still)
    three.settled()


def test_a_cluster_that_is_killed_as_a_whole_is_the_same_when_it_is_back(three: Cluster) -> None:
    three.settled()
    before = three.status(1)
    for number in three.first:
        three.kill(number)
    three.start()
    three.settled()
    after = three.status(1)
    assert after["cluster_id"] == before["cluster_id"]
    assert after["groups"]["metadata"]["commit"] >= before["groups"]["metadata"]["commit"]


def test_all_nodes_are_restarted_one_after_the_other(three: Cluster) -> None:
    for number in three.first:
        three.settled()
        assert three.stop(number) == 0
        three.start(number)
    three.settled()
    assert len({three.status(number)["cluster_id"] for number in three.first}) == 1


def test_a_foreign_node_is_refused_and_both_say_why(three: Cluster) -> None:
    three.settled()
    # As when somebody gives a node the directory of one that was in another cluster.
    folder = three.path / "node-9" / "meta"
    folder.mkdir(parents=True)
    identity = {"node": 9, "store": "f" * 32, "cluster": "e" * 32}
    (folder / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
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


def test_roles_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    authority.issue("node", "node", ())
    paths = {"tls_cert": "node.pem", "tls_key": "node.key", "tls_ca": "ca.pem"}
    tls = [f"cluster.{key}={authority.directory / name}" for key, name in paths.items()]
    with cluster(tmp_path, 1, settings=tls, secret="") as nodes:
        nodes.launch(1, 'roles=["meta"]').ready()
        assert sorted(nodes.nodes[1].children()) == ["meta", "server"]
        nodes.launch(2, 'roles=["broker", "engine"]').ready()
        assert sorted(nodes.nodes[2].children()) == ["meta", "server", "worker 0"]
        nodes.until(1, lambda s: _lives(s, 2), "the second is known")
        code, answer = nodes.ask(1, "node/promote", {"node_id": 2})
        assert (code, "role meta" in answer["error"]) == (409, True)
        assert nodes.status(1)["groups"]["metadata"]["learners"] == [2]


def _led_anew(status: dict[str, Any], before: dict[str, Any]) -> bool:
    now, then = status["groups"]["metadata"], before["groups"]["metadata"]
    is_led = status["leader"] not in {None, before["leader"]}
    return is_led and now["term"] > then["term"] and now["commit"] > then["commit"]


def _lives(status: dict[str, Any], number: int) -> bool:
    node = status["nodes"].get(str(number))
    return node is not None and node["state"] == "live"


def _said(node: Any, part: str) -> bool:  # noqa: ANN401
    return any(part in str(line.get("reason")) for line in node.events())
