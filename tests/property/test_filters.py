"""Filters beside filters: what one covers, and where two meet, is what matching topics says."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from robustmq.message.topic import covers, matches, overlap

DEPTH = 4
# No filter has z: it stands for all other levels.
NAMES = ("a", "b", "", "$s", "z")
TOPICS = [
    b"/".join(each.encode() for each in levels)
    for depth in range(1, DEPTH + 1)
    for levels in product(NAMES, repeat=depth)
    if any(levels) or depth > 1
]
LEVELS = st.sampled_from(["a", "b", "", "$s", "+"])


@st.composite
def filters(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(LEVELS, max_size=DEPTH - 2))
    return "/".join([*parts, draw(st.sampled_from(["#", "+", "a", "b"]))]).encode()


@given(filters(), filters())
def test_two_filters_overlap_where_a_topic_matches_both(one: bytes, other: bytes) -> None:
    found = any(matches(one, topic) and matches(other, topic) for topic in TOPICS)
    assert overlap(one, other) == overlap(other, one) == found


@given(filters(), filters())
def test_a_filter_covers_one_that_matches_nothing_else(wide: bytes, narrow: bytes) -> None:
    found = all(matches(wide, topic) for topic in TOPICS if matches(narrow, topic))
    # By levels `+/#` has one more than `#`, although each topic has one.
    assert covers(wide, narrow) == found or (wide, narrow) == (b"+/#", b"#")
