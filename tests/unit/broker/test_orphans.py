"""Three nodes, of which one is lost: what its sessions may be owed waits for their heirs."""

from random import Random

import pytest

from robustmq import metrics
from robustmq._kernel.outbox import Outbox
from robustmq._kernel.window import Window
from robustmq.broker.api import Options
from robustmq.config import Config, Runtime
from robustmq.message.record import Record
from robustmq.policy.principal import Principal
from tests.fabric import Answer, decode
from tests.simulation.machine import Core, Machine
from tests.simulation.network import Network

PRESSURE = 400
PUBLISHER, HEIR, LOST = range(3)


class Session:
    """A durable session that is connected, of a client that acknowledges nothing."""

    def __init__(self, core: Core) -> None:
        self.core, turn = core, core.broker.turn
        self.window = Window(turn, 100_000, 1 << 30, 1 << 30)
        self.window.key, self.window.version = 1 << 46, 5
        self.outbox = Outbox(turn)
        core.broker.keep(self.window, core.broker.position)
        self.window.attach(self.outbox, 5, 60_000, 0, 0)
        core.broker.open(self.window, True)

    def subscribe(self, topic_filter: bytes) -> None:
        options = Options(qos=2)
        self.core.broker.subscribe(self.window, topic_filter, options, False, lambda _: None)

    def heard(self) -> list[str]:
        return [message.payload.decode() for message in decode(self.outbox.take())]


class Scene:
    """A node that publishes, one that has a durable session, and one that will adopt it."""

    def __init__(self, topic_filter: bytes = b"t/#") -> None:
        config = Config(runtime=Runtime(pressure_bytes=PRESSURE))
        self.machine = Machine(config, 1, 1 << 20, lambda _: None, 3, Network(Random(0), (0,)))
        self.machine.adopts = False
        self.hear(*range(3))
        if topic_filter:
            Session(self.machine.cores[LOST]).subscribe(topic_filter)
        self.rest()

    def hear(self, *places: int) -> None:
        for place in places:
            self.machine.cores[place].hear(len(self.machine.network.images) - 1)

    def rest(self) -> None:
        for _ in range(12):
            for place in list(self.machine.cores):
                self.machine.turn(place, Random(0))

    def lose(self) -> None:
        """A node dies, and the others hear that it was fenced."""
        self.machine.kill(LOST)
        self.machine.network.change(LOST, None)
        self.hear(PUBLISHER, HEIR)
        self.rest()

    def adopt(self, topic_filter: bytes = b"t/#") -> Session:
        """The session goes on at another node, which has told nobody yet that this is all."""
        heir = Session(self.machine.cores[HEIR])
        heir.subscribe(topic_filter)
        self.rest()
        return heir

    def tell(self, *places: int) -> None:
        for place in places:
            self.machine.cores[place].broker.orphans.settled(True)
        self.rest()

    def publish(self, topic: bytes, payload: str, qos: int = 1) -> Answer:
        core, answer = self.machine.cores[PUBLISHER], Answer()
        now_ms = core.broker.turn.now_ms
        record = Record(key=topic, value=payload.encode(), qos=qos, timestamp=now_ms)
        reply = answer.settle if qos else None
        assert core.broker.publish(Principal("p"), record, reply, qos == 2) is None
        return answer

    @property
    def held(self) -> int:
        return int(self.machine.cores[PUBLISHER].broker.turn.row[metrics.CLUSTER_MESSAGES_HELD])


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_lost_session_may_be_owed_waits_until_all_say_who_has_it(qos: int) -> None:
    scene = Scene()
    scene.lose()
    answers = [scene.publish(b"t/0", "first", qos)]
    scene.rest()
    answers.append(scene.publish(b"t/0", "second", qos))
    heir = scene.adopt()
    # Its interest is known, but there may be others: who comes first is not to overtake.
    answers.append(scene.publish(b"t/0", "third", qos))
    scene.tell(HEIR)
    assert ([answer.got for answer in answers], heir.heard(), scene.held) == ([[]] * 3, [], 3)
    scene.tell(PUBLISHER)
    assert [answer.got for answer in answers] == [[(0, True)]] * 3
    answers.append(scene.publish(b"t/0", "fourth", qos))
    scene.rest()
    assert heir.heard() == ["first", "second", "third", "fourth"]
    assert scene.held == 3


