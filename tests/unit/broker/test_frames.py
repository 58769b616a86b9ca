"""Frames: what is written is what is read."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.broker import frames
from robustmq.broker.frames import Kind

calls = st.integers(0, (1 << 64) - 1)
names = st.binary(max_size=40)
u32 = st.integers(0, (1 << 32) - 1)


@given(calls, u32, st.booleans(), names)
def test_append(call: int, shard: int, retained: bool, batch: bytes) -> None:
    frame = frames.append(call, shard, retained, batch)
    assert frame[0] == Kind.APPEND
    assert frames.read_append(frame) == (call, shard, retained, batch)


@given(calls, st.integers(0, 255), st.lists(st.tuples(u32, u32), max_size=5))
def test_appended(call: int, code: int, unmatched: list[tuple[int, int]]) -> None:
    frame = frames.appended(call, code, unmatched)
    assert frame[0] == Kind.APPENDED
    assert frames.read_appended(frame) == (call, code, unmatched)


@given(calls, calls, st.booleans(), names)
def test_interest(call: int, position: int, flag: bool, name: bytes) -> None:
    assert frames.read_want(frames.want(call, flag, name)) == (call, flag, name)
    assert frames.read_wanted(frames.wanted(call, position)) == (call, position)
    assert frames.read_scan(frames.scan(call, position, name)) == (call, position, name)
    assert frames.read_retained(frames.retained(call, flag, name)) == (call, flag, name)
    assert frames.unwant(name) == bytes((Kind.UNWANT,)) + name


@given(calls, calls, st.booleans(), names, names)
def test_groups(call: int, member: int, ready: bool, key: bytes, batch: bytes) -> None:
    assert frames.read_member(frames.join(call, member, ready, key)) == (call, member, ready, key)
    assert frames.read_member(frames.leave(member, key)) == (0, member, False, key)
    assert frames.read_joined(frames.joined(call)) == call
    assert frames.read_assign(frames.assign(member, key, batch)) == (member, key, batch)
    assert frames.read_give_back(frames.give_back(key, batch)) == (key, batch)


def test_kinds_differ_in_the_first_byte() -> None:
    written = [
        frames.append(1, 1, False, b""),
        frames.appended(1, 0, []),
        frames.DELIVER_HEAD,
        frames.want(1, False, b"a"),
        frames.unwant(b"a"),
        frames.retained(1, True, b""),
        frames.wanted(1, 0),
        frames.join(1, 1, True, b"g"),
        frames.joined(1),
        frames.leave(1, b"g"),
        frames.assign(1, b"g", b""),
        frames.give_back(b"g", b""),
        frames.scan(1, 1, b"a"),
        frames.TOLD,
    ]
    assert [frame[0] for frame in written] == list(Kind)
