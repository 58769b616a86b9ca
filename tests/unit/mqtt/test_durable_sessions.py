"""Sessions that are kept on disk: what waits for the disk, and what a full one refuses."""

import pytest

from robustmq import metrics
from robustmq.broker.api import Options
from robustmq.errors import Refusal, Refused
from robustmq.mqtt.packets import (
    V5,
    V311,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.session import DURABLE
from tests.unit.mqtt.scripted import Peer, Scene, connected

FULL = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def connect(expiry: int = 100, clean: bool = False, will: Will | None = None) -> Connect:
    properties = Properties(session_expiry_interval=expiry)
    return Connect("kept", V5, clean, will=will, properties=properties)


def kept(scene: Scene, version: int = V5, clean: bool = False) -> Peer:
    return connected(scene, "kept", version, clean, expiry=100 if version == V5 else None)


def rows(scene: Scene) -> list[bytes]:
    """The keys of what is on disk."""
    scene.broker.end_turn()
    return [key for key, _ in scene.broker.table.walk(b"s", b"v")]


def disk_is_done(scene: Scene) -> None:
    scene.broker.table.settle()
    scene.broker.end_turn()


def number_of(peer: Peer) -> int:
    assert peer.connection.session is not None
    key: int = peer.connection.session.window.key
    return key


def test_a_durable_session_has_a_number_for_ever() -> None:
    scene = Scene()
    numbers = []
    for number in range(3):
        peer = connected(scene, f"c{number}", expiry=10)
        numbers.append(number_of(peer))
        assert scene.broker.durable[numbers[-1]] == scene.broker.position
        scene.broker.position += 5
    assert numbers == [1 << 48 | DURABLE | number for number in (1, 2, 3)]
    passing = number_of(connected(scene, "c"))
    assert not passing & DURABLE
    assert passing >> 48 == 1
    again = Scene(table=scene.broker.table.crash())
    assert number_of(connected(again, "d", expiry=10)) > max(numbers)


def test_a_session_that_ends_with_its_connection_writes_nothing(scene: Scene) -> None:
    scene.broker.table.hold = True
    peer = connected(scene)
    peer.send(Subscribe(1, [Subscription("a", 1)]), Publish(b"t", b"x", 2, True, packet_id=1))
    scene.broker.settle()
    scene.broker.answer()
    peer.send(Unsubscribe(2, ["a"]), Pubrel(1))
    assert peer.got() == [
        Suback(1, [Reason(1)]),
        Pubrec(1),
        Unsuback(2, [Reason(0)]),
        Pubcomp(1),
    ]
    peer.send(Disconnect())
    assert scene.broker.table.next_commit == 1
    assert scene.broker.durable == {}


# ---------------------------------------------------------------------- CONNACK


def test_connack_waits_for_the_disk_and_so_does_what_follows(scene: Scene) -> None:
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect(), Publish(b"t", b"1", 1, True, packet_id=1), Pingreq())
    peer.send(Publish(b"t", b"2", 1, True, packet_id=2))
    assert peer.got() == []
    assert scene.broker.published == []
    assert scene.broker.opened == []
    assert scene.cell(metrics.CONNECTIONS_OPENED) == 0
    disk_is_done(scene)
    assert peer.got() == [Connack(properties=peer_properties(scene)), Pingresp()]
    assert scene.broker.opened == [True]
    assert [asked.record.value for asked in scene.broker.published] == [b"1", b"2"]
    scene.broker.answer()
    scene.broker.answer()
    assert peer.got() == [Puback(1), Puback(2)]


def peer_properties(scene: Scene) -> Properties:
    """What CONNACK says to every client."""
    limits = scene.mqtt.limits
    return Properties(
        receive_maximum=limits.receive_max,
        maximum_packet_size=limits.max_packet_size,
        topic_alias_maximum=limits.topic_alias_max,
        server_keep_alive=scene.mqtt.keep_alive.max_time,
    )


def test_a_session_that_returns_is_sent_what_waits_after_connack(scene: Scene) -> None:
    peer = kept(scene)
    peer.send(Subscribe(1, [Subscription("a", 1)]))
    peer.connection.lost()
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect())
    session = peer.connection.session
    assert session is not None
    attached = [session.window.outbox]
    disk_is_done(scene)
    attached.append(session.window.outbox)
    assert attached == [None, peer.connection.outbox]
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    assert connack.session_present


