"""Windows: limits, acknowledgements in any order, redelivery, private numbering, aliases."""

import gc
import sys

import pytest

from robustmq import metrics
from tests.datapath import SIDES, Answer, Kernel, Publish, Side, decode, publish, published, run_of


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


class Client:
    """A window, attached, and what the client has got from it."""

    def __init__(self, side: Side, limit: int = 10, version: int = 4, **limits: int) -> None:
        self.side = side
        self.turn = side.turn()
        self.window = side.Window(
            self.turn,
            limits.get("max_queued", 1000),
            limits.get("max_queued_bytes", 1 << 20),
            limits.get("max_outbox_bytes", 1 << 20),
        )
        self.limit, self.version = limit, version
        self.max_packet = limits.get("max_packet", 0)
        self.alias_max = limits.get("alias_max", 0)
        self.attach()

    def attach(self) -> None:
        self.outbox = self.side.Outbox(self.turn)
        self.window.attach(self.outbox, self.version, self.limit, self.max_packet, self.alias_max)

    def offer(self, count: int, qos: int = 1, **options: Kernel) -> Kernel:
        run = run_of(self.side, self.turn, count, qos, version=self.version, **options)
        self.window.offer(run)
        return run

    def got(self) -> list[Publish]:
        return published(self.outbox.take(), self.version)

    def ids(self) -> list[int]:
        return [packet.packet_id for packet in self.got()]

    def dropped(self, cell: int) -> int:
        return int(self.turn.row[cell])


def test_window_lets_no_more_than_its_limit_be_in_flight(side: Side) -> None:
    client = Client(side, limit=3)
    client.offer(5)
    assert client.ids() == [2, 3, 4]
    assert (client.window.in_flight, client.window.queued) == (3, 2)
    assert client.window.puback(2)
    assert client.ids() == [5]
    for packet_id in (3, 4, 5):
        assert client.window.puback(packet_id)
    assert client.ids() == [6]
    assert client.window.puback(6)
    assert (client.window.in_flight, client.window.queued, client.window.queued_bytes) == (0, 0, 0)


def test_answers_may_come_in_any_order_and_only_once(side: Side) -> None:
    client = Client(side, limit=6)
    client.offer(6)
    assert client.ids() == [2, 3, 4, 5, 6, 7]
    for left, packet_id in zip((5, 4, 3, 2, 1, 0), (4, 7, 2, 5, 3, 6), strict=True):
        assert client.window.puback(packet_id)
        assert not client.window.puback(packet_id)
        assert client.window.in_flight == left
    for stranger in (0, 1, 2, 8, 65535):
        assert not client.window.puback(stranger)


def test_identifier_0_is_none_even_when_65535_is_in_flight(side: Side) -> None:
    client = Client(side)
    client.turn.sequence = 65_533
    client.offer(2)
    assert client.ids() == [65_535, 1]
    assert not client.window.puback(0)
    assert client.window.puback(1)
    assert client.window.puback(65_535)


def test_qos_2_holds_its_identifier_until_pubcomp(side: Side) -> None:
    client = Client(side, limit=2)
    client.offer(3, qos=2)
    assert client.ids() == [2, 3]
    assert not client.window.puback(2)
    assert not client.window.pubcomp(2)
    assert client.window.pubrec(2, False)
    assert client.window.pubrec(2, False)
    assert (client.window.in_flight, client.ids()) == (2, [])
    assert client.window.pubcomp(2)
    assert not client.window.pubcomp(2)
    assert client.ids() == [4]
    assert client.window.pubrec(3, True)
    assert not client.window.pubcomp(3)
    assert client.window.in_flight == 1


def test_queue_is_bounded_in_messages_and_bytes(side: Side) -> None:
    client = Client(side, limit=1, max_queued=4, max_queued_bytes=60)
    client.offer(3)
    client.offer(2)
    assert (client.window.queued, client.window.dropped) == (4, 0)
    client.offer(1)
    assert (client.window.queued, client.window.dropped) == (4, 1)
    client.window.max_queued = 10
    client.offer(2, size=100)
    assert (client.window.queued, client.window.dropped) == (4, 3)
    assert client.dropped(metrics.MESSAGES_DROPPED_QUEUE) == 3


