"""The strategies of shared subscriptions, with clients of all versions on both cores."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, get_args

import pytest

from robustmq.mqtt.packets import V5, Properties, Publish
from robustmq.mqtt.reasons import Reason
from robustmq.settings.topics import Strategy
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, numbered, serve

STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
CONFIG: Final = "\n".join(
    f'[[mqtt_runtime.shared.groups]]\nname = "{name}"\nstrategy = "{strategy}"\n'
    for name, strategy in [
        *((f"{each}-*", each) for each in STRATEGIES),
        ("$queue", "sticky"),
    ]
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("strategies") / "data", config=CONFIG)


class Group:
    """Members of one group, one after the other on both cores, and who publishes to it."""

    def __init__(self, stack: ExitStack, node: Node, strategy: str, version: int = V5) -> None:
        self.topic = name_on(0, "t")
        name = name_on(0, f"{strategy}-")
        self.filter = f"$share/{name}/{self.topic}/#"
        self.members = [
            stack.enter_context(Client(node, name_on(core, "m"), version)) for core in (0, 1, 0, 1)
        ]
        for member in self.members:
            assert member.subscribe(self.filter, 1) == [1]
        self.says = [stack.enter_context(Client(node, name_on(core, "p"))) for core in (0, 1)]
        self.heard: dict[str, list[bytes]] = {}

    def send(self, core: int, sub: str, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.says[core].publish(f"{self.topic}/{sub}", payload, 1) == 0

    def hear(self, count: int) -> list[list[Publish]]:
        """What each member has been sent, when all of it has come."""
        heard: list[list[Publish]] = [[] for _ in self.members]

        def complete() -> bool:
            for member, mine in zip(self.members, heard, strict=True):
                mine.extend(member.heard())
            return sum(map(len, heard)) >= count

        until(complete, "all messages")
        assert sum(map(len, heard)) == count
        return heard


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_message_comes_to_one_member_in_order(node: Node, strategy: str, version: int) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, strategy, version)
        for core in (0, 1):
            group.send(core, f"s{core}", *numbered(10, 10 * core))
        heard = group.hear(20)
        numbers = sorted(int(one.payload) for mine in heard for one in mine)
        assert numbers == list(range(20))
        for mine in heard:
            for core in (0, 1):
                of_core = [int(m.payload) for m in mine if m.topic.endswith(b"s%d" % core)]
                assert of_core == sorted(of_core)


def test_sticky_is_one_member_until_it_goes(node: Node) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, "sticky")
        group.send(0, "a", *numbered(5))
        group.send(1, "b", *numbered(5))
        (first,) = [i for i, mine in enumerate(group.hear(10)) if mine]
        group.members.pop(first).disconnect()
        group.send(0, "a", *numbered(5))
        assert [len(mine) for mine in group.hear(5) if mine] == [5]


def test_hash_topic_keeps_a_topic_at_a_member(node: Node) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, "hash_topic")
        for _ in range(3):
            for number in range(20):
                group.send(number % 2, str(number), b"x")
        topics = [{one.topic for one in mine} for mine in group.hear(60)]
        assert sum(map(len, topics)) == 20
        assert sum(map(bool, topics)) > 1


def test_hash_clientid_keeps_a_publisher_at_a_member(node: Node) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, "hash_clientid")
        group.says += [stack.enter_context(Client(node, name_on(0, "p"))) for _ in range(8)]
        for number, payload in enumerate(numbered(3)):
            for place in range(len(group.says)):
                group.send(place, f"{place}/{number}", payload)
        takers: dict[bytes, set[int]] = {}
        for i, mine in enumerate(group.hear(30)):
            for one in mine:
                takers.setdefault(one.topic.split(b"/")[1], set()).add(i)
                assert one.properties is None or not one.properties.user_properties
        assert len(takers) == 10
        assert all(len(members) == 1 for members in takers.values())
        assert len(set.union(*takers.values())) > 1


def test_local_members_go_first(node: Node) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, "local")
        group.send(0, "a", *numbered(6))
        group.send(1, "b", *numbered(6))
        heard = group.hear(12)
        assert [{one.topic[-1:] for one in mine} for mine in heard] == [{b"a"}, {b"b"}] * 2
        assert [len(mine) for mine in heard] == [3] * 4
        # Without one on the core the others take what is published there.
        for place in (2, 0):
            group.members.pop(place).disconnect()
        group.send(0, "c", *numbered(4))
        assert sorted(len(mine) for mine in group.hear(4)) == [2, 2]


def test_random_chooses_several(node: Node) -> None:
    with ExitStack() as stack:
        group = Group(stack, node, "random")
        group.send(0, "a", *numbered(60))
        assert sum(bool(mine) for mine in group.hear(60)) > 1


def test_least_inflight_spares_who_does_not_acknowledge(node: Node) -> None:
    topic, name = name_on(0, "t"), name_on(0, "least_inflight-")
    with (
        Client(node, name_on(0, "slow")) as slow,
        Client(node, name_on(1, "fast")) as fast,
        Client(node, name_on(0, "p")) as says,
    ):
        for member in (slow, fast):
            member.subscribe(f"$share/{name}/{topic}", 1)
        taken = 0
        for number in range(40):
            says.publish(topic, b"%d" % number, 1)
            taken += len(fast.heard())
        # What one holds counts against it; what has not been reported yet may hide a few.
        assert taken >= 25


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queue_is_a_group_of_its_filter(node: Node, version: int) -> None:
    topic = name_on(0, "q")
    with (
        Client(node, name_on(0, "m"), version) as one,
        Client(node, name_on(1, "m"), version) as two,
        Client(node, name_on(1, "p")) as says,
    ):
        assert one.subscribe(f"$queue/{topic}/+", 1) == [1]
        assert two.subscribe(f"$share/$queue/{topic}/+", 1) == [1]
        for payload in numbered(6):
            assert says.publish(f"{topic}/x", payload, 1) == 0
        # The strategy of this group is sticky: its first member has all.
        assert one.payloads(6) == list(numbered(6))
        assert two.unsubscribe(f"$queue/{topic}/+") in ([Reason.SUCCESS], [])
        assert one.unsubscribe(f"$share/$queue/{topic}/+") in ([Reason.SUCCESS], [])
        until(
            lambda: says.publish(f"{topic}/x", b"", 1) == Reason.NO_MATCHING_SUBSCRIBERS,
            "the end of the group",
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_durable_group_loses_nothing_while_all_are_away(node: Node, strategy: str) -> None:
    stays = Properties(session_expiry_interval=100)
    topic, name = name_on(0, "t"), name_on(1, f"{strategy}-")
    names = [name_on(core, "d") for core in (0, 1)]
    for each in names:
        with Client(node, each, clean=False, properties=stays) as member:
            assert member.subscribe(f"$share/{name}/{topic}", 1) == [1]
            member.disconnect()
    with Client(node, name_on(0, "p")) as says:
        for payload in numbered(20):
            assert says.publish(topic, payload, 1) == 0
    # One takes some and goes without acknowledging: the other has all, in order.
    first = Client(node, names[0], clean=False, properties=stays)
    first.expect(Publish)
    first.drop()
    with Client(node, names[1], clean=False, properties=stays) as second:
        assert sorted(second.payloads(20), key=int) == list(numbered(20))
        second.ping()
