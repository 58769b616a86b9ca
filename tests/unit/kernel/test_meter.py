"""Meters: how many PUBLISH packets an intake takes before somebody is asked."""

import pytest

from tests.datapath import Kernel, Side
from tests.publisher import Publisher


def _publish(topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (b"\0\7" if qos else b"") + payload
    return bytes((0x30 | qos << 1 | retain, len(body))) + body


class Metered:
    """A publisher with meters that grant what is in `grants`, and throttle when that is empty."""

    def __init__(self, kind: str) -> None:
        self.publisher = Publisher(kind)
        self.intake = self.publisher.intake
        self.asked = 0
        self.grants: list[tuple[int, int]] = []

    def meter(self) -> Kernel:
        def refill(intake: Kernel) -> None:
            self.asked += 1
            if self.grants:
                meter.messages, meter.size = self.grants.pop(0)
            else:
                intake.throttle()

        meter = self.publisher.side.Meter(refill)
        return meter

    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.publisher.records()]


@pytest.fixture(params=["pure", "fast"])
def metered(request: pytest.FixtureRequest) -> Metered:
    return Metered(request.param)


def test_a_run_ends_where_the_grant_does_and_goes_on_later(metered: Metered) -> None:
    metered.intake.meters = [metered.meter()]
    metered.grants = [(3, 1 << 40), (2, 1 << 40)]
    wanted = [b"%d" % number for number in range(10)]
    metered.intake.feed(b"".join(_publish(b"t", payload) for payload in wanted[:9]))
    assert metered.payloads() == wanted[:5]
    assert (metered.intake.paused, metered.intake.throttled, metered.asked) == (True, True, 3)
    metered.intake.feed(_publish(b"t", wanted[9]))
    metered.intake.resume()
    assert metered.payloads() == wanted[:5]
    metered.grants = [(1 << 40, 1 << 40)]
    metered.intake.release()
    assert metered.publisher.turn.resumes == [metered.intake]
    metered.intake.resume()
    assert metered.payloads() == wanted
    assert not metered.intake.throttled


def test_bytes_count_and_the_last_packet_may_exceed_them(metered: Metered) -> None:
    meter = metered.meter()
    metered.intake.meters = [meter]
    packet = _publish(b"t", b"12345")
    metered.grants = [(1 << 40, 2 * len(packet) + 1)]
    metered.intake.feed(packet * 9)
    assert len(metered.payloads()) == 3
    assert meter.size == 1 - len(packet)


def test_what_goes_to_the_connection_counts_too(metered: Metered) -> None:
    metered.intake.meters = [metered.meter()]
    metered.grants = [(2, 1 << 40)]
    ping = b"\xc0\0"
    retained = _publish(b"t", b"x", retain=True)
    metered.intake.feed((retained + ping) * 4)
    first = [kind for kind, _ in metered.publisher.packets]
    assert first == [0x31, 0xC0, 0x31]
    metered.grants = [(9, 1 << 40)]
    metered.intake.release()
    metered.intake.resume()
    assert [kind for kind, _ in metered.publisher.packets] == [0x31, 0xC0] * 4


def test_the_meter_of_a_topic_stops_its_publishers(metered: Metered) -> None:
    side: Side = metered.publisher.side
    meter = metered.meter()
    route = metered.publisher.on_route

    def limited(topic: bytes) -> Kernel:
        handle = route(topic)
        handle.meter = meter if topic == b"slow" else None
        return handle

    metered.publisher.on_route = limited  # type: ignore[method-assign]
    metered.grants = [(2, 1 << 40)]
    metered.intake.feed(_publish(b"fast", b"f") * 5 + _publish(b"slow", b"s") * 5)
    assert metered.payloads() == [b"f"] * 5 + [b"s"] * 2
    assert metered.intake.throttled
    assert side.Meter is type(meter)


def test_every_meter_allows_what_is_taken(metered: Metered) -> None:
    first, second = metered.meter(), metered.meter()
    first.messages, first.size = 7, 1 << 40
    second.messages, second.size = 4, 1 << 40
    metered.intake.meters = [first, second]
    metered.intake.feed(_publish(b"t", b"x", qos=1) * 9)
    assert len(metered.payloads()) == 4
    assert (first.messages, second.messages, metered.intake.throttled) == (3, 0, True)