def test_a_clean_start_is_true_when_it_is_said(scene: Scene) -> None:
    kept(scene).connection.lost()
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect(0, clean=True))
    assert peer.got() == []
    disk_is_done(scene)
    assert isinstance(peer.got()[0], Connack)
    assert rows(scene) == []


@pytest.mark.parametrize("version", [V311, V5])
def test_taken_over_before_connack(scene: Scene, version: int) -> None:
    """Both are told what happened, in the order in which it became true."""
    scene.broker.table.hold = True
    old, new = Peer(scene, version), Peer(scene)
    old.send(Connect("kept", version, False, properties=expiring(version)))
    new.send(connect())
    assert old.connection.ended
    assert old.stream.calls == []
    assert old.got() == new.got() == []
    disk_is_done(scene)
    told = old.got()
    assert isinstance(told[0], Connack)
    assert told[1:] == ([Disconnect(Reason.SESSION_TAKEN_OVER)] if version == V5 else [])
    assert old.stream.calls == ["close"]
    assert [type(packet) for packet in new.got()] == [Connack]
    assert scene.mqtt.connections == len(scene.mqtt.sessions) == 1
    new.send(Pingreq())
    assert new.got() == [Pingresp()]


def expiring(version: int) -> Properties | None:
    return Properties(session_expiry_interval=100) if version == V5 else None


def test_a_storm_before_the_disk_is_done_leaves_one(scene: Scene) -> None:
    scene.broker.table.hold = True
    peers = [Peer(scene) for _ in range(20)]
    for peer in peers:
        peer.send(connect())
    disk_is_done(scene)
    assert [peer.connection.ended for peer in peers] == [True] * 19 + [False]
    assert len(scene.broker.durable) == 1
    assert scene.mqtt.connections == 1


def test_lost_before_connack(scene: Scene) -> None:
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect())
    peer.connection.lost()
    disk_is_done(scene)
    assert peer.got() == []
    assert scene.broker.opened == [False]
    assert scene.mqtt.connections == scene.cell(metrics.CONNECTIONS) == 0
    assert scene.cell(metrics.CONNECTIONS_OPENED) == scene.cell(metrics.CONNECTIONS_CLOSED) == 0
    scene.broker.table.hold = False
    assert kept(scene).connection.session is not None
    assert len(scene.broker.durable) == 1


def test_taken_over_and_then_lost_before_connack(scene: Scene) -> None:
    scene.broker.table.hold = True
    old, new = Peer(scene), Peer(scene)
    old.send(connect())
    new.send(connect())
    old.connection.lost()
    disk_is_done(scene)
    assert old.got() == []
    assert len(new.got()) == 1


def test_a_disk_that_takes_too_long() -> None:
    scene = Scene(connect_timeout_ms=1_000)
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect())
    scene.broker.pass_ms(1_100)
    assert peer.got() == [Connack(Reason.SERVER_BUSY)]
    assert peer.connection.ended
    disk_is_done(scene)
    assert peer.got() == []
    assert scene.cell(metrics.CONNECTIONS_REFUSED) == 1


def test_the_server_stops_before_connack(scene: Scene) -> None:
    scene.broker.table.hold = True
    peer = Peer(scene)
    peer.send(connect())
    scene.mqtt.shut_down()
    assert peer.connection.ended
    disk_is_done(scene)
    assert peer.got() == []


# ---------------------------------------------------------------------- SUBSCRIBE


def test_suback_and_unsuback_wait_for_the_rows(scene: Scene) -> None:
    peer = kept(scene)
    scene.broker.table.hold = True
    scene.broker.position = 40
    peer.send(Subscribe(1, [Subscription("a", 1), Subscription("$share/g/b", 2)]))
    scene.broker.settle()
    scene.broker.settle()
    peer.send(Pingreq())
    assert peer.got() == [Pingresp()]
    disk_is_done(scene)
    assert peer.got() == [Suback(1, [Reason(1), Reason(2)])]
    number = number_of(peer).to_bytes(8, "big")
    assert rows(scene) == [b"skept", b"t" + number + b"$share/g/b", b"t" + number + b"a"]
    peer.send(Unsubscribe(2, ["a", "x"]))
    assert peer.got() == []
    disk_is_done(scene)
    assert peer.got() == [Unsuback(2, [Reason(0), Reason.NO_SUBSCRIPTION_EXISTED])]
    assert rows(scene) == [b"skept", b"t" + number + b"$share/g/b"]


