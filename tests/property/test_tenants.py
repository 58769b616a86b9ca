"""Law of tenants: whatever others do, a tenant's clients are told what they would be told alone."""

from typing import Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.mqtt import codec
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
    Connect,
    Packet,
    Properties,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.principal import Peer
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.users import MqttAuth
from tests.fabric import Fabric, Node
from tests.logins import ScriptedLogins

TENANTS: Final = ("default", "acme", "beta")
CLIENTS: Final = ("a", "b")
TOPICS: Final = ("a/x", "b", "/x", "$x/a", "a", "$delayed/0/a/x", "$SYS/a", "acme/a")
FILTERS: Final = (
    "#", "+/x", "a/#", "$share/g/#", "$share/g/a/x", "$queue/+/x", "a/x", "$x/#", "$SYS/#", "+",
    "/+", "+/+", "$exclusive/a/x", "$exclusive/+/x",
)  # fmt: skip
CONFIG: Final = MqttRuntime(auth=MqttAuth(tenants=("acme", "beta")))


class Step(NamedTuple):
    """What one client of one tenant does."""

    tenant: str
    client: str
    packet: Packet | None


def connects(clean: bool, topic: str, expiry: int) -> Connect:
    will = Will(topic.encode(), b"will")
    return Connect("", V5, clean, will=will, properties=Properties(session_expiry_interval=expiry))


ACTIONS = st.one_of(
    st.none(),
    st.builds(connects, st.booleans(), st.sampled_from(TOPICS), st.sampled_from([0, 60])),
    st.builds(
        lambda name, qos: Subscribe(7, [Subscription(name, qos)]),
        st.sampled_from(FILTERS),
        st.integers(0, 2),
    ),
    st.builds(lambda name: Unsubscribe(8, [name]), st.sampled_from(FILTERS)),
    st.builds(
        lambda name, payload, qos, retain: Publish(
            name.encode(), payload, qos, retain, packet_id=9 if qos else 0
        ),
        st.sampled_from(TOPICS),
        st.binary(max_size=2),
        st.integers(0, 2),
        st.booleans(),
    ),
)
BEGINNING: Final = [
    Step(tenant, client, packet)
    for tenant in TENANTS
    for client in CLIENTS
    for packet in (connects(True, "b", 60), Subscribe(7, [Subscription("+/x", 1)]))
]
STEPS = st.lists(
    st.builds(Step, st.sampled_from(TENANTS), st.sampled_from(CLIENTS), ACTIONS),
    min_size=5,
    max_size=30,
).map(lambda steps: BEGINNING + steps)


class World:
    """Two cores, and the clients of all tenants; the same client ids in each of them."""

    def __init__(self) -> None:
        self._fabric = Fabric(len(CLIENTS))
        self._protocols = [_protocol(node) for node in self._fabric.nodes]
        self._connections: dict[tuple[str, str], Connection] = {}
        self.told: list[tuple[str, str, Packet]] = []

    def take(self, step: Step) -> None:
        """Let a client do something, and everybody hear what comes of it."""
        who = step.tenant, step.client
        packet = step.packet
        connection = self._connections.get(who)
        if isinstance(packet, Connect):
            connection = self._protocols[CLIENTS.index(step.client)].connection(Peer())
            named = (("tenant", step.tenant),)
            assert packet.properties is not None
            properties = Properties(
                session_expiry_interval=packet.properties.session_expiry_interval,
                user_properties=named,
            )
            packet = Connect(
                step.client, V5, packet.clean_start, will=packet.will, properties=properties
            )
            before = self._connections.get(who)
            self._say(connection, packet)
            self._hear(who, before)
            self._connections[who] = connection
        elif connection is None or connection.ended:
            return
        elif packet is None:
            connection.lost()
        else:
            self._say(connection, packet)
        self._settle()

    def _say(self, connection: Connection, packet: Packet) -> None:
        connection.intake.feed(codec.encode(packet, V5))
        self._fabric.settle()

    def _settle(self) -> None:
        while True:
            for node in self._fabric.nodes:
                node.core.timers.run(node.turn.now_ms)
            self._fabric.settle()
            heard = [self._hear(who, each) for who, each in [*self._connections.items()]]
            if not any(heard):
                return

    def _hear(self, who: tuple[str, str], connection: Connection | None) -> bool:
        data = connection.outbox.take() if connection is not None else b""
        at = 0
        while connection is not None and at < len(data):
            found = scan(data, at, len(data))
            assert found is not None
            first, start, at = found
            packet = codec.decode(first, data[start:at], V5)
            self.told.append((*who, _without_id(packet)))
            if not connection.ended and (answer := _answer(packet)) is not None:
                connection.intake.feed(codec.encode(answer, V5))
        return bool(data)


def _protocol(node: Node) -> Mqtt:
    return Mqtt(
        node.core,
        CONFIG,
        core=node.index,
        home_of=lambda client_id: CLIENTS.index(client_id.decode()),
        first_key=node.index << 48 | 1 << 40,
        seed="test",
        logins=ScriptedLogins(),
        complain=lambda *_: None,
    )


def _without_id(packet: Packet) -> Packet:
    # The numbers that a core gives to what it sends are those of all its sessions.
    if isinstance(packet, (Publish, Pubrel)):
        packet.packet_id = 0
    return packet


def _answer(packet: Packet) -> Packet | None:
    if isinstance(packet, Pubrec):
        return Pubrel(packet.packet_id)
    return None


def lived(steps: list[Step], tenant: str | None = None) -> list[tuple[str, str, Packet]]:
    """What all clients were told; of one `tenant` alone, if given."""
    world = World()
    for step in steps:
        if tenant is None or step.tenant == tenant:
            world.take(step)
    return world.told


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_nobody_is_told_more_or_less_for_the_others_sake(steps: list[Step]) -> None:
    together = lived(steps)
    for tenant in TENANTS:
        mine = [told for told in together if told[0] == tenant]
        assert mine == lived(steps, tenant)


def test_the_clients_of_the_law_do_hear_something() -> None:
    """The law would hold among the deaf, too."""
    for tenant in TENANTS:
        told = lived(
            [
                Step(tenant, "a", connects(True, "b", 0)),
                Step(tenant, "b", connects(True, "b", 0)),
                Step(tenant, "a", Subscribe(7, [Subscription("#", 1)])),
                Step(tenant, "b", Publish(b"a/x", b"1", 1, packet_id=9)),
                Step(tenant, "b", Publish(b"$x/a", b"2", 1, packet_id=9)),
            ]
        )
        heard = [packet.topic for *_, packet in told if isinstance(packet, Publish)]
        assert heard == [b"a/x"]
        assert [packet.reason for *_, packet in told if isinstance(packet, Puback)] == [0, 0x10]
