"""Windows under random operations: no id twice in flight, order, and the kernel is its twin."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath import SIDES, Answer, Kernel, Publish, Side, decode, publish, run_of

OFFER = st.tuples(
    st.just("offer"),
    st.integers(1, 12),
    st.sampled_from([0, 1, 1, 2]),
    st.sampled_from(["plain", "plain", "plain", "expiring", "large", "aliased", "shared"]),
)
STORED = st.tuples(
    st.just("stored"), st.integers(1, 12), st.sampled_from([0, 1, 1, 2]), st.integers(1, 300)
)
OPERATION = st.one_of(
    OFFER,
    OFFER,
    OFFER,
    st.tuples(st.just("again")),
    st.tuples(st.just("ack"), st.integers(0, 60), st.booleans()),
    st.tuples(st.just("ack"), st.just(0), st.just(False)),
    st.tuples(st.just("ack_all")),
    st.tuples(st.just("stranger"), st.integers(0, 65535)),
    st.tuples(st.just("jump"), st.sampled_from([1, 65_500, 65_534, 65_535, 65_536, 200_000])),
    st.tuples(st.just("detach")),
    st.tuples(
        st.just("attach"), st.integers(1, 30), st.sampled_from([0, 0, 60]), st.integers(0, 2)
    ),
    st.tuples(st.just("drain")),
    st.tuples(st.just("withdraw")),
    st.tuples(st.just("clock"), st.integers(1, 4_000)),
    st.tuples(st.just("clear")),
    STORED,
    STORED,
    st.tuples(st.just("lag"), st.booleans(), st.integers(0, 300)),
    st.tuples(st.just("handled")),
    st.tuples(
        st.just("restore"),
        st.lists(st.integers(1, 40), unique=True, max_size=6),
        st.integers(1, 300),
        st.integers(1, 2),
    ),
)
# Lists of no least size have five elements on average, and too few to fill a window.
OPERATIONS = st.lists(OPERATION, max_size=60) | st.lists(OPERATION, min_size=20, max_size=60)
ORIGIN = "group"


class Session:
    """A window with the client at its other end, who remembers what it has not answered."""

    def __init__(self, kind: str) -> None:
        self.side = Side(kind)
        self.turn = self.side.turn()
        self.window = self.side.Window(self.turn, 40, 4_000, 3_000)
        self.outbox: Kernel = None
        self.unanswered: list[tuple[int, int]] = []
        self.released: list[int] = []
        self.last: Kernel = None
        self.log: list[object] = []

    def read(self) -> None:
        """Take what was sent; fails when an identifier is used twice."""
        if self.outbox is None:
            return
        data = self.outbox.take()
        self.log.append(data)
        for packet in decode(data, 5):
            if isinstance(packet, Answer):
                assert packet.kind == 0x62
                assert packet.packet_id in self.released
            elif packet.qos:
                self.received(packet)
        assert len(self.unanswered) + len(self.released) == self.window.in_flight

    def received(self, packet: Publish) -> None:
        used = {packet_id for packet_id, _ in self.unanswered} | set(self.released)
        assert packet.packet_id not in used, "an identifier is in flight twice"
        self.unanswered.append((packet.packet_id, packet.qos))

    def offer(self, count: int, qos: int, kind: str) -> None:
        if kind == "expiring":
            # One packet with its expiry interval as first property.
            self.turn.sequence += bool(qos)
            sequence = self.turn.sequence if qos else 0
            data = publish(b"t", b"x", qos, sequence % 65535 + 1, 5, b"\x02\0\0\0\x09")
            position = data.index(b"\x02\0\0\0\x09") + 1
            ends = [len(data)]
            self.last = self.side.Run(data, ends, qos, sequence, self.turn.now_ms + 2_000, position)
        else:
            size = 100 if kind == "large" else 8
            self.last = run_of(self.side, self.turn, count, qos, b"topic", size, 5)
        if kind == "aliased":
            self.last.alias = 2
        if kind == "shared":
            self.last.origin = ORIGIN
        self.window.offer(self.last)

    def ack(self, index: int, refused: bool) -> None:
        if self.released and (index % 2 or not self.unanswered):
            packet_id = self.released.pop(index % len(self.released))
            assert self.window.pubcomp(packet_id)
        elif self.unanswered:
            packet_id, qos = self.unanswered.pop(index % len(self.unanswered))
            if qos == 1:
                assert self.window.puback(packet_id)
            else:
                assert self.window.pubrec(packet_id, refused)
                if not refused:
                    self.released.append(packet_id)
                    assert self.window.pubrec(packet_id, False)

    def stranger(self, packet_id: int) -> None:
        if packet_id not in {used for used, _ in self.unanswered}:
            assert not self.window.puback(packet_id)
            if packet_id not in self.released:
                assert not self.window.pubrec(packet_id, False)
                assert not self.window.pubcomp(packet_id)

    def attach(self, limit: int, max_packet: int, alias_max: int) -> None:
        self.read()
        self.unanswered.clear()
        self.outbox = self.side.Outbox(self.turn)
        self.window.attach(self.outbox, 5, limit, max_packet, alias_max)

    def stored(self, count: int, qos: int, position: int) -> None:
        run = run_of(self.side, self.turn, count, qos, b"topic", 8, 5)
        run.position = position
        self.window.offer(run)

    def restore(self, ids: list[int], position: int, qos: int) -> None:
        """Bring exchanges and messages back as after a restart, when nothing else waits."""
        if self.outbox is not None or self.window.queued or self.released:
            return
        for i, packet_id in enumerate(ids):
            if i % 2:
                self.window.release(packet_id)
                self.released.append(packet_id)
                continue
            data = publish(b"topic", b"old", qos, packet_id, 5)
            run = self.side.Run(data, [len(data)], qos, 0)
            run.position = position + i
            self.window.restore(run)

    def handled(self) -> None:
        """Take the window out of the turn's lists."""
        turn = self.turn
        exact = [rest for _, *rest in turn.exact]
        self.log.append((len(turn.hungry), len(turn.acknowledged), exact))
        for handled in (turn.hungry, turn.acknowledged, turn.exact):
            handled.clear()
        self.window.fed()
        self.window.noted()

    def withdraw(self) -> None:
        taken = self.window.withdraw(ORIGIN)
        assert all(run.origin == ORIGIN for run, _ in taken)
        self.log.append([run.packet(i) for run, i in taken])

    def do(self, operation: tuple[Kernel, ...]) -> None:
        match operation:
            case ("offer", count, qos, kind):
                self.offer(count, qos, kind)
            case ("again",):
                if self.last is not None:
                    self.window.offer(self.last)
            case ("ack", index, refused):
                self.ack(index, refused)
            case ("ack_all",):
                while self.unanswered or self.released:
                    self.ack(0, False)
                    self.read()
            case ("stranger", packet_id):
                self.stranger(packet_id)
            case ("jump", distance):
                self.turn.sequence += distance
            case ("detach",):
                self.read()
                self.unanswered.clear()
                self.window.detach()
                self.outbox = None
            case ("attach", limit, max_packet, alias_max):
                self.attach(limit, max_packet, alias_max)
            case ("drain",):
                self.read()
                self.window.pump()
            case ("withdraw",):
                self.withdraw()
            case ("stored", count, qos, position):
                self.stored(count, qos, position)
            case ("lag", lagging, position):
                self.window.lagging, self.window.resume = lagging, position
            case ("handled",):
                self.handled()
            case ("restore", ids, position, qos):
                self.restore(ids, position, qos)
            case ("clock", passed):
                self.turn.now_ms += passed
            case ("clear",):
                self.read()
                self.window.clear()
                self.unanswered.clear()
                self.released.clear()
        self.read()
        window = self.window
        self.log.append(
            (
                window.in_flight,
                window.queued,
                window.queued_bytes,
                window.dropped,
                window.lagging,
                window.resume,
                window.oldest,
                window.exchanges(),
                len(self.turn.hungry),
                len(self.turn.acknowledged),
                len(self.turn.exact),
                *self.turn.row,
            )
        )
        assert self.outbox is None or window.in_flight <= max(window.limit, len(self.released))


