"""Intakes: framing at every cut, runs of PUBLISH, acknowledgements in order, limits, pauses."""

from collections.abc import Callable
from itertools import permutations

import pytest

from robustmq import metrics
from robustmq._kernel.intake import ADMISSION, CLAIM
from tests.datapath import SIDES, Answer, Kernel, Side, puback, publish, run_of
from tests.publisher import Publisher


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


MIXED = (
    publish(b"a", b"1", 1, 1)
    + publish(b"a", b"2", 1, 2)
    + publish(b"a", b"three", 1, 3)
    + publish(b"b", b"", 0)
    + publish(b"b", bytes(200), 0)
    + publish(b"b", b"q2", 2, 9)
    + b"\xc0\x00"
    + publish(b"b", b"kept", 1, 4, retain=True)
    + publish(b"b", b"dup", 1, 5, dup=True)
)
RECORDS = [
    (b"a", b"1", 1), (b"a", b"2", 1), (b"a", b"three", 1), (b"b", b"", 0),
    (b"b", bytes(200), 0), (b"b", b"dup", 1),
]  # fmt: skip
PACKETS = [
    (0x34, b"\0\1b\0\x09q2"), (0xC0, b""), (0x33, b"\0\1b\0\4kept"),
]  # fmt: skip


@pytest.mark.parametrize("cut", range(len(MIXED) + 1))
def test_input_may_be_cut_anywhere(side: Side, cut: int) -> None:
    publisher = Publisher(side)
    publisher.intake.feed(MIXED[:cut])
    publisher.intake.feed(MIXED[cut:])
    assert publisher.records() == RECORDS
    assert publisher.packets == PACKETS
    assert publisher.cell(metrics.BYTES_RECEIVED) == len(MIXED)
    assert publisher.cell(metrics.PACKETS_RECEIVED) == len(RECORDS) + len(PACKETS)
    assert publisher.cell(metrics.MESSAGES_RECEIVED) == len(RECORDS)
    assert publisher.routes == [b"a", b"b"]
    assert publisher.intake.outstanding == 4


def test_input_may_come_byte_by_byte(side: Side) -> None:
    publisher = Publisher(side)
    for byte in MIXED:
        publisher.intake.feed(bytes((byte,)))
    assert (publisher.records(), publisher.packets) == (RECORDS, PACKETS)


def test_version_5_takes_the_short_way_only_without_properties(side: Side) -> None:
    publisher = Publisher(side, version=5)
    plain = [publish(b"a", b"x%d" % i, 1, i + 1, 5) for i in range(3)]
    described = publish(b"a", b"x9", 1, 9, 5, b"\x01\x01")
    publisher.intake.feed(plain[0] + described + plain[1] + plain[2])
    assert publisher.records() == [(b"a", b"x%d" % i, 1) for i in range(3)]
    assert publisher.packets == [(0x32, described[2:])]
    assert publisher.routes == [b"a"]


def test_packets_too_short_for_their_kind_go_to_the_codec(side: Side) -> None:
    publisher = Publisher(side, version=5)
    bodies = [b"", b"\0", b"\0\0", b"\0\5a", b"\0\1a", b"\0\1a\0\1"]
    for body in bodies:
        publisher.intake.feed(bytes((0x32, len(body))) + body)
    assert publisher.packets == [(0x32, body) for body in bodies]
    assert publisher.records() == []


def test_nothing_is_fast_before_the_intake_is_open(side: Side) -> None:
    publisher = Publisher(side)
    publisher.intake.open = False
    publisher.intake.feed(MIXED)
    assert (len(publisher.packets), publisher.records()) == (9, [])


