"""Messages from one real node to another, over links that lose the core at one end."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.integration.cluster import Cluster, cluster
from tests.integration.homes import name_on
from tests.integration.supervised import until
from tests.integration.wire_client import Client

WORKERS = 2
COUNT = 300


def links(nodes: Cluster, number: int) -> list[dict[str, Any]]:
    code, text = nodes.nodes[number].get("/api/cluster/links")
    return list(json.loads(text)["data"]["data"]) if code == 200 else []


def are_linked(nodes: Cluster) -> bool:
    return all(
        len(found := links(nodes, number)) == WORKERS * WORKERS
        and all(link["connected"] for link in found)
        for number in nodes.nodes
    )


def test_messages_cross_nodes_in_order_and_a_core_that_dies_is_met_again(tmp_path: Path) -> None:
    with cluster(tmp_path, 2, workers=WORKERS) as nodes:
        nodes.start()
        until(lambda: are_linked(nodes), "every core is linked with every one of the other node")
        one, two = nodes.nodes[1], nodes.nodes[2]
        with (
            Client(one, name_on(0, "here")) as here,
            Client(one, name_on(1, "there")) as there,
            Client(two, name_on(1, "speaker")) as speaker,
        ):
            for listener in (here, there):
                listener.subscribe("plant/#", 1)
            for number in range(COUNT):
                speaker.publish("plant/hall", b"%d" % number, 1)
            for listener in (here, there):
                heard = [listener.message().payload for _ in range(COUNT)]
                assert heard == [b"%d" % number for number in range(COUNT)]
            killed = two.children()["worker 0"]
            os.kill(killed, signal.SIGKILL)
            # Those of the other core stay connected all the time.
            speaker.publish("plant/hall", b"meanwhile", 1)
            assert here.message().payload == b"meanwhile"
            until(lambda: two.children().get("worker 0") not in {None, killed}, "another worker")
            until(lambda: are_linked(nodes), "its links are back")
            with Client(two, name_on(0, "again")) as again:
                again.publish("plant/hall", b"again", 1)
                assert here.message().payload == b"again"
        assert one.sample('link_frames_received_total{core="0"}') > 0