def test_messages_wait_for_a_session_without_connection(side: Side) -> None:
    client = Client(side)
    client.window.detach()
    client.offer(2)
    client.offer(1, qos=0)
    client.offer(1, qos=2)
    assert client.window.queued == 3
    client.attach()
    assert [(packet.qos, packet.dup) for packet in client.got()] == [
        (1, False), (1, False), (2, False),
    ]  # fmt: skip


def test_redelivery_keeps_order_and_identifiers_and_sets_dup(side: Side) -> None:
    client = Client(side, limit=4)
    client.offer(3)
    client.offer(2, qos=2)
    assert client.ids() == [2, 3, 4, 5]
    client.window.puback(3)
    client.window.pubrec(5, False)
    client.ids()
    client.window.detach()
    assert client.window.in_flight == 0
    client.attach()
    packets = decode(client.outbox.take())
    assert packets[0] == Answer(0x62, 5, 0)
    assert [
        (packet.packet_id, packet.dup) for packet in packets[1:] if isinstance(packet, Publish)
    ] == [(2, True), (4, True), (6, True)]
    assert client.window.in_flight == 4


def test_redelivery_obeys_a_smaller_window_and_then_goes_on(side: Side) -> None:
    client = Client(side, limit=4)
    client.offer(6)
    client.ids()
    client.limit = 2
    client.attach()
    assert [(packet.packet_id, packet.dup) for packet in client.got()] == [(2, True), (3, True)]
    for packet_id in (2, 3, 4, 5):
        assert client.window.puback(packet_id)
    assert [(packet.packet_id, packet.dup) for packet in client.got()] == [
        (4, True), (5, True), (6, False), (7, False),
    ]  # fmt: skip


def expiring(side: Side, turn: Kernel, qos: int, seconds: int) -> Kernel:
    block = b"\x02" + seconds.to_bytes(4, "big")
    turn.sequence += bool(qos)
    sequence = turn.sequence if qos else 0
    data = publish(b"t", b"payload", qos, sequence % 65535 + 1, 5, block)
    place = data.index(block) + 1
    return side.Run(data, [len(data)], qos, sequence, turn.now_ms + seconds * 1000, place)


def test_expiry_is_forwarded_as_what_remains(side: Side) -> None:
    client = Client(side, limit=1, version=5)
    for qos in (1, 1, 0, 1):
        client.window.offer(expiring(side, client.turn, qos, 10))
    assert [packet.properties[-1] for packet in client.got()] == [10, 10]
    client.turn.now_ms += 3_001
    client.window.puback(2)
    assert [packet.properties for packet in client.got()] == [b"\x02\0\0\0\x07"]
    client.turn.now_ms += 7_000
    client.window.puback(3)
    assert client.got() == []
    assert (client.window.dropped, client.window.queued) == (1, 0)
    run = expiring(side, client.turn, 0, 1)
    client.turn.now_ms += 1_000
    client.window.offer(run)
    assert client.got() == []
    assert client.dropped(metrics.MESSAGES_DROPPED_EXPIRED) == 2


def test_a_message_that_was_sent_is_sent_again_though_expired(side: Side) -> None:
    client = Client(side, version=5)
    client.window.offer(expiring(side, client.turn, 1, 10))
    client.turn.now_ms += 60_000
    client.attach()
    packet = client.got()[0]
    assert (packet.dup, packet.properties) == (True, b"\x02\0\0\0\0")


def test_packets_that_are_too_large_for_the_client_are_passed_over(side: Side) -> None:
    client = Client(side, max_packet=40)
    parts = [publish(b"t", bytes(size), 1, i + 2) for i, size in enumerate((5, 90, 7, 91))]
    ends = [sum(map(len, parts[: i + 1])) for i in range(4)]
    client.turn.sequence = 4
    client.window.offer(side.Run(b"".join(parts), ends, 1, 1))
    client.offer(3, qos=0, size=60)
    assert client.ids() == [2, 4]
    assert (client.window.in_flight, client.window.queued, client.window.dropped) == (2, 0, 5)
    assert client.dropped(metrics.MESSAGES_DROPPED_TOO_LARGE) == 5


