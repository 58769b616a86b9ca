"""Retained messages: kept, replaced, removed, bounded, and gone when their time has come."""

from array import array

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.broker.retained import Retained
from robustmq.broker.state import State
from robustmq.message.record import EXPIRES_AT, NO_HEADERS, RETAIN_BIT, header_block
from robustmq.settings.mqtt import MqttRetained
from robustmq.storage.memory_table import MemoryTable


def cells() -> memoryview:
    return memoryview(array("Q", bytes(8 * metrics.CELLS)))


def batch(*entries: tuple[str, str, int]) -> bytes:
    """A batch of retained records: topic, payload, time of expiry (0: never)."""
    builder = BatchBuilder(Turn(cells()), 0, 1 << 30, None)
    for topic, payload, expires in entries:
        headers = NO_HEADERS
        if expires:
            headers = header_block([(EXPIRES_AT, expires.to_bytes(8, "big"))])
        builder.append(topic.encode(), payload.encode(), headers, RETAIN_BIT | 1, 1_000)
    return builder.take()[0]


def kept(retained: Retained, topic_filter: bytes = b"#") -> dict[str, str]:
    records, rest = retained.page(topic_filter, b"", 1_000)
    assert rest is None
    return {record.key.decode(): record.value.decode() for record in records}


def bounded(count: int, size: int, row: memoryview) -> Retained:
    limits = MqttRetained(max_messages=count, max_bytes=size)
    return Retained(State(MemoryTable()), limits, row)


def test_the_last_one_stays_and_an_empty_one_removes() -> None:
    row = cells()
    retained = bounded(10, 1_000, row)
    retained.apply(batch(("a", "1", 0), ("b", "1", 0), ("a", "2", 0)), 0, 1)
    assert kept(retained) == {"a": "2", "b": "1"}
    assert row[metrics.RETAINED_MESSAGES] == 2
    assert row[metrics.RETAINED_BYTES] == 2 * (1 + 1 + 1)
    retained.apply(batch(("a", "", 0), ("never", "", 0)), 0, 1)
    assert kept(retained) == {"b": "1"}
    assert len(retained) == row[metrics.RETAINED_MESSAGES] == 1


def test_records_without_the_bit_are_not_kept() -> None:
    builder = BatchBuilder(Turn(cells()), 0, 1 << 30, None)
    builder.append(b"a", b"1", NO_HEADERS, 1, 1_000)
    builder.append(b"b", b"1", NO_HEADERS, RETAIN_BIT, 1_000)
    retained = bounded(10, 1_000, cells())
    retained.apply(builder.take()[0], 0, 1)
    assert kept(retained) == {"b": "1"}


def test_what_comes_late_a_second_time_has_the_place_that_subscribers_were_told() -> None:
    """Else whoever asked for what was retained up to there would find it no more."""
    retained = bounded(10, 1_000, cells())
    retained.apply(batch(("a", "1", 0)), 2, 5)
    retained.apply(batch(("a", "1", 0), ("b", "1", 0)), 2, 9, is_late=True)
    records, _ = retained.page(b"#", b"", 100)
    assert {record.key: record.position for record in records} == {b"a": 5, b"b": 9}


def test_a_record_has_its_place_in_the_stream_of_the_core_that_published_it() -> None:
    retained = bounded(10, 1_000, cells())
    retained.apply(batch(("a", "1", 0), ("b", "1", 0)), 0, 5)
    retained.apply(batch(("a", "2", 0)), 3, 2)
    records, _ = retained.page(b"#", b"", 100)
    found = {record.key: (record.source, record.position) for record in records}
    assert found == {b"a": (3, 2), b"b": (0, 5)}


def test_beyond_the_count_new_topics_are_refused_and_known_ones_replaced() -> None:
    row = cells()
    retained = bounded(2, 1_000, row)
    retained.apply(batch(("a", "1", 0), ("b", "1", 0), ("c", "1", 0), ("a", "2", 0)), 0, 1)
    assert kept(retained) == {"a": "2", "b": "1"}
    assert row[metrics.RETAINED_REFUSED] == 1


def test_beyond_the_bytes_a_stale_record_does_not_stay() -> None:
    row = cells()
    retained = bounded(10, 20, row)
    retained.apply(batch(("a", "1", 0), ("b", "1", 0)), 0, 1)
    retained.apply(batch(("a", "x" * 30, 0)), 0, 1)
    # What was retained for the topic before is not what was published last.
    assert kept(retained) == {"b": "1"}
    assert row[metrics.RETAINED_REFUSED] == 1
    assert row[metrics.RETAINED_BYTES] == 3
    retained.apply(batch(("a", "x" * 10, 0)), 0, 1)
    assert kept(retained) == {"a": "x" * 10, "b": "1"}


def test_records_go_when_their_time_has_come() -> None:
    row = cells()
    retained = bounded(10, 1_000, row)
    retained.apply(
        batch(("a", "1", 5_000), ("b", "1", 4_000), ("c", "1", 0), ("b", "2", 9_000)), 0, 1
    )
    seen = []
    for now_ms in (3_999, 4_999, 5_000, 20_000):
        retained.expire(now_ms, 100)
        seen.append((retained.next_expiry_ms, sorted(kept(retained).items())))
    assert seen == [
        (4_000, [("a", "1"), ("b", "2"), ("c", "1")]),
        (5_000, [("a", "1"), ("b", "2"), ("c", "1")]),
        (9_000, [("b", "2"), ("c", "1")]),
        (None, [("c", "1")]),
    ]
    assert row[metrics.RETAINED_MESSAGES] == 1
    assert row[metrics.RETAINED_EXPIRED] == 2


def test_expiry_keeps_to_its_budget() -> None:
    retained = bounded(100, 10_000, cells())
    retained.apply(batch(*((f"{number}", "1", 1_000) for number in range(10))), 0, 1)
    left = []
    for budget in (4, 0, 100):
        retained.expire(2_000, budget)
        left.append(len(retained))
    assert left == [6, 6, 0]


def test_a_topic_that_is_retained_anew_for_ever_does_not_grow() -> None:
    retained = bounded(10, 1_000, cells())
    for number in range(20_000):
        retained.apply(batch(("a", "1", 1_000_000 + number), ("b", "1", 5_000_000)), 0, 1)
    assert len(retained._expiries) < 2_000
    retained.expire(1_019_998, 100_000)
    assert kept(retained) == {"a": "1", "b": "1"}
    retained.expire(1_019_999, 100_000)
    assert kept(retained) == {"b": "1"}


def test_what_does_not_say_for_how_long_it_holds_goes_after_the_configured_time() -> None:
    table = MemoryTable()
    state = State(table)
    limits = MqttRetained(expiry_seconds=10)
    retained = Retained(state, limits, cells())
    # All were published at 1000.
    retained.apply(
        batch(("a", "1", 0), ("b", "1", 90_000), ("c", "1", 500), ("$SYS/version", "1", 0)), 0, 1
    )
    table.commit()
    table.completed()
    again = Retained(State(table), limits, cells())
    again.restore()
    for each in (retained, again):
        each.expire(10_999, 100)
        assert (kept(each), len(each)) == ({"a": "1", "b": "1"}, 3)
        each.expire(11_000, 100)
        assert (kept(each), len(each)) == ({"b": "1"}, 2)
