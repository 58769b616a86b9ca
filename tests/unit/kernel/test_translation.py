"""A session that returns in another version: what waits for it is encoded anew."""

import pytest

from tests.datapath import SIDES, Kernel, Side, publish, published, run_of


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


def attached(side: Side, window: Kernel, turn: Kernel, version: int, limit: int = 10) -> Kernel:
    outbox = side.Outbox(turn)
    window.attach(outbox, version, limit, 0, 0)
    return outbox


@pytest.mark.parametrize(("before", "after"), [(4, 5), (5, 3), (3, 4), (5, 5)])
def test_what_waits_and_what_was_in_flight_change_their_version(
    side: Side, before: int, after: int
) -> None:
    turn = side.turn()
    window = side.Window(turn, 1000, 1 << 20, 1 << 20)
    outbox = attached(side, window, turn, before, limit=3)
    run = run_of(side, turn, 4, 1, version=before)
    other = side.Window(turn, 1000, 1 << 20, 1 << 20)
    for one in (window, other):
        one.offer(run)
    later = run_of(side, turn, 2, 2, version=before)
    window.offer(later)
    waiting = published(run.data, before) + published(later.data, before)
    del waiting[1]
    first = published(outbox.take(), before)
    window.puback(first[1].packet_id)
    outbox.take()
    window.detach()
    outbox = attached(side, window, turn, after)
    again = published(outbox.take(), after)
    assert [packet._replace(dup=False) for packet in again] == waiting
    assert [packet.dup for packet in again] == [True, True, True, False, False]
    assert {packet.properties for packet in again} == {b""}
    assert window.queued_bytes == window.queued == 0
    # Nobody else's packets have changed.
    outbox = attached(side, other, turn, before)
    assert [packet.packet_id for packet in published(outbox.take(), before)] == [
        run.first_id + i for i in range(4)
    ]


def test_the_expiry_interval_comes_with_mqtt_5_and_goes_with_it(side: Side) -> None:
    turn = side.turn()
    window = side.Window(turn, 1000, 1 << 20, 1 << 20)
    attached(side, window, turn, 4)
    window.detach()
    data = publish(b"t", b"x", 1, 7, 4)
    window.offer(side.Run(data, [len(data)], 1, 0, turn.now_ms + 9_000))
    turn.now_ms += 2_000
    outbox = attached(side, window, turn, 5)
    assert [packet.properties for packet in published(outbox.take(), 5)] == [b"\x02\0\0\0\x07"]
    window.detach()
    outbox = attached(side, window, turn, 4)
    (packet,) = published(outbox.take(), 4)
    assert (packet.payload, packet.packet_id, packet.dup) == (b"x", 7, True)


def test_a_block_takes_the_place_of_another(side: Side) -> None:
    block = b"\x26\0\1a\0\1b"
    packet = b""
    for qos in (0, 1, 2):
        packet = publish(b"topic", b"x" * 200, qos, qos, 5, block)
        plain = publish(b"topic", b"x" * 200, qos, qos, 4)
        assert side.with_block(packet, True, b"") == plain
        assert side.with_block(plain, False, bytes((len(block),)) + block) == packet
    for cut in (0, 1, 3, 5, 8, 10):
        with pytest.raises(ValueError, match="not a whole PUBLISH"):
            side.with_block(packet[:cut], True, b"")
