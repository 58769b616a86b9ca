"""A broker that only writes down what it is asked, and a client's end of a connection to it."""

from array import array
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.broker.api import (
    Estates,
    Handle,
    Heir,
    Kept,
    Legacies,
    Legacy,
    LogBounds,
    Logins,
    Options,
    Portion,
    Principal,
    Record,
    StoredBatch,
    Timer,
    Window,
)
from robustmq.broker.state import State
from robustmq.broker.timers import Timers
from robustmq.errors import Refused
from robustmq.metrics import CELLS
from robustmq.mqtt import codec
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import V5, Connack, Connect, Packet, Properties, Will
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy import principal
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topics import Topics
from robustmq.settings.mqtt import MqttKeepAlive, MqttRuntime
from robustmq.storage.memory_table import MemoryTable
from tests.explanations import apart
from tests.logins import ScriptedLogins

START_MS = 1_700_000_000_000


class Asked(NamedTuple):
    """A publish: the record, whom to answer, and whether it is to be exact."""

    record: Record
    reply: Callable[[int, bool], None] | None
    once: bool


class Wanted(NamedTuple):
    """A subscription or a membership of `group`, and how to settle it."""

    window: Window
    topic_filter: bytes
    options: Options
    retained: bool
    group: bytes
    settle: Callable[[list[Kept]], None]


class NoLogs:
    """A core that keeps no logs of topics: MQTT does not read them."""

    def read(self, topic: bytes, offset: int, max_bytes: int) -> list[StoredBatch]:
        return []

    def bounds(self, topic: bytes) -> LogBounds | None:
        return None


class ScriptedExclusives:
    """Exclusive subscriptions: what is asked, to be answered by the test."""

    def __init__(self) -> None:
        self.claims: list[tuple[int, bytes, Callable[[bool], None]]] = []
        self.restored: list[tuple[int, bytes]] = []
        self.released: list[tuple[int, bytes, bool]] = []

    def claim(self, window: Window, topic_filter: bytes, reply: Callable[[bool], None]) -> None:
        self.claims.append((window.key, topic_filter, reply))

    def restore(self, window: Window, topic_filter: bytes) -> None:
        self.restored.append((window.key, topic_filter))

    def release(self, window: Window, topic_filter: bytes, kept: bool) -> None:
        self.released.append((window.key, topic_filter, kept))

    def answer(self, granted: bool) -> bytes:
        """Answer the oldest claim; return its filter."""
        _, topic_filter, reply = self.claims.pop(0)
        reply(granted)
        return topic_filter


class NoEstates:
    """A core that owes nothing to sessions of other nodes, and forgets what it owed."""

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self.left: list[Heir] = []

    def begin(self) -> None:
        pass

    def leave(self, window: Window, heir: Heir) -> None:
        del window
        self.left.append(heir)

    def heir(self, number: int) -> Heir:
        raise KeyError(number)

    def page(self, number: int, max_bytes: int) -> Portion:
        raise KeyError(number, max_bytes)

    def passed(self, number: int, position: int | None) -> None:
        raise KeyError(number, position)

    def close(self, number: int) -> None:
        raise KeyError(number)


class NoLegacies:
    """A core that is handed nothing."""

    def take(self, window: Window, source: int, estate: int, legacies: list[Legacy]) -> bool:
        raise AssertionError((window, source, estate, legacies))

    def end(self, window: Window, source: int, estate: int) -> None:
        raise AssertionError((window, source, estate))


class ScriptedOrphans:
    """What is said of the sessions that the core has: `is_settled` is what was said last."""

    def __init__(self) -> None:
        self.is_settled = False

    def settled(self, is_settled: bool) -> None:
        self.is_settled = is_settled


