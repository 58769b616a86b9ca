"""A move to another number of cores, row by row."""

from array import array
from collections.abc import Mapping

import pytest

from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker import backlogs
from robustmq.broker.backlogs import Part
from robustmq.broker.departure import Target
from robustmq.broker.log_relocation import Depots
from robustmq.broker.placement import Placement
from robustmq.broker.position_blocks import BLOCK_BITS, PositionBlocks
from robustmq.broker.relocation import Relocation
from robustmq.config import TopicRule
from robustmq.errors import Corrupt
from robustmq.message.record import NO_HEADERS, RETAIN_BIT
from robustmq.metrics import CELLS
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.memory_table import MemoryTable
from tests.held_logs import HeldLogs

BLOCK = 1 << BLOCK_BITS


class PlainSessions:
    """Sessions whose rows are as short as can be: a number, and a start (or nothing)."""

    def client(self, key: bytes, value: bytes) -> tuple[bytes, int]:
        return key[1:], int.from_bytes(value, "big")

    def subscription(self, key: bytes, value: bytes) -> tuple[bytes, int] | None:
        return (key[9:], int.from_bytes(value, "big")) if value else None

    def starting(self, value: bytes, start: int) -> bytes:
        return u64(start)


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def batch(*messages: tuple[str, str, int], timestamp: int = 1_000) -> bytes:
    """A batch of (topic, payload, attributes)."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * CELLS))), 0, 1 << 30, None)
    for topic, payload, attributes in messages:
        builder.append(topic.encode(), payload.encode(), NO_HEADERS, attributes, timestamp)
    return builder.take()[0]


def client_on(core: int, cores: int, other: str = "c") -> bytes:
    """A client id whose home is that core."""
    names = (f"{other}{number}".encode() for number in range(1_000))
    return next(name for name in names if Placement(cores).home_of(name) == core)


def moved(
    old: list[Mapping[bytes, bytes]], cores: int, rules: TopicRules | None = None
) -> list[dict[bytes, bytes]]:
    """The rows of the new cores."""
    new = [MemoryTable() for _ in range(cores)]
    Relocation(
        [MemoryTable(rows) for rows in old],
        [Target(table, table.commit) for table in new],
        sessions=PlainSessions(),
        depots=Depots([HeldLogs() for _ in old], [HeldLogs() for _ in new]),
        rules=rules or TopicRules(()),
        progress=lambda *_: None,
    ).run()
    return [dict(table.walk(b"", b"\xff" * 20)) for table in new]


def session(number: int, client_id: bytes, cursor: int, **starts: int) -> dict[bytes, bytes]:
    """The rows of a session with subscriptions (filter=start)."""
    rows = {b"s" + client_id: u64(number), b"C" + u64(number): u64(cursor)}
    for name, start in starts.items():
        rows[b"t" + u64(number) + name.encode()] = u64(start)
    return rows


def log_row(log: int, position: int, put: int, run: bytes) -> dict[bytes, bytes]:
    return {b"L" + u64(log) + u64(position): u64(put) + u64(100 * put) + run}


def test_a_session_takes_what_it_is_owed_and_no_more() -> None:
    runs = [batch(("a", str(each), 1)) for each in range(4)]
    old: dict[bytes, bytes] = {b"Fa": u64(3), b"Nlog": u64(50), b"Nposition": u64(9 * BLOCK)}
    old |= session(7, b"c", 12, a=5)
    for put, run in enumerate(runs):
        old |= log_row(3, 10 + put, put, run)
    old |= log_row(4, 10, 0, batch(("of nobody", "", 1)))
    (new,) = moved([old], 1)
    assert new == {
        b"sc": u64(7),
        # The block in which its subscription began had nothing that is owed, but is the same.
        b"t" + u64(7) + b"a": u64(BLOCK + 5),
        b"C" + u64(7): u64(BLOCK + 12),
        **log_row(50, BLOCK + 12, 2, runs[2]),
        **log_row(50, BLOCK + 13, 3, runs[3]),
        backlogs.row_key(7): backlogs.encode([Part(b"a", 50, BLOCK + 14)]),
        b"Nlog": u64(51),
        b"Nposition": u64(2 * BLOCK),
    }


def test_a_row_in_which_the_cursor_stands_goes_whole() -> None:
    run = batch(*(("a", str(each), 1) for each in range(5)))
    old = {b"Fa": u64(3), **session(7, b"c", 12, a=5), **log_row(3, 10, 0, run)}
    (new,) = moved([old], 1)
    assert new[b"L" + u64(1) + u64(BLOCK + 10)].endswith(run)
    assert new[b"C" + u64(7)] == u64(BLOCK + 12)
    assert backlogs.decode(new[backlogs.row_key(7)]) == [Part(b"a", 1, BLOCK + 15)]


def test_who_is_owed_nothing_has_no_backlog() -> None:
    old = {b"Fa": u64(3), **log_row(3, 10, 0, batch(("a", "", 1)))}
    old |= session(7, b"c", 11, a=5)
    old |= session(8, b"d", 5, a=11)
    old |= {b"t" + u64(9) + b"a": u64(1), b"se": u64(9)}
    old |= {b"t" + u64(66) + b"of nobody": u64(1), b"C" + u64(66): u64(1)}
    (new,) = moved([old], 1)
    assert not {key[:1] for key in new} & {b"L", b"M", b"B", b"F"}
    assert new[b"C" + u64(7)] == new[b"C" + u64(8)] == new[b"Nposition"] == u64(BLOCK)
    assert b"C" + u64(66) not in new


def test_sessions_of_different_cores_have_backlogs_of_their_own() -> None:
    one, two = batch(("a", "1", 1)), batch(("a", "2", 1))
    first = {b"Fa": u64(3), **log_row(3, 10, 0, one), **session(7, b"c", 1, a=1)}
    second = {b"Fa": u64(3), **log_row(3, 10, 0, two), **session(8, b"d", 1, a=1)}
    (new,) = moved([first, second], 1)
    assert backlogs.decode(new[backlogs.row_key(7)]) == [Part(b"a", 1, BLOCK + 11)]
    assert backlogs.decode(new[backlogs.row_key(8)]) == [Part(b"a", 2, 2 * BLOCK + 11)]
    assert new[b"L" + u64(1) + u64(BLOCK + 10)].endswith(one)
    assert new[b"L" + u64(2) + u64(2 * BLOCK + 10)].endswith(two)
    assert new[b"Nposition"] == u64(3 * BLOCK)


def test_a_run_that_logs_share_stays_shared_by_those_that_go() -> None:
    here, there = client_on(0, 2), client_on(1, 2)
    run = batch(("a", "x", 2))
    old = {b"Fa": u64(3), b"F#": u64(4), b"F+": u64(5)}
    old |= session(7, here, 1, a=1) | {b"t" + u64(7) + b"#": u64(1)}
    old |= session(8, there, 1) | {b"t" + u64(8) + b"+": u64(1)}
    for log in (3, 4, 5):
        old |= log_row(log, 10, 0, b"")
    # Log 6 has let go of it.
    old[b"B" + u64(10)] = b"\0\4" + u64(3) + u64(4) + u64(5) + u64(6) + run
    new = moved([old], 2)
    assert new[0][b"B" + u64(BLOCK + 10)] == b"\0\2" + u64(1) + u64(2) + run
    assert new[1][b"B" + u64(BLOCK + 10)] == b"\0\1" + u64(1) + run
    assert [len(rows[b"L" + u64(1) + u64(BLOCK + 10)]) for rows in new] == [16, 16]


def test_what_is_in_flight_and_received_follows_its_session() -> None:
    home = client_on(1, 2)
    old = session(7, home, 5 * BLOCK)
    exchange, received = b"X" + u64(7), b"u" + u64(7) + b"\0\1"
    old |= {exchange + u64(3): b"\0\1\1", exchange + u64(2 * BLOCK): b"\0\2\1", received: b""}
    old |= {b"X" + u64(9) + u64(3): b"\0\1\1"}
    _, new = moved([old], 2)
    assert new[exchange + u64(BLOCK + 3)] == b"\0\1\1"
    assert new[exchange + u64(2 * BLOCK)] == b"\0\2\1"
    assert new[received] == b""
    assert new[b"C" + u64(7)] == new[b"Nposition"] == u64(3 * BLOCK)
    assert b"X" + u64(9) + u64(3) not in new


def test_no_core_gives_a_number_again() -> None:
    old: list[Mapping[bytes, bytes]] = [
        {b"Nsession": u64(8), b"Nlog": u64(3)},
        {b"Nsession": u64(5)},
    ]
    for new in moved(old, 3):
        assert new == {b"Nsession": u64(8), b"Nlog": u64(3), b"Nposition": u64(BLOCK)}


def test_retained_messages_go_to_the_cores_of_their_topics() -> None:
    kept = {f"t/{each}".encode(): batch((f"t/{each}", "x", RETAIN_BIT)) for each in range(50)}
    placement = Placement(2)
    old: list[dict[bytes, bytes]] = [{}, {}]
    for topic, row in kept.items():
        old[placement.retained_core(topic)][b"T" + topic] = row
    new = moved([*old], 3)
    for core, rows in enumerate(new):
        for topic, row in kept.items():
            assert rows.get(b"T" + topic) == (
                row if Placement(3).retained_core(topic) == core else None
            )


def test_delayed_messages_keep_their_times_and_their_order() -> None:
    old: list[Mapping[bytes, bytes]] = [
        {b"D": u64(2), b"D" + u64(5) + u64(1): b"a", b"D" + u64(5) + u64(2): b"b"},
        {b"D": u64(1), b"D" + u64(7) + u64(1): b"other", b"Ndelayed": u64(2)},
        {b"D": u64(2), b"D" + u64(5) + u64(1): b"c", b"D" + u64(6) + u64(4): b"d"},
    ]
    first, second = moved(old, 2)
    values = [value for key, value in sorted(first.items()) if key[:1] == b"D"]
    assert values == [u64(4), b"a", b"c", b"b", b"d"]
    assert len({key for key in first if key[:1] == b"D"}) == 5
    assert second[b"D"] == u64(1)
    assert second[b"D" + u64(7) + u64(0)] == b"other"
    assert first[b"Ndelayed"] == second[b"Ndelayed"] == u64(3)


def test_taps_go_where_their_logs_go() -> None:
    rows = {b"Gtopic\0%d" % number: u64(number) for number in range(5)}
    for new, table in enumerate(moved([rows, {}], 3)):
        found = {key: value for key, value in table.items() if key.startswith(b"G")}
        assert found == {
            key: value
            for number, (key, value) in enumerate(rows.items())
            if Placement(3).log_core(b"topic", number) == new
        }


@pytest.mark.parametrize("kind", [b"\0", b"I", b"Z", b"v", b"\xfe"])
def test_a_row_of_an_unknown_kind_stops_the_move(kind: bytes) -> None:
    with pytest.raises(Corrupt, match="core 1 has rows of an unknown kind") as caught:
        moved([{}, {kind + b"key": b""}], 1)
    assert repr(kind) in str(caught.value)


@pytest.mark.parametrize("letter", [b"J", b"V"])
def test_what_waits_for_other_nodes_stops_the_move(letter: bytes) -> None:
    with pytest.raises(
        Corrupt, match=r"core 1 has messages for sessions.*as many workers as before"
    ):
        moved([{}, {letter + b"key": b""}], 1)


def once(epoch: int, call: int, what: bytes) -> dict[bytes, bytes]:
    return {b"O" + epoch.to_bytes(4, "big") + u64(call): what}


def test_what_was_not_confirmed_is_delivered_to_those_who_have_not_kept_it() -> None:
    here, there = client_on(0, 2), client_on(1, 2)
    earlier = batch(("a", "0", 2))
    publisher = session(7, here, 1, a=1) | {b"Fa": u64(3), b"F+": u64(4), b"Nposition": u64(20)}
    publisher |= {b"t" + u64(7) + b"+": u64(1)}
    publisher |= log_row(3, 10, 5, earlier)
    publisher |= {b"E\0\0": b"\0\0\0\2" + u64(3)}
    publisher |= once(1, 9, batch(("a", "seen long ago", 2)))
    publisher |= once(2, 3, batch(("a", "seen", 2)))
    publisher |= once(2, 4, batch(("a", "1", 2), ("b", "2", 2), ("c/d", "of nobody", 2)))
    other = session(8, there, 1, a=1) | {b"Fa": u64(3)}
    other |= {b"E\0\0": b"\0\0\0\2" + u64(4)}
    new = moved([publisher, other], 2)
    payloads: list[list[tuple[int, bytes | None]]] = []
    for rows in new:
        logs = sorted((key, value) for key, value in rows.items() if key[:1] == b"L")
        payloads.append(
            [(int.from_bytes(key[1:9], "big"), records(value[16:])[0][4]) for key, value in logs]
        )
        assert not {key[:1] for key in rows} & {b"O", b"E"}
    assert payloads == [[(1, b"0"), (1, b"1"), (2, b"1"), (2, b"2")], []]
    counters = new[0][b"L" + u64(1) + u64(BLOCK + 20)][:16]
    assert counters == u64(6) + u64(500 + len(earlier))


def test_a_core_that_had_not_made_its_logs_again_is_owed_what_was_not_confirmed() -> None:
    """It was killed right after a move, when another core had taken a message already."""
    publisher = once(1, 1, batch(("a", "1", 2), ("b/c", "2", 2)))
    early = session(7, b"c", 12, a=5) | {b"t" + u64(7) + b"+/c": u64(3), b"Nposition": u64(BLOCK)}
    early |= session(8, b"d", BLOCK, a=5)
    (new,) = moved([publisher, early], 1)
    found = {key: records(value[16:])[0][4] for key, value in new.items() if key[:1] == b"L"}
    assert {*found.values()} == {b"1", b"2"}
    parts = {number: backlogs.decode(new[backlogs.row_key(number)]) for number in (7, 8)}
    assert [part.topic_filter for part in parts[7]] == [b"+/c", b"a"]
    assert [part.topic_filter for part in parts[8]] == [b"a"]


def test_what_is_not_to_be_stored_is_not_delivered_late() -> None:
    rules = TopicRules((TopicRule(filter="m/#", engine="memory"),))
    old = session(7, b"c", 1) | {b"F#": u64(3), b"t" + u64(7) + b"#": u64(1)}
    old |= once(1, 1, batch(("m/a", "1", 2), ("a", "2", 0), ("b", "3", 1)))
    (new,) = moved([old], 1, rules)
    found = [records(value[16:])[0][4] for key, value in new.items() if key[:1] == b"L"]
    assert found == [b"3"]


def test_unconfirmed_retained_messages_are_kept_unless_newer_ones_are() -> None:
    old = {b"T" + name: batch((name.decode(), "old", RETAIN_BIT)) for name in (b"a", b"b")}
    old[b"Tnew"] = batch(("new", "later", RETAIN_BIT), timestamp=2_000)
    told = batch(
        ("a", "1", RETAIN_BIT | 2), ("b", "", RETAIN_BIT | 2), ("new", "1", RETAIN_BIT | 2),
        ("c", "1", RETAIN_BIT | 2), ("d", "1", 2),
    )  # fmt: skip
    (new,) = moved([old | once(1, 1, told)], 1)
    kept = {key[1:]: records(value)[0][4] for key, value in new.items() if key[:1] == b"T"}
    assert kept == {b"a": b"1", b"new": b"later", b"c": b"1"}


def test_blocks_keep_the_order_and_leave_gaps_out() -> None:
    blocks = PositionBlocks()
    blocks.mark(5 * BLOCK - 1, 5 * BLOCK + 2)
    blocks.mark(1 << 60, (1 << 60) + 1)
    assert blocks.settle(7) == 10
    assert blocks.move(5 * BLOCK - 1) == 8 * BLOCK - 1
    assert blocks.move(5 * BLOCK) == 8 * BLOCK
    assert blocks.move(1 << 60) == 9 * BLOCK
    assert blocks.move(0) == 7 * BLOCK
    assert blocks.move(1 << 59) == 9 * BLOCK
    assert blocks.move(1 << 61) == 10 * BLOCK


def test_parts_are_read_as_they_were_written() -> None:
    parts = [Part(b"a/#", 1, 1 << 60), Part(b"", 2, 3)]
    value = backlogs.encode(parts)
    assert backlogs.decode(value) == parts
    for cut in (1, 17, 20, len(value) - 1):
        with pytest.raises(Corrupt):
            backlogs.decode(value[:cut])


def test_every_new_core_knows_the_topics_that_were_made() -> None:
    rows: dict[bytes, bytes] = {b"Ya": b"1", b"Yb": b"2"}
    new = moved([rows, {}], 3)
    assert [{k: v for k, v in each.items() if k[:1] == b"Y"} for each in new] == [rows] * 3
