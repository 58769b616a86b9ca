"""Exclusive subscriptions: one client of the node has a filter, whichever core it is on."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from robustmq.mqtt.packets import V5, Properties, Suback, Subscribe, Subscription
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, serve

STAYS = Properties(session_expiry_interval=100)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("exclusive") / "data")


def refused(version: int) -> list[int]:
    return [Reason.QUOTA_EXCEEDED if version == V5 else Reason.UNSPECIFIED_ERROR]


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_has_it_until_it_unsubscribes_or_goes(
    node: Node, version: int, owner: int
) -> None:
    topic = name_on(owner, "t")
    exclusive = f"$exclusive/{topic}/+"
    with (
        Client(node, name_on(0, "a"), version) as one,
        Client(node, name_on(1, "b"), version) as two,
        Client(node, name_on(1, "p")) as says,
    ):
        assert one.subscribe(exclusive, 1) == [1]
        assert one.subscribe(exclusive, 2) == [2]
        assert two.subscribe(exclusive, 1) == refused(version)
        # It is exclusive among those who ask for that, and for that very filter.
        assert two.subscribe(f"{topic}/+", 1) == [1]
        assert two.subscribe(f"$exclusive/{topic}/#", 1) == [1]
        assert says.publish(f"{topic}/x", b"1", 1) == 0
        assert (one.message().payload, two.message().payload) == (b"1", b"1")
        assert one.unsubscribe(exclusive) in ([0], [])
        until(lambda: two.subscribe(exclusive, 1) == [1], "the filter is free")
        two.drop()
        until(lambda: one.subscribe(exclusive, 0) == [0], "the filter is free again")


def test_of_many_at_once_one_has_it(node: Node) -> None:
    for number in range(10):
        topic = f"$exclusive/race/{number}"
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(node, name_on(i % 2, "r"))) for i in range(8)]
            for client in clients:
                client.send(Subscribe(1, [Subscription(topic, 1)]))
            reasons = [client.expect(Suback).reasons[0] for client in clients]
            assert sorted(reasons) == [1] + [Reason.QUOTA_EXCEEDED] * 7


def test_a_durable_session_keeps_it_while_it_is_away_and_over_a_restart(tmp_path: Path) -> None:
    name = name_on(0, "kept")
    topics = [name_on(core, "t") for core in (0, 1)]
    data = tmp_path / "data"
    for life in (1, 2, 3):
        for node in serve(data):
            for topic in topics:
                with Client(node, name_on(1, "other")) as other:
                    if life > 1:
                        assert other.subscribe(f"$exclusive/{topic}", 1) == refused(V5)
            if life == 3:
                Client(node, name, clean=True).disconnect()
                with Client(node, name_on(1, "other")) as other:
                    for topic in topics:
                        until(
                            lambda t=topic: other.subscribe(f"$exclusive/{t}", 1) == [1],  # type: ignore[misc]
                            "the end of the session",
                        )
                continue
            with Client(node, name, clean=False, properties=STAYS) as kept:
                assert kept.connack.session_present == (life > 1)
                for topic in topics:
                    if life == 1:
                        assert kept.subscribe(f"$exclusive/{topic}", 1) == [1]
                    kept.publish(topic, b"x", 1)
                    assert kept.message().payload == b"x"
                kept.disconnect()


@pytest.mark.parametrize("written", ["$exclusive/", "$exclusive/$share/g/t", "$exclusive/$queue/t"])
def test_what_holds_no_plain_filter_is_refused(node: Node, written: str) -> None:
    with Client(node, name_on(0, "a")) as client:
        assert client.subscribe(written, 1) == [Reason.TOPIC_FILTER_INVALID]
