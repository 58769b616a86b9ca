"""Windows of sessions with an inbox: every stored position once and in order, whatever lags."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath import SIDES, Kernel, Publish, Side, decode, publish

MAX_QUEUED = 12
PAGE = 7
INBOX_OPERATION = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 6), st.integers(1, 2)),
    st.tuples(st.just("publish"), st.integers(1, 16), st.integers(1, 2)),
    st.tuples(st.just("ack"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("ack"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("complete"), st.integers(0, 30)),
    st.tuples(st.just("feed")),
    st.tuples(st.just("detach")),
    st.tuples(st.just("attach"), st.integers(1, 20)),
    st.tuples(st.just("restart")),
)
# Lists of no least size have five elements on average, and too few to fill a window.
INBOX_OPERATIONS = st.lists(INBOX_OPERATION, max_size=60) | st.lists(
    INBOX_OPERATION, min_size=20, max_size=60
)


class Stored(NamedTuple):
    """A message of the inbox."""

    position: int
    qos: int


class Reader:
    """A session with an inbox: its window, the rules as lists of messages, and the client."""

    def __init__(self, kind: str) -> None:
        self.side = Side(kind)
        self.inbox: list[Stored] = []
        self.exact: dict[int, int] = {}
        self.ids: dict[int, int] = {}
        self.firsts: list[int] = []
        self.latest = 0
        self.flight: list[Stored] = []
        self.redo: list[Stored] = []
        self.queue: list[Stored] = []
        self.released: list[int] = []
        self.open_window()

    def open_window(self) -> None:
        self.turn = self.side.turn()
        self.window = self.side.Window(self.turn, MAX_QUEUED, 1 << 30, 1 << 30)
        self.window.version = 4
        self.outbox: Kernel = None
        self.limit = 0
        self.lagging, self.resume = False, 0

    # ------------------------------------------------------------------ the rules

    def rule_offer(self, messages: list[Stored]) -> None:
        waiting = len(self.redo) + len(self.queue)
        if self.lagging:
            return
        if self.outbox is None or (waiting and waiting + len(messages) > MAX_QUEUED):
            self.lagging, self.resume = True, messages[0].position
        else:
            self.queue += messages

    def expected(self) -> list[tuple[Stored, bool]]:
        """Send what the rules have room for; return it, and whether it is sent again."""
        sent = []
        while self.outbox is not None and (self.redo or self.queue):
            if len(self.flight) + len(self.released) >= self.limit:
                break
            again = bool(self.redo)
            message = (self.redo or self.queue).pop(0)
            self.flight.append(message)
            sent.append((message, again))
        return sent

    def check(self) -> None:
        """Compare the window, what it has sent and what it has told with the rules."""
        expected = self.expected()
        exact = []
        if self.outbox is not None:
            packets = [p for p in decode(self.outbox.take()) if isinstance(p, Publish)]
            found = [(int(p.payload), p.qos, p.dup) for p in packets]
            assert found == [(m.position, m.qos, again) for m, again in expected]
            for packet, (message, again) in zip(packets, expected, strict=True):
                if again:
                    assert packet.packet_id == self.ids[message.position]
                    continue
                assert message.position > self.latest
                self.latest = message.position
                self.firsts.append(message.position)
                self.ids[message.position] = packet.packet_id
                if message.qos == 2:
                    exact.append((self.window, message.position, packet.packet_id))
        assert self.turn.exact == exact
        self.exact |= {position: packet_id for _, position, packet_id in self.turn.exact}
        self.turn.exact.clear()
        held = [*self.flight, *self.redo, *self.queue]
        window = self.window
        assert window.oldest == min((message.position for message in held), default=0)
        assert (window.lagging, window.resume) == (self.lagging, self.resume)
        assert window.queued == len(self.redo) + len(self.queue)
        assert window.exchanges() == self.released
        if self.outbox is not None:
            assert window.in_flight == len(self.flight) + len(self.released)
            used = [self.ids[message.position] for message in self.flight] + self.released
            assert len(set(used)) == len(used)

    # ------------------------------------------------------------------ what happens

    def run(self, messages: list[Stored]) -> Kernel:
        data, ends, sequence = b"", [], self.turn.sequence + 1
        for i, (position, qos) in enumerate(messages):
            data += publish(b"t", b"%d" % position, qos, (sequence + i) % 65535 + 1)
            ends.append(len(data))
        self.turn.sequence += len(messages)
        run = self.side.Run(data, ends, messages[0].qos, sequence)
        run.position = messages[0].position
        return run

    def offer(self, messages: list[Stored]) -> None:
        self.rule_offer(messages)
        self.window.offer(self.run(messages))
        self.check()

    def publish(self, count: int, qos: int) -> None:
        first = len(self.inbox) + 1
        messages = [Stored(first + i, qos) for i in range(count)]
        self.inbox += messages
        self.offer(messages)

    def lag(self, lagging: bool, resume: int) -> None:
        self.lagging, self.resume = lagging, resume
        self.window.lagging, self.window.resume = lagging, resume

    def feed(self) -> None:
        """Do for a hungry window what the owner of the inbox does.

        A window that said so may have something queued since, after a takeover.
        """
        hungry = self.lagging and self.outbox is not None and not (self.redo or self.queue)
        assert self.turn.hungry == [self.window] or not (hungry or self.turn.hungry)
        self.turn.hungry.clear()
        self.window.fed()
        if not hungry:
            return
        following = self.resume + PAGE
        self.lag(False, self.resume)
        runs: list[list[Stored]] = []
        for message in self.inbox[self.resume - 1 : following - 1]:
            last = runs[-1][-1] if runs else Stored(0, 0)
            if message.position in self.exact:
                continue
            if last == (message.position - 1, message.qos):
                runs[-1].append(message)
            else:
                runs.append([message])
        for messages in runs:
            self.offer(messages)
        if not self.lagging and following <= len(self.inbox):
            self.lag(True, following)
        self.window.pump()

    def detach(self) -> None:
        self.redo = self.flight + self.redo
        dropped = self.queue[0].position if self.queue else 0
        self.flight, self.queue, self.outbox = [], [], None
        if not self.lagging:
            self.lagging, self.resume = True, dropped
        elif dropped:
            self.resume = min(self.resume, dropped)
        self.window.detach()
        self.turn.hungry.clear()
        self.window.fed()
        self.check()
        if not self.resume:
            self.lag(True, len(self.inbox) + 1)

    def attach(self, limit: int) -> None:
        self.redo = self.flight + self.redo
        self.flight, self.limit = [], limit
        self.outbox = self.side.Outbox(self.turn)
        self.window.attach(self.outbox, 4, limit, 0, 0)

    def ack(self, index: int, refused: bool) -> None:
        if self.outbox is None or not self.flight:
            return
        message = self.flight.pop(index % len(self.flight))
        packet_id = self.ids[message.position]
        if message.qos == 1:
            assert self.window.puback(packet_id)
        else:
            assert self.window.pubrec(packet_id, refused)
            if not refused:
                self.released.append(packet_id)
        assert self.turn.acknowledged == [self.window]
        self.turn.acknowledged.clear()
        self.window.noted()

    def complete(self, index: int) -> None:
        if self.outbox is not None and self.released:
            assert self.window.pubcomp(self.released.pop(index % len(self.released)))

    def restart(self) -> None:
        """Read the session back: its cursor, and what is written of exact deliveries."""
        following = self.resume if self.lagging else len(self.inbox) + 1
        cursor = min(self.window.oldest or following, following)
        sent = [m for m in self.flight + self.redo if m.position in self.exact]
        self.firsts = [p for p in self.firsts if p < cursor or p in self.exact]
        self.latest = 0
        self.open_window()
        for message in sent:
            packet_id = self.exact[message.position]
            data = publish(b"t", b"%d" % message.position, 2, packet_id)
            run = self.side.Run(data, [len(data)], 2, 0)
            run.position = message.position
            self.window.restore(run)
        for packet_id in self.released:
            self.window.release(packet_id)
        self.flight, self.redo, self.queue = [], sent, []
        self.lag(True, cursor)

    def do(self, operation: tuple[Kernel, ...]) -> None:
        name, *arguments = operation
        getattr(self, name)(*arguments)
        self.check()


@pytest.mark.parametrize("kind", SIDES)
@settings(max_examples=200)
@given(operations=INBOX_OPERATIONS)
def test_a_client_gets_every_stored_position_once_and_in_order(
    kind: str, operations: list[tuple[Kernel, ...]]
) -> None:
    reader = Reader(kind)
    for operation in [("attach", 5), *operations, ("attach", 5)]:
        reader.do(operation)
    while reader.lagging or reader.flight or reader.released:
        reader.do(("feed",))
        reader.do(("ack", 0, False))
        reader.do(("complete", 0))
    assert sorted(reader.firsts) == [message.position for message in reader.inbox]
    assert reader.window.oldest == reader.window.queued == reader.window.queued_bytes == 0
