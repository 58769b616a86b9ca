"""Fan-out: every subscriber gets every record once and in order, and the kernel is its twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from tests.datapath import SIDES, Kernel, Side, batch_of, published

TOPICS = [b"a", b"b", b"long/topic/name"]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(TOPICS),
        st.binary(max_size=20),
        st.integers(0, 6).filter(lambda bits: bits != 3),
        st.sampled_from([b"\0", b"\0", b"\0", b"\x02\x02e\x02x", b"\x02\x02p\x02x"]),
    ),
    min_size=1,
    max_size=20,
)
GROUPS = st.lists(
    st.tuples(
        st.sampled_from([3, 4, 5, 5]),
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
        st.sampled_from([b"", b"\x0b\x01", b"\x0b\x02\x0b\x03"]),
        st.lists(st.integers(0, 4), max_size=3, unique=True),
        st.booleans(),
    ),
    max_size=5,
)
ROUTES = st.lists(st.tuples(GROUPS, st.integers(0, 2), st.booleans()), min_size=3, max_size=3)


class Core:
    """Five windows, 0 to 2 of MQTT 3 and the others of 5, on one side of the kernels."""

    def __init__(self, kind: str, routes: list[Kernel]) -> None:
        self.side = Side(kind)
        self.turn = self.side.turn()
        self.windows = []
        self.taps: list[tuple[int, int, int]] = []
        for i in range(5):
            window = self.side.Window(self.turn, 1000, 1 << 20, 1 << 20)
            window.key = i + 1
            window.attach(self.side.Outbox(self.turn), 4 if i < 3 else 5, 1000, 0, i)
            self.windows.append(window)
        self.routes = dict(zip(TOPICS, map(self.route, routes), strict=True))
        self.fanout = self.side.Fanout(self.turn, self.routes.__getitem__, self.describe, 2)

    def route(self, given_route: tuple[list[Kernel], int, bool]) -> Kernel:
        groups, alias, tapped = given_route
        made = []
        for version, *options, members, stored in groups:
            fitting = [self.windows[i] for i in members if (i >= 3) == (version == 5)]
            made.append(self.side.Group(version, *options, fitting, stored))
        tap = [lambda _, *where: self.taps.append(where)] if tapped else []
        return self.side.Route(made, tap, alias)

    def describe(self, headers: bytes, version: int) -> tuple[bytes, int, int]:
        if b"e" in headers:
            return b"\x02\0\0\0\x05" if version == 5 else b"", self.turn.now_ms + 5_000, 0
        return b"\x01\x01" if version == 5 else b"", 0, 4

    def outcome(self) -> list[Kernel]:
        return [
            *(window.outbox.take() for window in self.windows),
            [(window.oldest, window.lagging, window.resume) for window in self.windows],
            [(self.windows.index(window), *rest) for window, *rest in self.turn.exact],
            self.turn.sequence,
            self.taps,
            list(self.turn.row),
        ]


@pytest.mark.skipif(len(SIDES) < 2, reason="there is no compiled kernel to compare with")
@given(
    records=RECORDS,
    routes=ROUTES,
    damage=st.lists(st.tuples(st.integers(57, 400), st.integers(0, 255)), max_size=2),
    position=st.sampled_from([None, 0, 1, 1 << 40]),
)
def test_kernel_is_the_twin(
    records: list[Kernel],
    routes: list[Kernel],
    damage: list[tuple[int, int]],
    position: int | None,
) -> None:
    data = bytearray(batch_of(Side("pure"), *records))
    for at, byte in damage:
        data[at % len(data)] = byte
    found = []
    for kind in SIDES:
        core = Core(kind, routes)
        found.append((run(core, bytes(data), position), core.outcome()))
    assert found[0] == found[1]


def run(core: Core, data: bytes, position: int | None) -> str:
    for topic in {record[3] for record in _readable(core.side, data)}:
        core.routes.setdefault(topic, core.routes[b"a"])
    try:
        if position is None:
            core.fanout.deliver(data)
        else:
            core.fanout.deliver_to(core.routes[b"b"], data, position)
    except Corrupt:
        return "corrupt"
    except KeyError:
        return "no route"
    return "delivered"


def _readable(side: Side, data: bytes) -> list[Kernel]:
    try:
        found: list[Kernel] = side.records(data)
    except Corrupt:
        return []
    return [record for record in found if record[3] is not None]


@pytest.mark.parametrize("kind", SIDES)
@given(records=RECORDS, routes=ROUTES)
def test_every_subscriber_gets_every_record(
    kind: str, records: list[Kernel], routes: list[Kernel]
) -> None:
    core = Core(kind, routes)
    core.fanout.deliver(batch_of(core.side, *records))
    by_topic = dict(zip(TOPICS, routes, strict=True))
    for i, window in enumerate(core.windows):
        expected = []
        for topic, payload, bits, headers in records:
            for version, qos, _, no_local, _, members, stored in by_topic[topic][0]:
                mine = b"p" in headers and window.key == 4 and no_local
                elsewhere = mine or (stored and bits & 3)
                if i in members and (i >= 3) == (version == 5) and not elsewhere:
                    expected.append((topic, payload, min(qos, bits & 3)))
        packets = published(window.outbox.take(), window.version)
        assert sorted((packet.payload, packet.qos) for packet in packets) == sorted(
            (payload, qos) for _, payload, qos in expected
        )
        ids = [packet.packet_id for packet in packets if packet.qos]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", SIDES)
@given(records=RECORDS, routes=ROUTES, first=st.integers(1, 1 << 50))
def test_every_record_of_a_stored_batch_has_its_position(
    kind: str, records: list[Kernel], routes: list[Kernel], first: int
) -> None:
    core = Core(kind, routes)
    core.fanout.deliver_to(core.routes[b"a"], batch_of(core.side, *records), first)
    expected = []
    for at, (_, _, bits, headers) in enumerate(records):
        for version, qos, _, no_local, _, members, _ in routes[0][0]:
            for i in members:
                mine = b"p" in headers and core.windows[i].key == 4 and no_local
                if (i >= 3) == (version == 5) and not mine and min(qos, bits & 3) == 2:
                    expected.append((i, first + at))
    found = [(core.windows.index(window), position) for window, position, _ in core.turn.exact]
    assert sorted(found) == sorted(expected)
    ids = [(window, packet_id) for window, _, packet_id in core.turn.exact]
    assert len(set(ids)) == len(ids)
