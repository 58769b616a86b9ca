"""The subscriber's side: overlapping filters, taps, and routes that follow every change."""

from array import array

import pytest

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.outbox import Outbox
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker.api import Options
from robustmq.broker.cursors import Cursors
from robustmq.broker.inbox import Inbox
from robustmq.broker.overlap import copies, overlap
from robustmq.broker.placement import Placement
from robustmq.broker.state import State
from robustmq.broker.subscriptions import Subscriptions
from robustmq.message.record import NO_HEADERS
from robustmq.mqtt.headers import describe
from robustmq.policy.topic_rules import TopicRules
from robustmq.settings.mqtt import MqttInbox
from robustmq.storage.memory_table import MemoryTable
from tests.fabric import decode

WORKERS = 2


@pytest.fixture
def turn() -> Turn:
    return Turn(array("Q", bytes(8 * metrics.CELLS)))


@pytest.fixture
def subscriptions(turn: Turn) -> Subscriptions:
    subscriptions = Subscriptions(
        turn,
        placement=Placement(WORKERS),
        describe=describe,
        rules=TopicRules(()),
        route_cache=100,
        max_topic_aliases=2,
    )
    state = State(MemoryTable())
    inbox = Inbox(turn, state, MqttInbox())
    subscriptions.cursors = Cursors(turn, state, inbox, subscriptions.fanout)
    return subscriptions


def add(subscriptions: Subscriptions, window: Window, name: bytes, options: Options) -> None:
    """Subscribe, and let every core know."""
    subscriptions.add(window, name, options, 1, 0)
    for core in range(WORKERS):
        subscriptions.settle(window, name, 1, core)


def windows(subscriptions: Subscriptions, topic: bytes) -> set[Window]:
    """Who gets a topic, as the fan-out would resolve it."""
    route = subscriptions._resolve(topic)
    return {window for group in route.groups for window in group.windows}


def new(turn: Turn, version: int = 5) -> Window:
    window = Window(turn, 10, 1_000, 1_000)
    window.attach(Outbox(turn), version, 10, 0, 0)
    return window


def batch(turn: Turn, topic: bytes, payload: bytes) -> bytes:
    """A batch of one message at QoS 0."""
    builder = BatchBuilder(Turn(turn.row), 0, 1 << 20, None)
    builder.append(topic, payload, NO_HEADERS, 0, 1_000)
    return builder.take()[0]


def read(window: Window) -> list[bytes]:
    """The payloads that have come to a window since it was read last."""
    assert window.outbox is not None
    return [message.payload for message in decode(window.outbox.take())]


def test_filters_and_who_has_them(turn: Turn, subscriptions: Subscriptions) -> None:
    one, two = new(turn), new(turn)
    add(subscriptions, one, b"a/+", Options(1))
    add(subscriptions, two, b"a/b", Options(2))
    assert sorted(subscriptions.filters()) == [b"a/+", b"a/b"]
    assert windows(subscriptions, b"a/b") == {one, two}
    assert windows(subscriptions, b"a/c") == {one}
    assert subscriptions.has(one, b"a/+")
    assert not subscriptions.has(two, b"a/+")
    assert not subscriptions.has(two, b"never")
    subscriptions.remove(one, b"a/+")
    subscriptions.remove(one, b"a/+")
    subscriptions.remove(one, b"a/b")
    subscriptions.remove(two, b"never")
    assert windows(subscriptions, b"a/b") == {two}
    assert subscriptions.filters() == [b"a/b"]


def test_one_group_for_all_that_are_encoded_alike(turn: Turn, subscriptions: Subscriptions) -> None:
    options = [Options(1), Options(1), Options(2), Options(1, identifier=b"\x0b\x01")]
    for one in options:
        add(subscriptions, new(turn), b"a", one)
    add(subscriptions, new(turn, 4), b"a", Options(1))
    groups = subscriptions._resolve(b"a").groups
    assert sorted(len(group.windows) for group in groups) == [1, 1, 1, 2]