def test_answers_go_out_in_order_though_settled_out_of_order(side: Side) -> None:
    publisher = Publisher(side, version=5)
    intake = publisher.intake
    tickets = [intake.admit(i + 1, 0x50 if i == 2 else 0x40) for i in range(5)]
    assert intake.outstanding == 5
    intake.settle(tickets[1], 0, True)
    intake.settle(tickets[4], 0, True)
    assert publisher.answers() == []
    intake.settle(tickets[0], 0, False)
    assert publisher.answers() == [Answer(0x40, 1, 0x10), Answer(0x40, 2, 0)]
    intake.settle(tickets[0], 7, True)
    intake.settle(99, 0, True)
    intake.settle(tickets[3], 0, True)
    intake.settle(tickets[2], 5, True)
    intake.settle(tickets[2], 5, True)
    assert publisher.answers() == [
        Answer(0x50, 3, 0x15), Answer(0x40, 4, 0), Answer(0x40, 5, 0),
    ]  # fmt: skip
    assert intake.outstanding == 0
    assert publisher.cell(metrics.PACKETS_SENT) == 5


def test_version_3_answers_without_reason(side: Side) -> None:
    publisher = Publisher(side)
    publisher.intake.feed(publish(b"a", b"x", 1, 7))
    publisher.settle(code=3)
    assert publisher.outbox.take() == b"\x40\x02\x00\x07"


def test_receive_maximum_ends_a_connection_of_version_5(side: Side) -> None:
    publisher = Publisher(side, version=5)
    publisher.intake.receive_max = 2
    publisher.intake.feed(b"".join(publish(b"a", b"x", 1, i + 1, 5) for i in range(4)))
    assert publisher.malformed == [0x93]
    assert publisher.intake.closed
    assert len(publisher.records()) == 2
    publisher.settle()
    assert publisher.answers() == []


def test_receive_maximum_pauses_version_3(side: Side) -> None:
    publisher = Publisher(side)
    publisher.intake.receive_max = 2
    data = b"".join(publish(b"a", b"x%d" % i, 1, i + 1) for i in range(5))
    publisher.intake.feed(data)
    assert (publisher.intake.paused, publisher.turn.resumes) == (True, [])
    publisher.intake.feed(publish(b"a", b"x5", 1, 6))
    got: list[int] = []
    for _ in range(3):
        publisher.settle()
        got += [answer.packet_id for answer in publisher.answers()]
        if publisher.turn.resumes:
            publisher.turn.resumes.pop().resume()
    assert got == [1, 2, 3, 4, 5, 6]
    assert not publisher.intake.paused
    assert publisher.cell(metrics.PUBLISHERS_PAUSED) == 2
    assert [payload for _, payload, _ in publisher.records()] == [b"x%d" % i for i in range(6)]


def test_a_publish_handled_elsewhere_counts_and_any_answer_resumes(side: Side) -> None:
    publisher = Publisher(side)
    intake = publisher.intake
    intake.receive_max = 2
    intake.feed(publish(b"a", b"x", 1, 1))
    ticket = intake.admit(2, 0x50)
    assert intake.paused
    intake.settle(ticket, 0, True)
    assert publisher.turn.resumes == []
    publisher.settle()
    assert publisher.turn.resumes == [intake]
    assert [answer.packet_id for answer in publisher.answers()] == [1, 2]
    intake.resume()
    intake.feed(publish(b"a", b"y", 1, 3))
    assert (intake.paused, intake.outstanding) == (False, 1)


def test_an_answer_does_not_end_a_hold(side: Side) -> None:
    publisher = Publisher(side)
    publisher.intake.receive_max = 1
    publisher.intake.feed(publish(b"a", b"x", 1, 1))
    publisher.intake.hold(CLAIM)
    publisher.settle()
    assert publisher.turn.resumes == []
    publisher.intake.feed(b"\xc0\0")
    assert publisher.packets == []
    publisher.intake.let_go(CLAIM)
    publisher.intake.resume()
    assert publisher.packets == [(0xC0, b"")]


def starved(publisher: Publisher) -> None:
    publisher.intake.receive_max = 1
    publisher.intake.admit(1, 0x50)


