"""What one message costs in one turn of a core, without sockets: the hard case of few per turn.

`python -m perf.micro.turn`: the best of many rounds, in µs per message, for turns of 1, 10 and
100 publishers whose message has one subscriber each, QoS 0 and 1; then QoS 0 to durable sessions
that subscribe with QoS 1.
"""

import time
from random import Random

from robustmq import metrics
from robustmq._kernel.choice import KERNEL
from robustmq._kernel.turn import Turn
from robustmq.broker.assembly import assemble
from robustmq.broker.core import Core
from robustmq.broker.placement import Placement
from robustmq.config import Config
from robustmq.mqtt import codec
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.headers import describe
from robustmq.mqtt.packets import V311, Connect, Publish, Subscribe, Subscription
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.logins import Logins
from robustmq.policy.principal import Peer
from robustmq.policy.users import Users
from robustmq.settings.users import MqttAuth
from robustmq.storage.memory_table import MemoryTable

ROUNDS = 300
TURNS = 50


class OwnFabric:
    """A fabric of one core."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame for this core itself."""
        assert core == 0
        self.frames.append(frame)

    def backlog(self, core: int) -> int:
        """Nothing ever waits for room."""
        return core

    def epoch(self, core: int) -> int:
        """It is never replaced."""
        return core + 1


def _anybody() -> Logins:
    return Logins(
        MqttAuth(), Users(), later=lambda _check, _done: False, nonce=lambda: "", secret=b""
    )


def make_core() -> tuple[Core, Mqtt, OwnFabric]:
    """A broker of one core with MQTT on it."""
    turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
    turn.now_ms = 1_700_000_000_000
    fabric = OwnFabric()
    table = MemoryTable()
    core = assemble(
        turn,
        Config(),
        core=0,
        epoch=1,
        placement=Placement(1),
        fabric=fabric,
        table=table,
        committer=table,
        describe=describe,
        chance=Random(0).randrange,
    ).core
    core.start()
    mqtt = Mqtt(
        core,
        Config().mqtt_runtime,
        core=0,
        home_of=lambda _: 0,
        first_key=1 << 32,
        seed="micro",
        logins=_anybody(),
        complain=lambda *_: None,
    )
    return core, mqtt, fabric


def end_turn(core: Core, fabric: OwnFabric) -> None:
    """What a worker does at the end of a turn, without rings and sockets."""
    core.run_turn()
    while fabric.frames:
        frames, fabric.frames = fabric.frames, []
        for frame in frames:
            core.receive(0, frame)
    core.commit()
    resumes = core.turn.resumes[:]
    core.turn.resumes.clear()
    for intake in resumes:
        intake.resume()


def client(mqtt: Mqtt, name: str, durable: bool = False) -> Connection:
    """A client that has connected; `durable`: its session outlives the connection."""
    connection = mqtt.connection(Peer())
    connect = Connect(name, V311, clean_start=not durable)
    connection.intake.feed(codec.encode(connect, V311))
    return connection


def measure(publishers: int, qos: int, durable: bool = False) -> float:
    """The best time of a message, in µs."""
    core, mqtt, fabric = make_core()
    senders = []
    for number in range(publishers):
        sender, receiver = client(mqtt, f"p{number}"), client(mqtt, f"s{number}", durable)
        topic = f"bench/{number}"
        subscribe = Subscribe(1, [Subscription(topic, qos or durable)])
        receiver.intake.feed(codec.encode(subscribe, V311))
        packet = codec.encode(Publish(topic.encode(), b"x" * 64, qos, packet_id=1), V311)
        senders.append((sender, receiver, packet))
    for _ in range(3):
        # A durable session is there with a commit, its subscription with another one.
        end_turn(core, fabric)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(TURNS):
            for sender, _, packet in senders:
                sender.intake.feed(packet)
            end_turn(core, fabric)
            core.turn.outboxes.clear()
            for sender, receiver, _ in senders:
                sent = receiver.outbox.take()
                if qos:
                    receiver.intake.feed(b"\x40\x02" + sent[-66:-64])
                    sender.outbox.take()
        best = min(best, time.perf_counter() - start)
    return best / TURNS / publishers * 1e6


def main() -> None:
    """Print the table."""
    print(f"kernel: {KERNEL}")
    for qos, durable in ((0, False), (1, False), (0, True)):
        sessions = "durable" if durable else "clean"
        for publishers in (1, 10, 100):
            cost = measure(publishers, qos, durable)
            print(f"QoS {qos}, {sessions:7}, {publishers:3} per turn: {cost:7.2f} us")


if __name__ == "__main__":
    main()
