"""Taps: what Kafka appends reaches subscribers once it may be read, and none of it is lost."""

import msgspec
import pytest

from robustmq.broker.partition_api import Appended, Marker, Opening, Partition
from robustmq.errors import Refusal, Refused
from robustmq.message.compression import Codec, compressed
from robustmq.message.record import header_block
from robustmq.meta import records as meta
from robustmq.metrics import KAFKA_TO_MQTT, KAFKA_UNREADABLE, MESSAGES_DROPPED_EXPIRED
from robustmq.mqtt import properties as block
from robustmq.mqtt.packets import PacketType, Properties
from robustmq.mqtt.wire import Reader, varint
from robustmq.settings.kafka import KafkaRuntime
from tests.durable import DurableClient
from tests.fabric import START_MS, Client, Fabric, Limits, Message, Node
from tests.produced import TRANSACTIONAL, produced, record, sealed

TOPIC = b"events"
ONE = Partition(TOPIC)
PRODUCER = 4711
CORES = 3


class World:
    """Some cores, and a topic whose only partition `owner` leads."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008
        self.fabric = Fabric(CORES, limits)
        self.transactions = 0
        self.home = self.fabric.placement.log_core(TOPIC)
        self.elsewhere = (self.home + 1) % CORES
        self.make()

    def make(self, number: int = 1) -> None:
        value = meta.Topic(storage_type="segment", partition=1, config={}, id=bytes([number] * 16))
        fields = msgspec.to_builtins(value, builtin_types=(bytes,))
        for node in self.fabric.nodes:
            node.parts.catalog.apply("default/events", fields, number)

    @property
    def node(self) -> Node:
        """The owner."""
        return self.fabric.nodes[self.home]

    def append(self, batch: bytes) -> list[Appended]:
        answers: list[Appended] = []
        self.node.core.partitions.append(ONE, batch, answers.append)
        return answers

    def put(self, *batches: bytes) -> None:
        """Append one by one, each safe before the next."""
        for batch in batches:
            answers = self.append(batch)
            self.fabric.settle()
            assert [answer.fault for answer in answers] == [0]

    def begin(self) -> None:
        answers: list[int] = []
        self.transactions += 1
        opening = Opening(ONE, PRODUCER, 0, self.transactions)
        self.node.core.partitions.begin([opening], answers.extend)
        assert answers == [0]

    def end(self, is_committed: bool) -> None:
        answers: list[int] = []
        marker = Marker(ONE, PRODUCER, 0, is_committed, self.transactions)
        self.node.core.partitions.end([marker], answers.extend)
        self.fabric.settle()
        assert answers == [0]

    def rows(self) -> list[int]:
        """What the owner's disk has of taps."""
        rows = self.node.core.state.walk(b"G", b"H")
        return [int.from_bytes(value, "big") for _, value in rows]

    def later(self) -> None:
        """Let what is tried again be tried."""
        node = self.node
        node.turn.now_ms += 60_000
        node.core.timers.run(node.turn.now_ms)
        self.fabric.settle()

    def subscribed(self, topic_filter: str = "events") -> Client:
        client = self.fabric.nodes[self.elsewhere].client()
        client.subscribe(topic_filter)
        self.fabric.settle()
        return client

    def durable(self) -> DurableClient:
        """A client with a durable session, on another core than the owner, that is away."""
        client = DurableClient(self.fabric, self.elsewhere)
        client.connect()
        client.subscribe("events")
        self.fabric.settle()
        client.disconnect()
        return client

    def crash(self) -> None:
        """Kill the owner; what it has on its disk is there again."""
        self.fabric.replace(self.home)


@pytest.fixture
def world() -> World:
    return World()


def properties(message: Message) -> Properties:
    whole = varint(len(message.properties)) + message.properties
    return block.decode(Reader(whole, 0, len(whole)), PacketType.PUBLISH) or Properties()


def of_client(number: int, *values: bytes) -> bytes:
    """A batch of an idempotent producer in a transaction."""
    return produced(*values, producer=PRODUCER, epoch=0, first=number, attributes=TRANSACTIONAL)


