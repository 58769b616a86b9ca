"""What a client publishes: quotas, refusals, and QoS 2 exactly once."""

from collections.abc import Iterator

import pytest

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.message.record import NO_HEADERS, client_of
from robustmq.mqtt.headers import describe
from robustmq.mqtt.packets import (
    V5,
    V311,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Will,
)
from robustmq.mqtt.reasons import PUBLISH_REFUSALS, Reason
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topics import Topics
from robustmq.settings.mqtt import MqttRuntime, MqttShared
from robustmq.settings.topics import SharedGroup
from tests.unit.mqtt.scripted import Peer, Scene, connected

NOBODY = Reason.NO_MATCHING_SUBSCRIBERS
FULL = Reason.RECEIVE_MAXIMUM_EXCEEDED


@pytest.fixture
def scene() -> Scene:
    return Scene(receive_max=4)


def publish(packet_id: int, qos: int = 2, dup: bool = False) -> Publish:
    """A message that is not plain: it does not go through the kernel alone."""
    return Publish(b"t", b"x", qos, True, dup, packet_id)


def kept(scene: Scene, version: int = V5) -> Peer:
    return connected(scene, "kept", version, clean=False, expiry=100 if version == V5 else None)


def take(scene: Scene) -> Iterator[bytes]:
    """Records of plain messages, which are in the builders of their routes."""
    builders = scene.broker.turn.builders[:]
    scene.broker.turn.builders.clear()
    for builder in builders:
        _, acks = builder.take()
        acks.settle(0, [])
        yield b"taken"


def test_answers_come_in_the_order_of_the_messages(scene: Scene) -> None:
    peer = connected(scene)
    peer.send(publish(1, 1), publish(2, 2), publish(3, 1))
    replies = [asked.reply for asked in scene.broker.published]
    for reply in (replies[2], replies[1]):
        assert reply is not None
        reply(0, True)
        assert peer.got() == []
    assert replies[0] is not None
    replies[0](0, False)
    assert peer.got() == [Puback(1, NOBODY), Pubrec(2), Puback(3)]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", Refusal)
def test_version_5_is_told_why_not(scene: Scene, qos: int, code: Refusal) -> None:
    peer = connected(scene)
    peer.send(publish(1, qos))
    scene.broker.answer(code)
    refused = PUBLISH_REFUSALS[code]
    assert peer.got() == [Puback(1, refused) if qos == 1 else Pubrec(1, refused)]
    # The packet id is free: the same message again is another one.
    peer.send(publish(1, qos, True))
    assert len(scene.broker.published) == 1
    scene.broker.answer()
    assert peer.got() == [Puback(1) if qos == 1 else Pubrec(1)]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", Refusal)
def test_version_3_is_not_told_that_a_lost_message_arrived(
    scene: Scene, qos: int, code: Refusal
) -> None:
    peer = kept(scene, V311)
    peer.send(publish(1, qos))
    scene.broker.answer(code)
    # That the id is free is on the disk before the client hears of it.
    scene.broker.end_turn()
    if code in {
        Refusal.QUOTA_EXCEEDED,
        Refusal.UNAVAILABLE,
        Refusal.BUSY,
        Refusal.INTERNAL,
    }:
        assert peer.got() == []
        assert peer.connection.ended
        again = kept(scene, V311)
        again.send(publish(1, qos, True))
        assert scene.broker.answer().value == b"x"
        assert again.got() == [Puback(1) if qos == 1 else Pubrec(1)]
    else:
        assert peer.got() == [Puback(1) if qos == 1 else Pubrec(1)]


def test_refused_at_once(scene: Scene) -> None:
    scene.broker.refusals[b"t"] = Refused(Refusal.NOT_AUTHORIZED, "no")
    peer = connected(scene)
    peer.send(publish(1, 1), publish(2, 2), publish(0, 0), Publish(b"t", b"x", 1, packet_id=3))
    assert peer.got() == [
        Puback(1, Reason.NOT_AUTHORIZED),
        Pubrec(2, Reason.NOT_AUTHORIZED),
        Puback(3, Reason.NOT_AUTHORIZED),
    ]


def test_a_repeat_is_not_taken_again(scene: Scene) -> None:
    peer = connected(scene)
    peer.send(publish(1), publish(1, dup=True))
    assert scene.cell(metrics.MESSAGES_RECEIVED) == 1
    assert len(scene.broker.published) == 1
    assert peer.got() == []
    scene.broker.answer()
    assert peer.got() == [Pubrec(1), Pubrec(1)]
    peer.send(publish(1, dup=True), Pubrel(1), Pubrel(1))
    assert peer.got() == [Pubrec(1), Pubcomp(1), Pubcomp(1, Reason.PACKET_IDENTIFIER_NOT_FOUND)]
    assert scene.broker.published == []


@pytest.mark.parametrize("code", [0, Refusal.BUSY])
def test_a_repeat_on_another_connection_awaits_the_same_answer(scene: Scene, code: int) -> None:
    """PUBREC before the message is recorded would be a lie if it is refused then."""
    kept(scene).send(publish(1))
    peer = kept(scene)
    peer.send(publish(1, dup=True))
    assert len(scene.broker.published) == 1
    assert peer.got() == []
    scene.broker.answer(code)
    scene.broker.end_turn()
    assert peer.got() == [Pubrec(1, Reason.QUOTA_EXCEEDED if code else Reason.SUCCESS)]
    peer.send(publish(1, dup=True))
    assert len(scene.broker.published) == (1 if code else 0)


