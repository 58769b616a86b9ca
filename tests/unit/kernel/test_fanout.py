"""Fan-out: one encoding for all who get it alike, options of the subscriptions, taps, headers."""

import pytest

from robustmq.errors import Corrupt
from tests.datapath import SIDES, Kernel, Publish, Side, batch_of, published


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


class Core:
    """A core with subscribers: a fan-out, and windows by name."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.turn = side.turn()
        self.described: list[tuple[bytes, int]] = []
        self.description: tuple[bytes, int, int] = (b"", 0, 0)
        self.asked: list[bytes] = []
        self.routes: dict[bytes, Kernel] = {}
        self.fanout = side.Fanout(self.turn, self.resolve, self.describe, 4)

    def resolve(self, topic: bytes) -> Kernel:
        self.asked.append(topic)
        return self.routes.get(topic) or self.side.Route([], [], 0)

    def describe(self, headers: bytes, version: int) -> tuple[bytes, int, int]:
        self.described.append((headers, version))
        return self.description

    def window(self, version: int = 4, key: int = 0, alias_max: int = 0) -> Kernel:
        window = self.side.Window(self.turn, 1000, 1 << 20, 1 << 20)
        window.key = key
        window.attach(self.side.Outbox(self.turn), version, 100, 0, alias_max)
        return window

    def group(self, *windows: Kernel, qos: int = 2, **options: Kernel) -> Kernel:
        version = windows[0].version if windows else 4
        return self.side.Group(
            version,
            qos,
            options.get("retain", False),
            options.get("no_local", False),
            options.get("identifiers", b""),
            list(windows),
            options.get("stored", False),
        )

    def subscribe(
        self, topic: bytes, *groups: Kernel, taps: Kernel = (), **options: Kernel
    ) -> None:
        self.routes[topic] = self.side.Route(list(groups), list(taps), **{"alias": 0, **options})

    def deliver(self, *records: tuple[Kernel, ...]) -> bytes:
        batch = batch_of(self.side, *records)
        self.fanout.deliver(batch)
        return batch


def got(window: Kernel) -> list[Publish]:
    return published(window.outbox.take(), window.version)


def test_versions_and_qos_are_the_subscribers(side: Side) -> None:
    core = Core(side)
    windows = {(version, qos): core.window(version) for version in (3, 4, 5) for qos in (0, 1, 2)}
    core.subscribe(b"t/1", *(core.group(window, qos=qos) for (_, qos), window in windows.items()))
    core.deliver((b"t/1", b"zero", 0), (b"t/1", b"one", 1), (b"t/1", b"two", 2))
    for (_, limit), window in windows.items():
        packets = got(window)
        assert [packet.payload for packet in packets] == [b"zero", b"one", b"two"]
        assert [packet.qos for packet in packets] == [min(limit, qos) for qos in (0, 1, 2)]
        assert {packet.topic for packet in packets} == {b"t/1"}
        ids = [packet.packet_id for packet in packets if packet.qos]
        assert len(set(ids)) == len(ids)
    # A version's encodings with an identifier: QoS 1 of `one`, QoS 1 and QoS 2 of `two`.
    assert core.turn.sequence == 3 * 3


def test_retain_flag_is_kept_only_as_published(side: Side) -> None:
    core = Core(side)
    plain, kept = core.window(5), core.window(5)
    core.subscribe(b"t", core.group(plain), core.group(kept, retain=True))
    core.deliver((b"t", b"x", 4 | 1), (b"t", b"y", 1))
    assert [packet.retain for packet in got(plain)] == [False, False]
    assert [packet.retain for packet in got(kept)] == [True, False]


def test_identifiers_are_written_behind_the_other_properties(side: Side) -> None:
    core = Core(side)
    one, two = core.window(5), core.window(5)
    core.description = (b"\x03\0\1c", 0, 0)
    core.subscribe(
        b"t", core.group(one, identifiers=b"\x0b\x07"), core.group(two, identifiers=b"\x0b\x08")
    )
    core.deliver((b"t", b"x", 0), (b"t", b"y", 0, b"\x02\x02a\x02b"))
    assert [packet.properties for packet in got(one)] == [b"\x0b\x07", b"\x03\0\1c\x0b\x07"]
    assert [packet.properties for packet in got(two)] == [b"\x0b\x08", b"\x03\0\1c\x0b\x08"]


def test_groups_that_get_the_same_bytes_share_one_encoding(side: Side) -> None:
    core = Core(side)
    windows = [core.window(5) for _ in range(4)]
    core.subscribe(
        b"t",
        core.group(windows[0], qos=2),
        core.group(windows[1], qos=1, retain=True),
        core.group(windows[2], qos=1, no_local=True),
        core.group(windows[3], qos=0),
    )
    core.deliver((b"t", b"x", 1), (b"t", b"y", 1))
    assert core.turn.sequence == 2
    packets = [got(window) for window in windows]
    assert packets[0] == packets[1] == packets[2]
    assert [packet.qos for packet in packets[3]] == [0, 0]


def test_a_large_run_is_one_object_for_all(side: Side) -> None:
    core = Core(side)
    windows = [core.window() for _ in range(3)]
    core.subscribe(b"t", core.group(*windows))
    core.deliver(*((b"t", bytes(500), 0) for _ in range(10)))
    assert all(len(got(window)) == 10 for window in windows)
    assert len({window.outbox.size for window in windows}) == 1


def test_overlapping_subscriptions_have_identifiers_of_their_own(side: Side) -> None:
    core = Core(side)
    window = core.window()
    core.subscribe(b"t", core.group(window), core.group(window))
    core.deliver((b"t", b"x", 1), (b"t", b"y", 1))
    packets = got(window)
    assert [packet.payload for packet in packets] == [b"x", b"y", b"x", b"y"]
    assert len({packet.packet_id for packet in packets}) == 4


def test_no_local_passes_over_the_publisher_alone(side: Side) -> None:
    core = Core(side)
    mine, other, unknown = core.window(5, key=7), core.window(5, key=8), core.window(5, key=0)
    core.subscribe(b"t", core.group(mine, other, unknown, no_local=True))
    core.description = (b"", 0, 7)
    core.deliver((b"t", b"x", 0, b"\x02\0\0"))
    core.description = (b"", 0, 0)
    core.deliver((b"t", b"y", 0, b"\x02\0\0"), (b"t", b"z", 0))
    assert [packet.payload for packet in got(mine)] == [b"y", b"z"]
    assert [packet.payload for packet in got(other)] == [b"x", b"y", b"z"]
    assert [packet.payload for packet in got(unknown)] == [b"x", b"y", b"z"]


def test_taps_are_told_where_the_records_lie(side: Side) -> None:
    core = Core(side)
    taps: list[tuple[bytes, int, int, int]] = []
    core.subscribe(b"t", taps=[lambda *where: taps.append(where)])
    batch = core.deliver((b"x", b"0", 0), (b"t", b"1", 0), (b"t", b"2", 0), (b"t", b"3", 1))
    assert [count for _, _, _, count in taps] == [2, 1]
    assert all(where is batch for where, _, _, _ in taps)
    assert (taps[0][2], taps[1][2]) == (taps[1][1], len(batch))
    cut = [side.cut(batch, start, count) for _, start, _, count in taps]
    found = side.records(side.gather(batch, cut[0] + cut[1]))
    assert [record[4] for record in found] == [b"1", b"2", b"3"]


def test_description_is_asked_for_each_version_and_gives_the_expiry(side: Side) -> None:
    core = Core(side)
    old, new = core.window(4), core.window(5)
    core.subscribe(b"t", core.group(old), core.group(new))
    block = b"\x02\0\0\0\x0a\x01\x01"
    core.description = (block, core.turn.now_ms + 4_000, 0)
    headers = b"\x02\x02h\x02v"
    core.deliver((b"t", b"x", 1, headers), (b"t", b"y", 0, headers))
    assert core.described == [(headers, 4), (headers, 5)] * 2
    assert [packet.payload for packet in got(old)] == [b"x", b"y"]
    assert [packet.properties for packet in got(new)] == [b"\x02\0\0\0\x04\x01\x01"] * 2
    core.turn.now_ms += 4_000
    core.deliver((b"t", b"z", 1, headers))
    assert (got(old), got(new)) == ([], [])


def test_expiry_is_never_written_into_a_payload(side: Side) -> None:
    core = Core(side)
    window = core.window(5)
    core.subscribe(b"t", core.group(window))
    core.description = (b"", core.turn.now_ms + 9_000, 0)
    core.deliver((b"t", b"\x02payload", 1, b"\x02\0\0"), (b"t", b"\x02payload", 0, b"\x02\0\0"))
    assert [packet.payload for packet in got(window)] == [b"\x02payload"] * 2


def test_alias_is_for_version_5_alone(side: Side) -> None:
    core = Core(side)
    old, new = core.window(4), core.window(5, alias_max=9)
    core.subscribe(b"topic", core.group(old), core.group(new), alias=9)
    core.deliver((b"topic", b"x", 0), (b"topic", b"y", 0))
    assert [packet.topic for packet in got(old)] == [b"topic", b"topic"]
    assert [packet.topic for packet in got(new)] == [b"topic", b""]


def test_origin_and_source_lead_back_to_the_records(side: Side) -> None:
    core = Core(side)
    window = core.window()
    group = object()
    route = side.Route([core.group(window)], [], 0, group)
    batch = batch_of(side, (b"o", b"0", 0), (b"t", b"1", 1), (b"t", b"2", 1))
    window.detach()
    core.fanout.deliver_to(route, batch)
    taken = window.withdraw(group)
    assert core.asked == []
    payloads = []
    for run, index in taken:
        whole, position, skipped = run.source
        raw = side.cut(whole, position, skipped + index + 1)[-1]
        payloads.append(side.records(side.gather(whole, [raw]))[0][4])
    assert payloads == [b"1", b"2"]
    window.offer(side.Run(b"0\3\0\1t", [5], 0, 0))
    assert window.queued == 0


def test_private_copies_keep_their_source(side: Side) -> None:
    core = Core(side)
    window = core.window()
    group = object()
    core.subscribe(b"t", core.group(window), origin=group)
    core.deliver((b"t", b"0", 1))
    core.turn.sequence = 65_534
    window.attach(side.Outbox(core.turn), 4, 3, 0, 0)
    core.deliver(*((b"t", b"%d" % i, 1) for i in range(5)))
    window.detach()
    taken = window.withdraw(group)
    records = [
        side.cut(run.source[0], run.source[1], run.source[2] + i + 1)[-1] for run, i in taken
    ]
    assert [raw[-2:-1] for raw in records] == [b"0", b"0", b"1", b"2", b"3", b"4"]


def test_routes_are_kept_until_forgotten_and_bounded(side: Side) -> None:
    core = Core(side)
    for _ in range(2):
        core.deliver((b"a", b"", 0), (b"b", b"", 0), (b"a", b"", 0))
    assert core.asked == [b"a", b"b"]
    core.fanout.forget(b"a")
    core.fanout.forget(b"nothing")
    core.deliver((b"a", b"", 0), (b"b", b"", 0))
    assert core.asked == [b"a", b"b", b"a"]
    core.fanout.forget()
    assert core.fanout.routes == {}
    core.deliver(*((b"%d" % i, b"", 0) for i in range(9)))
    assert len(core.fanout.routes) <= 4


def test_records_that_no_mqtt_client_can_get_are_passed_over(side: Side) -> None:
    core = Core(side)
    window = core.window()
    for topic in (b"t", b"k" * 65_536):
        core.subscribe(topic, core.group(window))
    header = batch_of(side, (b"t", b"x", 0))
    null = bytes((14, 0, 0, 0, 1, 2)) + b"v\0"
    keyed = side.cut(batch_of(side, (b"t", b"x", 0), (b"k" * 65_536, b"y", 0)), 61, 2)
    core.fanout.deliver(side.gather(header, [null, null, *keyed, null]))
    assert [packet.payload for packet in got(window)] == [b"x"]


def test_values_of_null_are_empty_payloads(side: Side) -> None:
    core = Core(side)
    window = core.window()
    core.subscribe(b"t", core.group(window))
    header = batch_of(side, (b"t", b"x", 0))
    core.fanout.deliver(side.gather(header, [bytes((14, 0, 0, 0, 2)) + b"t" + b"\x01\0"]))
    assert [(packet.topic, packet.payload) for packet in got(window)] == [(b"t", b"")]


def test_damaged_batches_are_corrupt(side: Side) -> None:
    core = Core(side)
    batch = batch_of(side, (b"t", b"x", 0), (b"t", b"y", 0))
    for cut in (0, 60, 61, 66, len(batch) - 1):
        with pytest.raises(Corrupt):
            core.fanout.deliver(batch[:cut])


def test_a_stored_group_gets_qos_1_and_2_from_its_inbox(side: Side) -> None:
    core = Core(side)
    live, stored = core.window(), core.window()
    group = core.group(stored, stored=True)
    core.subscribe(b"t", group, core.group(live))
    core.deliver((b"t", b"0", 0), (b"t", b"1", 1), (b"t", b"2", 2, b"\x02\0\0"), (b"t", b"3", 0))
    assert [packet.payload for packet in got(live)] == [b"0", b"1", b"2", b"3"]
    assert [packet.payload for packet in got(stored)] == [b"0", b"3"]
    # Nothing was encoded, nor described, for the stored group alone.
    assert (core.turn.sequence, len(core.described)) == (2, 1)
    assert (live.oldest, stored.oldest, stored.lagging) == (0, 0, False)
    batch = batch_of(side, (b"t", b"1", 1), (b"t", b"2", 2))
    core.fanout.deliver_to(side.Route([group], [], 0), batch)
    assert [packet.payload for packet in got(stored)] == [b"1", b"2"]
    assert stored.oldest == 0


def test_stored_runs_have_positions_over_the_whole_batch(side: Side) -> None:
    core = Core(side)
    window = core.window()
    records = [(b"%d" % (i // 2), b"%d" % i, 2) for i in range(6)]
    null = bytes((14, 0, 0, 0, 1, 2)) + b"v\0"
    batch = batch_of(side, *records)
    raw = side.cut(batch, 61, 6)
    route = side.Route([core.group(window)], [], 0)
    core.fanout.deliver_to(route, side.gather(batch, [null, *raw]), 100)
    ids = [packet.packet_id for packet in got(window)]
    assert core.turn.exact == [(window, 101 + i, ids[i]) for i in range(6)]
    assert window.oldest == 101


def test_one_record_is_encoded_with_the_identifier_that_it_had(side: Side) -> None:
    core = Core(side)
    group = core.group(core.window(5), retain=True, identifiers=b"\x0b\x07")
    batch = batch_of(side, (b"topic", b"x", 2 | 4))
    for packet_id in (1, 77, 65_535):
        run = core.fanout.encode(group, batch, 9, packet_id)
        assert (run.position, run.first_id, run.sequence, run.alias) == (9, packet_id, 0, 0)
        (packet,) = published(run.data, 5)
        expected = Publish(b"topic", b"x", 2, True, False, packet_id, b"\x0b\x07")
        assert packet == expected
    assert core.turn.sequence == 0
    core.description = (b"\x02\0\0\0\x05", core.turn.now_ms + 5_000, 0)
    run = core.fanout.encode(group, batch_of(side, (b"t", b"x", 1, b"\x02\0\0")), 9, 3)
    assert (run.qos, run.deadline) == (1, core.turn.now_ms + 5_000)
    assert run.data[run.expiry_at : run.expiry_at + 4] == b"\0\0\0\x05"


def test_what_cannot_be_encoded_with_an_identifier(side: Side) -> None:
    core = Core(side)
    group = core.group(core.window())
    good = batch_of(side, (b"t", b"x", 1))
    null = side.gather(good, [bytes((14, 0, 1, 0, 1, 2)) + b"v\0"])
    long = batch_of(side, (b"k" * 65_536, b"x", 1))
    for batch in (batch_of(side, (b"t", b"x", 0)), null, long):
        assert core.fanout.encode(group, batch, 1, 1) is None
    for batch, packet_id in ((good, 0), (good, 65_536), (side.gather(good, []), 1)):
        with pytest.raises(ValueError, match="one record"):
            core.fanout.encode(group, batch, 1, packet_id)
    for end in (0, 60, 61, len(good) - 1):
        with pytest.raises(Corrupt):
            core.fanout.encode(group, good[:end], 1, 1)


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        (b"$\1acme\1/a/b", b"a/b"), (b"$\1acme\1//a", b"/a"), (b"$\1acme\1$x/y", b"$x/y"),
        (b"$\1", b"$\1"), (b"$\1a", b"$\1a"), (b"$", b"$"), (b"$a", b"$a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
def test_clients_are_not_told_the_name_of_their_tenant(
    side: Side, topic: bytes, told: bytes, version: int, qos: int
) -> None:
    core = Core(side)
    window = core.window(version)
    core.subscribe(topic, core.group(window))
    core.deliver((topic, b"x", qos), (topic, b"y", qos))
    assert [(packet.topic, packet.payload) for packet in got(window)] == [
        (told, b"x"),
        (told, b"y"),
    ]


def test_a_run_knows_when_it_was_encoded_also_as_a_copy(side: Side) -> None:
    core = Core(side)
    core.turn.now_ms = 1_234
    window = core.window(5)
    core.subscribe(b"t", core.group(window, qos=1))
    core.deliver((b"t", b"x", 1))
    core.turn.now_ms = 9_999
    assert window.foremost(False).since == 1_234
    # Who returns in another version gets a translated copy of what it had not acknowledged.
    window.detach()
    window.attach(side.Outbox(core.turn), 4, 100, 0, 0)
    assert window.foremost(False).since == 1_234