def with_headers(value: bytes | None, *headers: tuple[bytes, bytes | None]) -> bytes:
    raw = record(0, b"events", value, headers=header_block(headers))
    return sealed(raw, 1, (0, START_MS, START_MS), (-1, -1, -1))


def test_a_subscriber_hears_what_a_producer_appends(world: World) -> None:
    client = world.subscribed("#")
    world.put(produced(b"a", None), produced(b"c", key=b"events"))
    assert client.payloads == ["a", "", "c"]
    assert [each.topic for each in client.messages] == [TOPIC] * 3
    assert [each.qos for each in client.messages] == [1] * 3
    assert not any(each.retain for each in client.messages)
    keys = [properties(each).user_properties for each in client.messages]
    assert keys == [(("key", "k"),), (("key", "k"),), ()]
    assert world.node.turn.row[KAFKA_TO_MQTT] == 3


def test_headers_are_properties(world: World) -> None:
    client = world.subscribed()
    world.put(
        with_headers(
            b"text",
            (b"x", b"1"),
            (b"mqtt.content-type", b"text/plain"),
            (b"mqtt.payload-format", b"1"),
            (b"mqtt.message-expiry-interval", b"60"),
        )
    )
    client.read()
    (message,) = client.messages
    assert properties(message) == Properties(
        user_properties=(("x", "1"),),
        content_type="text/plain",
        payload_format=1,
        message_expiry_interval=60,
    )


def test_a_shared_group_has_each_record_once(world: World) -> None:
    members = [world.fabric.nodes[core].client() for core in range(CORES)]
    for member in members:
        member.join("group", "events")
    world.fabric.settle()
    world.put(*[produced(b"%d" % number) for number in range(6)])
    heard = [payload for member in members for payload in member.payloads]
    assert sorted(heard) == [str(number) for number in range(6)]


def test_who_wants_no_acknowledgement_is_heard_too(world: World) -> None:
    client = world.subscribed()
    world.node.core.partitions.append(ONE, produced(b"a"), None)
    world.fabric.settle()
    assert client.payloads == ["a"]


def test_who_has_not_subscribed_costs_nothing_and_hears_only_what_comes(world: World) -> None:
    world.put(produced(b"before"))
    assert world.rows() == []
    client = world.subscribed()
    world.put(produced(b"after"))
    assert client.payloads == ["after"]
    assert world.rows() == [2]


def test_when_nobody_subscribes_any_more_the_tap_goes(world: World) -> None:
    client = world.subscribed()
    world.put(produced(b"a"))
    client.unsubscribe("events")
    world.fabric.settle()
    world.put(produced(b"b"))
    assert world.rows() == []
    client.subscribe("events")
    world.fabric.settle()
    world.put(produced(b"c"))
    assert client.payloads == ["a", "c"]


def test_nothing_is_handed_on_before_it_is_safe(world: World) -> None:
    client = world.subscribed()
    world.node.held.hold = True
    answers = world.append(produced(b"a"))
    world.fabric.settle()
    assert (client.payloads, answers) == ([], [])
    world.node.held.hold = False
    world.fabric.settle()
    assert client.payloads == ["a"]
    assert len(answers) == 1


def test_a_producer_hears_nothing_before_the_tap_is_on_the_disk(world: World) -> None:
    world.subscribed()
    # The log itself is there already.
    world.fabric.nodes[0].publish("events", "x", 1)
    world.fabric.settle()
    world.node.table.hold = True
    answers = world.append(produced(b"a"))
    world.fabric.settle()
    assert answers == []
    world.node.table.hold = False
    world.node.table.settle()
    world.fabric.settle()
    assert [answer.fault for answer in answers] == [0]


