"""The fabric of a worker over real rings: order, own frames, and the lives of a peer."""

import mmap
from types import SimpleNamespace
from typing import Any

from robustmq.config import Config
from robustmq.metrics import FRAMES_RECEIVED
from robustmq.shm.doorbell import Doorbell
from robustmq.shm.region import Phase, Region
from robustmq.workers.links import Links

RING_BYTES = 4 * mmap.PAGESIZE
LIMIT_BYTES = 4_096


class Two:
    """Two endpoints on one region, and what the links of each hear."""

    def __init__(self) -> None:
        self.region = Region.create(2, RING_BYTES)
        self.bells = (Doorbell.create(), Doorbell.create())
        self.heard: list[tuple[int, object]] = []
        for endpoint in range(2):
            self.region.state(endpoint).epoch = 1

    def links(self, index: int) -> Links:
        """The links of the present life of an endpoint."""
        runtime = SimpleNamespace(turn_frames_bytes=LIMIT_BYTES)
        inheritance: Any = SimpleNamespace(
            index=index,
            workers=2,
            region=self.region,
            doorbells=self.bells,
            config=SimpleNamespace(runtime=runtime),
        )
        links = Links(inheritance)
        links.handle = lambda source, frame: self.heard.append((source, frame))
        links.replaced = lambda core: self.heard.append((core, "replaced"))
        return links

    def die(self, index: int) -> None:
        """What the supervisor does when a process has ended."""
        state = self.region.state(index)
        state.phase = Phase.STOPPED
        state.epoch += 1
        for bell in self.bells:
            bell.ring()


def say(links: Links, core: int, *frames: bytes) -> None:
    for frame in frames:
        links.send(core, frame)
    links.flush()


def test_the_limit_of_a_turn_is_below_the_configured_one() -> None:
    assert Config().runtime.turn_frames_bytes > LIMIT_BYTES


def test_frames_arrive_in_order_and_are_counted() -> None:
    two = Two()
    one, other = two.links(0), two.links(1)
    say(one, 1, b"a", b"b")
    one.send(0, b"own")
    assert other.receive()
    assert one.receive()
    assert two.heard == [(0, b"a"), (0, b"b"), (0, b"own")]
    assert two.region.counters(1)[FRAMES_RECEIVED] == 2
    assert not other.receive()
    assert not one.receive()


def test_all_that_a_life_said_is_heard_before_its_replacement() -> None:
    two = Two()
    other = two.links(1)
    frames = [bytes((number,)) * 1_000 for number in range(12)]
    say(two.links(0), 1, *frames)
    two.die(0)
    other.answer_bell()
    # It is more than one turn takes.
    assert len(b"".join(frames)) > LIMIT_BYTES
    assert two.heard == [*((0, frame) for frame in frames), (0, "replaced")]
    assert not other.receive()


def test_a_new_life_is_met_before_it_is_heard_even_if_the_bell_is_not_answered() -> None:
    two = Two()
    other = two.links(1)
    say(two.links(0), 1, b"old")
    two.die(0)
    say(two.links(0), 1, b"new")
    while other.receive():
        pass
    other.answer_bell()
    assert two.heard == [(0, b"old"), (0, "replaced"), (0, b"new")]


def test_a_new_life_that_has_spoken_is_heard_when_the_bell_is_answered() -> None:
    two = Two()
    other = two.links(1)
    say(two.links(0), 1, b"old")
    two.die(0)
    say(two.links(0), 1, b"new")
    other.answer_bell()
    while other.receive():
        pass
    assert two.heard == [(0, b"old"), (0, "replaced"), (0, b"new")]


def test_a_life_that_ended_before_this_one_began_is_not_heard() -> None:
    two = Two()
    say(two.links(0), 1, b"from a ghost")
    two.die(0)
    other = two.links(1)
    say(two.links(0), 1, b"hello")
    while other.receive():
        pass
    other.answer_bell()
    assert two.heard == [(0, b"hello")]


def test_what_was_said_to_an_earlier_life_is_not_heard_by_the_next() -> None:
    two = Two()
    one = two.links(0)
    two.links(1)
    say(one, 1, b"lost")
    two.die(1)
    next_life = two.links(1)
    assert not next_life.receive()
    one.answer_bell()
    say(one, 1, b"again")
    next_life.receive()
    assert two.heard == [(1, "replaced"), (0, b"again")]