@pytest.mark.parametrize("kind", SIDES)
@settings(max_examples=150)
@given(operations=OPERATIONS)
def test_no_identifier_is_in_flight_twice(kind: str, operations: list[tuple[Kernel, ...]]) -> None:
    session = Session(kind)
    session.attach(10, 0, 2)
    for operation in operations:
        session.do(operation)
    session.do(("attach", 30, 0, 0))
    session.do(("ack_all",))
    assert session.window.in_flight == session.window.queued == session.window.queued_bytes == 0


@pytest.mark.skipif(len(SIDES) < 2, reason="there is no compiled kernel to compare with")
@settings(max_examples=300)
@given(operations=OPERATIONS)
def test_kernel_is_the_twin(operations: list[tuple[Kernel, ...]]) -> None:
    pure, fast = Session("pure"), Session("fast")
    for operation in [("attach", 10, 0, 2), *operations, ("attach", 9, 0, 0), ("ack_all",)]:
        pure.do(operation)
        fast.do(operation)
        assert pure.log == fast.log, operation


@pytest.mark.parametrize("kind", SIDES)
@settings(max_examples=100)
@given(
    jumps=st.lists(st.integers(0, 140_000), min_size=1, max_size=40),
    kept=st.sets(st.integers(0, 39), max_size=6),
    qos=st.sampled_from([1, 2]),
)
def test_an_old_message_keeps_its_identifier_to_itself(
    kind: str, jumps: list[int], kept: set[int], qos: int
) -> None:
    session = Session(kind)
    session.attach(50, 0, 0)
    for i, jump in enumerate(jumps):
        session.do(("offer", 3, qos, "plain"))
        session.do(("jump", jump))
        while len(session.unanswered) > len([old for old in kept if old <= i]):
            before = len(session.unanswered)
            session.do(("ack", 2 * (before - 1), False))
            if len(session.unanswered) == before:
                break
    counts = Counter(packet_id for packet_id, _ in session.unanswered)
    assert all(count == 1 for count in counts.values())
