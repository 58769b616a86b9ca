"""Sessions of a node that is gone, where what became of a proposal is heard late or never."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

import pytest

from robustmq.broker.api import Kept
from robustmq.message.session_record import SessionChange, SessionHead, SubscriptionRecord
from robustmq.meta.data import Batch
from robustmq.storage.memory_table import MemoryTable
from tests.simulation.cluster_memory import LONGEST_MS, Memory
from tests.simulation.site import Links, Seen, Site

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")
MINE, GONE = 1, 2
NOW_MS = 1_000_000


class Steady(Random):
    """Chance that lets every way take some milliseconds."""

    def choice(self, seq: "SupportsLenAndGetItem[T]") -> T:
        return seq[len(seq) // 2]


class Scene:
    """A node that is about to adopt the session of another, which was fenced."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.rng = Steady(1)
        self.memory = Memory(self.rng)
        self.memory.turn(NOW_MS)
        head = SessionHead(durable=True, expiry=60, ended_ms=NOW_MS, version=5)
        self.memory.apply(Batch(GONE, 1, [SessionChange("client", GONE, 1, 1, 0, head)]))
        self.memory.fence(GONE, 2)
        self.site = Site(
            MINE,
            1,
            links=Links(),
            memory=self.memory,
            table=MemoryTable(),
            now_ms=NOW_MS,
            will=lambda _: None,
            nodes=(MINE, GONE),
        )
        self.site.own()
        self.site.learn(1, {MINE: Seen(1, True), GONE: Seen(2, False)})
        self.site.adopt(GONE, self.memory.owned(GONE))

    def pass_ms(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now_ms += 1
            self.memory.turn(self.now_ms)
            self.site.turn(self.now_ms, self.rng, everything=True)

    def owner(self) -> int:
        row = self.memory.data.session("client")
        assert row is not None
        return row.owner

    def comes_back(self) -> None:
        """The node that was gone is live again."""
        self.memory.welcome(GONE, 2)
        self.site.learn(2, {MINE: Seen(1, True), GONE: Seen(2, True)})

    @property
    def has_it(self) -> bool:
        return self.site.mqtt.sessions.get("client") is not None


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_adopted_is_opened(scene: Scene) -> None:
    scene.pass_ms(LONGEST_MS)
    assert (scene.owner(), scene.has_it) == (MINE, True)


def test_an_adoption_that_was_not_heard_of_counts_although_the_node_is_back(scene: Scene) -> None:
    while scene.owner() == GONE:
        scene.pass_ms(1)
    scene.site.is_cut = True
    scene.comes_back()
    assert not scene.site.roaming.is_ready, "somebody could begin the session anew here"
    scene.pass_ms(LONGEST_MS)
    scene.site.is_cut = False
    scene.pass_ms(2 * LONGEST_MS)
    assert (scene.owner(), scene.has_it, scene.site.roaming.is_ready) == (MINE, True, True)


def test_an_adoption_that_comes_too_late_is_none(scene: Scene) -> None:
    scene.comes_back()
    assert not scene.site.roaming.is_ready
    scene.pass_ms(2 * LONGEST_MS)
    assert (scene.owner(), scene.has_it, scene.site.roaming.is_ready) == (GONE, False, True)


def test_what_the_own_return_has_opened_is_not_opened_again(scene: Scene) -> None:
    while scene.owner() == GONE:
        scene.pass_ms(1)
    scene.site.is_cut = True
    scene.pass_ms(LONGEST_MS)
    scene.site.is_cut = False
    scene.site.own()
    session = scene.site.mqtt.sessions.get("client")
    assert session is not None
    scene.pass_ms(2 * LONGEST_MS)
    assert scene.site.mqtt.sessions.get("client") is session


def test_what_is_adopted_while_the_own_rows_are_read_is_kept(scene: Scene) -> None:
    roaming = scene.site.roaming
    scene.site.mqtt.isolated()
    roaming.rejoined(was_fenced=False)
    rows = scene.memory.owned(MINE)
    scene.pass_ms(LONGEST_MS)
    assert (rows, scene.owner(), scene.has_it) == ([], MINE, False)
    roaming.restored(rows)
    scene.pass_ms(LONGEST_MS)
    assert (scene.has_it, roaming.is_ready) == (True, False)
    roaming.settled(GONE)
    assert roaming.is_ready


def test_what_others_have_by_the_own_return_is_not_opened(scene: Scene) -> None:
    scene.site.mqtt.isolated()
    scene.pass_ms(LONGEST_MS)
    assert (scene.owner(), scene.has_it) == (MINE, False)
    (row,) = scene.memory.owned(MINE)
    scene.memory.fence(MINE, 2)
    change = SessionChange("client", 3, row.generation + 1, 1, row.generation, row.head)
    scene.memory.apply(Batch(3, 1, [change]))
    scene.memory.welcome(MINE, 2)
    scene.site.incarnation = 2
    scene.site.roaming.rejoined(was_fenced=True)
    scene.site.own()
    scene.pass_ms(2 * LONGEST_MS)
    assert (scene.owner(), scene.has_it) == (3, False)


def test_nothing_is_adopted_before_the_own_rows_were_read(scene: Scene) -> None:
    scene.pass_ms(LONGEST_MS)
    head = SessionHead(durable=True, expiry=60, ended_ms=NOW_MS, version=5)
    scene.memory.welcome(GONE, 2)
    scene.memory.apply(Batch(GONE, 2, [SessionChange("other", GONE, 1, 1, 0, head)]))
    scene.memory.fence(GONE, 3)
    scene.site.mqtt.isolated()
    scene.site.adopt(GONE, scene.memory.owned(GONE))
    scene.pass_ms(2 * LONGEST_MS)
    assert [row.identity for row in scene.memory.owned(GONE)] == ["other"]
    scene.site.roaming.rejoined(was_fenced=False)
    scene.site.own()
    scene.pass_ms(2 * LONGEST_MS)
    assert scene.memory.owned(GONE) == []
    assert scene.site.mqtt.sessions.get("other") is not None


def test_others_hear_that_all_is_adopted_when_they_know_what_is_wanted(scene: Scene) -> None:
    """Not when the rows are this node's: what is published meanwhile would miss the session."""
    broker = scene.site.broker
    scene.pass_ms(2 * LONGEST_MS)
    scene.site.roaming.settled(GONE)
    assert broker.orphans.is_settled
    head = SessionHead(durable=True, expiry=60, ended_ms=NOW_MS, version=5)
    scene.memory.welcome(GONE, 2)
    change = SessionChange("other", GONE, 1, 1, 0, head, [SubscriptionRecord(b"t/#", 1)])
    scene.memory.apply(Batch(GONE, 2, [change]))
    scene.memory.fence(GONE, 3)
    asked: list[Callable[[list[Kept]], None]] = []
    broker.subscribe = lambda *said: asked.append(said[-1])  # type: ignore[method-assign]
    said = []
    scene.site.learn(3, {MINE: Seen(1, True), GONE: Seen(3, False)})
    scene.site.roaming.fenced(GONE)
    said.append(broker.orphans.is_settled)
    scene.site.adopt(GONE, scene.memory.owned(GONE))
    scene.pass_ms(2 * LONGEST_MS)
    scene.site.roaming.settled(GONE)
    said.append(broker.orphans.is_settled)
    (answer,) = asked
    answer([])
    assert [*said, broker.orphans.is_settled] == [False, False, True]
    scene.site.mqtt.isolated()
    assert not broker.orphans.is_settled
