"""A core that starts again on the rows of its last life: sessions, time spent down, wills."""

from collections.abc import Callable

import pytest

from robustmq import metrics
from robustmq.broker.api import Options, Principal
from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.mqtt import session_table
from robustmq.mqtt.packets import (
    V5,
    V311,
    Connect,
    Disconnect,
    Properties,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.session import NEVER
from tests.unit.mqtt.scripted import Peer, Scene, connected


def restarted(scene: Scene, down_ms: int = 0, *, resume: bool = True) -> Scene:
    """The next life: the last one was killed after its turn, `down_ms` ago."""
    scene.broker.end_turn()
    fresh = Scene(table=scene.broker.table.crash())
    fresh.broker.turn.now_ms = scene.broker.turn.now_ms + down_ms
    fresh.mqtt.sessions.restore(lambda _: None)
    fresh.broker.end_turn()
    if resume:
        fresh.mqtt.sessions.resume()
        fresh.broker.end_turn()
    return fresh


def willing(delay: int = 0, expiry: int = 100, client_id: str = "c") -> Callable[[Scene], Peer]:
    will = Will(b"w", b"x", 1, True, Properties(will_delay_interval=delay, content_type="t"))
    return lambda scene: connected(scene, client_id, clean=False, expiry=expiry, will=will)


def present(scene: Scene, client_id: str = "c", expiry: int = 100) -> bool:
    """Does the client find its session?"""
    peer = Peer(scene)
    properties = Properties(session_expiry_interval=expiry)
    peer.send(Connect(client_id, V5, clean_start=False, properties=properties))
    found = peer.got()[0]
    peer.connection.lost()
    return bool(getattr(found, "session_present", False))


def wills(scene: Scene) -> int:
    return len(scene.broker.published)


def test_a_session_is_what_it_was() -> None:
    scene = Scene()
    scene.broker.position = 33
    peer = connected(scene, clean=False, expiry=1_000)
    number = next(iter(scene.broker.durable))
    shared = Subscription("$share/g/b/#", 2)
    named = Properties(subscription_identifiers=(5,))
    peer.send(Subscribe(1, [Subscription("a", 1, True, True), shared], named))
    peer.send(Subscribe(2, [Subscription("gone", 1)]), Unsubscribe(3, ["gone"]))
    again = restarted(scene)
    assert again.broker.durable == {number: None}
    options = Options(1, True, True, b"\x0b\x05")
    assert again.broker.restored == [(number, b"a", options, 33)]
    (member,) = again.broker.members
    assert member == (number, b"g", b"b/#", Options(2, identifier=b"\x0b\x05"))
    assert again.cell(metrics.SUBSCRIPTIONS) == 2
    assert again.cell(metrics.SESSIONS) == 1
    peer = connected(again, clean=False, expiry=1_000)
    session = peer.connection.session
    assert session is not None
    assert session.window.key == number
    assert [subscribed.written for subscribed in session.subscriptions] == [b"$share/g/b/#", b"a"]
    assert not session.hears_itself(b"a")
    peer.send(Disconnect(properties=Properties(session_expiry_interval=0)))
    assert len(restarted(again).mqtt.sessions) == 0


def test_members_of_shared_groups_are_members_again_before_the_core_starts() -> None:
    scene = Scene()
    peer = connected(scene, clean=False, expiry=1_000)
    peer.send(Subscribe(1, [Subscription("$share/g/b/#", 2)]))
    again = restarted(scene, resume=False)
    assert [member[1:] for member in again.broker.members] == [(b"g", b"b/#", Options(2))]
    again.mqtt.sessions.resume()
    assert again.broker.wanted == []


@pytest.mark.parametrize("version", [V311, V5])
def test_a_message_that_was_received_is_not_taken_again(version: int) -> None:
    scene = Scene()
    expiry = 1_000 if version == V5 else None
    peer = connected(scene, "c", version, clean=False, expiry=expiry)
    peer.send(Publish(b"t", b"x", 2, packet_id=9), Publish(b"t", b"y", 2, packet_id=10))
    scene.broker.answer()
    scene.broker.answer()
    peer.send(Pubrel(10))
    again = restarted(scene)
    peer = connected(again, "c", version, clean=False, expiry=expiry)
    peer.send(Publish(b"t", b"x", 2, dup=True, packet_id=9))
    assert peer.got() == [Pubrec(9)]
    assert again.broker.published == []
    peer.send(Publish(b"t", b"z", 2, packet_id=10), Pubrel(9))
    assert peer.got() == [Pubcomp(9)]
    assert [asked.record.value for asked in again.broker.published] == [b"z"]


# ---------------------------------------------------------------------- time


@pytest.mark.parametrize(("down_ms", "found"), [(0, True), (8_900, True), (9_100, False)])
def test_time_spent_down_counts(down_ms: int, found: bool) -> None:
    scene = Scene()
    connected(scene, clean=False, expiry=10).connection.lost()
    scene.broker.pass_ms(1_000)
    again = restarted(scene, down_ms)
    assert present(again, expiry=10) == found


@pytest.mark.parametrize(("down_ms", "found"), [(0, True), (8_900, True), (9_100, False)])
def test_two_restarts_count_as_well(down_ms: int, found: bool) -> None:
    """One that was connected when the server died is offline since the first restart."""
    scene = Scene()
    connected(scene, clean=False, expiry=10)
    scene.broker.pass_ms(100_000)
    again = restarted(scene, 50_000)
    again.broker.pass_ms(1_000)
    assert present(restarted(again, down_ms), expiry=10) == found


def test_what_expired_while_the_server_was_down_ends_at_its_start() -> None:
    scene = Scene()
    for number in range(5):
        peer = connected(scene, f"c{number}", clean=False, expiry=10 + number)
        peer.send(Subscribe(1, [Subscription("a", 1)]))
        peer.connection.lost()
    connected(scene, "ever", clean=False, expiry=NEVER).connection.lost()
    again = restarted(scene, 12_500)
    assert len(again.mqtt.sessions) == 6
    again.broker.pass_ms(100)
    again.broker.end_turn()
    assert len(again.mqtt.sessions) == 3
    assert again.cell(metrics.SESSIONS_EXPIRED) == 3
    assert len(again.broker.durable) == 3
    assert len(list(again.broker.table.walk(b"s", b"v"))) == 5
    again.broker.pass_ms(1_000)
    assert len(again.mqtt.sessions) == 2


def test_a_client_is_not_given_an_expired_session_that_is_still_there() -> None:
    scene = Scene()
    connected(scene, clean=False, expiry=10).connection.lost()
    again = restarted(scene, 11_000)
    assert len(again.mqtt.sessions) == 1
    assert not present(again)
    assert again.cell(metrics.SESSIONS_EXPIRED) == 1


# ---------------------------------------------------------------------- wills


@pytest.mark.parametrize("expiry", [0, 100])
def test_whoever_was_connected_when_the_server_died_has_a_will(expiry: int) -> None:
    scene = Scene()
    willing(expiry=expiry)(scene)
    again = restarted(scene, 60_000)
    assert wills(again) == 0
    again.broker.pass_ms(100)
    (asked,) = again.broker.published
    assert (asked.record.key, asked.record.value, asked.record.qos) == (b"w", b"x", 1)
    assert asked.record.retain
    assert b"mqtt.content-type" in asked.record.headers
    assert asked.once
    assert again.cell(metrics.WILLS_PUBLISHED) == 1
    third = restarted(again)
    third.broker.pass_ms(200_000)
    assert wills(third) == 0
    assert len(third.mqtt.sessions) == 0


@pytest.mark.parametrize(("down_ms", "left_ms"), [(0, 4_000), (3_000, 1_000), (9_000, 0)])
def test_the_delay_of_a_will_goes_on_while_the_server_is_down(down_ms: int, left_ms: int) -> None:
    scene = Scene()
    willing(delay=5)(scene).connection.lost()
    scene.broker.pass_ms(1_000)
    again = restarted(scene, down_ms)
    if left_ms:
        again.broker.pass_ms(left_ms - 100)
        assert wills(again) == 0
        assert wills(restarted(again)) == 0
    again.broker.pass_ms(300)
    assert wills(again) == 1


def test_a_client_that_returns_in_time_has_no_will() -> None:
    scene = Scene()
    willing(delay=5)(scene)
    again = restarted(scene, 60_000)
    again.broker.pass_ms(3_000)
    connected(again, clean=False, expiry=100)
    again.broker.pass_ms(10_000)
    assert wills(again) == 0
    third = restarted(again)
    third.broker.pass_ms(10_000)
    assert wills(third) == 0


def test_a_will_that_became_due_while_the_server_was_down_is_due_before_its_client() -> None:
    scene = Scene()
    willing(delay=5)(scene).connection.lost()
    again = restarted(scene, 6_000)
    connected(again, clean=False, expiry=100)
    assert wills(again) == 1


def test_an_expired_session_does_not_keep_its_will() -> None:
    scene = Scene()
    willing(delay=3_600, expiry=10)(scene).connection.lost()
    again = restarted(scene, 11_000)
    again.broker.pass_ms(100)
    assert wills(again) == 1
    assert len(again.mqtt.sessions) == 0


def test_a_will_that_was_published_or_taken_back_is_gone() -> None:
    scene = Scene()
    willing(client_id="published")(scene).connection.lost()
    assert wills(scene) == 1
    willing(client_id="back", delay=10)(scene).send(Disconnect())
    willing(client_id="clean", delay=10)(scene).connection.lost()
    connected(scene, "clean", clean=True)
    assert wills(scene) == 2
    again = restarted(scene)
    again.broker.pass_ms(50_000)
    assert wills(again) == 0
    assert len(again.mqtt.sessions) == 2


def test_a_will_and_its_row_go_in_the_same_turn() -> None:
    """Before the turn's commit the server may die: then both are there again."""
    scene = Scene()
    peer = willing()(scene)
    scene.broker.end_turn()
    killed = scene.broker.table.crash()
    peer.connection.lost()
    assert wills(scene) == 1
    again = Scene(table=killed)
    again.broker.turn.now_ms = scene.broker.turn.now_ms
    again.mqtt.sessions.restore(lambda _: None)
    again.mqtt.sessions.resume()
    again.broker.pass_ms(100)
    assert wills(again) == 1


@pytest.mark.parametrize(("expiry", "delay", "due_ms"), [(0, 0, 0), (100, 0, 0), (100, 5, 5_000)])
def test_the_wills_of_a_server_that_stops_wait_for_its_restart(
    expiry: int, delay: int, due_ms: int
) -> None:
    scene = Scene()
    willing(delay, expiry)(scene)
    scene.mqtt.shut_down()
    assert wills(scene) == 0
    again = restarted(scene)
    if due_ms:
        again.broker.pass_ms(due_ms - 100)
    assert wills(again) == 0
    again.broker.pass_ms(200)
    assert wills(again) == 1


def test_on_a_full_disk_a_will_is_published_all_the_same() -> None:
    scene = Scene()
    peer = willing()(scene)
    scene.broker.table.refuse(Refused(Refusal.QUOTA_EXCEEDED, "full"))
    peer.connection.lost()
    assert [asked.once for asked in scene.broker.published] == [False]
    scene.broker.table.refuse(None)
    again = restarted(scene)
    again.broker.pass_ms(1_000)
    assert wills(again) == 0


# ---------------------------------------------------------------------- a great many, and damage


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_table, "PROGRESS_EVERY", 10)
    monkeypatch.setattr(session_table, "AT_ONCE", 7)
    scene = Scene()
    for number in range(35):
        connected(scene, f"c{number}", clean=False, expiry=10)
    scene.broker.end_turn()
    again = Scene(table=scene.broker.table.crash())
    said: list[int] = []
    again.mqtt.sessions.restore(said.append)
    assert said == [10, 20, 30]
    again.mqtt.sessions.resume()
    connected(again, "c30", clean=False, expiry=10)
    connected(again, "c31", clean=True)
    again.broker.pass_ms(1_000)
    again.broker.end_turn()
    ended = [row.ended_ms for _, row in again.mqtt.sessions.rows.sessions()]
    assert sum(when_ms == 0 for when_ms in ended) == 1
    assert len(ended) == 34


