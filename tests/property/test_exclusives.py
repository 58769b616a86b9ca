"""Exclusive subscriptions while cores die: nobody has what another has, nothing stays locked."""

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.window import Window
from tests.fabric import Fabric

SESSIONS, FILTERS = 6, 3
sessions = st.integers(0, SESSIONS - 1)
filters = st.integers(0, FILTERS - 1)
cores = st.integers(0, 2)
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("claim"), sessions, filters),
    st.tuples(st.just("claim"), sessions, filters),
    st.tuples(st.just("release"), sessions, filters),
    st.tuples(st.just("crash"), cores, st.integers(0, 2)),
)


class Session:
    """A session on a core: what it has, and how many of its claims are not answered."""

    def __init__(self, fabric: Fabric, core: int, durable: bool) -> None:
        self.fabric = fabric
        self.core = core
        self.durable = durable
        self.has: set[bytes] = set()
        self.asks: list[bytes] = []
        self.answers: list[bool] = []
        self.key = 0
        self.begin()

    def begin(self) -> None:
        """A new window; that of a durable session has the number that it had."""
        node = self.fabric.nodes[self.core]
        if not (self.key and self.durable):
            node.keys += 1
            self.key = node.keys
        self.window = Window(node.turn, 10, 1_000, 1_000)
        self.window.key = self.key
        self.life = self.fabric.lives[self.core]

    def claim(self, topic_filter: bytes) -> None:
        """Subscribe, as `mqtt.subscriber` does."""
        self.asks.append(topic_filter)
        reply = partial(self.claimed, self.life, topic_filter)
        self.fabric.nodes[self.core].core.exclusives.claim(self.window, topic_filter, reply)

    def claimed(self, life: int, topic_filter: bytes, granted: bool) -> None:
        assert life == self.life, "an answer to an earlier life"
        self.asks.remove(topic_filter)
        self.answers.append(granted)
        if granted:
            self.has.add(topic_filter)

    def release(self, topic_filter: bytes) -> None:
        """Unsubscribe: what is asked for is answered first, as the intake is held."""
        if topic_filter in self.has and topic_filter not in self.asks:
            self.has.discard(topic_filter)
            exclusives = self.fabric.nodes[self.core].core.exclusives
            exclusives.release(self.window, topic_filter, self.durable)
            # What the session is on disk is written with the turn.
            self.fabric.turn(self.core)

    def restore(self) -> None:
        """The core has another life."""
        self.asks = []
        if not self.durable:
            self.has = set()
        self.begin()
        for topic_filter in self.has:
            self.fabric.nodes[self.core].core.exclusives.restore(self.window, topic_filter)


class World:
    """The fabric and its sessions, half of them durable."""

    def __init__(self, count: int) -> None:
        self.fabric = Fabric(count)
        self.sessions = [Session(self.fabric, i % count, i % 2 == 0) for i in range(SESSIONS)]

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(core % len(self.fabric.nodes), frames)

    def claim(self, who: int, which: int) -> None:
        self.sessions[who].claim(b"f%d" % which)

    def release(self, who: int, which: int) -> None:
        self.sessions[who].release(b"f%d" % which)

    def crash(self, core: int, lost: int) -> None:
        core %= len(self.fabric.nodes)
        mine = [session for session in self.sessions if session.core == core]
        self.fabric.crash(core, lost, [session.restore for session in mine])

    def check(self) -> None:
        """No filter is had twice."""
        held = [topic_filter for session in self.sessions for topic_filter in session.has]
        assert len(held) == len(set(held))


@settings(max_examples=200)
@given(st.integers(1, 3), st.lists(operations, min_size=10, max_size=60))
def test_one_session_has_a_filter_and_what_nobody_has_can_be_had(
    count: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(count)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        world.check()
    world.fabric.settle()
    world.check()
    assert not any(session.asks for session in world.sessions)
    for which in range(FILTERS):
        topic_filter = b"f%d" % which
        holders = [session for session in world.sessions if topic_filter in session.has]
        for session in world.sessions:
            session.answers.clear()
            session.claim(topic_filter)
        world.fabric.settle()
        (holder,) = [session for session in world.sessions if session.answers == [True]]
        assert holders in ([], [holder])
        holder.release(topic_filter)
        world.fabric.settle()
        other = world.sessions[(world.sessions.index(holder) + 1) % SESSIONS]
        other.claim(topic_filter)
        world.fabric.settle()
        assert topic_filter in other.has