def test_what_comes_from_mqtt_does_not_come_back(world: World) -> None:
    client = world.subscribed()
    publisher = world.fabric.nodes[world.elsewhere]
    for number in range(3):
        publisher.publish("events", f"m{number}", number)
        world.put(produced(b"k%d" % number))
    assert client.payloads == ["m0", "k0", "m1", "k1", "m2", "k2"]
    # Its log has them all, and its tap has passed them.
    assert world.rows() == [6]


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec])
def test_compressed_batches_are_read(world: World, codec: Codec) -> None:
    client = world.subscribed()
    world.put(compressed(produced(*[b"value %d" % i for i in range(50)]), codec))
    assert client.payloads == [f"value {i}" for i in range(50)]


def test_transactions_are_heard_of_when_they_are_committed(world: World) -> None:
    client = world.subscribed()
    world.begin()
    world.put(of_client(0, b"a", b"b"), produced(b"plain"))
    assert client.payloads == []
    world.end(True)
    assert client.payloads == ["a", "b", "plain"]
    world.put(produced(b"more"))
    assert client.payloads[3:] == ["more"]


def test_what_is_aborted_is_never_heard_of(world: World) -> None:
    client = world.subscribed()
    for number, is_committed in enumerate([False, True, False]):
        world.begin()
        world.put(of_client(2 * number, b"%d" % number), produced(b"p%d" % number))
        world.put(of_client(2 * number + 1, b"%d" % number))
        world.end(is_committed)
    assert client.payloads == ["p0", "1", "p1", "1", "p2"]


def test_who_is_away_gets_all_although_the_owner_dies(world: World) -> None:
    client = world.durable()
    world.put(produced(b"1"))
    # Safe and answered, and not handed on: the owner ends before its next turn.
    answers = world.append(produced(b"2"))
    core = world.node.core
    core.run_turn()
    core.commit()
    assert [answer.fault for answer in answers] == [0]
    world.crash()
    world.fabric.settle()
    world.put(produced(b"3"))
    client.connect()
    world.fabric.settle()
    client.read()
    assert [each.payload for each in client.messages] == [b"1", b"2", b"3"]


def test_what_is_not_confirmed_when_the_owner_dies_is_handed_on_again(world: World) -> None:
    client = world.durable()
    table = world.fabric.nodes[world.elsewhere].table
    table.hold = True
    for number in range(5):
        world.put(produced(b"%d" % number))
    assert world.rows() == [0]
    world.crash()
    table.hold = False
    table.settle()
    world.fabric.settle()
    client.connect()
    world.fabric.settle()
    client.read()
    payloads = [each.payload for each in client.messages]
    assert list(dict.fromkeys(payloads)) == [b"%d" % number for number in range(5)]
    assert world.rows() == [5]


def test_what_is_refused_is_handed_on_again_later(world: World) -> None:
    client = world.durable()
    table = world.fabric.nodes[world.elsewhere].table
    table.refuse(Refused(Refusal.QUOTA_EXCEEDED, "the disk is full"))
    world.put(produced(b"1"), produced(b"2"))
    assert world.rows() == [0]
    table.refuse(None)
    world.later()
    assert world.rows() == [2]
    client.connect()
    world.fabric.settle()
    client.read()
    assert [each.payload for each in client.messages] == [b"1", b"2"]


def test_what_was_confirmed_of_a_batch_is_not_handed_on_again() -> None:
    world = World(Limits(max_batch_bytes=1_000))
    client = world.durable()
    answers = world.append(produced(*[b"%d" % i for i in range(500)]))
    while not world.rows() or not world.rows()[0]:
        for core in range(CORES):
            world.fabric.turn(core)
    assert [answer.fault for answer in answers] == [0]
    assert world.rows()[0] < 500
    table = world.fabric.nodes[world.elsewhere].table
    table.refuse(Refused(Refusal.QUOTA_EXCEEDED, "the disk is full"))
    world.fabric.settle()
    table.refuse(None)
    world.later()
    client.connect()
    world.fabric.settle()
    client.read()
    assert [int(each.payload) for each in client.messages] == [*range(500)]


def test_what_follows_is_not_confirmed_before_what_comes_first() -> None:
    world = World(Limits(max_batch_bytes=1_000))
    world.durable()
    table = world.fabric.nodes[world.elsewhere].table
    table.hold = True
    world.put(produced(b"1"))
    # A page of its own, of which nothing is to be handed on.
    world.fabric.nodes[world.home].publish("events", "x" * 2_000)
    world.fabric.settle()
    world.put(produced(b"2"))
    assert world.rows() == [0]
    table.hold = False
    table.settle()
    world.fabric.settle()
    assert world.rows() == [3]