def test_rows_of_no_session_are_swept_out() -> None:
    scene = Scene()
    connected(scene, clean=False, expiry=10)
    table = scene.broker.table
    for kind in (b"t", b"u"):
        table.put(kind + bytes(8) + b"\0\1", b"\x94\x01\x01\x01\xc4\x00")
    again = restarted(scene)
    assert [key for key, _ in again.broker.table.walk(b"s", b"v")] == [b"sc"]


def test_a_row_that_cannot_be_read_stops_the_start() -> None:
    scene = Scene()
    scene.broker.table.put(b"sc", b"\x93")
    scene.broker.end_turn()
    with pytest.raises(Corrupt):
        Scene(table=scene.broker.table.crash()).mqtt.sessions.restore(lambda _: None)


def test_a_restored_session_is_the_clients_of_its_name() -> None:
    scene = Scene()
    sessions = scene.mqtt.sessions
    first = sessions.open(Principal("c", "user", "1.2.3.4"), False, expiry=5, version=4).session
    sessions.detach(first, with_will=False)
    again = restarted(scene)
    session = again.mqtt.sessions.open(Principal("d"), False, expiry=5).session
    assert session.window.key != first.window.key
    found = again.mqtt.sessions.open(Principal("c", "other", "5.6.7.8"), False, expiry=5)
    assert found.present
    assert found.session.principal == Principal("c", "other", "5.6.7.8")