def test_overlapping_filters_of_a_session_are_one_copy(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    window = new(turn)
    add(subscriptions, window, b"a/b", Options(0, True, False, b"\x0b\x01"))
    add(subscriptions, window, b"a/+", Options(2, True, True, b"\x0b\x02"))
    add(subscriptions, window, b"#", Options(1, False, False, b""))
    (group,) = subscriptions._resolve(b"a/b").groups
    assert group.windows == [window]
    assert (group.qos, group.no_local, group.retain_as_published) == (2, False, True)
    assert group.identifiers == b"\x0b\x01\x0b\x02"


def test_each_copy_is_for_one_subscription_and_the_best_comes_first() -> None:
    given = [Options(1, identifier=b"b"), Options(0), Options(2), Options(1, identifier=b"a")]
    best = [Options(2), Options(1, identifier=b"a"), Options(1, identifier=b"b"), Options(0)]
    assert copies(given, True) == copies(given[::-1], True) == best
    assert copies(given, False) == [overlap(given)]
    assert copies(given[:1], True) == given[:1]


def test_overlap_suppresses_only_what_all_suppress() -> None:
    assert overlap([Options(0, True), Options(1, True)]).no_local
    assert not overlap([Options(0, True), Options(1, False)]).no_local


def test_taps_and_subscriptions_share_a_filter(turn: Turn, subscriptions: Subscriptions) -> None:
    window = new(turn)

    def first(batch: bytes, start: int, stop: int, count: int) -> None:
        del batch, start, stop, count

    def second(batch: bytes, start: int, stop: int, count: int) -> None:
        del batch, start, stop, count

    subscriptions.tap(b"a/+", first)
    add(subscriptions, window, b"a/+", Options(1))
    subscriptions.tap(b"a/+", second)
    assert subscriptions._resolve(b"a/b").taps == [first, second]
    subscriptions.untap(b"a/+", first)
    subscriptions.untap(b"a/+", second)
    assert subscriptions.is_wanted(b"a/+")
    assert windows(subscriptions, b"a/b") == {window}
    subscriptions.tap(b"a/+", first)
    subscriptions.remove(window, b"a/+")
    assert subscriptions.is_wanted(b"a/+")
    assert subscriptions._resolve(b"a/b").taps == [first]
    subscriptions.untap(b"a/+", first)
    assert not subscriptions.is_wanted(b"a/+")
    assert subscriptions._resolve(b"a/b").taps == []


def test_a_subscription_hears_a_core_when_that_core_has_settled_it(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    window = new(turn)
    subscriptions.add(window, b"#", Options(0), 7, 0)

    def heard_from() -> list[int]:
        for core in range(WORKERS):
            subscriptions.deliver(core, batch(turn, b"a", b"%d" % core))
        return [int(payload) for payload in read(window)]

    assert heard_from() == []
    subscriptions.settle(window, b"#", 7, 1)
    assert heard_from() == [1]
    subscriptions.settle(window, b"#", 6, 0)
    assert heard_from() == [1]
    # Until all have settled it no route outlives the batch that it was made for.
    assert not subscriptions.fanout.routes
    subscriptions.settle(window, b"#", 7, 0)
    assert heard_from() == [0, 1]
    assert not subscriptions._unsettled
    assert set(subscriptions.fanout.routes) == {b"a"}
    # New options are for a subscription that is heard already.
    subscriptions.add(window, b"#", Options(1), 8, 0)
    assert heard_from() == [0, 1]


def test_who_is_settled_hears_a_core_that_another_one_does_not(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    old, late = new(turn), new(turn)
    add(subscriptions, old, b"a/+", Options(0))
    subscriptions.deliver(0, batch(turn, b"a/b", b"known"))
    subscriptions.add(late, b"a/b", Options(0), 9, 0)
    subscriptions.settle(late, b"a/b", 9, 1)
    for core in (0, 1, 0):
        subscriptions.deliver(core, batch(turn, b"a/b", b"from %d" % core))
    assert read(old) == [b"known", b"from 0", b"from 1", b"from 0"]
    assert read(late) == [b"from 1"]


def test_a_settled_filter_is_heard_beside_one_that_waits(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    window = new(turn)
    add(subscriptions, window, b"a/b", Options(0, identifier=b"\x0b\x01"))
    subscriptions.add(window, b"a/#", Options(0, identifier=b"\x0b\x02"), 2, 0)
    subscriptions.settle(window, b"a/#", 2, 0)
    for core in (0, 1):
        subscriptions.deliver(core, batch(turn, b"a/b", b"%d" % core))
    outbox = window.outbox
    assert outbox is not None
    got = [(message.payload, message.properties) for message in decode(outbox.take())]
    assert got == [(b"0", b"\x0b\x01\x0b\x02"), (b"1", b"\x0b\x01")]


def test_removing_an_unsettled_subscription_leaves_nothing(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    one, two = new(turn), new(turn)
    subscriptions.add(one, b"a", Options(1), 1, 0)
    subscriptions.add(two, b"a", Options(1), 2, 0)
    subscriptions.remove(one, b"a")
    for core in range(WORKERS):
        subscriptions.settle(one, b"a", 1, core)
        subscriptions.settle(two, b"a", 2, core)
    assert windows(subscriptions, b"a") == {two}
    subscriptions.add(one, b"a", Options(1), 3, 0)
    subscriptions.remove(one, b"a")
    subscriptions.remove(two, b"a")
    assert not subscriptions._unsettled
    assert not subscriptions.filters()


def test_aliases_are_given_to_the_first_topics_that_somebody_gets(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    add(subscriptions, new(turn), b"#", Options(1))
    names = (b"a", b"b", b"c", b"a")
    assert [subscriptions._resolve(topic).alias for topic in names] == [1, 2, 0, 1]
    assert subscriptions._resolve(b"$nobody").alias == 0


def test_known_routes_are_forgotten_as_filters_change(
    turn: Turn, subscriptions: Subscriptions
) -> None:
    routes = subscriptions.fanout.routes
    for topic in (b"a", b"a/b", b"b"):
        routes[topic] = subscriptions._resolve(topic)
    subscriptions.forget(b"a/+")
    assert set(routes) == {b"a", b"b"}
    subscriptions.forget(b"a")
    assert set(routes) == {b"b"}
    for number in range(300):
        routes[b"%d" % number] = subscriptions._resolve(b"x")
    subscriptions.forget(b"a/+")
    assert not routes