def test_what_becomes_safe_while_more_is_appended_is_not_passed_over(world: World) -> None:
    client = world.subscribed()
    world.append(produced(b"1"))
    world.fabric.turn(world.home)
    world.node.held.hold = True
    world.append(produced(b"2"))
    world.fabric.settle()
    assert client.payloads == ["1"]
    world.node.held.hold = False
    world.node.core.commit()
    world.append(produced(b"3"))
    world.fabric.settle()
    assert client.payloads == ["1", "2", "3"]


def test_a_tap_waits_for_those_who_are_behind() -> None:
    world = World(Limits(pressure_bytes=1_000, max_batch_bytes=1_000))
    client = world.subscribed()
    world.fabric.stalled = {(world.home, world.elsewhere)}
    for number in range(10):
        world.put(produced(b"%d" % number + bytes(500)))
    assert world.node.core.blocked
    assert not world.node.core.busy
    assert world.node.turn.row[KAFKA_TO_MQTT] < 5
    world.fabric.stalled.clear()
    world.fabric.settle()
    assert [each[0] for each in client.payloads] == [str(number) for number in range(10)]


def test_one_large_batch_goes_in_parts() -> None:
    world = World(Limits(max_batch_bytes=1_000))
    client = world.subscribed()
    world.put(compressed(produced(*[b"%d" % i for i in range(500)]), Codec.ZSTD))
    assert client.payloads == [str(i) for i in range(500)]
    assert world.rows() == [500]


def test_what_has_expired_is_passed_over(world: World) -> None:
    client = world.subscribed()
    expiry = b"mqtt.message-expiry-interval"
    world.node.turn.now_ms = START_MS + 5_000
    world.put(with_headers(b"late", (expiry, b"5")), with_headers(b"early", (expiry, b"6")))
    assert client.payloads == ["early"]
    assert world.node.turn.row[MESSAGES_DROPPED_EXPIRED] == 1


def test_what_cannot_be_read_is_counted_and_holds_nothing_up() -> None:
    world = World(Limits(kafka=KafkaRuntime(check_compressed=False)))
    client = world.subscribed()
    whole = compressed(produced(b"a"), Codec.LZ4)
    raw = whole[61:]
    damaged = sealed(raw[: len(raw) // 2], 1, (Codec.LZ4, START_MS, START_MS), (-1, -1, -1))
    world.put(damaged, produced(b"b"))
    assert client.payloads == ["b"]
    assert world.node.turn.row[KAFKA_UNREADABLE] == 1


def test_a_topic_that_is_made_anew_begins_anew(world: World) -> None:
    client = world.subscribed()
    world.put(produced(b"a"), produced(b"b"))
    world.make(2)
    world.fabric.settle()
    assert world.rows() == []
    world.put(produced(b"c"))
    assert client.payloads == ["a", "b", "c"]
    assert world.rows() == [1]


def test_what_is_dropped_before_it_was_handed_on_holds_nothing_up(world: World) -> None:
    client = world.subscribed()
    node = world.node
    node.router.builder.blocked = True
    for number in range(3):
        answers = world.append(produced(b"%d" % number))
        node.core.commit()
        assert [answer.fault for answer in answers] == [0]
    world.node.core.partitions.trim([(ONE, 2)], lambda _: None)
    world.fabric.settle()
    assert client.payloads == ["2"]
    assert world.rows() == [3]


def test_a_core_that_does_not_know_who_listens_hands_on_when_it_does(world: World) -> None:
    client = world.subscribed()
    world.put(produced(b"1"))
    world.crash()
    # The others have not told it yet what they want.
    assert world.node.router.is_held
    answers = world.append(produced(b"2"))
    world.fabric.settle()
    assert [answer.fault for answer in answers] == [0]
    assert client.payloads == ["1", "2"]
