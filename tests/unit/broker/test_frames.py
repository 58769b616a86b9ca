"""Frames: what is written is what is read."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.broker import frames
from robustmq.broker.frames import Kind, Number

calls = st.integers(0, (1 << 64) - 1)
names = st.binary(max_size=40)
u32 = st.integers(0, (1 << 32) - 1)
pairs = st.lists(st.tuples(calls, calls), max_size=5)


@given(u32, calls, calls, st.integers(0, 255), names)
def test_what_a_core_keeps(epoch: int, call: int, position: int, code: int, batch: bytes) -> None:
    for is_owed in (False, True):
        frame = frames.store(epoch, call, batch, is_owed)
        assert frames.read_store(frame) == ((epoch, call), is_owed, batch)
    for is_late in (False, True):
        frame = frames.retain(call, position, batch, is_late)
        assert frames.read_retain(frame) == (call, position, is_late, batch)
    assert frames.read_confirm(frames.confirm(call, code)) == (call, code)
    assert frames.read_keep(frames.keep(call, batch, batch + b"x")) == (call, batch, batch + b"x")
    assert list(frames.DELIVER_HEAD) == [Kind.DELIVER]


@given(calls, st.booleans(), st.booleans(), names)
def test_interest(call: int, durable: bool, retained: bool, name: bytes) -> None:
    frame = frames.want(call, durable, retained, name)
    assert frames.read_want(frame) == (call, durable, retained, name)
    assert frames.unwant(name) == bytes((Kind.UNWANT,)) + name


@given(calls, calls, st.lists(calls, max_size=5), pairs, st.booleans(), names)
def test_what_is_retained(  # noqa: PLR0917
    call: int,
    position: int,
    sent: list[int],
    until: list[tuple[int, int]],
    last: bool,
    name: bytes,
) -> None:
    assert frames.read_told(frames.told(position, 7)) == (position, 7)
    number = Number(last, position)
    wanted = frames.wanted(call, number, position, sent)
    assert frames.read_wanted(wanted) == (call, number, position, sent)
    assert frames.read_scan(frames.scan(call, until, name)) == (call, until, name)
    look = frames.look(call, until, sent, name)
    assert frames.read_look(look) == (call, dict(until), sent, name)
    assert frames.read_retained(frames.retained(call, last, name)) == (call, last, name)


@given(calls, calls, st.booleans(), st.booleans(), names)
def test_joins(call: int, member: int, ready: bool, durable: bool, key: bytes) -> None:
    frame = frames.join(call, member, ready, durable, key)
    assert frames.read_join(frame) == (call, member, ready, durable, key)
    assert frames.read_leave(frames.leave(member, key)) == (member, key)
    assert frames.read_claim(frames.claim(call, member, key)) == (call, member, key)
    assert frames.read_claimed(frames.claimed(call, ready)) == (call, ready)
    assert frames.read_release(frames.release(member, key)) == (member, key)
    assert frames.read_load(frames.load(member, call, member, key)) == (member, call, member, key)


@given(st.integers(0, (1 << 32) - 1), calls, calls, names, names)
def test_handovers(epoch: int, number: int, member: int, key: bytes, batch: bytes) -> None:
    frame = frames.hand(epoch, number, member, key, batch)
    assert frames.read_hand(frame) == (epoch, number, member, key, batch)
    assert frames.read_taken(frames.taken(epoch, number)) == (epoch, number)


@given(calls, names, names)
def test_groups(member: int, key: bytes, batch: bytes) -> None:
    assert frames.read_joined(frames.joined(member)) == member
    assert frames.read_settled(frames.settled(member)) == member
    assert frames.read_assign(frames.assign(member, key, batch)) == (member, key, batch)
    assert frames.read_give_back(frames.give_back(key, batch)) == (key, batch)


def test_kinds_differ_in_the_first_byte() -> None:
    written = [
        frames.store(1, 1, b""),
        frames.confirm(1, 0),
        frames.DELIVER_HEAD,
        frames.want(1, True, True, b"a"),
        frames.unwant(b"a"),
        frames.retained(1, True, b""),
        frames.wanted(1, Number(1, 1), 0, []),
        frames.join(1, 1, True, True, b"g"),
        frames.joined(1),
        frames.leave(1, b"g"),
        frames.assign(1, b"g", b""),
        frames.give_back(b"g", b""),
        frames.scan(1, [], b"a"),
        frames.told(1, 0),
        frames.retain(1, 1, b""),
        frames.keep(1, b"", b""),
        frames.hand(1, 1, 1, b"g", b""),
        frames.taken(1, 1),
        frames.load(1, 1, 1, b"g"),
        frames.claim(1, 1, b"a"),
        frames.claimed(1, True),
        frames.release(1, b"a"),
        frames.look(1, [], [], b"a"),
        frames.settled(1),
    ]
    assert [frame[0] for frame in written] == list(Kind)