HOLDS: dict[str, tuple[Callable[[Publisher], None], Callable[[Publisher], None]]] = {
    "admission": (
        lambda publisher: publisher.intake.hold(ADMISSION),
        lambda publisher: publisher.intake.let_go(ADMISSION),
    ),
    "claim": (
        lambda publisher: publisher.intake.hold(CLAIM),
        lambda publisher: publisher.intake.let_go(CLAIM),
    ),
    "throttle": (
        lambda publisher: publisher.intake.throttle(),
        lambda publisher: publisher.intake.release(),
    ),
    "receive maximum": (starved, lambda publisher: publisher.intake.settle(0, 0, True)),
    "core": (lambda publisher: publisher.intake.block(), lambda publisher: publisher.settle()),
}


@pytest.mark.parametrize("order", list(permutations(HOLDS, 3)), ids=", ".join)
def test_it_goes_on_when_all_that_hold_it_have_let_go(side: Side, order: tuple[str, ...]) -> None:
    publisher = Publisher(side)
    for name in order:
        HOLDS[name][0](publisher)
    publisher.intake.feed(b"\xc0\0")
    for name in order:
        assert publisher.packets == []
        HOLDS[name][1](publisher)
        if name == "core" or name == order[-1]:
            resumes, publisher.turn.resumes[:] = publisher.turn.resumes[:], []
            for intake in resumes:
                intake.resume()
    assert publisher.packets == [(0xC0, b"")]
    assert not publisher.intake.paused


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_blocked_builder_pauses_and_nothing_is_lost_or_repeated(side: Side, kept: int) -> None:
    publisher = Publisher(side, max_bytes=120)

    def full(builder: Kernel) -> None:
        publisher.flush(builder)
        builder.blocked = True

    publisher.builder.on_full = full
    data = b"".join(publish(b"a", b"%03d" % i, i % 2, i + 1) for i in range(40))
    publisher.intake.feed(data[:kept])
    publisher.intake.feed(data[kept:])
    pauses = 0
    while publisher.intake.paused:
        pauses += 1
        assert publisher.turn.resumes.pop() is publisher.intake
        publisher.intake.resume()
        assert publisher.intake.paused
        publisher.turn.resumes.clear()
        publisher.builder.blocked = False
        publisher.intake.resume()
    assert pauses > 5
    assert [payload for _, payload, _ in publisher.records()] == [b"%03d" % i for i in range(40)]
    assert publisher.cell(metrics.PACKETS_RECEIVED) == 40
    publisher.settle()
    assert [answer.packet_id for answer in publisher.answers()] == list(range(2, 41, 2))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x30\xff\xff\xff\xff", 0x81),
        (b"\x30\x80\x80\x80\x80\x01", 0x81),
        (b"\x30\xff\xff\xff\x7f", 0x95),
        (b"\x10\xf0\x4e", 0x95),
        (b"\x40\x02\0\0", 0x81),
        (publish(b"a", b"x", 1, 0), 0x81),
    ],
)
def test_malformed_input_closes_the_intake(
    side: Side, data: bytes, reason: int, whole: bool
) -> None:
    publisher = Publisher(side)
    publisher.intake.window = side.Window(publisher.turn, 1, 1, 1)
    data = publish(b"a", b"x", 1, 1) + data
    for part in [data] if whole else [data[:-1], data[-1:]]:
        publisher.intake.feed(part)
    publisher.intake.feed(MIXED)
    assert (publisher.malformed, publisher.intake.closed) == ([reason], True)
    assert len(publisher.records()) == 1


def test_largest_packet_is_taken_and_one_more_byte_is_not(side: Side) -> None:
    publisher = Publisher(side, max_packet=300)
    publisher.intake.feed(b"\xc0\xa9\x02" + bytes(297))
    assert publisher.packets == [(0xC0, bytes(297))]
    publisher.intake.feed(b"\xc0\xaa\x02")
    assert publisher.malformed == [0x95]


