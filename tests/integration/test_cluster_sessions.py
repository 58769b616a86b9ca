"""Sessions on three real nodes: one for each client, wherever it connects."""

import time
from collections.abc import Iterator

import pytest

from tests.conformance import raw
from tests.conformance.peer import Closed, Peer
from tests.integration.cluster import Cluster, cluster
from tests.integration.supervised import PATIENCE_SECONDS

TAKEN_OVER = 0x8E
PATIENT = ("meta_runtime.raft.election_timeout_ms=4000", "meta_runtime.heartbeat_timeout_ms=6000")
"""A node of a busy machine is not to lose the cluster, and with it its clients."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("sessions"), settings=PATIENT) as nodes:
        nodes.start()
        nodes.settled()
        yield nodes


def peer(three: Cluster, number: int, client_id: str) -> Peer:
    return Peer(three.nodes[number].address(), raw.V5, client_id)


def lasting(seconds: int) -> bytes:
    return bytes((raw.SESSION_EXPIRY,)) + seconds.to_bytes(4, "big")


def back(three: Cluster, number: int, client_id: str) -> Peer:
    """Connect to a session that was; while its node is being replaced the cluster says no."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        client = peer(three, number, client_id)
        client.send(raw.connect(raw.V5, client_id, clean=False, properties=lasting(600)))
        try:
            client.connack = client.next(raw.CONNACK)
        except Closed:
            assert time.monotonic() < end, "nobody answers"
            continue
        if client.connack.code == 0:
            return client
        assert client.connack.code in {0x88, 0x89}
        assert time.monotonic() < end, client.connack
        client.socket.close()


def test_a_client_that_connects_elsewhere_takes_its_connection_over(three: Cluster) -> None:
    first = peer(three, 1, "roamer").hello()
    second = peer(three, 2, "roamer").hello()
    assert first.find(raw.DISCONNECT).code == TAKEN_OVER
    third = peer(three, 3, "roamer").hello()
    assert second.find(raw.DISCONNECT).code == TAKEN_OVER
    third.bye()


def test_a_durable_session_is_reached_from_every_node(three: Cluster) -> None:
    home = peer(three, 1, "kept").hello(clean=False, properties=lasting(600))
    home.subscribe("kept/#", 1)
    home.drop()
    publisher = peer(three, 3, "teller").hello()
    publisher.publish("kept/a", b"while it was away", qos=1)
    elsewhere = back(three, 2, "kept")
    assert elsewhere.connack.data[0] == 1
    assert elsewhere.message().payload == b"while it was away"
    publisher.publish("kept/b", b"now", qos=1)
    assert elsewhere.message().payload == b"now"
    elsewhere.subscribe("more/#", 1)
    again = back(three, 3, "kept")
    assert elsewhere.find(raw.DISCONNECT).code == TAKEN_OVER
    publisher.publish("more/a", b"more", qos=1)
    assert again.message().payload == b"more"
    again.bye()
    publisher.bye()


def test_the_sessions_of_a_node_that_is_lost_go_on_elsewhere(three: Cluster) -> None:
    watcher = peer(three, 1, "watcher").hello(clean=False, properties=lasting(600))
    watcher.subscribe("wills/#", 1)
    kept = peer(three, 3, "survivor").hello(clean=False, properties=lasting(600))
    kept.subscribe("survivor/#", 1)
    mortal = peer(three, 3, "mortal").hello(will=raw.Will("wills/mortal", b"gone", 1))
    three.kill(3)
    mortal.socket.close()
    three.until(1, lambda s: s["nodes"]["3"]["state"] == "fenced", "fenced")
    # If the node led a group, the others were without a leader for a while, and without clients.
    watcher = back(three, 1, "watcher")
    assert watcher.message().payload == b"gone"
    taken = back(three, 2, "survivor")
    assert taken.connack.data[0] == 1
    publisher = back(three, 1, "publisher")
    publisher.publish("survivor/a", b"still heard", qos=1)
    assert taken.message().payload == b"still heard"
    three.start(3)
    three.settled()
    home = back(three, 3, "survivor")
    assert taken.find(raw.DISCONNECT).code == TAKEN_OVER
    publisher.publish("survivor/b", b"and again", qos=1)
    assert home.message().payload == b"and again"
    for client in (watcher, publisher, home):
        client.bye()


def test_what_was_owed_on_a_lost_node_comes_when_the_node_is_back(three: Cluster) -> None:
    kept = peer(three, 3, "heir").hello(clean=False, properties=lasting(600))
    kept.subscribe("heir/#", 1)
    kept.drop()
    publisher = back(three, 1, "benefactor")
    owed = [f"owed {number}".encode() for number in range(200)]
    for payload in owed:
        publisher.publish("heir/a", payload, qos=1)
    three.kill(3)
    three.until(1, lambda s: s["nodes"]["3"]["state"] == "fenced", "fenced")
    heir = back(three, 1, "heir")
    assert heir.connack.data[0] == 1
    publisher = back(three, 1, "benefactor")
    publisher.publish("heir/a", b"new", qos=1)
    assert heir.message().payload == b"new"
    three.start(3)
    assert [message.payload for message in heir.messages(200)] == owed
    publisher.publish("heir/a", b"newer", qos=1)
    assert heir.message().payload == b"newer"
    heir.bye()
    publisher.bye()


def test_what_is_acknowledged_while_a_session_moves_reaches_it(three: Cluster) -> None:
    """From the fence of its node on, also before another node has adopted the session."""
    three.settled()
    kept = peer(three, 3, "mover").hello(clean=False, properties=lasting(600))
    kept.subscribe("mover/#", 1)
    kept.drop()
    publisher = back(three, 1, "persistent")

    def is_taken(payload: bytes) -> bool:
        nonlocal publisher
        try:
            return publisher.publish("mover/a", payload, qos=1) < 0x80
        except Closed:
            # Without a leader a node has no clients for a while.
            three.until(1, lambda s: s["nodes"]["3"]["state"] == "fenced", "fenced")
            publisher = back(three, 1, "persistent")
            return False

    three.kill(3)
    # What waits for the node that is lost is refused with its fence.
    while is_taken(b"undecided"):
        pass
    tried, promised = 0, [b""]
    end = time.monotonic() + 2
    while time.monotonic() < end or len(promised) < 2:
        tried += 1
        if is_taken(b"%d" % tried):
            promised.append(b"%d" % tried)
    mover = back(three, 2, "mover")
    heard = [b""]
    while heard[-1] != promised[-1]:
        heard.append(mover.message().payload)
    assert [each for each in heard if each in {*promised}] == promised
    mover.bye()
    publisher.bye()
