"""Interest: every record goes to exactly the cores that want it, and the kernel is its twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from tests.datapath import SIDES, Side, batch_of

TOPICS = [b"", b"a", b"b", b"ab", b"c"]
KEPT = 1 << 16 | 1
"""A target need not be a small number: the broker says in a bit that a core must keep a part."""

TUPLES = [(), (0,), (1,), (0, 1), (2, 0), (KEPT,), (0, KEPT)]
RECORDS = st.lists(
    st.tuples(st.sampled_from(TOPICS), st.binary(max_size=9), st.integers(0, 7)),
    min_size=1,
    max_size=25,
)
TABLES = st.lists(st.sampled_from(TUPLES), min_size=5, max_size=5)


@pytest.mark.parametrize("kind", SIDES)
@given(records=RECORDS, table=TABLES)
def test_every_record_goes_where_it_is_wanted(
    kind: str, records: list[tuple[bytes, bytes, int]], table: list[tuple[int, ...]]
) -> None:
    side = Side(kind)
    wanted = dict(zip(TOPICS, table, strict=True))
    batch = batch_of(side, *records)
    out, unmatched = side.Interest(wanted.__getitem__, 3).split(batch)
    every = side.records(batch)
    assert len({core for core, _ in out}) == len(out)
    for core in (0, 1, 2, KEPT):
        got = [record for to, part in out for record in side.records(part) if to == core]
        assert got == [record for record in every if core in wanted[record[3]]]
    left = [i for i, record in enumerate(every) if not wanted[record[3]]]
    assert [i for start, stop in unmatched for i in range(start, stop)] == left


@pytest.mark.skipif(len(SIDES) < 2, reason="there is no compiled kernel to compare with")
@given(
    records=RECORDS,
    table=TABLES,
    damage=st.lists(st.tuples(st.integers(50, 400), st.integers(0, 255)), max_size=3),
)
def test_kernel_is_the_twin(
    records: list[tuple[bytes, bytes, int]],
    table: list[tuple[int, ...]],
    damage: list[tuple[int, int]],
) -> None:
    wanted = dict(zip(TOPICS, table, strict=True))
    data = bytearray(batch_of(Side("pure"), *records))
    for at, byte in damage:
        data[at % len(data)] = byte
    found = []
    for kind in SIDES:
        interest = Side(kind).Interest(lambda topic: wanted.get(topic, ()), 3)
        try:
            found.append(interest.split(bytes(data)))
        except Corrupt:
            found.append(None)
    assert found[0] == found[1]