def test_suback_waits_for_the_cores_when_the_rows_are_there(scene: Scene) -> None:
    peer = kept(scene)
    peer.send(Subscribe(1, [Subscription("a", 1)]))
    assert len(rows(scene)) == 2
    assert peer.got() == []
    scene.broker.settle()
    assert peer.got() == [Suback(1, [Reason(1)])]


def test_answers_that_waited_for_the_disk_reach_nobody_else(scene: Scene) -> None:
    peer = kept(scene)
    scene.broker.table.hold = True
    peer.send(Subscribe(1, [Subscription("a", 1)]), Unsubscribe(2, ["a"]))
    peer.connection.lost()
    again = Peer(scene)
    again.send(connect())
    disk_is_done(scene)
    scene.broker.settle()
    assert peer.got() == []
    assert [type(packet) for packet in again.got()] == [Connack]


@pytest.mark.parametrize(("before", "after", "start"), [(1, 2, 10), (0, 1, 20), (2, 0, 20)])
def test_a_subscription_that_changes_keeps_its_start_while_it_is_stored(
    scene: Scene, before: int, after: int, start: int
) -> None:
    peer = kept(scene)
    for position, qos in ((10, before), (20, after)):
        scene.broker.position = position
        peer.send(Subscribe(1, [Subscription("a", qos)]))
    session = peer.connection.session
    assert session is not None
    (subscribed,) = session.subscriptions
    assert subscribed.options == Options(after)
    assert subscribed.start == start


# ---------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("version", [V311, V5])
def test_what_would_be_kept_is_refused_and_the_rest_goes_on(scene: Scene, version: int) -> None:
    peer = kept(scene, version)
    gone = connected(scene, "gone", version, False, expiry=100 if version == V5 else None)
    gone.connection.lost()
    scene.broker.end_turn()
    scene.broker.table.refuse(FULL)
    no = Reason.QUOTA_EXCEEDED if version == V5 else Reason.SERVER_UNAVAILABLE
    attempts: list[tuple[str, bool]] = [("new", False), ("gone", True)]
    if version == V5:
        attempts.append(("gone", False))
    for client_id, clean in attempts:
        other = Peer(scene, version)
        expiry = None if clean or version < V5 else Properties(session_expiry_interval=9)
        other.send(Connect(client_id, version, clean, properties=expiry))
        assert other.got() == [Connack(no)]
        assert other.connection.ended
    assert scene.cell(metrics.CONNECTIONS_REFUSED) == len(attempts)
    peer.send(Subscribe(1, [Subscription("a", 1)]))
    failed = Reason.QUOTA_EXCEEDED if version == V5 else Reason.UNSPECIFIED_ERROR
    assert peer.got() == [Suback(1, [failed])]
    assert scene.broker.wanted == []
    passing = connected(scene, "passing", version, will=Will(b"w", b"x"))
    passing.send(Subscribe(1, [Subscription("a", 1)]))
    scene.broker.settle()
    assert passing.got() == [Suback(1, [Reason(1)])]
    passing.connection.lost()
    assert [asked.record.value for asked in scene.broker.published] == [b"x"]
    assert not scene.broker.published[0].once
    scene.broker.table.refuse(None)
    disk_is_done(scene)
    connected(scene, "new", version, False, expiry=9 if version == V5 else None)


@pytest.mark.parametrize("version", [V311, V5])
def test_a_session_is_taken_up_as_it_was_although_nothing_can_be_written(
    scene: Scene, version: int
) -> None:
    expiry = 100 if version == V5 else None
    connected(scene, "gone", version, False, expiry=expiry).connection.lost()
    scene.broker.end_turn()
    scene.broker.table.refuse(FULL)
    back = Peer(scene, version)
    properties = None if expiry is None else Properties(session_expiry_interval=expiry)
    back.send(Connect("gone", version, False, properties=properties))
    (connack,) = back.got()
    assert isinstance(connack, Connack)
    assert (connack.reason, connack.session_present) == (Reason.SUCCESS, True)
    scene.broker.table.refuse(None)
    disk_is_done(scene)
    assert back.got() == []


# ---------------------------------------------------------------------- QoS 2


def message(packet_id: int = 7, dup: bool = False) -> Publish:
    return Publish(b"t", b"x", 2, False, dup, packet_id)


