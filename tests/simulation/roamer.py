"""A client that roams: what it was told, and what it may therefore expect."""

from typing import TYPE_CHECKING, Final

from robustmq.mqtt import codec
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.reasons import Reason, is_error
from tests.simulation.site import TIMEOUT_MS
from tests.simulation.wire import Wire

if TYPE_CHECKING:
    from tests.simulation.roaming_world import World

LONG_S: Final = 5_000
IN_FLIGHT_MS: Final = 1_000
"""How long before its death a node may have had a will in its hands."""
FILTERS: Final = ("a", "b/+", "c/#", "$share/g/d")


class _Line:
    """One connection, from its CONNECT on."""

    def __init__(self, wire: Wire, connect: Connect, at_ms: int) -> None:
        self.wire = wire
        self.connect = connect
        self.at_ms = at_ms
        self.greeted = False
        self.asked: dict[int, tuple[str, bool]] = {}
        self.said_goodbye = False
        self.ended_ms = 0
        self.input = b""


class Roamer:
    """A client identifier, and all who connect with it."""

    def __init__(self, name: str, world: "World") -> None:
        self.name = name
        self._world = world
        self._lines: list[_Line] = []
        self._past: list[_Line] = []
        self._numbers = 0
        self.is_steady = world.rng.random() < 0.5
        """Whether its session is never to end."""
        self.is_expected = False
        """Whether the session must be there: it was, and nobody can have ended it."""
        self.sure: set[bytes] = set()
        self.unsure: set[bytes] = set()

    # ------------------------------------------------------------------ what it does

    def act(self) -> None:
        """Do something."""
        rng = self._world.rng
        greeted = [line for line in self._lines if line.greeted]
        chance = rng.random()
        if not self._lines or chance < 0.08:
            if chance < 0.6:
                if self.is_steady:
                    self._connect(False, LONG_S)
                else:
                    self._connect(rng.random() < 0.15, rng.choice((0, 2, LONG_S)))
        elif chance < 0.2:
            line = rng.choice(self._lines)
            self._world.trace(f"{self.name} drops {line.wire.number}")
            line.wire.drop(rng)
            self._end(line)
        elif greeted and chance < 0.6:
            self._ask(rng.choice(greeted))
        elif greeted and chance < 0.65:
            self._goodbye(rng.choice(greeted))

    def _connect(self, clean: bool, expiry: int) -> None:
        world = self._world
        wire = world.connect(self.name)
        if wire is None:
            return
        self._numbers += 1
        will = None
        if world.rng.random() < 0.6:
            delay = world.rng.choice((None, None, 1, 3))
            properties = Properties(will_delay_interval=delay) if delay else None
            payload = f"{self.name}-{self._numbers}".encode()
            will = Will(b"w", payload, properties=properties)
        asked = Properties(session_expiry_interval=expiry)
        connect = Connect(self.name, V5, clean, 0, will=will, properties=asked)
        told = f"clean {clean}, expiry {expiry}, {will.payload if will else None!r}"
        world.trace(f"{self.name} connects to {wire.number}: {told}")
        wire.to_server += codec.encode(connect, V5)
        self._lines.append(_Line(wire, connect, world.now_ms))

    def _ask(self, line: _Line) -> None:
        rng = self._world.rng
        name = rng.choice(FILTERS)
        adds = rng.random() < 0.7
        self._numbers += 1
        number = self._numbers
        line.asked[number] = (name, adds)
        self.unsure.add(name.encode())
        self.sure.discard(name.encode())
        packet: Packet = Unsubscribe(number, [name])
        if adds:
            packet = Subscribe(number, [Subscription(name, rng.randint(0, 2))])
        line.wire.to_server += codec.encode(packet, V5)

    def _goodbye(self, line: _Line) -> None:
        self._world.trace(f"{self.name} says goodbye to {line.wire.number}")
        line.wire.to_server += codec.encode(Disconnect(Reason.NORMAL_DISCONNECTION), V5)
        line.wire.close()
        line.said_goodbye = True
        self._end(line)

    def _end(self, line: _Line) -> None:
        line.ended_ms = self._world.now_ms
        self._lines.remove(line)
        self._past.append(line)

    def leave_all(self) -> None:
        """All connections are lost."""
        for line in list(self._lines):
            line.wire.drop(self._world.rng)
            self._end(line)

    # ------------------------------------------------------------------ what it hears

    def read(self) -> None:
        """Take what the nodes have said."""
        for line in list(self._lines):
            line.input += bytes(line.wire.to_client)
            line.wire.to_client.clear()
            at = 0
            while (found := scan(line.input, at, len(line.input))) is not None:
                first_byte, start, end = found
                self._hear(line, codec.decode(first_byte, line.input[start:end], V5))
                at = end
            line.input = line.input[at:]
            if line.wire.ended:
                self._end(line)
            elif not line.greeted and self._world.now_ms - line.at_ms > 3 * TIMEOUT_MS:
                self._world.fault(f"{self.name} hears nothing from node {line.wire.number}")

    def _hear(self, line: _Line, packet: Packet) -> None:
        match packet:
            case Connack():
                told = f"{packet.reason!r}, present {packet.session_present}"
                self._world.trace(f"{self.name} at {line.wire.number}: {told}")
                if not is_error(packet.reason):
                    self._greeted(line, packet)
            case Suback() | Unsuback():
                name, adds = line.asked.pop(packet.packet_id)
                written = name.encode()
                if any(asked[0] == name for asked in line.asked.values()) or line.wire.client_gone:
                    return
                if not is_error(packet.reasons[0]):
                    self.unsure.discard(written)
                    (self.sure.add if adds else self.sure.discard)(written)
            case Disconnect():
                self._world.trace(f"{self.name} at {line.wire.number}: {packet.reason!r}")

    def _greeted(self, line: _Line, packet: Connack) -> None:
        line.greeted = True
        if not self.is_steady or line.wire.client_gone:
            return
        if not packet.session_present:
            if self.is_expected:
                self._world.fault(f"{self.name} has lost its session")
            self.sure, self.unsure = set(), set()
        self.is_expected = True
        session = self._world.session_of(self.name)
        if session is None:
            return
        held = {subscribed.written for subscribed in session.subscriptions}
        if not self.sure <= held:
            self._world.fault(f"{self.name} has lost {self.sure - held}")
        if not held <= self.sure | self.unsure:
            self._world.fault(f"{self.name} has got {held - self.sure - self.unsure}")

    # ------------------------------------------------------------------ the end

    def check_wills(self) -> None:
        """Who was let in, had a will without delay and was lost has had it published."""
        for line in self._past:
            will = line.connect.will
            if will is None:
                continue
            count = self._world.wills.get(will.payload, 0)
            is_owed = line.greeted and not line.said_goodbye and will.properties is None
            if is_owed and not count and not self._was_lost(line):
                self._world.fault(f"the will {will.payload!r} was not published")

    def _was_lost(self, line: _Line) -> bool:
        """Whether a node died that may just have taken the will to publish it."""
        return any(
            -IN_FLIGHT_MS <= died_ms - line.ended_ms <= 3 * IN_FLIGHT_MS
            for _, died_ms in self._world.died
        )

    def come_back(self) -> None:
        """Connect once more, when all is well."""
        self._connect(False, LONG_S)

    def check_back(self) -> None:
        """Whoever connects in calm is let in."""
        if not any(line.greeted for line in self._lines):
            self._world.fault(f"{self.name} cannot come back")
