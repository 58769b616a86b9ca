"""Reason strings: where they may stand, for whom, and never beyond what a client takes."""

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.mqtt.explanation import REASON_CHARACTERS, Wording
from robustmq.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Properties,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
)
from robustmq.mqtt.reasons import SENTENCES, Reason
from robustmq.settings.mqtt import MqttProtocol, MqttRuntime
from tests.unit.mqtt.scripted import Peer, Scene

ANSWERS = [
    (Connack(Reason.NOT_AUTHORIZED), True),
    (Disconnect(Reason.NOT_AUTHORIZED), True),
    (Puback(1, Reason.NOT_AUTHORIZED), False),
    (Pubrec(1, Reason.NOT_AUTHORIZED), False),
    (Pubrel(1, Reason.PACKET_IDENTIFIER_NOT_FOUND), False),
    (Suback(1, [Reason.NOT_AUTHORIZED]), False),
    (Unsuback(1, [Reason.NOT_AUTHORIZED]), False),
    (Auth(Reason.CONTINUE_AUTHENTICATION), False),
]


@pytest.mark.parametrize(("answer", "always"), ANSWERS)
def test_who_refused_problem_information_hears_it_where_it_may_stand(
    answer: Connack, always: bool
) -> None:
    assert b"because" in Wording(V5).encode(answer, "because")
    assert (b"because" in Wording(V5, wanted=False).encode(answer, "because")) == always
    assert b"because" not in Wording(V5).encode(answer, "")


def test_mqtt_3_has_no_words() -> None:
    assert Wording(V311).encode(Connack(Reason.NOT_AUTHORIZED), "because") == b"\x20\2\0\5"


@pytest.mark.parametrize("over", [0, 1])
def test_an_answer_is_never_larger_than_the_client_takes(over: int) -> None:
    answer = Disconnect(Reason.QUOTA_EXCEEDED)
    full = Wording(V5).encode(answer, "because")
    told = Wording(V5, len(full) - over).encode(answer, "because")
    assert told == (b"\xe0\1\x97" if over else full)


def test_a_sentence_is_bounded_and_what_else_is_said_stays() -> None:
    answer = Connack(Reason.NOT_AUTHORIZED, False, Properties(server_keep_alive=5))
    told = Wording(V5).encode(answer, "x" * 70_000)
    assert told.count(b"x") == REASON_CHARACTERS
    assert b"\x13\0\5" in told


def peer_of(scene: Scene, properties: Properties | None = None) -> Peer:
    peer = Peer(scene)
    peer.send(Connect("c", V5, properties=properties))
    peer.got()
    return peer


def test_every_refusal_is_explained(scene: Scene) -> None:
    peer = peer_of(scene)
    scene.broker.refusals[b"t"] = Refused(Refusal.NOT_AUTHORIZED, "t is not for you")
    for qos in (1, 2):
        peer.send(Publish(b"t", qos=qos, packet_id=qos))
    scene.broker.refusals[b"f"] = Refused(Refusal.QUOTA_EXCEEDED, "f is full")
    filters = [Subscription("f"), Subscription("t"), Subscription("f"), Subscription("g")]
    peer.send(Subscribe(1, filters))
    for wanted in scene.broker.wanted:
        wanted.settle([])
    peer.send(Pubrel(9))
    assert len(peer.got()) == 4
    assert peer.told == [
        "t is not for you", "t is not for you", "f is full; t is not for you",
        "no exchange has this packet identifier",
    ]  # fmt: skip


def test_a_refusal_that_came_as_a_code_has_words_of_its_own(scene: Scene) -> None:
    peer = peer_of(scene)
    peer.send(Publish(b"t", b"x", qos=1, packet_id=1, properties=Properties(content_type="x")))
    (asked,) = scene.broker.published
    assert asked.reply is not None
    asked.reply(Refusal.UNAVAILABLE, True)
    assert peer.got() == [Puback(1, Reason.IMPLEMENTATION_SPECIFIC_ERROR)]
    assert peer.told == [SENTENCES[Refusal.UNAVAILABLE]]
    assert {*SENTENCES} == {*Refusal}


def test_a_client_that_wants_no_problem_information_gets_plain_answers(scene: Scene) -> None:
    peer = peer_of(scene, Properties(request_problem_information=0))
    scene.broker.refusals[b"t"] = Refused(Refusal.NOT_AUTHORIZED, "t is not for you")
    peer.send(Publish(b"t", qos=1, packet_id=1))
    assert peer.got() == [Puback(1, Reason.NOT_AUTHORIZED)]
    assert peer.told == []
    peer.send(Subscribe(0, [Subscription("f")]))
    peer.send_bytes(b"\0\0")
    assert isinstance(peer.got()[-1], Disconnect)
    assert len(peer.told) == 1


@pytest.mark.parametrize(
    ("configured", "asked", "told"),
    [("", 1, None), ("answers/${clientid}/", 0, None), ("answers/${clientid}/", 1, "answers/c/")],
)
def test_response_information_is_told_who_asks(
    configured: str, asked: int, told: str | None
) -> None:
    protocol = MqttProtocol(response_information=configured)
    scene = Scene(config=MqttRuntime(protocol=protocol))
    peer = Peer(scene)
    peer.send(Connect("c", V5, properties=Properties(request_response_information=asked)))
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    assert connack.properties is not None
    assert connack.properties.response_information == told


@pytest.fixture
def scene() -> Scene:
    return Scene()
