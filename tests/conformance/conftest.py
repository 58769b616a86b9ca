"""One server for the whole suite, and for each test its own place on it."""

import itertools
from collections.abc import Iterator

import pytest

from tests.conformance.peer import Site
from tests.integration.supervised import Node
from tests.integration.wire_client import serve

RECEIVE_MAXIMUM = 16
ALIAS_MAXIMUM = 8
PACKET_MAXIMUM = 131_072

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("conformance") / "data",
        f"mqtt_runtime.protocol.receive_max={RECEIVE_MAXIMUM}",
        f"mqtt_runtime.protocol.topic_alias_max={ALIAS_MAXIMUM}",
        f"mqtt_runtime.protocol.max_packet_size={PACKET_MAXIMUM}",
        "mqtt_runtime.delayed.enable=false",
    )


@pytest.fixture
def site(node: Node, version: int) -> Iterator[Site]:
    place = Site(node.address(), version, next(_numbers))
    yield place
    place.close()