def test_remaining_length_may_be_longer_than_needed(side: Side) -> None:
    publisher = Publisher(side)
    publisher.intake.window = side.Window(publisher.turn, 10, 1000, 1000)
    publisher.intake.window.attach(publisher.outbox, 4, 10, 0, 0)
    publisher.intake.window.offer(run_of(side, publisher.turn, 1))
    publisher.intake.feed(b"\x40\x82\x00\x00\x02" + b"\xc0\x80\x00" + b"\x30\x84\x80\x00\0\1tx")
    assert publisher.intake.window.in_flight == 0
    assert publisher.packets == [(0xC0, b"")]
    assert publisher.records() == [(b"t", b"x", 0)]


def test_pubacks_go_to_the_window_and_let_it_send(side: Side) -> None:
    publisher = Publisher(side, version=5)
    window = side.Window(publisher.turn, 100, 10_000, 10_000)
    window.attach(publisher.outbox, 4, 2, 0, 0)
    publisher.intake.window = window
    window.offer(run_of(side, publisher.turn, 4))
    publisher.intake.feed(puback(3) + puback(2) + puback(77))
    assert (window.in_flight, window.queued) == (2, 0)
    publisher.intake.feed(b"\x40\x03\0\x04\x10")
    assert publisher.packets == [(0x40, b"\0\x04\x10")]


def test_handles_are_asked_for_once_and_again_when_stale_or_too_many(side: Side) -> None:
    publisher = Publisher(side)
    intake = publisher.intake
    intake.max_handles = 2
    for topic in (b"a", b"b", b"a", b"b", b"c", b"c", b"a"):
        intake.feed(publish(topic, b"x"))
    assert publisher.routes == [b"a", b"b", b"c", b"a"]
    publisher.handles[-1].stale = True
    intake.feed(publish(b"a", b"x") * 2)
    intake.forget()
    intake.feed(publish(b"a", b"x") * 2)
    assert publisher.routes[4:] == [b"a", b"a"]
    publisher.slow.add(b"s")
    intake.feed(publish(b"s", b"x") * 2)
    assert publisher.routes[6:] == [b"s", b"s"]
    assert publisher.packets == [(0x30, b"\0\1sx")] * 2


def test_a_handle_that_becomes_stale_in_a_run_ends_the_run(side: Side) -> None:
    publisher = Publisher(side, max_bytes=150)

    def full(builder: Kernel) -> None:
        publisher.flush(builder)
        publisher.handles[-1].stale = True

    publisher.builder.on_full = full
    publisher.intake.feed(publish(b"a", bytes(30)) * 9)
    assert len(publisher.routes) == len(publisher.batches) == 3
    assert len(publisher.records()) == 9


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("place", ["on_packet", "on_route", "on_full", "on_malformed"])
def test_connection_may_close_the_intake_in_any_callback(side: Side, place: str, kept: int) -> None:
    publisher = Publisher(side, max_bytes=1)
    calls: list[str] = []

    def closing(*_: object) -> Kernel:
        calls.append(place)
        publisher.intake.close()
        return side.Handle(b"a", publisher.builder)

    if place == "on_full":
        publisher.builder.on_full = closing
    else:
        setattr(publisher, place, closing)
    data = b"\xc0\0" if place == "on_packet" else b""
    data += publish(b"a", b"x", 1, 1) * 20 + b"\x30\xff\xff\xff\xff"
    publisher.intake.feed(data[:kept])
    publisher.intake.feed(data[kept:])
    publisher.intake.feed(data)
    assert calls == [place]
    assert publisher.intake.outstanding == 0
    assert publisher.intake.closed


