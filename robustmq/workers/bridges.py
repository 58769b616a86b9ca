"""The bridges whose sessions are at home on this core: their connections, tried again and again."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq.broker.api import BRIDGE, SERVER, Peer, Record, Timer
from robustmq.broker.core import Core
from robustmq.config import Config
from robustmq.errors import ProtocolError
from robustmq.mqtt.bridge import Bridge, BridgeTerms
from robustmq.mqtt.packets import V5, Connect, Properties
from robustmq.mqtt.protocol import Mqtt
from robustmq.mqtt.session import OWN_CLIENTS
from robustmq.net.layer import Broken, Facts, Layer, Stack
from robustmq.net.tls import TlsLayer
from robustmq.net.transport import Pipeline
from robustmq.settings.bridges import MqttBridge, bridged, endpoint_of
from robustmq.workers import log
from robustmq.workers.entrance import LocalEnd

_log = log.EventLog("bridges")

_UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS})


class _BridgeLayer:
    """A bridge as the highest layer of its transport."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    @property
    def is_open(self) -> bool:
        """Say whether the other broker has accepted us."""
        return self._bridge.is_open

    @property
    def has_ended(self) -> bool:
        """Say whether the connection must be made anew."""
        return self._bridge.has_ended

    def receive(self, data: bytes) -> bytes:
        """Take packets of the other broker."""
        try:
            return self._bridge.receive(data)
        except ProtocolError as error:
            raise Broken(error.detail) from error

    def send(self, data: bytes) -> bytes:
        """Take packets of our own connection."""
        return self._bridge.send(data)

    def outgoing(self) -> bytes:
        """Return what the bridge says by itself."""
        return self._bridge.outgoing()

    def close(self) -> bytes:
        """Return the last words."""
        return self._bridge.close()

    def tell(self, facts: Facts) -> None:
        """Learn nothing of the peer."""


class _Unopened:
    """The upper end of a bridge's transport until the other broker has accepted it."""

    paused = False

    def __init__(self, lost: Callable[[], None]) -> None:
        self.lost = lost

    def feed(self, data: bytes) -> None:
        """Take nothing: before it is open no packet comes up."""

    def drained(self) -> None:
        """What the layers have said by themselves was sent."""


class _End(LocalEnd):
    """The upper end of a bridge that is open: its connection here, and who hears of its end."""

    __slots__ = ("_gone",)

    def __init__(self, end: Pipeline, mqtt: Mqtt, gone: Callable[[], None]) -> None:
        facts = end.facts
        super().__init__(mqtt.connection(Peer(facts.address, BRIDGE)), end)
        self._gone = gone

    def lost(self) -> None:
        """The other broker is gone."""
        super().lost()
        self._gone()


