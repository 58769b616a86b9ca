"""A link equals a list of frames, whatever its connections do; garbage is a ProtocolError."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.errors import ProtocolError
from robustmq.net.peer_handshake import Handshake
from robustmq.net.peer_link import Link
from robustmq.net.peer_records import BODY_BYTES, Kind, Reader, Record, encode

RECORD = 64
FRAME = 600
SIDES = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("send"), SIDES, st.integers(0, FRAME)),
    st.tuples(st.just("write"), SIDES, st.integers(1, 4)),
    st.tuples(st.just("arrive"), SIDES, st.integers(1, 500)),
    st.tuples(st.just("acknowledge"), SIDES, st.just(0)),
    st.tuples(st.just("cut"), SIDES, st.integers(0, 700)),
    st.tuples(st.just("replace"), SIDES, st.just(0)),
)


class End:
    """One core: its link, what it has said in this life, and what it was told."""

    def __init__(self) -> None:
        self.link = Link(RECORD, FRAME)
        self.life = 0
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        self.reader = Reader(BODY_BYTES)
        self.arriving = bytearray()

    def begin(self) -> None:
        self.link.begin()
        self.said = []
        self.heard = []

    def read(self, length: int) -> None:
        self.reader.feed(bytes(self.arriving[:length]))
        del self.arriving[:length]
        while (record := self.reader.next()) is not None:
            self.heard += self.link.receive(record)


class World:
    """Two ends and a connection that breaks; the truth is what each has said."""

    def __init__(self) -> None:
        self.ends = (End(), End())
        self.number = 0

    def step(self, what: str, side: int, amount: int) -> None:
        one, other = self.ends[side], self.ends[1 - side]
        match what:
            case "send":
                self.number += 1
                frame = (self.number.to_bytes(4, "big") * (amount // 4 + 1))[:amount]
                one.said.append(frame)
                one.link.send(frame)
            case "write":
                for _ in range(amount):
                    if (record := one.link.take()) is not None:
                        other.arriving += encode(record) + record.body
            case "arrive":
                one.read(amount)
            case "acknowledge":
                record = one.link.acknowledgement()
                other.arriving += encode(record) + record.body
            case "cut":
                one.read(amount)
                self.reconnect()
            case "replace":
                # All that the earlier life said and that had come is taken before.
                other.read(len(other.arriving))
                assert other.heard == one.said[: len(other.heard)]
                one.begin()
                other.begin()
                self.reconnect()

    def reconnect(self) -> None:
        for end in self.ends:
            end.arriving.clear()
            end.reader = Reader(BODY_BYTES)
        one, other = self.ends
        one.link.connected(other.link.received)
        other.link.connected(one.link.received)

    def settle(self) -> None:
        for side, one in enumerate(self.ends):
            while one.link._again or one.link._queue or one.link._cut:
                self.step("write", side, 1)
        for one in self.ends:
            one.read(len(one.arriving))
        for side in (0, 1):
            self.step("acknowledge", side, 0)
        for one in self.ends:
            one.read(len(one.arriving))


@settings(deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_every_frame_comes_once_and_in_order(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    for step in steps:
        world.step(*step)
        for one, other in (world.ends, world.ends[::-1]):
            assert other.heard == one.said[: len(other.heard)]
    world.settle()
    for one, other in (world.ends, world.ends[::-1]):
        assert other.heard == one.said
        assert one.link.backlog_bytes == 0


RECORDS = st.builds(
    Record,
    st.sampled_from(Kind),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
    st.binary(max_size=80),
)


@given(st.lists(st.binary(max_size=60) | RECORDS, max_size=8), st.booleans())
def test_garbage_is_a_protocol_error(pieces: list[bytes | Record], acceptor: bool) -> None:
    link = Link(RECORD, FRAME)
    link.send(b"something")
    link.take()
    handshake = Handshake(b"secret", acceptor=acceptor)
    reader = Reader()
    with contextlib.suppress(ProtocolError):
        for piece in pieces:
            data = piece if isinstance(piece, bytes) else encode(piece) + piece.body
            reader.feed(data)
            while (record := reader.next()) is not None:
                for read in (handshake.read_hello, handshake.read_proof, handshake.read_welcome):
                    with contextlib.suppress(ProtocolError):
                        read(record)
                link.receive(record)
    assert link.received <= len(pieces)
