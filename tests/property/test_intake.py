"""Intakes: any split of the input gives the same, garbage never crashes, kernel is twin."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.intake import CLAIM
from tests.datapath import SIDES, Kernel, puback, publish, run_of
from tests.publisher import Publisher

PACKETS = st.one_of(
    st.builds(
        publish,
        st.sampled_from([b"a", b"a/b", b"slow", b""]),
        st.binary(max_size=10),
        st.integers(0, 2),
        st.integers(0, 4),
        st.sampled_from([4, 5]),
        st.sampled_from([b"", b"", b"\x01\x01"]),
        st.booleans(),
        st.booleans(),
    ),
    # One that is not out yet would make what follows depend on how the input is split.
    st.builds(puback, st.sampled_from([0, 1, 2, 3, 4, 200])),
    st.just(b"\xc0\0"),
    st.sampled_from([b"\x40\x82\x00\0\2", b"\x30\xff\xff\xff\xff", b"\x62\x02\0\1", b"\x30"]),
    st.binary(max_size=6),
)
RUNS = st.builds(lambda packet, count: packet * count, PACKETS, st.integers(1, 5))
STREAMS = st.lists(RUNS, max_size=25).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
STEPS = st.lists(
    st.sampled_from(
        ["settle", "refuse", "block", "unblock", "resume", "hold", "let go", "stale", "forget"]
    ),
    min_size=13,
    max_size=13,
)


def publisher_of(kind: str, version: int, receive_max: int) -> Publisher:
    publisher = Publisher(kind, version, max_packet=60, max_bytes=150)
    publisher.intake.receive_max = receive_max
    publisher.intake.max_handles = 2
    publisher.slow.add(b"slow")
    window = publisher.side.Window(publisher.turn, 100, 10_000, 10_000)
    window.attach(publisher.outbox, version, 3, 0, 0)
    publisher.intake.window = window
    window.offer(run_of(publisher.side, publisher.turn, 8, version=version))
    return publisher


def step(publisher: Publisher, what: str) -> None:
    match what:
        case "settle" | "refuse":
            publisher.settle(code=what == "refuse")
        case "block" | "unblock":
            publisher.builder.blocked = what == "block"
        case "resume":
            resumes = list(publisher.turn.resumes)
            publisher.turn.resumes.clear()
            for intake in resumes or [publisher.intake]:
                intake.resume()
        case "hold":
            publisher.intake.hold(CLAIM)
        case "let go":
            publisher.intake.let_go(CLAIM)
        case "stale":
            for handle in publisher.handles:
                handle.stale = True
        case "forget":
            publisher.intake.forget()


def outcome(publisher: Publisher) -> tuple[Kernel, ...]:
    intake = publisher.intake
    return (
        publisher.records(),
        publisher.packets,
        publisher.malformed,
        publisher.routes,
        publisher.outbox.take(),
        intake.outstanding,
        intake.closed,
        intake.paused,
        intake.reasons,
        len(publisher.turn.resumes),
        list(publisher.turn.row),
    )


@pytest.mark.skipif(len(SIDES) < 2, reason="there is no compiled kernel to compare with")
@settings(max_examples=300)
@given(
    data=STREAMS,
    cuts=CUTS,
    steps=STEPS,
    version=st.sampled_from([4, 5]),
    receive_max=st.integers(1, 8),
)
def test_kernel_is_the_twin(
    data: bytes, cuts: list[int], steps: list[str], version: int, receive_max: int
) -> None:
    pair = [publisher_of(kind, version, receive_max) for kind in ("pure", "fast")]
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for i, what in zip(range(len(bounds) - 1), steps, strict=False):
        for publisher in pair:
            publisher.intake.feed(data[bounds[i] : bounds[i + 1]])
            step(publisher, what)
        assert outcome(pair[0]) == outcome(pair[1])


@pytest.mark.parametrize("kind", SIDES)
@given(data=STREAMS, cuts=CUTS, version=st.sampled_from([4, 5]))
def test_any_split_gives_the_same(kind: str, data: bytes, cuts: list[int], version: int) -> None:
    whole, parts = (publisher_of(kind, version, 1000) for _ in range(2))
    whole.intake.feed(data)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(bounds):
        parts.intake.feed(data[start:end])
    assert whole.records() == parts.records()
    assert whole.packets == parts.packets
    assert whole.malformed == parts.malformed
    # When the connection ends, acknowledgements of the same read do not let the window send.
    if not whole.malformed:
        assert whole.outbox.take() == parts.outbox.take()
