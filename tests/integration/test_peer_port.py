"""The port for cores of other nodes, of a real node: open in a cluster, and not for strangers."""

import contextlib
import json
import socket
from pathlib import Path

from robustmq.net.peer_handshake import preamble
from tests.integration.cluster import SUPERVISOR, Cluster
from tests.integration.supervised import Node, until


def test_a_node_of_a_cluster_listens_for_cores_and_sends_strangers_away(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, workers=2)
    try:
        node = cluster.start().nodes[1]
        code, text = node.get("/api/cluster/links")
        assert (code, json.loads(text)["data"]["data"]) == (200, [])
        for words in (b"GET / HTTP/1.0\r\n", preamble(0) + bytes(64), preamble(1) + bytes(64)):
            with socket.create_connection(node.address("peer"), timeout=60) as stranger:
                stranger.sendall(words)
                # Closed, with or without regard for what was not read.
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1_000) == b""

        def refused() -> bool:
            return sum(node.sample(f'link_refused_total{{core="{core}"}}') for core in (0, 1)) == 3

        until(refused, "the strangers are counted")
        assert cluster.stop(1) == 0
    finally:
        cluster.close()


def test_without_a_secret_nobody_is_listened_for_beyond_loopback(tmp_path: Path) -> None:
    node = Node(
        tmp_path / "data",
        workers=1,
        module=SUPERVISOR,
        settings=(
            'meta_addrs={1="127.0.0.1:1"}',
            "cluster.bind_ip=0.0.0.0",
            "grpc_port=0",
            "cluster.peer_port=0",
        ),
    )
    try:
        assert node.wait() != 0
        assert "whoever reaches it would belong to the cluster" in node.errors()
    finally:
        node.close()