def test_slow_client_loses_qos_0_and_keeps_the_rest(side: Side) -> None:
    client = Client(side, max_outbox_bytes=100)
    client.offer(1, qos=0, size=200)
    client.offer(2, qos=0)
    client.offer(1)
    assert client.dropped(metrics.MESSAGES_DROPPED_SLOW) == 2
    assert (client.window.queued, len(client.got())) == (1, 1)
    client.window.pump()
    assert client.ids() == [2]


def test_private_identifiers_when_the_core_has_gone_round(side: Side) -> None:
    client = Client(side, limit=100)
    client.offer(2)
    assert client.ids() == [2, 3]
    client.window.puback(3)
    client.turn.sequence = 65_535 - 1
    client.offer(4)
    assert client.ids() == [3, 4, 5, 6]
    client.window.puback(4)
    client.turn.sequence = 2 * 65_535 - 1
    client.offer(5)
    assert sorted(client.ids()) == [7, 8, 9, 10, 11]
    assert client.window.in_flight == 9


def test_ids_of_qos_2_exchanges_count_in_any_order_of_pubrec(side: Side) -> None:
    client = Client(side, limit=100)
    client.offer(2, qos=2)
    assert client.ids() == [2, 3]
    assert client.window.pubrec(3, False)
    assert client.window.pubrec(2, False)
    client.turn.sequence = 65_535
    client.offer(1)
    assert client.ids() == [4]


def test_the_same_run_twice_has_other_identifiers_the_second_time(side: Side) -> None:
    client = Client(side)
    client.window.offer(client.offer(3))
    assert client.ids() == [2, 3, 4, 5, 6, 7]


def test_withdraw_takes_what_waits_and_leaves_what_a_client_has_begun(side: Side) -> None:
    client = Client(side, limit=2)
    run, other, two = client.offer(2), client.offer(1), None
    mine = [
        run_of(side, client.turn, 2, 1),
        run_of(side, client.turn, 2, 2),
    ]
    origin = object()
    for two in mine:
        two.origin = origin
        client.window.offer(two)
    client.window.puback(2)
    client.window.puback(3)
    assert client.window.withdraw(origin) == [(mine[0], 1), (mine[1], 0), (mine[1], 1)]
    assert (client.window.in_flight, client.window.queued) == (2, 0)
    client.window.detach()
    assert client.window.withdraw(origin) == [(mine[0], 0)]
    assert client.window.queued == 1
    client.attach()
    assert [packet.payload for packet in client.got()][-1] == published(other.data)[0].payload
    assert run.origin is None


def test_withdraw_keeps_a_qos_2_message_that_was_sent(side: Side) -> None:
    client = Client(side, limit=1)
    run = run_of(side, client.turn, 3, 2)
    run.origin = "group"
    client.window.offer(run)
    client.window.detach()
    assert client.window.withdraw("group") == [(run, 1), (run, 2)]
    client.attach()
    assert [(packet.packet_id, packet.dup) for packet in client.got()][-1:] == [(2, True)]


def test_alias_is_introduced_once_a_connection_and_left_out_of_redelivery(side: Side) -> None:
    client = Client(side, version=5, alias_max=3)
    run = run_of(side, client.turn, 3, 1, b"long/topic", version=5)
    run.alias = 3
    client.window.offer(run)
    assert [(packet.topic, packet.properties) for packet in client.got()] == [
        (b"long/topic", b"\x23\0\x03"), (b"", b"\x23\0\x03"), (b"", b"\x23\0\x03"),
    ]  # fmt: skip
    client.attach()
    assert {(packet.topic, packet.properties) for packet in client.got()} == {(b"long/topic", b"")}
    zero = run_of(side, client.turn, 1, 0, b"long/topic", version=5)
    zero.alias = 3
    client.window.offer(zero)
    client.window.offer(zero)
    assert [packet.topic for packet in client.got()] == [b"long/topic", b""]
    zero.alias = 4
    client.window.offer(zero)
    assert [packet.topic for packet in client.got()] == [b"long/topic"]


