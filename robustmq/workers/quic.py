"""MQTT over QUIC on one worker: its UDP socket, its connections, and the way of their streams."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from aioquic.quic.configuration import QuicConfiguration

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.net import quic_settings
from robustmq.net.certificates import Certificates
from robustmq.net.quic_link import LinkLimits
from robustmq.net.quic_replies import RetryTokens
from robustmq.net.quic_server import QuicServer, ServerLimits
from robustmq.net.quic_socket import QuicSocket
from robustmq.net.quic_steering import ConnectionIds
from robustmq.net.quic_stream import QuicStream
from robustmq.settings.mqtt import MqttRuntime
from robustmq.workers.entrance import Entrance, LocalEnd
from robustmq.workers.relays import AcceptedStream

_MOST_SENT: Final = 128
"""Datagrams sent in a turn, before others are looked at again."""
_READ_SECONDS: Final = 0.005
"""How long datagrams are read in a turn."""
_RETRY_MS: Final = 1

# What clients do wrong is counted; aioquic would write a line about each of them.
logging.getLogger("quic").setLevel(logging.CRITICAL)


class Hall(Protocol):
    """What the streams need of the worker."""

    @property
    def is_full(self) -> bool:
        """Say whether no more connections may come in."""

    def entrance(self, timeout_ms: int) -> Entrance:
        """Return the first endpoint of a new transport; its user sets `transport`."""


class QuicDoor:
    """Takes the datagrams of a listener in turns, and sends what they led to at their ends.

    `secret` is the node's, for tokens that every life of every worker understands. `report` hears
    of errors of ours.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        config: MqttRuntime,
        certificates: Certificates,
        worker: int,
        workers: int,
        secret: bytes,
        poller: Poller,
        turn: Turn,
        hall: Hall,
        report: Callable[[Exception], None],
    ) -> None:
        self._config = config
        self._certificates = certificates
        self._pairs = certificates.files
        self._turn = turn
        self._hall = hall
        self._report = report
        self._socket = QuicSocket(sock)
        self._joining: dict[QuicStream, list[QuicStream]] = {}
        protocol, quic = config.protocol, config.quic
        limits = ServerLimits(
            handshakes=quic.max_handshakes,
            retry_above=quic.retry_handshakes,
            streams=quic.max_streams,
            link=LinkLimits(
                send_buffer=quic.send_buffer_bytes,
                handshake_timeout=config.server.handshake_timeout_ms / 1_000,
                connect_timeout=protocol.connect_timeout_ms / 1_000,
                linger_timeout=protocol.linger_timeout_ms / 1_000,
            ),
        )
        self._server = QuicServer(
            self._configuration(),
            limits,
            ids=ConnectionIds(worker, workers, secret, os.urandom),
            tokens=RetryTokens(secret),
            random=os.urandom,
            audience=self,
        )
        poller.watch(sock.fileno(), self._readable, edge=False)

    def _configuration(self) -> QuicConfiguration:
        pair = self._pairs[0]
        return quic_settings.configuration(self._config.quic, pair.cert, pair.key)

    def _renew(self) -> None:
        """The certificates have changed: new connections get the new ones."""
        self._pairs = self._certificates.files
        try:
            self._server.configuration = self._configuration()
        except (OSError, ValueError) as error:
            self._report(error)

    def shut(self) -> None:
        """Take no new connections."""
        self._server.shut()

    @property
    def connections(self) -> int:
        """Connections that are open or being opened."""
        return self._server.connections

    @property
    def is_idle(self) -> bool:
        """Say whether nobody is connected, and all that was said is on its way."""
        return self._server.is_idle and not self._socket.waiting

    # ------------------------------------------------------------------ turns

    def _readable(self) -> None:
        if self._certificates.files is not self._pairs:
            self._renew()
        now = time.monotonic()
        server = self._server
        received = self._socket.receive(
            lambda data, address: server.receive(data, address, now), _READ_SECONDS
        )
        self._turn.row[metrics.QUIC_DATAGRAMS_RECEIVED] += received

    def flush(self) -> bool:
        """End a turn: send; False when there is more to be sent in another turn at once."""
        if self._joining:
            self._join_waiting()
        server = self._server
        while server.has_more and not self._socket.waiting:
            datagrams = server.datagrams(time.monotonic(), _MOST_SENT)
            self._turn.row[metrics.QUIC_DATAGRAMS_SENT] += len(datagrams)
            self._socket.send(datagrams)
            if len(datagrams) >= _MOST_SENT:
                break
        self._turn.row[metrics.QUIC_CONNECTIONS] = server.connections
        return not server.has_more or bool(self._socket.waiting)

    @property
    def alarm_ms(self) -> int:
        """When `ring` is due, by the turn's clock; 0: never."""
        if self._socket.waiting:
            return self._turn.now_ms + _RETRY_MS
        when = self._server.timer()
        if when is None:
            return 0
        return self._turn.now_ms + max(math.ceil((when - time.monotonic()) * 1_000), 0)

    def ring(self) -> None:
        """Learn that time has passed."""
        if self._socket.waiting:
            self._socket.send(())
        self._server.alarm(time.monotonic())

    # ------------------------------------------------------------------ the server's audience

    def opened(self, stream: QuicStream) -> None:
        """A stream has begun."""
        control = stream.control
        if control is not None:
            self._joining.setdefault(control, []).append(stream)
            return
        entrance = self._hall.entrance(self._config.protocol.connect_timeout_ms)
        entrance.transport = stream
        stream.endpoint = entrance

    def is_full(self) -> bool:
        """Say that no more connections may come in."""
        return self._hall.is_full

    def refused(self) -> None:
        """A connection was refused, or its handshake failed."""
        self._turn.row[metrics.CONNECTIONS_REFUSED] += 1

    def retried(self) -> None:
        """A client was asked to come again with a token."""
        self._turn.row[metrics.QUIC_RETRIES] += 1

    def reset(self) -> None:
        """A packet of a connection that nobody knows was answered with a stateless reset."""
        self._turn.row[metrics.QUIC_RESETS] += 1

    def failed(self, error: Exception) -> None:
        """A connection ended by an error of ours."""
        self._report(error)

    def _join_waiting(self) -> None:
        """Give data streams to the client's connection, once it is known where that is."""
        for control in list(self._joining):
            if control.is_closing:
                for stream in self._joining.pop(control):
                    stream.abort()
            elif isinstance(control.endpoint, LocalEnd | AcceptedStream):
                for stream in self._joining.pop(control):
                    control.endpoint.join(stream)
