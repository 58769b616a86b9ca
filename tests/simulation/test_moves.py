"""What one core leads for all, on its way to another that leads it from now on."""

from collections.abc import Callable
from random import Random

from robustmq.broker.placement import Life, Placement
from robustmq.broker.share_leads import group_key
from robustmq.config import Config, Storage
from robustmq.mqtt.packets import V5
from robustmq.settings.mqtt import MqttKeepAlive, MqttProtocol, MqttRuntime
from tests.simulation.account import SHARED, Account, Message
from tests.simulation.client import Client, Plan
from tests.simulation.machine import Machine
from tests.simulation.network import Network

HOUR_S = 3_600
ROUNDS = 500
GROUP = group_key(b"g", b"$g/+")


def leader() -> int:
    """The node that leads the group while both are there."""
    placement = Placement(1, 0)
    placement.update({0: Life(1, 1), 1: Life(1, 1)})
    return 0 if placement.group_core(GROUP) == 0 else 1


LATE = leader()
HERE = 1 - LATE


class Pair:
    """Two nodes of one core each; at first the one is not there that will lead the group."""

    def __init__(self) -> None:
        self.rng = Random(7)
        network = Network(self.rng, (0,))
        config = Config(
            storage=Storage(flush="interval"),
            mqtt_runtime=MqttRuntime(
                protocol=MqttProtocol(
                    max_session_expiry_interval=HOUR_S, max_inflight=100, receive_max=100
                ),
                keep_alive=MqttKeepAlive(max_time=65_535),
            ),
        )
        self.machine = Machine(config, 1, 1 << 20, lambda _: None, 2, network)
        self.account = Account(lambda: self.machine.now_ms, lambda _: None)
        self.account.is_durable = lambda _: True
        self.clients: list[Client] = []
        self.machine.kill(LATE)
        network.change(LATE, None)
        self.settle()

    def client(self, node: int, prefix: str) -> Client:
        """A client of a node, connected."""
        name = next(
            name for name in map(f"{prefix}{{}}".format, range(99)) if self.home(name) == node
        )
        plan = Plan(False, HOUR_S, None, 0, 100)
        client = Client(name, V5, self.machine, self.account, self.rng, lambda _: None, plan)
        client.connect()
        self.clients.append(client)
        self.settle()
        return client

    def home(self, name: str) -> int:
        """The node of a client."""
        return self.machine.home_of(name)

    def settle(self) -> None:
        """Take turns until nothing is left to do."""
        for _ in range(ROUNDS):
            active = False
            for place, core in list(self.machine.cores.items()):
                last = len(self.machine.network.images) - 1
                if core.heard != last:
                    core.hear(last)
                    active = True
                active |= self.machine.turn(place, self.rng)
                core.table.settle()
                core.table.completed()
            for client in self.clients:
                if client.wire is not None:
                    active |= client.read()
                    active |= client.answer()
            self.machine.now_ms += 5
            if not active and self.machine.rests:
                return
        raise AssertionError("no rest")

    def publish(self, client: Client, count: int) -> list[Message]:
        """Publish to the group, and see that it is acknowledged."""
        sent = []
        for _ in range(count):
            number = len(self.account.messages)
            sent.append(Message(number, client.name, "$g/1", 1, False, b"%d" % number))
            client.publish("$g/1", sent[-1])
        self.settle()
        assert all(message.acknowledged for message in sent)
        return sent


def with_members_away(then: Callable[[Pair], None]) -> None:
    """What a group is owed while its only member is away, and what happens `then`."""
    pair = Pair()
    member, speaker = pair.client(HERE, "member"), pair.client(HERE, "speaker")
    member.want(SHARED, 1)
    pair.settle()
    member.drop()
    pair.settle()
    sent = pair.publish(speaker, 5)
    then(pair)
    pair.settle()
    if speaker.wire is None:
        speaker.connect()
        pair.settle()
    sent += pair.publish(speaker, 5)
    member.connect()
    pair.settle()
    assert [message.heard[member.name] for message in sent] == [1] * len(sent)
    assert not pair.account.faults
    assert member.satisfied


def test_what_a_group_is_owed_goes_to_the_leader_that_has_come() -> None:
    def come(pair: Pair) -> None:
        pair.machine.start_node(LATE)
        pair.settle()
        first, second = pair.machine.cores[HERE], pair.machine.cores[LATE]
        assert not list(first.table.walk(b"L", b"M"))
        assert list(second.table.walk(b"L", b"M"))

    with_members_away(come)


def test_a_leader_that_restarts_before_it_has_passed_on_what_waits_does_it_then() -> None:
    def come(pair: Pair) -> None:
        pair.machine.start_node(LATE)
        pair.machine.kill(HERE)
        pair.machine.start(HERE)

    with_members_away(come)


def test_what_was_handed_to_a_node_that_goes_is_owed_to_the_others() -> None:
    def come_and_go(pair: Pair) -> None:
        pair.machine.start_node(LATE)
        pair.settle()
        # Its disk has what waits now; it comes back with it.
        pair.machine.kill(LATE)
        pair.machine.network.change(LATE, None)
        pair.settle()
        pair.machine.start_node(LATE)

    with_members_away(come_and_go)