@pytest.mark.parametrize("kept", [0, 1])
def test_hold_and_resume_within_a_packet_keep_the_order(side: Side, kept: int) -> None:
    publisher = Publisher(side)
    seen: list[bytes] = []

    def on_packet(first_byte: int, body: bytes) -> None:
        seen.append(body)
        publisher.intake.hold(CLAIM)
        if body == b"1":
            publisher.intake.feed(b"\xc0\x015")
        if body != b"3":
            publisher.intake.let_go(CLAIM)

    publisher.on_packet = on_packet  # type: ignore[method-assign]
    data = b"\xc0\x011\xc0\x012\xc0\x013\xc0\x014"
    publisher.intake.feed(data[:kept])
    publisher.intake.feed(data[kept:])
    assert seen == [b"1", b"2", b"3"]
    publisher.intake.let_go(CLAIM)
    publisher.intake.resume()
    assert seen == [b"1", b"2", b"3", b"4", b"5"]


def test_connection_may_admit_more_while_it_is_asked_for_a_reason(side: Side) -> None:
    publisher = Publisher(side, version=5)

    def settled(kind: int, packet_id: int, code: int, matched: bool) -> int:
        for i in range(100):
            publisher.intake.admit(i + 10, 0x40)
        return 0x87

    publisher.settled = settled  # type: ignore[method-assign]
    ticket = publisher.intake.admit(1, 0x40)
    publisher.intake.settle(ticket, 1, True)
    assert publisher.answers() == [Answer(0x40, 1, 0x87)]
    assert publisher.intake.outstanding == 100


def test_an_answer_may_be_given_whole_and_goes_out_in_its_turn(side: Side) -> None:
    publisher = Publisher(side, version=5)
    whole = b"\x40\x08\0\2\x87\x04\x1f\0\1n"

    def settled(kind: int, packet_id: int, code: int, matched: bool) -> int | bytes:
        return whole if packet_id == 2 else 0x10

    publisher.settled = settled  # type: ignore[method-assign,assignment]
    tickets = [publisher.intake.admit(packet_id, 0x40) for packet_id in (1, 2, 3)]
    publisher.intake.settle(tickets[1], 1, True)
    publisher.intake.settle(tickets[2], 0, True)
    assert publisher.outbox.take() == b""
    publisher.intake.settle(tickets[0], 0, False)
    assert publisher.outbox.take() == b"\x40\3\0\1\x10" + whole + b"\x40\2\0\3"
    late = publisher.intake.admit(2, 0x40)
    publisher.intake.admit(4, 0x40)
    publisher.intake.close()
    publisher.intake.settle(late, 1, True)
    assert publisher.outbox.take() == b""


def test_records_are_for_the_topic_of_the_handle(side: Side) -> None:
    publisher = Publisher(side)

    def on_route(topic: bytes) -> Kernel:
        publisher.routes.append(topic)
        return side.Handle(b"of/" + topic, publisher.builder)

    publisher.on_route = on_route  # type: ignore[method-assign]
    for topic in (b"a", b"a", b"b", b"of/a", b"a"):
        publisher.intake.feed(publish(topic, b"x", 0) * 2)
    assert [record[0] for record in publisher.records()] == (
        [b"of/a"] * 4 + [b"of/b"] * 2 + [b"of/of/a"] * 2 + [b"of/a"] * 2
    )
    assert publisher.routes == [b"a", b"b", b"of/a"]


def test_an_error_of_the_connection_is_raised_and_the_intake_lives(side: Side) -> None:
    publisher = Publisher(side)

    def on_packet(first_byte: int, body: bytes) -> None:
        raise RuntimeError(str(first_byte))

    publisher.on_packet = on_packet  # type: ignore[method-assign]
    publisher.intake.feed(b"\xc0")
    for data in (b"\0", b"\xc0\0"):
        with pytest.raises(RuntimeError, match="192"):
            publisher.intake.feed(data)
    publisher.intake.close()
    publisher.intake.feed(b"\xc0\0")
    assert publisher.intake.closed


def test_time_of_the_last_read_is_kept(side: Side) -> None:
    publisher = Publisher(side)
    publisher.turn.now_ms = 5
    publisher.intake.feed(b"\xc0")
    publisher.turn.now_ms = 9
    publisher.intake.resume()
    assert publisher.intake.last_read_ms == 5
