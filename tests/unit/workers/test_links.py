"""The fabric of a worker over real rings: order, own frames, and the lives of a peer."""

import mmap
from types import SimpleNamespace
from typing import Any

from robustmq.broker.placement import Life
from robustmq.config import Config
from robustmq.message.core_number import global_core
from robustmq.metrics import FRAMES_RECEIVED
from robustmq.shm.doorbell import Doorbell
from robustmq.shm.region import Phase, Region
from robustmq.workers.links import Links
from robustmq.workers.peer_line import PeerNode
from tests.peer_shell import Shell, Street, nodes

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


class Nodes:
    """Core 0 of node 1, with links behind its rings, and a core of node 2."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, object]] = []
        self.street = Street()
        self.near, self.far = Shell(1), Shell(2)
        self.street.shells += [self.near, self.far]
        self.links = Two().links(0)
        self.links.handle = lambda source, frame: self.heard.append((source, frame))
        self.links.changed = lambda known: self.heard.append(("nodes", known))
        self.links.attach(self.near.peers)
        self.known = nodes((1, self.near.port), (2, self.far.port))
        self.core = global_core(2, 0)

    def tell(self, known: list[PeerNode]) -> None:
        for shell in self.street.shells:
            shell.peers.update("c", known)


def test_cores_of_other_nodes_are_reached_like_those_of_this_one() -> None:
    two = Nodes()
    links, core = two.links, two.core
    links.send(core, b"to nobody")
    assert (links.backlog(core), links.epoch(core), links.others) == (0, 0, 0)
    two.tell(two.known)
    assert not links.sleep()
    assert links.receive()
    assert two.heard == [("nodes", {1: Life(1, 1), 2: Life(1, 1)})]
    links.send(core, b"hello")
    assert links.backlog(core) == 5
    assert links.is_quiet, "nobody takes anything yet"
    two.street.until(lambda: two.far.frames(two.near.core) == [b"hello"], "came")
    two.street.until(lambda: links.backlog(core) == 0, "acknowledged")
    assert links.epoch(core) & 0xFFFF == 1
    ((_, told),) = links.walk(0, {})
    assert (told["node"], told["core"], told["connected"]) == (2, 0, True)
    two.far.peers.lines[two.near.core].send(b"answer")
    two.street.until(lambda: (core, b"answer") in two.heard, "answered")
    two.tell(two.known[:1])
    two.street.until(lambda: two.heard[-1] == ("nodes", {1: Life(1, 1)}), "gone")
    links.send(core, b"to nobody any more")
    links.flush()
    assert links.others == 0
    two.street.close()


def test_without_a_cluster_there_are_no_other_nodes() -> None:
    links = Two().links(0)
    links.send(global_core(5, 0), b"nowhere")
    assert list(links.walk(0, {})) == []
    assert links.is_quiet
    assert links.sleep()
