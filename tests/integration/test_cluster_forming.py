"""Real nodes that form a cluster, lose members, and take new ones."""

from pathlib import Path

from tests.integration.cluster import cluster


def test_three_nodes_started_at_once_find_each_other(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        nodes.start()
        nodes.connected()