def test_a_message_that_was_refused_while_its_client_was_away_is_new(scene: Scene) -> None:
    kept(scene).connection.lost()
    peer = kept(scene)
    peer.send(publish(1))
    peer.connection.lost()
    scene.broker.answer(Refusal.BUSY)
    peer = kept(scene)
    peer.send(publish(1, dup=True))
    assert len(scene.broker.published) == 1
    scene.broker.answer()
    assert peer.got() == [Pubrec(1)]


@pytest.mark.parametrize("qos", [1, 2])
def test_the_receive_maximum_is_exact(scene: Scene, qos: int) -> None:
    peer = connected(scene)
    peer.send(*[publish(number, qos) for number in (1, 2, 3, 4)])
    assert not peer.connection.ended
    peer.send(publish(5, qos))
    assert peer.got() == [Disconnect(FULL)]


def test_a_message_without_pubrel_is_still_one(scene: Scene) -> None:
    peer = connected(scene)
    for number in (1, 2, 3, 4):
        peer.send(publish(number))
        scene.broker.answer()
    assert peer.got() == [Pubrec(number) for number in (1, 2, 3, 4)]
    peer.send(Pubrel(2))
    peer.send(Publish(b"t", b"plain", 1, packet_id=9))
    assert list(take(scene)) == [b"taken"]
    assert peer.got() == [Pubcomp(2), Puback(9)]
    peer.send(publish(2))
    scene.broker.answer()
    assert peer.got() == [Pubrec(2)]
    peer.send(Publish(b"t", b"plain", 1, packet_id=9))
    assert peer.got() == [Disconnect(FULL)]


def test_what_waits_for_its_turn_counts_once(scene: Scene) -> None:
    """PUBREC of a recorded message stays behind the PUBACK of an earlier one that does not."""
    peer = connected(scene)
    peer.send(publish(1, 1), publish(2), publish(3))
    first = scene.broker.published.pop(0)
    scene.broker.answer()
    scene.broker.answer()
    peer.send(publish(4))
    assert not peer.connection.ended
    assert first.reply is not None
    first.reply(0, True)
    assert peer.got() == [Puback(1), Pubrec(2), Pubrec(3)]


def test_a_new_connection_has_a_quota_of_its_own(scene: Scene) -> None:
    peer = kept(scene)
    for number in (1, 2, 3, 4):
        peer.send(publish(number))
        scene.broker.answer()
    peer.connection.lost()
    peer = kept(scene)
    peer.send(*[publish(number, dup=True) for number in (1, 2, 3, 4)])
    assert peer.got() == [Pubrec(number) for number in (1, 2, 3, 4)]
    peer.send(publish(5))
    assert peer.got() == [Disconnect(FULL)]


def test_version_3_is_read_no_further_instead(scene: Scene) -> None:
    peer = connected(scene, version=V311)
    peer.send(*[publish(number, 1) for number in range(1, 11)])
    assert len(scene.broker.published) == 4
    assert peer.connection.intake.paused
    scene.broker.answer()
    assert peer.connection.intake in scene.broker.turn.resumes
    peer.connection.intake.resume()
    assert len(scene.broker.published) == 4
    while scene.broker.published:
        scene.broker.answer()
        peer.connection.intake.resume()
    assert peer.got() == [Puback(number) for number in range(1, 11)]


def test_a_publisher_waits_while_some_core_is_behind(scene: Scene) -> None:
    peer = connected(scene)
    scene.broker.blocked = True
    peer.send(publish(0, 0), publish(0, 0))
    assert len(scene.broker.published) == 1
    assert scene.broker.turn.resumes == [peer.connection.intake]


def test_aliases(scene: Scene) -> None:
    peer = connected(scene)
    one = Properties(topic_alias=1)
    peer.send(Publish(b"a", b"1", properties=one), Publish(b"", b"2", properties=one))
    peer.send(Publish(b"b", b"3", properties=one), Publish(b"", b"4", properties=one))
    assert [asked.record.key for asked in scene.broker.published] == [b"a", b"a", b"b", b"b"]
    peer.send(Publish(b"", b"x", properties=Properties(topic_alias=2)))
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]


def test_a_plain_message_is_decided_once_and_the_cap_on_expiry_concerns_all() -> None:
    scene = Scene(max_message_expiry_interval=60)
    peer = connected(scene)
    peer.send(Publish(b"t", b"x"))
    record = scene.broker.published[0].record
    assert (scene.broker.turn.now_ms + 60_000).to_bytes(8, "big") in record.headers
    scene = Scene()
    peer = connected(scene)
    peer.send(Publish(b"t", b"x"), Publish(b"t", b"y"))
    assert scene.broker.published == []
    assert list(take(scene)) == [b"taken"]
    peer.send(Publish(b"\xff", b"x"))
    assert peer.got() == [Disconnect(Reason.MALFORMED_PACKET)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_say_whose_they_are_where_groups_choose_by_it(scene: Scene, qos: int) -> None:
    shared = MqttShared(groups=(SharedGroup(name="g", strategy="hash_clientid"),))
    scene.broker.topics = Topics(MqttRuntime(shared=shared), TopicRules(()))
    peer = connected(scene, "who", will=Will(b"t"))
    peer.send(Publish(b"t", b"x", qos, packet_id=qos and 1))
    peer.connection.lost()
    for asked in scene.broker.published:
        assert client_of(asked.record.headers) == b"who"
        assert describe(asked.record.headers, V5) == (b"", 0, 0)
    assert len(scene.broker.published) == 2


def test_messages_say_nothing_of_their_publisher_otherwise(scene: Scene) -> None:
    peer = connected(scene)
    peer.send(publish(1, 1))
    assert scene.broker.published[0].record.headers == NO_HEADERS