class ScriptedBroker:
    """The port, with a table behind it and nothing else: `refusals` says no to topics and filters.

    `durable` are the sessions that are kept, by number: where they stand, None after a restart;
    `restored` what they had subscribed to.
    """

    def __init__(self, table: MemoryTable | None = None) -> None:
        self.table = table or MemoryTable()
        self.state = State(self.table)
        self.logs = NoLogs()
        self.topics = Topics(MqttRuntime(), TopicRules(()))
        self.exclusives = ScriptedExclusives()
        self.estates: Estates = NoEstates()
        self.legacies: Legacies = NoLegacies()
        self.orphans = ScriptedOrphans()
        self.position = 1
        self.durable: dict[int, int | None] = {}
        self.restored: list[tuple[int, bytes, Options, int]] = []
        self.members: list[tuple[int, bytes, bytes, Options]] = []
        self.exchanges: list[tuple[str, int]] = []
        self.pumped: list[Window] = []
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = START_MS
        self.timers = Timers()
        self.published: list[Asked] = []
        self.wanted: list[Wanted] = []
        self.gone: list[tuple[bytes, bytes]] = []
        self.kept: list[tuple[bytes, list[Kept]]] = []
        self.opened: list[bool] = []
        self.moves: list[bytes] = []
        self.refusals: dict[bytes, Refused] = {}
        self.blocked = False

    def route(self, principal: Principal, topic: bytes, retain: bool = False) -> Handle | Refused:
        refused = self.refusals.get(topic)
        return refused or Handle(topic, BatchBuilder(self.turn, 0, 1 << 20, None))

    def publish(
        self,
        principal: Principal,
        record: Record,
        reply: Callable[[int, bool], None] | None,
        once: bool = False,
    ) -> Refused | None:
        refused = self.refusals.get(record.key)
        if refused is None:
            self.published.append(Asked(record, reply, once))
        return refused

    def keep(self, window: Window, position: int | None = None) -> None:
        assert window.key not in self.durable
        self.durable[window.key] = position

    def drop(self, window: Window) -> None:
        self.durable.pop(window.key, None)

    def restore(self, window: Window, topic_filter: bytes, options: Options, position: int) -> None:
        assert window.key in self.durable
        self.restored.append((window.key, topic_filter, options, position))

    def restore_member(
        self, window: Window, group: bytes, topic_filter: bytes, options: Options
    ) -> None:
        assert window.key in self.durable
        self.members.append((window.key, group, topic_filter, options))

    def pump(self, window: Window) -> None:
        self.pumped.append(window)

    def released(self, window: Window, packet_id: int) -> None:
        self.exchanges.append(("released", packet_id))

    def completed(self, window: Window, packet_id: int) -> None:
        self.exchanges.append(("completed", packet_id))

    def end_turn(self) -> None:
        """Write what was put, tell those who wait for it, and read on where that was all."""
        self.table.commit()
        self.table.completed()
        self.state.settle()
        if not self.blocked:
            resumes = self.turn.resumes[:]
            self.turn.resumes.clear()
            for intake in resumes:
                intake.resume()

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        self.wanted.append(Wanted(window, topic_filter, options, retained, b"", reply))

    def unsubscribe(self, window: Window, topic_filter: bytes) -> None:
        self.gone.append((b"", topic_filter))

    def join(
        self,
        window: Window,
        group: bytes,
        topic_filter: bytes,
        options: Options,
        reply: Callable[[], None],
    ) -> None:
        self.wanted.append(Wanted(window, topic_filter, options, False, group, lambda _: reply()))

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        self.gone.append((group, topic_filter))

    def open(self, window: Window, ready: bool) -> None:
        self.opened.append(ready)

    def moved(self, topic_filter: bytes) -> None:
        self.moves.append(topic_filter)

    def send_retained(
        self, window: Window, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        self.kept.append((topic_filter, kept))

    def authorize(self, principal: Principal, topic_filter: str) -> Refused | None:
        return self.refusals.get(topic_filter.encode())

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        return self.timers.at(when_ms, callback)

    def answer(self, code: int = 0, matched: bool = True) -> Record:
        """Answer the oldest publish that waits; return its record."""
        asked = self.published.pop(0)
        assert asked.reply is not None
        asked.reply(code, matched)
        return asked.record

    def settle(self, kept: list[Kept] | None = None) -> Wanted:
        """Settle the oldest subscription that waits."""
        wanted = self.wanted.pop(0)
        wanted.settle(kept or [])
        return wanted

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass, in small steps."""
        until_ms = self.turn.now_ms + milliseconds
        while self.turn.now_ms < until_ms:
            self.turn.now_ms = min(self.turn.now_ms + 10, until_ms)
            self.timers.run(self.turn.now_ms)


class ScriptedStream:
    """The transport, as far as a connection knows it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Scene:
    """One core with its MQTT, and nothing real around it."""

    def __init__(
        self,
        *,
        max_keep_alive: int = 3_600,
        table: MemoryTable | None = None,
        config: MqttRuntime | None = None,
        logins: Logins | None = None,
        **limits: int,
    ) -> None:
        self.broker = ScriptedBroker(table)
        config = config or MqttRuntime()
        config = msgspec.structs.replace(
            config,
            protocol=msgspec.structs.replace(config.protocol, **limits),
            keep_alive=MqttKeepAlive(max_time=max_keep_alive),
        )
        self.complaints: list[int] = []
        self.mqtt = Mqtt(
            self.broker,
            config,
            core=0,
            home_of=lambda client_id: len(client_id) % 2,
            first_key=1 << 48,
            seed="seed",
            logins=logins or ScriptedLogins(),
            complain=lambda _connection, reason, _detail: self.complaints.append(reason),
        )

    def cell(self, cell: int) -> int:
        return int(self.broker.turn.row[cell])


class Peer:
    """A client's end of a connection."""

    def __init__(
        self,
        scene: Scene,
        version: int = V5,
        *,
        listener: str = "tcp",
        certified: str | None = None,
    ) -> None:
        self.scene = scene
        self.version = version
        self.told: list[str] = []
        self.stream = ScriptedStream()
        peer = principal.Peer("peer", listener, certified)
        self.connection: Connection = scene.mqtt.connection(peer)
        self.connection.stream = self.stream

    def send(self, *packets: Packet) -> None:
        for packet in packets:
            self.send_bytes(codec.encode(packet, self.version))

    def send_bytes(self, data: bytes) -> None:
        """Let the server read this; its turn ends."""
        self.connection.intake.feed(data)
        self.scene.broker.end_turn()

    def got(self) -> list[Packet]:
        """What the server has said since; reason strings are put into `told`."""
        data = self.connection.outbox.take()
        packets: list[Packet] = []
        at = 0
        while at < len(data):
            found = scan(data, at, len(data))
            assert found is not None
            first_byte, start, at = found
            packet, told = apart(codec.decode(first_byte, data[start:at], self.version))
            packets.append(packet)
            self.told += [told] if told is not None else []
        return packets


def connected(  # noqa: PLR0917
    scene: Scene,
    client_id: str = "c",
    version: int = V5,
    clean: bool = True,
    expiry: int | None = None,
    will: Will | None = None,
    keep_alive: int = 0,
) -> Peer:
    """A client that is connected; it has read its CONNACK."""
    peer = Peer(scene, version)
    properties = Properties(session_expiry_interval=expiry) if expiry is not None else None
    peer.send(Connect(client_id, version, clean, keep_alive, will=will, properties=properties))
    (connack,) = [packet for packet in peer.got() if isinstance(packet, Connack)]
    assert connack.reason == 0
    return peer