class Line:
    """One bridge: connected, or about to be."""

    def __init__(self, settings: MqttBridge, bridges: "Bridges") -> None:
        self.settings = settings
        self._bridges = bridges
        self._endpoint = endpoint_of(settings.address)
        self._wait_ms = settings.reconnect_min_ms
        self._has_bridge_bit = settings.bridge_bit and settings.protocol_version < V5
        self._timer: Timer | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._pipeline: Pipeline | None = None
        self._bridge: Bridge | None = None
        self._is_shut = False
        self.is_connected = False
        self.since_ms = 0
        self.trouble = ""

    # ------------------------------------------------------------------ coming

    def begin(self) -> None:
        """Look for the other broker's address, then connect."""
        self._timer = None
        self._resolving = self._bridges.loop.create_task(self._resolve())

    async def _resolve(self) -> None:
        host, port, _ = self._endpoint
        try:
            found = await self._bridges.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._bridges.poller.tick()
            self._failed(f"{host} has no address: {error.strerror}")
            return
        self._bridges.poller.tick()
        if not self._is_shut:
            family, _, _, _, address = found[0]
            self._connect(family, address)

    def _connect(self, family: int, address: tuple[object, ...]) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        fd = sock.detach()
        try:
            if code not in _UNDER_WAY:
                raise OSError(code, os.strerror(code))
            pipeline = self._make_pipeline(str(address[0]))
            pipeline.adopt(self._bridges.poller, fd)
        except (OSError, ssl.SSLError) as error:
            os.close(fd)
            self._failed(f"{self.settings.address}: {error.strerror or error}")
            return
        self._pipeline = pipeline
        self._wait(self.settings.connect_timeout_ms, self._give_up)
        # The lowest layer speaks first.
        pipeline.feed(b"")

    def _make_pipeline(self, address: str) -> Pipeline:
        bridge = self._bridge = Bridge(self._terms(), self._wake)
        layer: Layer = _BridgeLayer(bridge)
        if self._endpoint.is_tls:
            name = self.settings.tls_name or self._endpoint.host
            layer = Stack([TlsLayer(_context(self.settings), server_name=name), layer])
        return Pipeline(
            self._bridges.core.turn,
            layer,
            Facts(address, BRIDGE),
            _Unopened(self._gone),
            opened=self._opened,
            broken=self._broken,
            closing=self._linger,
        )

    def _terms(self) -> BridgeTerms:
        settings = self.settings
        limits = self._bridges.config.mqtt_runtime.protocol
        config = self._bridges.config
        is_new = settings.protocol_version == V5
        return BridgeTerms(
            name=settings.name,
            node=f"{config.cluster_name}/{config.broker_id}".replace(",", "_"),
            topics=tuple(map(bridged, settings.topics)),
            connect=Connect(
                settings.client_id or f"robustmq-{settings.name}",
                settings.protocol_version,
                settings.clean_start,
                settings.keep_alive,
                settings.username or None,
                settings.password.encode() if settings.password else None,
                properties=(
                    Properties(session_expiry_interval=settings.session_expiry_interval)
                    if is_new
                    else None
                ),
                is_bridge=self._has_bridge_bit,
            ),
            max_packet=limits.max_packet_size,
            receive_max=limits.receive_max,
            window=settings.receive_max,
            max_hops=settings.max_hops,
        )

    def _opened(self, pipeline: Pipeline) -> None:
        self.is_connected = True
        self.trouble = ""
        self._wait_ms = self.settings.reconnect_min_ms
        self.since_ms = self._bridges.core.turn.now_ms
        _End(pipeline, self._bridges.mqtt, self._gone)
        self._wait(self.settings.keep_alive * 1_000, self._ping)
        self._bridges.changed(self)
        _log.info("bridge connected", bridge=self.settings.name, address=self.settings.address)

    # ------------------------------------------------------------------ staying

    def _ping(self) -> None:
        assert self._bridge is not None
        if not self._bridge.ping():
            self.trouble = "the other broker does not answer"
            self._abort()
            return
        self._wait(self.settings.keep_alive * 1_000, self._ping)
        self._kick()

    def _wake(self) -> None:
        """Let the bridge speak in a turn of its own."""
        core = self._bridges.core
        core.at(core.turn.now_ms, self._kick)

    def _kick(self) -> None:
        if self._pipeline is not None:
            if self._bridge is not None and self._bridge.ending:
                self.trouble = self._bridge.ending
            self._pipeline.feed(b"")

    # ------------------------------------------------------------------ going

    def shut(self) -> None:
        """End for ever; the session here is kept."""
        self._is_shut = True
        self._stop()
        if self._resolving is not None:
            self._resolving.cancel()
        if self._pipeline is not None and not self.is_connected:
            self._abort()

    def _give_up(self) -> None:
        self.trouble = "the other broker does not answer"
        self._abort()

    def _abort(self) -> None:
        if self._pipeline is not None:
            self._pipeline.abort()

    def _broken(self, _pipeline: Pipeline, detail: str) -> None:
        self.trouble = detail

    def _linger(self, pipeline: Pipeline) -> None:
        linger_ms = self._bridges.config.mqtt_runtime.protocol.linger_timeout_ms
        core = self._bridges.core
        core.at(core.turn.now_ms + linger_ms, pipeline.abort)

    def _gone(self) -> None:
        """The connection has ended, for whatever reason."""
        if self._has_bridge_bit and not self.is_connected:
            # It may not understand the bit; mosquitto's own bridges ask like this, too.
            self._has_bridge_bit = False
        self._failed(self.trouble or "the connection was lost")

    def _failed(self, why: str) -> None:
        was_connected, self.is_connected = self.is_connected, False
        if self._bridge is not None:
            self._bridges.core.turn.row[metrics.BRIDGE_DROPPED] += self._bridge.dropped
        self._pipeline = self._bridge = None
        self.trouble = why
        if self._is_shut:
            return
        if was_connected or self._wait_ms == self.settings.reconnect_min_ms:
            _log.warning("bridge not connected", bridge=self.settings.name, reason=why)
        if was_connected:
            self.since_ms = self._bridges.core.turn.now_ms
            self._bridges.changed(self)
        # Bridges of many nodes must not come back in step.
        self._wait(self._bridges.chance(self._wait_ms) + self._wait_ms // 2, self.begin)
        self._wait_ms = min(2 * self._wait_ms, self.settings.reconnect_max_ms)

    def _wait(self, milliseconds: int, callback: Callable[[], None]) -> None:
        self._stop()
        core = self._bridges.core
        self._timer = core.at(core.turn.now_ms + milliseconds, callback)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Bridges:
    """The bridges of one core; a bridge is on the core that is home to its session.

    `chance(n)` is a number from 0 to n - 1.
    """

    def __init__(  # noqa: PLR0917
        self,
        config: Config,
        is_home: Callable[[bytes], bool],
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        core: Core,
        mqtt: Mqtt,
        chance: Callable[[int], int],
    ) -> None:
        self.config = config
        self.loop = loop
        self.poller = poller
        self.core = core
        self.mqtt = mqtt
        self.chance = chance
        self.lines = [
            Line(settings, self)
            for settings in config.mqtt_runtime.bridges
            if is_home((OWN_CLIENTS + settings.name).encode())
        ]

    def start(self) -> None:
        """Connect, and stay so until `shut`."""
        for line in self.lines:
            line.begin()

    def shut(self) -> None:
        """Connect no more; open connections end with all others."""
        for line in self.lines:
            line.shut()

    def changed(self, line: Line) -> None:
        """A bridge was connected, or is not any more."""
        row = self.core.turn.row
        # As mosquitto tells of its bridges: retained, 1 or 0.
        state = Record(
            key=f"$SYS/broker/connection/{line.settings.name}/state".encode(),
            value=b"1" if line.is_connected else b"0",
            qos=1,
            retain=True,
            timestamp=self.core.turn.now_ms,
        )
        self.core.publish(SERVER, state, None)
        connected = sum(line.is_connected for line in self.lines)
        row[metrics.BRIDGE_CONNECTS] += max(connected - row[metrics.BRIDGES_CONNECTED], 0)
        row[metrics.BRIDGES_CONNECTED] = connected

    def walk(
        self, start: int, arguments: Mapping[str, object]
    ) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield what an administrator is told of each bridge, and the position behind it."""
        del arguments
        for behind, line in enumerate(self.lines[start:], start + 1):
            yield (
                behind,
                {
                    "name": line.settings.name,
                    "address": line.settings.address,
                    "connected": line.is_connected,
                    "since_ms": line.since_ms,
                    "trouble": line.trouble,
                },
            )


def _context(settings: MqttBridge) -> ssl.SSLContext:
    """Return the TLS settings for the other broker; OSError when a file cannot be used."""
    context = ssl.create_default_context(cafile=settings.tls_ca or None)
    if settings.tls_cert:
        context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    return context