def test_alias_never_makes_a_packet_too_large(side: Side) -> None:
    run = run_of(side, side.turn(), 1, 0, b"topic", version=5)
    run.alias = 1
    for room in range(8):
        client = Client(side, version=5, alias_max=1, max_packet=run.largest + room)
        client.window.offer(run)
        assert len(client.outbox.take()) <= run.largest + room


def test_clear_forgets_everything(side: Side) -> None:
    client = Client(side, limit=2)
    client.offer(2, qos=2)
    client.offer(2)
    client.window.pubrec(2, False)
    client.window.clear()
    window = client.window
    assert (window.in_flight, window.queued, window.queued_bytes) == (0, 0, 0)
    client.outbox.take()
    client.attach()
    assert client.outbox.take() == b""


def test_runs_that_do_not_fit_their_data_are_refused(side: Side) -> None:
    data = publish(b"t", b"x", 1, 5)
    for ends, qos in (([], 0), ([len(data) + 1], 0), ([4, 2], 0), ([2, len(data)], 0), ([9], 3)):
        with pytest.raises(ValueError, match="run"):
            side.Run(data, ends, qos, 0)
    with pytest.raises(ValueError, match="identifier"):
        side.Run(data[:6], [6], 1, 0)
    with pytest.raises(ValueError, match="identifier"):
        side.Run(publish(b"t", b"x", 1, 0), [8], 1, 7)
    with pytest.raises(ValueError, match="expiry"):
        side.Run(data, [len(data)], 1, 1, 5, len(data) - 3)
    run = side.Run(data, [len(data)], 1, 0)
    assert (run.first_id, run.packet(0), run.largest) == (5, data, len(data))
    for i in (1, -1):
        with pytest.raises(IndexError):
            run.packet(i)


def test_runs_are_freed_when_the_last_window_has_done_with_them(side: Side) -> None:
    client = Client(side, limit=7)
    parts = [publish(b"t", bytes(2000), 1, i + 2) for i in range(6)]
    run = side.Run(b"".join(parts), [len(parts[0]) * (i + 1) for i in range(6)], 1, 1)
    whole = run.data
    before = sys.getrefcount(whole), sys.getrefcount(run)
    packets: list[Publish] = []
    for round_number in range(50):
        client.window.offer(run)
        client.window.offer(run)
        packets = published(client.outbox.take())
        for packet in packets[:: 1 if round_number % 2 else -1]:
            assert client.window.puback(packet.packet_id)
        if round_number % 7 == 0:
            client.window.detach()
            client.window.withdraw(None)
            client.outbox.close()
            client.attach()
        if round_number % 5 == 0:
            client.window.clear()
            client.outbox.take()
    client.window.clear()
    client.outbox.close()
    del packets
    gc.collect()
    assert (sys.getrefcount(whole), sys.getrefcount(run)) == before


def test_window_that_is_thrown_away_gives_its_runs_back(side: Side) -> None:
    client = Client(side, limit=3)
    run = run_of(side, client.turn, 5)
    before = sys.getrefcount(run)
    client.window.offer(run)
    client.window.offer(run)
    client.window.puback(3)
    del client
    gc.collect()
    assert sys.getrefcount(run) == before


def test_the_foremost_message_is_the_one_that_waits_longest(side: Side) -> None:
    client = Client(side, limit=3)
    assert client.window.foremost(False) is None
    first = client.offer(2)
    second = client.offer(2, topic=b"second")
    third = client.offer(1, topic=b"third")
    assert client.window.foremost(False) is first
    # Of the second run one packet is in flight and one is not.
    assert client.window.foremost(True) is second
    for packet_id in client.ids()[:2]:
        assert client.window.puback(packet_id)
    assert client.window.foremost(False) is second
    assert client.window.foremost(True) is None
    client.window.detach()
    assert client.window.foremost(True) is second
    assert third.packet(0)


def test_what_was_acknowledged_out_of_order_is_not_foremost(side: Side) -> None:
    client = Client(side, limit=10)
    runs = [client.offer(1, topic=b"%d" % number) for number in range(3)]
    ids = client.ids()
    assert client.window.puback(ids[1])
    assert client.window.foremost(False) is runs[0]
    assert client.window.puback(ids[0])
    assert client.window.foremost(False) is runs[2]
    assert client.window.puback(ids[2])
    assert client.window.foremost(False) is None
