"""SUBSCRIBE and UNSUBSCRIBE: what is asked of the broker, and when the client is told."""

import pytest

from robustmq import metrics
from robustmq.broker.api import Kept, Options
from robustmq.errors import Refusal, Refused
from robustmq.mqtt.packets import (
    V5,
    V311,
    Properties,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from robustmq.mqtt.reasons import Reason
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topics import Topics
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.topics import AutoSubscribe, TopicRewrite
from tests.unit.mqtt.scripted import Scene, connected


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_suback_waits_for_every_filter_and_retained_messages_for_suback(scene: Scene) -> None:
    peer = connected(scene)
    options = Subscription("b/#", 2, no_local=True, retain_as_published=True)
    peer.send(
        Subscribe(
            7,
            [Subscription("a", 1), options, Subscription("$share/g/c")],
            Properties(subscription_identifiers=(300,)),
        )
    )
    wanted = scene.broker.wanted
    identifier = b"\x0b\xac\x02"
    assert [(one.topic_filter, one.group, one.options, one.retained) for one in wanted] == [
        (b"a", b"", Options(1, False, False, identifier), True),
        (b"b/#", b"", Options(2, True, True, identifier), True),
        (b"c", b"g", Options(0, False, False, identifier), False),
    ]
    assert scene.cell(metrics.SUBSCRIPTIONS) == 3
    kept = [Kept(0, 1, [2])]
    scene.broker.settle(kept)
    scene.broker.settle()
    assert peer.got() == []
    assert scene.broker.kept == []
    scene.broker.settle()
    assert peer.got() == [Suback(7, [Reason(1), Reason(2), Reason(0)])]
    assert scene.broker.kept == [(b"a", kept)]


@pytest.mark.parametrize("version", [V311, V5])
def test_what_is_refused_asks_for_nothing(scene: Scene, version: int) -> None:
    scene.broker.refusals[b"no"] = Refused(Refusal.NOT_AUTHORIZED, "no")
    peer = connected(scene, version=version)
    peer.send(Subscribe(1, [Subscription("no", 1)]))
    refused = Reason.NOT_AUTHORIZED if version == V5 else Reason.UNSPECIFIED_ERROR
    assert peer.got() == [Suback(1, [refused])]
    peer.send(Subscribe(2, [Subscription("no", 1), Subscription("yes", 1)]))
    assert [one.topic_filter for one in scene.broker.wanted] == [b"yes"]
    scene.broker.settle()
    assert peer.got() == [Suback(2, [refused, Reason(1)])]
    assert scene.cell(metrics.SUBSCRIPTIONS) == 1


def test_retain_handling_looks_at_what_was_there(scene: Scene) -> None:
    peer = connected(scene)
    for handling, retained in ((1, True), (1, False), (2, False), (0, True)):
        peer.send(Subscribe(1, [Subscription("a", retain_handling=handling)]))
        assert scene.broker.settle().retained is retained
    peer.send(Subscribe(1, [Subscription("b", retain_handling=2)]))
    assert scene.broker.settle().retained is False
    assert scene.cell(metrics.SUBSCRIPTIONS) == 2


def test_the_limit_counts_new_filters_of_one_packet() -> None:
    scene = Scene(max_subscriptions=2)
    peer = connected(scene)
    full = Reason.QUOTA_EXCEEDED
    names = ("a", "a", "b", "c", "a")
    peer.send(Subscribe(1, [Subscription(name, 1) for name in names]))
    while scene.broker.wanted:
        scene.broker.settle()
    assert peer.got() == [Suback(1, [Reason(1), Reason(1), Reason(1), full, Reason(1)])]
    assert scene.cell(metrics.SUBSCRIPTIONS) == 2
    peer.send(Unsubscribe(2, ["a"]), Subscribe(3, [Subscription("c", 1)]))
    scene.broker.settle()
    assert peer.got() == [Unsuback(2, [Reason(0)]), Suback(3, [Reason(1)])]


def test_a_client_that_has_gone_is_told_nothing(scene: Scene) -> None:
    peer = connected(scene, expiry=100)
    peer.send(Subscribe(1, [Subscription("a", 1)]))
    peer.connection.lost()
    again = connected(scene, clean=False, expiry=100)
    scene.broker.settle([Kept(0, 1, [2])])
    assert peer.got() == again.got() == []
    assert scene.broker.kept == []


def test_unsubscribe(scene: Scene) -> None:
    peer = connected(scene)
    peer.send(Subscribe(1, [Subscription("a"), Subscription("$share/g/b")]))
    peer.send(Unsubscribe(2, ["a", "$share/g/b", "c", "a"]))
    assert scene.broker.gone == [(b"", b"a"), (b"g", b"b")]
    gone = Reason.NO_SUBSCRIPTION_EXISTED
    assert peer.got() == [Unsuback(2, [Reason(0), Reason(0), gone, gone])]
    assert scene.cell(metrics.SUBSCRIPTIONS) == 0


def test_no_local_makes_every_message_of_its_own_looked_at(scene: Scene) -> None:
    peer = connected(scene)

    def plain() -> bool:
        """Is a plain message taken by the kernel alone?"""
        before = len(scene.broker.published)
        peer.send(Publish(b"t/1", b"x"))
        return len(scene.broker.published) == before

    assert plain()
    peer.send(Subscribe(1, [Subscription("t/+", no_local=True)]))
    assert not plain()
    session = peer.connection.session
    assert session is not None
    assert session.window.key.to_bytes(8, "big") in scene.broker.published[0].record.headers
    peer.send(Unsubscribe(2, ["t/+"]))
    assert plain()
    peer.send(Subscribe(3, [Subscription("t/#")]))
    assert plain()


def ruled(scene: Scene, config: MqttRuntime) -> Scene:
    scene.broker.topics = Topics(config, TopicRules(()))
    return scene


def test_rules_subscribe_after_connack_and_send_what_is_retained(scene: Scene) -> None:
    rules = (
        AutoSubscribe(topic="in/${clientid}", qos=1, no_local=True),
        AutoSubscribe(topic="$queue/jobs", qos=2),
        AutoSubscribe(topic="no"),
    )
    scene.broker.refusals[b"no"] = Refused(Refusal.NOT_AUTHORIZED, "no")
    ruled(scene, MqttRuntime(auto_subscribe=rules))
    peer = connected(scene, "c", clean=False, expiry=100)
    assert [(one.topic_filter, one.group, one.options) for one in scene.broker.wanted] == [
        (b"in/c", b"", Options(1, True)),
        (b"jobs", b"$queue", Options(2)),
    ]
    kept = [Kept(0, 1, [])]
    scene.broker.settle(kept)
    scene.broker.settle()
    scene.broker.end_turn()
    assert scene.broker.kept == [(b"in/c", kept)]
    assert peer.got() == []
    assert scene.cell(metrics.AUTO_SUBSCRIPTIONS_REFUSED) == 1
    # The session has them when it returns, but for one that it has ended.
    peer.send(Unsubscribe(1, ["$queue/jobs"]))
    assert peer.got() == [Unsuback(1, [Reason.SUCCESS])]
    peer.connection.lost()
    connected(scene, "c", clean=False, expiry=100)
    assert [one.topic_filter for one in scene.broker.wanted] == [b"jobs"]


def test_a_filter_too_long_for_the_wire_is_subscribed_by_no_rule(scene: Scene) -> None:
    ruled(scene, MqttRuntime(auto_subscribe=(AutoSubscribe(topic="${clientid}" * 3),)))
    connected(scene, "c" * 30_000)
    assert scene.broker.wanted == []


def test_a_subscription_is_known_by_what_it_is_rewritten_to(scene: Scene) -> None:
    rule = TopicRewrite(source_topic="old/#", regex="^old/(.*)$", dest_topic="$1")
    scene.broker.refusals[b"secret"] = Refused(Refusal.NOT_AUTHORIZED, "no")
    peer = connected(scene)
    peer.send(Subscribe(1, [Subscription("old/before")]))
    scene.broker.settle()
    ruled(scene, MqttRuntime(topic_rewrite=(rule,)))
    filters = ("old/a", "a", "old/secret", "old/", "$share/g/old/b")
    peer.send(Subscribe(2, [Subscription(each) for each in filters]))
    assert [(one.group, one.topic_filter) for one in scene.broker.wanted] == [
        (b"", b"a"),
        (b"", b"a"),
        (b"g", b"b"),
    ]
    while scene.broker.wanted:
        scene.broker.settle()
    peer.send(Unsubscribe(3, ["old/a", "a", "$share/g/old/b", "old/before", "old/"]))
    invalid, denied = Reason.TOPIC_FILTER_INVALID, Reason.NOT_AUTHORIZED
    gone, none = Reason.SUCCESS, Reason.NO_SUBSCRIPTION_EXISTED
    assert peer.got() == [
        Suback(1, [Reason(0)]),
        Suback(2, [Reason(0), Reason(0), denied, invalid, Reason(0)]),
        Unsuback(3, [gone, none, gone, gone, none]),
    ]
    assert scene.broker.gone == [(b"", b"a"), (b"g", b"b"), (b"", b"old/before")]


def test_an_exclusive_subscription_waits_for_its_claim_and_the_client_with_it(
    scene: Scene,
) -> None:
    peer = connected(scene)
    claims = scene.broker.exclusives
    both = [Subscription("$exclusive/a", 1), Subscription("b"), Subscription("$exclusive/c")]
    peer.send(Subscribe(1, both), Unsubscribe(2, ["$exclusive/a"]))
    assert [claim[1] for claim in claims.claims] == [b"a", b"c"]
    assert [one.topic_filter for one in scene.broker.wanted] == [b"b"]
    scene.broker.settle()
    assert claims.answer(True) == b"a"
    assert claims.answer(False) == b"c"
    assert [one.topic_filter for one in scene.broker.wanted] == [b"a"]
    assert peer.got() == []
    scene.broker.settle()
    (suback,) = peer.got()
    assert isinstance(suback, Suback)
    assert suback.reasons == [Reason(1), Reason(0), Reason.QUOTA_EXCEEDED]
    assert claims.released == []
    # Only now is it heard that the first is not wanted any more.
    scene.broker.end_turn()
    assert peer.got() == [Unsuback(2, [Reason.SUCCESS])]
    assert claims.released == [((1 << 48) + 1, b"a", False)]
    assert scene.cell(metrics.SUBSCRIPTIONS) == 1


def test_exclusive_subscriptions_may_be_switched_off() -> None:
    scene = Scene(exclusive_subscription=False)
    peer = connected(scene)
    peer.send(Subscribe(1, [Subscription("$exclusive/a", 1), Subscription("a")]))
    assert [one.topic_filter for one in scene.broker.wanted] == [b"a"]
    scene.broker.settle()
    assert peer.got() == [Suback(1, [Reason.TOPIC_FILTER_INVALID, Reason(0)])]
    assert scene.broker.exclusives.claims == []


@pytest.mark.parametrize("expiry", [0, 100])
def test_what_is_granted_to_nobody_is_let_go_of(scene: Scene, expiry: int) -> None:
    peer = connected(scene, expiry=expiry)
    peer.send(Subscribe(1, [Subscription("$exclusive/a", 1)]))
    peer.connection.lost()
    claims = scene.broker.exclusives
    claims.answer(True)
    assert [one[1:] for one in claims.released] == [(b"a", expiry > 0)]
    assert scene.broker.wanted == []


def test_one_filter_is_subscribed_to_once_exclusively_or_not(scene: Scene) -> None:
    peer = connected(scene, expiry=100)
    claims = scene.broker.exclusives
    for number, written in enumerate(["a", "$exclusive/a", "$exclusive/a", "a"], 1):
        peer.send(Subscribe(number, [Subscription(written, 1)]))
        if claims.claims:
            claims.answer(True)
        scene.broker.settle()
        scene.broker.end_turn()
        assert peer.got() == [Suback(number, [Reason(1)])]
        assert scene.cell(metrics.SUBSCRIPTIONS) == 1
    assert [one[1:] for one in claims.released] == [(b"a", True)]
    peer.send(Unsubscribe(9, ["$exclusive/a", "a"]))
    assert peer.got() == [Unsuback(9, [Reason.NO_SUBSCRIPTION_EXISTED, Reason.SUCCESS])]
    assert scene.broker.gone == [(b"", b"a")]


def test_a_session_that_ends_lets_go_and_one_that_returns_has_it_still() -> None:
    scene = Scene()
    peer = connected(scene, clean=False, expiry=100)
    peer.send(Subscribe(1, [Subscription("$exclusive/a", 1)]))
    scene.broker.exclusives.answer(True)
    scene.broker.settle()
    scene.broker.end_turn()
    again = Scene(table=scene.broker.table)
    again.mqtt.sessions.restore(lambda _: None)
    ((key, topic_filter),) = again.broker.exclusives.restored
    assert topic_filter == b"a"
    connected(again, clean=True)
    assert again.broker.exclusives.released == [(key, b"a", True)]