def test_nothing_else_waits() -> None:
    """Neither other topics nor what nobody is owed, also when they are published together."""
    scene = Scene()
    others = Session(scene.machine.cores[HEIR])
    others.subscribe(b"#")
    scene.lose()
    scene.publish(b"t/0", "at most once", 0)
    other = scene.publish(b"other", "another topic")
    nobodys = scene.publish(b"$nobody", "unwanted")
    scene.rest()
    assert others.heard() == ["at most once", "another topic"]
    assert (other.got, nobodys.got) == ([(0, True)], [(0, False)])
    together = [scene.publish(topic, topic.decode()) for topic in (b"$nobody", b"t/0", b"$nobody")]
    scene.publish(b"other", "with others", 0)
    scene.rest()
    assert others.heard() == ["with others"]
    scene.tell(PUBLISHER, HEIR)
    assert others.heard() == ["t/0"]
    assert [answer.got for answer in together] == [[(0, False)], [(0, True)], [(0, False)]]


def test_nothing_waits_for_a_node_without_durable_sessions() -> None:
    scene = Scene(b"")
    scene.lose()
    answer = scene.publish(b"t/0", "x")
    scene.rest()
    assert answer.got == [(0, False)]


def test_what_must_come_once_waits_on_disk() -> None:
    scene = Scene()
    scene.lose()
    scene.publish(b"t/0", "once", 2)
    scene.publish(b"t/0", "at least once", 1)
    scene.rest()
    scene.machine.kill(PUBLISHER)
    scene.machine.start(PUBLISHER)
    scene.hear(PUBLISHER)
    heir = scene.adopt()
    behind = scene.publish(b"t/0", "behind it", 2)
    assert heir.heard() == []
    scene.tell(PUBLISHER, HEIR)
    assert heir.heard() == ["once", "behind it"]
    assert behind.got == [(0, True)]
    table = scene.machine.cores[PUBLISHER].table
    assert [key for key, _ in table.walk(b"", b"\xff") if key[:1] in b"JO"] == []


def test_a_core_that_begins_publishes_nothing_before_all_have_said_it() -> None:
    """It does not know what was wanted on the node that is gone."""
    scene = Scene()
    scene.lose()
    scene.machine.kill(PUBLISHER)
    scene.machine.start(PUBLISHER)
    scene.hear(PUBLISHER)
    scene.rest()
    answer = scene.publish(b"t/0", "x")
    heir = scene.adopt()
    assert (answer.got, heir.heard()) == ([], [])
    scene.tell(HEIR, PUBLISHER)
    assert (answer.got, heir.heard()) == ([(0, True)], ["x"])


def test_publishers_pause_while_too_much_waits() -> None:
    scene = Scene()
    broker = scene.machine.cores[PUBLISHER].broker
    scene.lose()
    scene.publish(b"t/0", "x" * PRESSURE)
    paused = [broker.blocked]
    scene.rest()
    paused.append(broker.blocked)
    scene.adopt()
    scene.tell(PUBLISHER, HEIR)
    assert [*paused, broker.blocked] == [False, True, False]


def test_what_waited_goes_to_the_node_when_it_is_back() -> None:
    scene = Scene()
    scene.lose()
    answer = scene.publish(b"t/0", "x")
    scene.rest()
    scene.machine.start_node(LOST)
    back = scene.machine.cores[LOST]
    again = Session(back)
    again.subscribe(b"t/#")
    scene.hear(PUBLISHER, HEIR)
    scene.rest()
    assert answer.got == []
    scene.hear(LOST)
    scene.rest()
    assert (answer.got, again.heard()) == ([(0, True)], ["x"])
