"""A link: what is kept, what is sent again, and what ends the connection."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.net.peer_link import Link
from robustmq.net.peer_records import HEAD_BYTES, Fault, Kind, Record, pack

RECORD = 100
FRAME = 1_000


def link() -> Link:
    return Link(RECORD, FRAME)


def taken(link: Link) -> list[Record]:
    return list(iter(link.take, None))


def test_the_frames_of_a_turn_are_one_record() -> None:
    one, other = link(), link()
    frames = [b"a", b"", b"bcd"]
    for frame in frames:
        one.send(frame)
    (record,) = taken(one)
    assert other.receive(record) == frames
    assert one.backlog_bytes == HEAD_BYTES + len(record.body)
    assert one.receive(other.acknowledgement()) == []
    assert one.backlog_bytes == 0
    assert other.owed_bytes == 0


def test_many_frames_are_several_records_and_a_large_one_is_cut() -> None:
    one, other = link(), link()
    frames = [bytes([n]) * size for n, size in enumerate((60, 60, 301, 0, 100, 101, 7))]
    for frame in frames:
        one.send(frame)
    waiting = one.backlog_bytes
    assert waiting == sum(map(len, frames))
    records = taken(one)
    assert [record.kind for record in records] == [
        Kind.FRAMES, Kind.FRAMES, Kind.MORE, Kind.MORE, Kind.MORE, Kind.LAST, Kind.FRAMES,
        Kind.MORE, Kind.LAST, Kind.FRAMES,
    ]  # fmt: skip
    assert [frame for record in records for frame in other.receive(record)] == frames


def test_what_was_not_acknowledged_is_sent_again_and_what_was_is_not() -> None:
    one, other = link(), link()
    for frame in (b"first", b"second", b"third"):
        one.send(frame)
        assert one.take() is not None
    records = list(one._kept)
    other.receive(records[0])
    one.connected(other.received)
    assert one.take() == records[1]
    assert one.resent == 1
    one.connected(other.received)
    assert taken(one) == records[1:]
    assert [frame for each in records[1:] for frame in other.receive(each)] == [b"second", b"third"]


def test_a_record_carries_what_was_taken() -> None:
    one, other = link(), link()
    one.send(b"question")
    other.receive(taken(one)[0])
    assert other.owed_bytes > 0
    other.send(b"answer")
    one.receive(taken(other)[0])
    assert other.owed_bytes == 0
    assert one.backlog_bytes == 0


def test_another_life_begins_with_nothing() -> None:
    one = link()
    one.send(b"x" * 350)
    assert one.take() is not None
    one.receive(Record(Kind.MORE, 1, 0, b"half"))
    one.begin()
    assert (one.backlog_bytes, one.received, one.owed_bytes) == (0, 0, 0)
    assert one.take() is None
    assert one.receive(Record(Kind.FRAMES, 1, 0, pack([b"whole"]))) == [b"whole"]


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (Record(Kind.FRAMES, 1, 0, pack([b"again"])), Fault.ORDER),
        (Record(Kind.FRAMES, 3, 0, pack([b"too early"])), Fault.ORDER),
        (Record(Kind.ACK, 0, 1, b""), Fault.ORDER),
        (Record(Kind.HELLO, 2, 0, b""), Fault.RECORD),
        (Record(Kind.FRAMES, 2, 0, b""), Fault.RECORD),
        (Record(Kind.LAST, 2, 0, bytes(FRAME + 1)), Fault.TOO_LARGE),
    ],
)
def test_what_cannot_be_ends_the_connection_and_changes_nothing(
    record: Record, fault: Fault
) -> None:
    one = link()
    one.receive(Record(Kind.FRAMES, 1, 0, pack([b"good"])))
    with pytest.raises(ProtocolError) as caught:
        one.receive(record)
    assert caught.value.reason == fault
    assert one.received == 1


def test_a_frame_that_is_cut_is_not_interrupted_or_endless() -> None:
    one = link()
    one.receive(Record(Kind.MORE, 1, 0, bytes(FRAME)))
    with pytest.raises(ProtocolError, match="within a frame that is cut"):
        one.receive(Record(Kind.FRAMES, 2, 0, pack([b"whole"])))
    with pytest.raises(ProtocolError, match="1001 bytes or more"):
        one.receive(Record(Kind.MORE, 2, 0, b"x"))
    assert one.receive(Record(Kind.LAST, 2, 0, b"")) == [bytes(FRAME)]


def test_more_than_was_sent_cannot_have_been_taken() -> None:
    one = link()
    with pytest.raises(ProtocolError, match="record 1 is acknowledged, 0 were sent"):
        one.connected(1)


def test_a_frame_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="a frame of 1001 bytes exceeds 1000"):
        link().send(bytes(FRAME + 1))
