"""Batches: what goes in comes out, garbage is Corrupt, and the kernel is its twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.message.record import header_block
from tests.datapath import SIDES, Side
from tests.produced import record as encoded_record
from tests.produced import sealed

RECORDS = st.lists(
    st.tuples(
        st.binary(max_size=200),
        st.binary(max_size=300),
        st.binary(min_size=1, max_size=20),
        st.integers(0, 255),
        st.integers(-(1 << 62), 1 << 62),
    ),
    min_size=1,
    max_size=20,
)
Outcome = list[tuple[object, ...]] | None


def build(side: Side, records: list[tuple[bytes, bytes, bytes, int, int]]) -> bytes:
    builder = side.BatchBuilder(side.turn(), None, 1 << 30, None)
    for record in records:
        builder.append(*record)
    batch: bytes = builder.take()[0]
    return batch


def read(side: Side, batch: bytes) -> Outcome:
    try:
        found: Outcome = side.records(batch)
    except Corrupt:
        return None
    return found


@pytest.mark.parametrize("kind", SIDES)
@given(records=RECORDS)
def test_records_come_back(kind: str, records: list[tuple[bytes, bytes, bytes, int, int]]) -> None:
    side = Side(kind)
    found = side.records(build(side, records))
    assert found == [
        (attributes, timestamp, i, key, value, headers)
        for i, (key, value, headers, attributes, timestamp) in enumerate(records)
    ]


@pytest.mark.skipif(len(SIDES) < 2, reason="there is no compiled kernel to compare with")
@given(records=RECORDS)
def test_kernel_writes_the_bytes_of_the_twin(
    records: list[tuple[bytes, bytes, bytes, int, int]],
) -> None:
    assert build(Side("pure"), records) == build(Side("fast"), records)


@given(
    records=RECORDS,
    damage=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 4000),
)
def test_damage_is_read_alike_or_corrupt_alike(
    records: list[tuple[bytes, bytes, bytes, int, int]],
    damage: list[tuple[int, int]],
    length: int,
) -> None:
    batch = bytearray(build(Side("pure"), records))
    for at, byte in damage:
        batch[at % len(batch)] = byte
    for data in (bytes(batch), bytes(batch[:length])):
        found = [read(Side(kind), data) for kind in SIDES]
        assert all(each == found[0] for each in found)
        surveys = [survey(Side(kind), data) for kind in SIDES]
        assert all(each == surveys[0] for each in surveys)
        if len(data) >= 61:
            assert found[0] is None or len(found[0]) == int.from_bytes(data[57:61], "big")
        else:
            assert found[0] is None


@given(garbage=st.binary(max_size=200), count=st.integers(0, 5), start=st.integers(-5, 300))
def test_garbage_behind_a_header(garbage: bytes, count: int, start: int) -> None:
    batch = bytes(57) + count.to_bytes(4, "big") + garbage
    found = [read(Side(kind), batch) for kind in SIDES]
    assert all(each == found[0] for each in found)
    pieces = []
    for kind in SIDES:
        try:
            pieces.append(Side(kind).cut(batch, start, count))
        except Corrupt:
            pieces.append(None)
    assert all(each == pieces[0] for each in pieces)
    assert start >= 61 or pieces[0] is None
    highest = []
    for kind in SIDES:
        try:
            highest.append(Side(kind).max_qos(batch))
        except Corrupt:
            highest.append(None)
    assert all(each == highest[0] for each in highest)
    assert (highest[0] is None) == (found[0] is None)
    surveys = [survey(Side(kind), batch) for kind in SIDES]
    assert all(each == surveys[0] for each in surveys)
    assert surveys[0] is None or found[0] is not None


def survey(side: Side, batch: bytes) -> tuple[int, int, int] | None:
    """What a survey finds, wherever the batch lies; None: it is damaged."""
    found: list[tuple[int, int, int] | None] = []
    for each in (batch, memoryview(b"\x02" * 5 + batch + b"\x02" * 7)[5:-7]):
        try:
            oldest, newest, keyless = side.survey(each)
            found.append((oldest, newest, keyless))
        except Corrupt:
            found.append(None)
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("kind", SIDES)
@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=3),
            st.none() | st.binary(max_size=3),
            st.sampled_from([-1, 0, 1, 5, 1 << 40]),
            st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=2))),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_survey_says_the_times_and_how_many_have_no_key(
    kind: str,
    rows: list[tuple[bytes | None, bytes | None, int, list[tuple[bytes, bytes | None]]]],
) -> None:
    times = [time for _, _, time, _ in rows]
    encoded = b"".join(
        encoded_record(number, key, value, time - times[0], header_block(headers))
        for number, (key, value, time, headers) in enumerate(rows)
    )
    batch = sealed(encoded, len(rows), (0, times[0], max(times)), (-1, -1, -1))
    known = [time for time in times if time != -1]
    expected = (
        min(known, default=-1),
        max(known, default=-1),
        [row[0] for row in rows].count(None),
    )
    assert survey(Side(kind), batch) == expected
    assert survey(Side(kind), batch + b"x") is None


@pytest.mark.parametrize("kind", SIDES)
@given(records=RECORDS, first=st.integers(0, 19), count=st.integers(0, 20))
def test_a_slice_is_what_cut_and_gather_make(
    kind: str, records: list[tuple[bytes, bytes, bytes, int, int]], first: int, count: int
) -> None:
    side = Side(kind)
    batch = build(side, records)
    raw = side.cut(batch, 61, len(records))
    first = min(first, len(raw))
    chosen = raw[first : first + count]
    start = 61 + sum(map(len, raw[:first]))
    part = side.slice_of(batch, start, start + sum(map(len, chosen)), len(chosen))
    expected = side.gather(batch, chosen)
    assert part == (batch if len(chosen) == len(records) else expected)
    assert side.max_qos(part) == max(
        (each[3] & 3 for each in records[first : first + count]), default=0
    )
