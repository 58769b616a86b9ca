"""A core's part in its cluster: what goes to the data groups, and what the image leads to."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from robustmq.broker.placement import Life
from robustmq.errors import Refusal, Refused
from robustmq.message.core_number import global_core
from robustmq.message.session_record import SessionChange, SessionHead, Verdict
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, data, records
from robustmq.meta.image import Image
from robustmq.meta.machine import Applied
from robustmq.workers.meta_messages import Adopt
from robustmq.workers.participation import Participation

GROUPS = 3


class Link:
    """What a core hears and says; `proposed` is answered by hand."""

    def __init__(self) -> None:
        self.image = Image(lambda *_: None)
        self.is_isolated = False
        self.proposed: list[tuple[str, Any, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []

    def propose(self, group: str, command: bytes, done: object) -> None:
        self.proposed.append((group, msgspec.msgpack.decode(command, type=data.Batch), done))

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
        self.link: Any = Link()
        self.roaming: Any = Heard()
        self.mqtt: Any = Heard()
        self.relays: Any = Heard()
        self.peers: Any = Heard()
        self.core: Any = Heard()
        self.placement: Any = SimpleNamespace(nodes={}, remote=())
        self.welcomes = 0
        self.peers.then = lambda callback: callback()
        self.mqtt.roaming = self.roaming
        self.core.turn = SimpleNamespace(now_ms=0)
        self.part = Participation(
            node=1,
            groups=GROUPS,
            link=self.link,
            core=self.core,
            placement=self.placement,
            links=cast("Any", SimpleNamespace()),
            peers=self.peers,
            relays=self.relays,
            welcome=self.welcome,
        )
        self.part.join(self.mqtt)

    def welcome(self) -> None:
        self.welcomes += 1

    def know(self, index: int, **states: str) -> None:
        """Let the image say which nodes there are: `n2="live"`."""
        found = [
            records.Record(records.CLUSTER, "", records.encoded(records.Cluster(id="c"))),
            *(
                records.Record(
                    records.NODE,
                    name[1:],
                    records.encoded(
                        records.Node(number=int(name[1:]), store="s", state=cast("Any", state))
                    ),
                )
                for name, state in states.items()
            ),
        ]
        self.link.image.replace(index, found)
        self.link.applied(index)


def change(identity: str) -> SessionChange:
    return SessionChange(identity, 1, 7, 7, 0, SessionHead(True, 60, 0, 5))


def test_changes_of_a_turn_travel_together_by_group_and_each_hears_its_verdict() -> None:
    place = Place()
    place.know(4, n1="live")
    heard: dict[str, Verdict] = {}
    names = [f"client {number}" for number in range(20)]
    for name in names:
        place.part.propose(change(name), lambda verdict, name=name: heard.update({name: verdict}))
    assert not place.link.proposed
    place.part.flush()
    place.part.flush()
    assert len(place.link.proposed) == GROUPS
    for group, batch, done in place.link.proposed:
        assert (batch.node, batch.incarnation) == (1, 1)
        for each in batch.sessions:
            assert group == f"data_{stable_hash(each.identity.encode()) % GROUPS}"
        verdicts = [
            Verdict.DONE if int(each.identity.split()[1]) % 2 else Verdict.TAKEN
            for each in batch.sessions
        ]
        done(Applied(9, commands.done(msgspec.msgpack.encode(verdicts))))
    assert heard == {
        name: Verdict.DONE if int(name.split()[1]) % 2 else Verdict.TAKEN for name in names
    }


def test_of_what_is_refused_or_void_nothing_is_known() -> None:
    place = Place()
    place.know(4, n1="live")
    heard: list[Verdict] = []
    refused = Refused(Refusal.UNAVAILABLE, "no leader")
    for outcome in (refused, Applied(9, commands.refused(refused))):
        place.part.propose(change("a"), heard.append)
        place.part.flush()
        place.link.proposed.pop()[2](outcome)
    assert heard == [Verdict.UNKNOWN, Verdict.UNKNOWN]


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
    place.link.stood(True)
    assert place.mqtt.said == [("isolated",)]
    late((["an old row"], None))
    assert not place.link.asked
    place.link.stood(False)
    assert place.roaming.said[-1] == ("rejoined",)
    assert [group for group, _, _ in place.link.asked] == ["data_0"]


def test_nodes_that_go_and_come_are_told_and_adoptions_passed_on() -> None:
    place = Place()
    place.know(4, n1="live", n2="live", n3="live")
    place.know(5, n1="live", n2="fenced", n3="live")
    assert ("fenced", 2) in place.roaming.said
    place.link.adopt(Adopt(1, 2, [], True))
    place.link.adopt(Adopt(1, 3, [], True))
    adopted = [said for said in place.roaming.said if said[0] == "adopt"]
    assert adopted == [("adopt", 2, [], True)]
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
