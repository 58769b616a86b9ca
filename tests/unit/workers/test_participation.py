"""A core's part in its cluster: what the image leads to, and whose sessions are whose."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from robustmq.broker.placement import Life
from robustmq.message.core_number import global_core
from robustmq.message.topic import stable_hash
from robustmq.meta import data, records
from robustmq.meta.image import Image
from robustmq.workers.meta_messages import Adopt, Changed
from robustmq.workers.participation import Participation

GROUPS = 3


class Link:
    """What a core hears and says."""

    def __init__(self) -> None:
        self.image = Image(lambda *_: None)
        self.is_isolated = False
        self.followed: list[tuple[str, tuple[int, bytes]]] = []
        self.asked: list[tuple[str, str, Any]] = []

    def follow(self, group: str, after: tuple[int, bytes]) -> None:
        self.followed.append((group, after))

    def owned(self, group: str, start: str, done: object) -> None:
        self.asked.append((group, start, done))


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.said.append((name, *arguments))


class Place:
    """A participation of node 1 with what stands around it."""

    def __init__(self) -> None:
        self.link = cast("Any", Link())
        self.roaming = cast("Any", Heard())
        self.mqtt = cast("Any", Heard())
        self.peers = cast("Any", Heard())
        self.core = cast("Any", Heard())
        relays = cast("Any", Heard())
        links = cast("Any", SimpleNamespace())
        self.placement = cast("Any", SimpleNamespace(nodes={}, remote=()))
        self.welcomes = 0
        self.silent_ms = 0
        self.peers.then = lambda callback: callback()
        self.mqtt.roaming = self.roaming
        self.core.turn = SimpleNamespace(now_ms=0)
        self.core.estates = Heard()
        self.part = Participation(
            node=1,
            groups=GROUPS,
            link=self.link,
            core=self.core,
            placement=self.placement,
            links=links,
            peers=self.peers,
            relays=relays,
            welcome=self.welcome,
            silent_ms=lambda: self.silent_ms,
            lease_ms=2_000,
        )
        self.part.join(self.mqtt)

    def welcome(self) -> None:
        self.welcomes += 1

    def know(self, index: int, incarnation: int = 1, **states: str) -> None:
        """Let the image say which nodes there are: `n2="live"`."""
        found = [
            records.Record(records.CLUSTER, "", records.encoded(records.Cluster(id="c"))),
            *(
                records.Record(
                    records.NODE,
                    name[1:],
                    records.encoded(
                        records.Node(
                            number=int(name[1:]),
                            store="s",
                            state=cast("Any", state),
                            incarnation=incarnation,
                        )
                    ),
                )
                for name, state in states.items()
            ),
        ]
        self.link.image.replace(index, found)
        self.link.applied(index)


def test_clients_come_when_all_groups_have_said_whose_sessions_are_whose() -> None:
    place = Place()
    place.know(4, n1="live")
    for group in range(GROUPS):
        assert not place.welcomes
        name, start, done = place.link.asked.pop()
        assert (name, start) == (f"data_{group}", "")
        done(([f"row {group}"], "more"))
        name, start, done = place.link.asked.pop()
        assert (name, start) == (f"data_{group}", "more")
        done(([], None))
    assert place.welcomes == 1
    assert ("restored", ["row 0", "row 1", "row 2"]) in place.roaming.said


def test_who_is_isolated_asks_again_when_the_cluster_is_back() -> None:
    place = Place()
    place.know(4, n1="live")
    _, _, late = place.link.asked.pop()
    place.link.is_isolated = True
    place.link.stood(True)
    assert place.mqtt.said == [("isolated",)]
    late((["an old row"], None))
    assert not place.link.asked
    place.link.is_isolated = False
    place.link.stood(False)
    assert place.roaming.said[-1] == ("rejoined", False)
    assert [group for group, _, _ in place.link.asked] == ["data_0"]


def test_nodes_that_go_and_come_are_told_and_adoptions_passed_on() -> None:
    place = Place()
    place.know(4, n1="live", n2="live", n3="live")
    place.know(5, n1="live", n2="fenced", n3="live")
    assert ("fenced", 2) in place.roaming.said
    place.link.adopt(Adopt(1, 2, [], True))
    place.link.adopt(Adopt(1, 3, [], True))
    adopted = [said for said in place.roaming.said if said[0] in {"adopt", "settled"}]
    assert adopted == [("adopt", 2, []), ("settled", 2)]
    place.know(6, n1="live", n2="live", n3="live")
    assert ("returned", 2) in place.roaming.said
    assert place.part.version == 6
    updates = [said for said in place.peers.said if said[0] == "update"]
    assert [[node.is_live for node in nodes] for _, _, nodes in updates] == [
        [True, True, True],
        [True, False, True],
        [True, True, True],
    ]


def test_a_client_would_live_on_one_core_of_each_other_node() -> None:
    place = Place()
    place.placement.nodes = {1: Life(1, 4), 2: Life(1, 3), 5: Life(2, 1), 6: Life(1, 0)}
    number = stable_hash(b"client")
    assert [*place.part.homes(b"client")] == [global_core(2, number % 3), global_core(5, 0)]


def test_what_is_retained_is_followed_from_its_beginning_and_passed_on() -> None:
    place = Place()
    place.know(4, n1="live")
    assert place.link.followed == [(f"data_{group}", (0, b"")) for group in range(GROUPS)]
    row = data.Retained(b"a/b", b"message")
    place.core.applied = lambda *told, **how: place.core.said.append((told, how))
    place.link.changed(Changed(1, "data_2", 17, [(17, row)]))
    assert place.core.said[-1] == (
        (2, 17, [(b"a/b", b"message")]),
        {"is_whole": False, "is_last": True},
    )


def test_who_hears_nothing_of_its_meta_process_serves_nobody() -> None:
    place = Place()
    place.know(4, n1="live")
    place.silent_ms = 2_001
    place.part.look()
    place.part.look()
    assert place.mqtt.said == [("isolated",)]
    place.link.is_isolated = True
    place.silent_ms = 0
    place.part.look()
    assert not any(said[0] == "rejoined" for said in place.roaming.said)
    place.link.is_isolated = False
    place.part.look()
    assert place.roaming.said[-1] == ("rejoined", False)


def test_a_number_that_nobody_has_is_forgotten() -> None:
    place = Place()
    place.know(4, n1="live", n2="live", n3="live")
    forgotten = [said[1] for said in place.core.said if said[0] == "forget"]
    assert sorted(forgotten) == [0, *range(4, 63)]
    place.core.said.clear()
    place.know(5, n1="live", n3="live")
    assert [said for said in place.core.said if said[0] == "forget"] == [("forget", 2)]


def test_a_node_that_was_fenced_and_is_back_before_it_noticed_begins_anew() -> None:
    place = Place()
    place.know(4, n1="live")
    place.know(5, n1="live")
    assert not place.mqtt.said
    asked = len(place.link.asked)
    place.know(6, incarnation=2, n1="live")
    assert place.mqtt.said == [("isolated",)]
    assert ("rejoined", True) in place.roaming.said
    assert len(place.link.asked) == asked + 1
