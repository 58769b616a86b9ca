"""Windows and stored runs: lagging in place of dropping, the cursor, what a restart brings back."""

import gc
import sys

import pytest

from robustmq import metrics
from tests.datapath import SIDES, Answer, Kernel, Publish, Side, decode, publish, published, run_of


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


class Client:
    """A window of a session with an inbox, attached or not."""

    def __init__(self, side: Side, limit: int = 10, connected: bool = True, **limits: int) -> None:
        self.side = side
        self.turn = side.turn()
        self.window = side.Window(
            self.turn,
            limits.get("max_queued", 1000),
            limits.get("max_queued_bytes", 1 << 20),
            limits.get("max_outbox_bytes", 1 << 20),
        )
        self.limit = limit
        self.max_packet = limits.get("max_packet", 0)
        self.outbox: Kernel = None
        if connected:
            self.attach()

    def attach(self, version: int = 4) -> None:
        self.outbox = self.side.Outbox(self.turn)
        self.window.attach(self.outbox, version, self.limit, self.max_packet, 0)

    def offer(self, position: int, count: int = 1, qos: int = 1, **options: Kernel) -> Kernel:
        run = run_of(self.side, self.turn, count, qos, **options)
        run.position = position
        self.window.offer(run)
        return run

    def got(self) -> list[Publish]:
        return published(self.outbox.take())

    def ids(self) -> list[int]:
        return [packet.packet_id for packet in self.got()]

    def state(self) -> tuple[bool, int]:
        return self.window.lagging, self.window.resume


def test_a_run_has_no_position_until_it_is_given_one(side: Side) -> None:
    run = run_of(side, side.turn(), 2)
    assert run.position == 0
    run.position = 1 << 60
    assert run.position == 1 << 60


def test_a_window_without_connection_lags_from_the_first_run(side: Side) -> None:
    client = Client(side, connected=False)
    assert client.state() == (False, 0)
    client.offer(7, 2)
    client.offer(9, 2, qos=0)
    assert client.state() == (True, 7)
    assert (client.window.queued, client.window.dropped, client.window.oldest) == (0, 0, 0)
    client.attach()
    assert client.turn.hungry == [client.window]
    client.offer(11)
    assert client.got() == []


def test_a_full_queue_lags_and_drops_nothing(side: Side) -> None:
    client = Client(side, limit=2, max_queued=4, max_queued_bytes=10_000)
    client.offer(10, 6)
    assert (client.window.queued, client.state()) == (4, (False, 0))
    client.offer(16)
    client.offer(17)
    assert (client.window.queued, client.state()) == (4, (True, 16))
    assert client.window.dropped == client.turn.row[metrics.MESSAGES_DROPPED_QUEUE] == 0
    for packet_id in (2, 3, 4):
        assert client.window.puback(packet_id)
    assert client.turn.hungry == []
    assert client.window.puback(5)
    assert (client.window.queued, client.turn.hungry) == (0, [client.window])
    client.window.puback(6)
    assert client.turn.hungry == [client.window]


def test_a_run_of_too_many_bytes_is_taken_when_nothing_else_waits(side: Side) -> None:
    client = Client(side, limit=1, max_queued_bytes=300)
    client.offer(1)
    client.offer(2, size=500)
    client.offer(3, size=10)
    assert (client.window.queued, client.state()) == (1, (True, 3))
    client.window.lagging = False
    client.window.max_queued_bytes = 1_000
    client.offer(3, size=10)
    assert (client.window.queued, client.window.lagging) == (2, False)
    client.window.max_queued = 2
    client.offer(4, size=10)
    assert client.state() == (True, 4)


def test_a_hungry_window_says_so_once_until_it_is_fed(side: Side) -> None:
    client = Client(side)
    window, hungry = client.window, client.turn.hungry
    window.lagging = True
    assert hungry == []
    window.pump()
    window.pump()
    assert hungry == [window]
    hungry.clear()
    window.pump()
    assert hungry == []
    window.fed()
    window.pump()
    assert hungry == [window]
    hungry.clear()
    window.fed()
    window.lagging = False
    client.offer(5, 1, qos=2)
    window.pump()
    assert hungry == []
    window.lagging = True
    assert window.pubrec(client.ids()[0], False)
    assert hungry == [window]


def test_qos_0_lags_when_the_client_is_slow_and_not_when_it_expires(side: Side) -> None:
    client = Client(side, max_outbox_bytes=100)
    client.offer(1, 2, qos=0, size=200)
    assert (len(client.got()), client.state()) == (2, (False, 0))
    client.offer(3, 1, qos=0, size=200)
    client.offer(4, 1, qos=0, deadline=1)
    assert client.state() == (False, 0)
    assert client.turn.row[metrics.MESSAGES_DROPPED_EXPIRED] == 1
    client.offer(5, 1, qos=0)
    assert (client.state(), client.window.dropped) == ((True, 5), 1)
    assert client.turn.hungry == []
    client.got()
    client.window.pump()
    assert client.turn.hungry == [client.window]
    assert (client.window.oldest, client.turn.acknowledged) == (0, [client.window])