def test_a_received_message_is_exact(scene: Scene) -> None:
    peer = kept(scene)
    key = b"u" + number_of(peer).to_bytes(8, "big") + b"\0\x07"
    peer.send(message())
    assert scene.broker.published[0].once
    assert rows(scene) == [b"skept", key]
    assert peer.got() == []
    scene.broker.answer()
    assert peer.got() == [Pubrec(7)]
    scene.broker.table.hold = True
    peer.send(Pubrel(7))
    assert peer.got() == []
    disk_is_done(scene)
    assert peer.got() == [Pubcomp(7)]
    assert rows(scene) == [b"skept"]
    peer.send(message())
    assert len(scene.broker.published) == 1


def test_messages_of_qos_0_and_1_and_of_passing_sessions_are_not(scene: Scene) -> None:
    kept(scene).send(Publish(b"t", b"x", 1, True, packet_id=1), Publish(b"t", b"x", 0, True))
    connected(scene).send(message())
    assert [asked.once for asked in scene.broker.published] == [False] * 3
    assert rows(scene) == [b"skept"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_refused_message_leaves_no_row(scene: Scene, at_once: bool) -> None:
    peer = kept(scene)
    if at_once:
        scene.broker.refusals[b"t"] = FULL
    written = scene.broker.table.next_commit
    peer.send(message())
    if not at_once:
        scene.broker.answer(Refusal.QUOTA_EXCEEDED)
        assert peer.got() == []
    scene.broker.end_turn()
    assert peer.got() == [Pubrec(7, Reason.QUOTA_EXCEEDED)]
    assert rows(scene) == [b"skept"]
    # On a full disk what is put only waits: nothing may add up.
    assert (scene.broker.table.next_commit == written) == at_once


def test_the_broker_hears_of_every_step_of_an_exchange(scene: Scene) -> None:
    peer = kept(scene)
    session = peer.connection.session
    assert session is not None
    peer.connection.lost()
    for packet_id in (3, 4):
        session.window.release(packet_id)
    peer = kept(scene)
    for each in (peer, connected(scene)):
        each.send(Pubrec(3), Pubcomp(3), Pubcomp(3), Pubrec(9), Pubcomp(4))
    assert scene.broker.exchanges == [("released", 3), ("completed", 3), ("completed", 4)]


def test_room_in_the_socket_is_told_to_whoever_notes_what_leaves(scene: Scene) -> None:
    peer, passing = kept(scene), connected(scene)
    session = passing.connection.session
    assert session is not None
    passing_key = session.window.key
    for each in (peer, passing):
        assert each.connection.outbox.drained is not None
        each.connection.outbox.drained()
    # A session that is not durable may be put something by too, as the member of a group.
    assert [window.key for window in scene.broker.pumped] == [number_of(peer), passing_key]


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("way", ["disconnect", "clean", "expiry", "taken over"])
def test_the_end_of_a_session_takes_all_its_rows(scene: Scene, way: str) -> None:
    peer = kept(scene)
    peer.send(Subscribe(1, [Subscription("a", 1), Subscription("b", 0)]), message())
    assert len(rows(scene)) == 4
    assert len(scene.broker.durable) == 1
    if way == "disconnect":
        peer.send(Disconnect(properties=Properties(session_expiry_interval=0)))
    elif way == "taken over":
        connected(scene, "kept", clean=True)
    else:
        peer.connection.lost()
        assert len(rows(scene)) == 4
        if way == "expiry":
            scene.broker.pass_ms(100_100)
        else:
            connected(scene, "kept", clean=True)
    assert rows(scene) == []
    assert scene.broker.durable == {}
    assert scene.broker.gone == [(b"", b"a"), (b"", b"b")]


def test_a_connection_that_asks_for_no_expiry_ends_the_session_with_it(scene: Scene) -> None:
    kept(scene)
    peer = connected(scene, "kept", clean=False, expiry=0)
    assert rows(scene) == [b"skept"]
    assert len(scene.broker.durable) == 1
    peer.connection.lost()
    assert rows(scene) == []
    assert scene.broker.durable == {}


@pytest.mark.parametrize(
    ("packets", "published"),
    [([Disconnect()], 0), ([], 1), ([Disconnect(Reason.DISCONNECT_WITH_WILL)], 1)],
)
def test_a_will_has_a_row_for_as_long_as_it_may_be_due(
    scene: Scene, packets: list[Packet], published: int
) -> None:
    peer = connected(scene, will=Will(b"w", b"x"))
    assert rows(scene) == [b"sc"]
    peer.send(*packets)
    peer.connection.lost()
    assert rows(scene) == []
    assert [asked.once for asked in scene.broker.published] == [True] * published
    assert scene.broker.durable == {}
