"""Slow subscribers: who is found by looking at what waits, and for how long it is remembered."""

import itertools

import pytest

from robustmq import metrics
from robustmq._kernel.window import Run
from robustmq.mqtt import slow_subscribers
from robustmq.mqtt.packets import Connect, Properties, Puback, Publish
from robustmq.mqtt.slow_subscribers import SlowSubscribers
from robustmq.settings.watch import MqttSlowSubscribe
from tests.datapath import publish
from tests.unit.mqtt.scripted import Peer, Scene, connected


class Site(Scene):
    """A core that looks every 500 ms for clients slower than a second."""

    def __init__(self, **keys: int) -> None:
        super().__init__()
        self.keys = {"record_time": 1_000, "sample_ms": 500, **keys}
        self._sequence = itertools.count(1)

    def watch(self, delay_type: str = "Whole") -> SlowSubscribers:
        settings = MqttSlowSubscribe(
            enable=True,
            record_time=self.keys["record_time"],
            sample_ms=self.keys["sample_ms"],
            window_ms=self.keys.get("window_ms", 300_000),
            max_entries=self.keys.get("max_entries", 100),
            delay_type="Internal" if delay_type == "Internal" else "Whole",
        )
        slow = SlowSubscribers(self.broker, settings, self.mqtt.walk)
        slow.start()
        return slow

    def deliver(self, peer: Peer, topic: bytes = b"a/b") -> int:
        """Deliver a QoS 1 message to a client; return its packet id."""
        sequence = next(self._sequence)
        packet = publish(topic, b"x", 1, sequence + 1, 5)
        run = Run(packet, [len(packet)], 1, sequence)
        run.since = self.broker.turn.now_ms
        session = peer.connection.session
        assert session is not None
        session.window.offer(run)
        return sequence + 1


def _found(slow: SlowSubscribers) -> list[tuple[str, str]]:
    return [(each["client_id"], each["topic_name"]) for each in slow.listed({})]


def test_who_does_not_acknowledge_in_time_is_found_with_the_topic() -> None:
    site = Site()
    slow = site.watch()
    quick, late = connected(site, "quick"), connected(site, "late")
    taken = site.deliver(quick)
    site.deliver(late)
    site.broker.pass_ms(300)
    quick.send(Puback(taken))
    site.broker.pass_ms(600)
    assert _found(slow) == []
    site.broker.pass_ms(1_200)
    (entry,) = slow.listed({})
    assert (entry["client_id"], entry["topic_name"], entry["tenant"]) == ("late", "a/b", "default")
    assert 1_000 <= entry["time_span"] <= 2_100
    assert site.cell(metrics.SLOW_SUBSCRIBERS) == 1


def test_the_longest_time_stays_until_the_window_is_over() -> None:
    site = Site(window_ms=5_000)
    slow = site.watch()
    peer = connected(site)
    packet_id = site.deliver(peer)
    site.broker.pass_ms(3_000)
    peer.send(Puback(packet_id))
    longest = slow.listed({})[0]["time_span"]
    second = site.deliver(peer)
    site.broker.pass_ms(2_000)
    peer.send(Puback(second))
    assert longest >= 2_000
    assert slow.listed({})[0]["time_span"] == longest
    site.broker.pass_ms(6_000)
    assert slow.listed({}) == []
    assert site.cell(metrics.SLOW_SUBSCRIBERS) == 0


def test_what_waited_while_the_client_was_away_is_not_its_slowness() -> None:
    site = Site()
    slow = site.watch()
    peer = connected(site, "c", expiry=100, clean=False)
    site.deliver(peer)
    peer.connection.lost()
    site.broker.pass_ms(10_000)
    back = _connected_again(site)
    site.broker.pass_ms(900)
    assert _found(slow) == []
    assert any(isinstance(packet, Publish) for packet in back.got())
    site.broker.pass_ms(1_000)
    assert _found(slow) == [("c", "a/b")]


def _connected_again(site: Site) -> Peer:
    peer = Peer(site)
    properties = Properties(session_expiry_interval=100)
    peer.send(Connect("c", 5, False, 0, properties=properties))
    return peer


def test_internal_is_the_time_until_a_message_is_sent() -> None:
    site = Site()
    slow = site.watch("Internal")
    peer = connected(site)
    session = peer.connection.session
    assert session is not None
    for number in range(session.window.limit):
        site.deliver(peer, b"sent/%d" % number)
    site.broker.pass_ms(2_000)
    assert _found(slow) == []
    site.deliver(peer, b"waits")
    site.broker.pass_ms(2_000)
    assert _found(slow) == [("c", "waits")]


def test_only_the_slowest_are_kept() -> None:
    site = Site(max_entries=2)
    slow = site.watch()
    peers = [connected(site, f"c{number}") for number in range(4)]
    for number, peer in enumerate(peers):
        site.deliver(peer, b"t%d" % number)
        site.broker.pass_ms(200)
    site.broker.pass_ms(2_000)
    assert _found(slow) == [("c0", "t0"), ("c1", "t1")]
    assert slow.clear({}) == 2
    assert slow.listed({}) == []


def test_many_clients_are_looked_at_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_subscribers, "AT_ONCE", 3)
    site = Site()
    slow = site.watch()
    names = [f"c{number}" for number in range(10)]
    for name in names:
        site.deliver(connected(site, name))
    site.broker.pass_ms(2_500)
    assert sorted(name for name, _ in _found(slow)) == sorted(names)


def test_it_is_off_unless_wanted() -> None:
    site = Site()
    SlowSubscribers(site.broker, MqttSlowSubscribe(), site.mqtt.walk).start()
    assert len(site.broker.timers) == 0