def test_detach_keeps_what_was_sent_and_leaves_the_rest_in_the_inbox(side: Side) -> None:
    client = Client(side, limit=3)
    client.offer(10, 5)
    plain = run_of(side, client.turn, 2)
    client.window.offer(plain)
    client.offer(15, 2)
    client.ids()
    client.window.puback(3)
    client.ids()
    client.window.detach()
    assert client.state() == (True, 14)
    assert (client.window.queued, client.window.oldest, client.window.dropped) == (5, 10, 0)
    client.window.detach()
    assert client.state() == (True, 14)
    client.limit = 10
    client.attach()
    packets = client.got()
    assert [(packet.packet_id, packet.dup) for packet in packets] == [
        (2, True), (4, True), (5, True), (7, False), (8, False),
    ]  # fmt: skip
    assert client.turn.hungry == [client.window]
    assert (client.window.queued_bytes, client.window.in_flight) == (0, 5)


def test_detach_with_nothing_to_drop_reads_what_comes_next(side: Side) -> None:
    client = Client(side)
    client.offer(10, 2)
    client.window.detach()
    assert (client.state(), client.window.oldest) == ((True, 0), 10)
    # Nothing has said where the inbox goes on: what is dropped later says it.
    client.limit = 1
    client.attach()
    client.window.lagging = False
    client.offer(12)
    client.window.lagging = True
    client.window.detach()
    assert client.state() == (True, 12)


@pytest.mark.parametrize(("resume", "expected"), [(5, 5), (90, 11)])
def test_detach_of_a_lagging_window_reads_from_the_lower_position(
    side: Side, resume: int, expected: int
) -> None:
    client = Client(side, limit=1)
    client.offer(10, 3)
    client.window.lagging, client.window.resume = True, resume
    client.window.detach()
    assert client.state() == (True, expected)


def test_clear_ends_lagging(side: Side) -> None:
    client = Client(side, limit=1)
    client.offer(10, 3)
    client.window.detach()
    client.window.clear()
    assert (client.state(), client.window.oldest) == ((False, 0), 0)
    client.attach()
    client.offer(3)
    assert (client.window.oldest, client.turn.hungry) == (3, [])


def test_oldest_passes_over_gaps_and_what_is_not_stored(side: Side) -> None:
    client = Client(side, limit=6)
    client.window.offer(run_of(side, client.turn, 2))
    client.offer(100, 2)
    client.offer(110, 2, qos=2)
    client.offer(120, 3)
    assert (client.ids(), client.window.oldest) == ([2, 3, 4, 5, 6, 7], 100)
    for answer, packet_id, oldest in (
        ("puback", 5, 100), ("puback", 4, 110), ("pubrec", 6, 111), ("puback", 2, 111),
        ("pubrec", 7, 120), ("puback", 8, 121), ("pubcomp", 6, 121), ("puback", 9, 122),
        ("puback", 3, 122), ("pubcomp", 7, 122), ("puback", 10, 0),
    ):  # fmt: skip
        refused = (False,) if answer == "pubrec" else ()
        assert getattr(client.window, answer)(packet_id, *refused), (answer, packet_id)
        assert client.window.oldest == oldest
    assert client.turn.acknowledged == [client.window]


def test_acknowledgements_of_stored_messages_are_noted_once(side: Side) -> None:
    client = Client(side)
    window, noted = client.window, client.turn.acknowledged
    window.offer(run_of(side, client.turn, 1))
    client.offer(1, 3)
    client.offer(4, 2, qos=2)
    client.ids()
    window.puback(2)
    assert noted == []
    window.puback(3)
    window.puback(5)
    assert noted == [window]
    noted.clear()
    window.puback(4)
    assert noted == []
    window.noted()
    window.pubrec(6, False)
    assert noted == [window]
    noted.clear()
    window.noted()
    window.pubcomp(6)
    assert noted == []
    window.pubrec(7, True)
    assert noted == [window]


@pytest.mark.parametrize("why", ["expired", "large"])
def test_a_stored_message_that_is_never_sent_is_done_with_too(side: Side, why: str) -> None:
    client = Client(side, max_packet=50)
    client.offer(4, 1, **{"deadline": 1} if why == "expired" else {"size": 80})
    assert (client.window.dropped, client.window.oldest) == (1, 0)
    assert client.turn.acknowledged == [client.window]


def test_exact_tells_of_first_deliveries_of_qos_2_alone(side: Side) -> None:
    client = Client(side, limit=3)
    client.offer(10, 2, qos=1)
    client.offer(20, 3, qos=2)
    client.window.offer(run_of(side, client.turn, 1, 2))
    ids = client.ids()
    assert client.turn.exact == [(client.window, 20, ids[2])]
    for packet_id in ids[:2]:
        client.window.puback(packet_id)
    ids += client.ids()
    assert client.turn.exact == [(client.window, 20 + i, ids[2 + i]) for i in range(3)]
    client.turn.exact.clear()
    client.window.detach()
    client.attach()
    assert client.ids() == ids[2:]
    assert client.turn.exact == []


def test_private_and_translated_copies_keep_their_positions(side: Side) -> None:
    client = Client(side, limit=100)
    client.offer(50, 2, qos=2)
    assert client.ids() == [2, 3]
    client.window.pubrec(2, False)
    client.turn.sequence = 65_535 - 1
    client.offer(60, 4, qos=2)
    ids = client.ids()
    assert ids == [4, 5, 6, 7]
    assert client.turn.exact[2:] == [(client.window, 60 + i, ids[i]) for i in range(4)]
    client.window.pubrec(3, False)
    client.window.pubrec(4, False)
    assert client.window.oldest == 61
    client.window.detach()
    client.attach(5)
    assert client.window.oldest == 61
    client.window.pubrec(5, False)
    assert client.window.oldest == 62


def restored(side: Side, position: int, packet_id: int, qos: int = 2) -> Kernel:
    data = publish(b"t", b"%d" % position, qos, packet_id)
    run = side.Run(data, [len(data)], qos, 0)
    run.position = position
    return run


def test_a_session_that_is_read_back_goes_on_where_it_was(side: Side) -> None:
    client = Client(side, connected=False)
    window = client.window
    window.lagging, window.resume = True, 40
    window.release(9)
    window.release(3)
    window.restore(restored(side, 41, 5))
    window.restore(restored(side, 50, 2))
    assert (window.exchanges(), window.oldest, window.queued) == ([9, 3], 41, 2)
    client.attach()
    packets = decode(client.outbox.take())
    assert packets[:2] == [Answer(0x62, 9, 0), Answer(0x62, 3, 0)]
    assert [(p.packet_id, p.dup) for p in packets[2:] if isinstance(p, Publish)] == [
        (5, True), (2, True),
    ]  # fmt: skip
    assert (client.turn.hungry, client.turn.exact) == ([window], [])
    window.lagging = False
    # It is read back from its cursor, below what was restored; ids in use are avoided.
    client.offer(40)
    assert (window.oldest, client.ids(), window.in_flight) == (40, [4], 5)
    client.offer(42, 7)
    client.ids()
    window.pubrec(5, False)
    assert window.oldest == 40
    window.puback(4)
    assert window.oldest == 42
    assert window.exchanges() == [9, 3, 5]
    assert window.pubcomp(9)
    assert window.pubcomp(3)
    assert window.exchanges() == [5]


def test_what_is_restored_comes_behind_what_was_sent_and_before_what_waits(side: Side) -> None:
    client = Client(side, limit=2)
    client.turn.sequence = 100
    client.window.offer(run_of(side, client.turn, 5))
    client.ids()
    client.window.detach()
    client.window.restore(restored(side, 7, 50))
    client.window.restore(restored(side, 8, 60, 1))
    assert client.window.queued == 7
    client.limit = 20
    client.attach()
    assert [(packet.packet_id, packet.dup) for packet in client.got()] == [
        (102, True), (103, True), (50, True), (60, True), (104, False), (105, False), (106, False),
    ]  # fmt: skip
    assert (client.window.queued_bytes, client.window.oldest) == (0, 7)


def test_restoring_needs_what_was_stored_and_no_connection(side: Side) -> None:
    client = Client(side, connected=False)
    plain = run_of(side, client.turn, 1)
    zero = run_of(side, client.turn, 1, 0)
    zero.position = 5
    for run in (plain, zero):
        with pytest.raises(ValueError, match="restored"):
            client.window.restore(run)
    for packet_id in (0, 65_536):
        with pytest.raises(ValueError, match="exchange"):
            client.window.release(packet_id)
    client.attach()
    with pytest.raises(ValueError, match="restored"):
        client.window.restore(restored(side, 1, 1))
    with pytest.raises(ValueError, match="exchange"):
        client.window.release(1)
    assert client.window.exchanges() == []


def test_plain_acknowledgements_feed_and_note_a_window(side: Side) -> None:
    client = Client(side, limit=2)
    intake = side.Intake(client.turn, client.outbox, None, 1 << 20)
    intake.open, intake.version, intake.window = True, 4, client.window
    client.offer(1, 3)
    client.window.lagging = True
    ids = client.ids()
    intake.feed(b"\x40\x02" + ids[0].to_bytes(2, "big"))
    assert client.turn.acknowledged == client.turn.hungry == [client.window]
    assert client.window.oldest == 2


def test_runs_that_are_dropped_or_restored_are_given_back(side: Side) -> None:
    client = Client(side, limit=2, max_queued=50)
    run = run_of(side, client.turn, 5, 2)
    run.position = 5
    before = sys.getrefcount(run)
    for _ in range(20):
        for _ in range(4):
            client.window.offer(run)
        client.window.detach()
        client.window.restore(run)
        client.attach()
        client.turn.exact.clear()
        client.window.clear()
    client.window.offer(run)
    client.turn.exact.clear()
    del client
    gc.collect()
    assert sys.getrefcount(run) == before
