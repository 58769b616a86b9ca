"""A QUIC server on one UDP socket, without I/O: datagrams and the time in, datagrams out.

A connection is known by its ids, never by an address. Packets that lead to no connection begin
one, are asked to come again with a token when many are being begun (Retry, RFC 9000 8.1.2), or are
answered with a stateless reset, so that the clients of a worker that was replaced learn it.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress
from aioquic.quic.packet import QuicErrorCode, QuicHeader, QuicPacketType, pull_quic_header

from robustmq.net import quic_replies
from robustmq.net.quic_engine import Engine
from robustmq.net.quic_link import Link, LinkLimits
from robustmq.net.quic_replies import INITIAL_BYTES, RetryTokens
from robustmq.net.quic_steering import CID_BYTES, ConnectionIds
from robustmq.net.quic_stream import QuicStream

Datagram = tuple[bytes, NetworkAddress]

_NOISE_BYTES: Final = 32
_RESETS_A_SECOND: Final = 100
_SWEEP_AT: Final = 128
"""Times in the heap that may be void, beside as many as there are connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What a server takes.

    `handshakes` is how many connections may be on their way at once, `retry_above` how many of
    them make it ask for tokens; `streams` are those of one connection that may be open.
    """

    handshakes: int
    retry_above: int
    streams: int
    link: LinkLimits


class Audience(Protocol):
    """Who hears of what the server does."""

    def opened(self, stream: QuicStream) -> None:
        """A stream has begun: the control stream of a connection, or one of its data streams."""

    def is_full(self) -> bool:
        """Say that no more connections may come in."""

    def refused(self) -> None:
        """A connection was refused: there are enough, or its handshake failed."""

    def retried(self) -> None:
        """A client was asked to come again with a token."""

    def reset(self) -> None:
        """A packet of a connection that nobody knows was answered with a stateless reset."""

    def failed(self, error: Exception) -> None:
        """A connection ended by an error of ours."""


class QuicServer:
    """The connections of one socket.

    `configuration` may be replaced at any time, for the connections to come. `random(n)` returns
    n random bytes. Times are seconds of a clock that never goes back.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        limits: ServerLimits,
        *,
        ids: ConnectionIds,
        tokens: RetryTokens,
        random: Callable[[int], bytes],
        audience: Audience,
    ) -> None:
        self.configuration = configuration
        self._limits = limits
        self._ids = ids
        self._tokens = tokens
        self._random = random
        self._audience = audience
        self._links: dict[bytes, Link] = {}
        self._beginning: set[Link] = set()
        self._open: set[Link] = set()
        self._dirty: list[Link] = []
        self._answers: list[Datagram] = []
        self._timers: list[tuple[float, int, Link]] = []
        self._numbers: Iterator[int] = count()
        self._resets = 0
        self._resets_since = 0.0
        self._is_shut = False
        self._gone: list[Link] = []

    @property
    def connections(self) -> int:
        """Connections that are open or being opened."""
        return len(self._open)

    @property
    def is_idle(self) -> bool:
        """Say whether every connection has ended, as far as this side can tell."""
        return not self.has_more and all(link.engine.closing for link in self._open)

    @property
    def has_more(self) -> bool:
        """Say whether `datagrams` has something to give."""
        return bool(self._dirty or self._answers or self._gone)

    # ------------------------------------------------------------------ datagrams in

    def receive(self, data: bytes, address: NetworkAddress, now: float) -> None:
        """Take a datagram, whatever it is."""
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_BYTES)
        except ValueError:
            return
        link = self._links.get(header.destination_cid)
        if link is None:
            link = self._meet(header, len(data), address, now)
            if link is None:
                return
        self._drive(link, lambda: link.receive(data, address, now))
        if not (link.is_over or link.engine.has_begun):
            self._forget(link)

    def _meet(
        self, header: QuicHeader, length: int, address: NetworkAddress, now: float
    ) -> Link | None:
        """A datagram for no connection that is known here; the new one, if it begins one."""
        if header.packet_type is QuicPacketType.ONE_RTT:
            self._answer_unknown(header, length, address, now)
            return None
        if length < INITIAL_BYTES or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return None
        version = header.version
        if version not in self.configuration.supported_versions:
            known = self.configuration.supported_versions
            answer = quic_replies.version_negotiation(
                header.source_cid, header.destination_cid, known
            )
            self._answers.append((answer, address))
            return None
        if header.packet_type is not QuicPacketType.INITIAL or self._is_shut:
            return None
        assert version is not None
        return self._begin(header, version, address, now)

    def _begin(
        self, header: QuicHeader, version: int, address: NetworkAddress, now: float
    ) -> Link | None:
        client, original = header.source_cid, header.destination_cid
        retried = None
        if self._audience.is_full():
            self._refuse(version, client, original, QuicErrorCode.CONNECTION_REFUSED, address)
            return None
        if header.token:
            known = self._tokens.original(header.token, address, original, now)
            if known is None:
                self._refuse(version, client, original, QuicErrorCode.INVALID_TOKEN, address)
                return None
            original, retried = known, original
        elif len(self._beginning) >= self._limits.retry_above:
            offered = self._ids.issue()
            token = self._tokens.issue(address, original, offered, now)
            answer = quic_replies.retry(version, client, original, offered, token)
            self._answers.append((answer, address))
            self._audience.retried()
            return None
        if len(self._beginning) >= self._limits.handshakes:
            self._audience.refused()
            return None
        engine = Engine(
            self.configuration, self._ids, self._limits.streams, original=original, retried=retried
        )
        link = Link(
            engine,
            address,
            self._limits.link,
            now,
            touch=self._touch,
            issued=self._issued,
            retired=self._retired,
            opened=self._audience.opened,
        )
        link.cids = {header.destination_cid, engine.host_cid}
        for cid in link.cids:
            self._links[cid] = link
        self._open.add(link)
        self._beginning.add(link)
        return link

    def _refuse(
        self, version: int, client: bytes, original: bytes, code: int, address: NetworkAddress
    ) -> None:
        self._answers.append((quic_replies.refusal(version, client, original, code), address))
        self._audience.refused()

    def _answer_unknown(
        self, header: QuicHeader, length: int, address: NetworkAddress, now: float
    ) -> None:
        """A packet of a connection that this worker has lost, or never had (RFC 9000 10.3)."""
        if now - self._resets_since >= 1.0:
            self._resets = 0
            self._resets_since = now
        if self._resets >= _RESETS_A_SECOND:
            return
        token = self._ids.reset_token(header.destination_cid)
        answer = quic_replies.stateless_reset(length, token, self._random(_NOISE_BYTES))
        if answer is not None:
            self._resets += 1
            self._answers.append((answer, address))
            self._audience.reset()

    # ------------------------------------------------------------------ the time

    def timer(self) -> float | None:
        """Return when `alarm` has something to do next; None: never."""
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def alarm(self, now: float) -> None:
        """Learn that time has passed."""
        while (when := self.timer()) is not None and when <= now:
            _, _, link = heapq.heappop(self._timers)
            link.due = None
            self._alarm(link, now)

    def _alarm(self, link: Link, now: float) -> None:
        self._drive(link, lambda: link.alarm(now))

    # ------------------------------------------------------------------ datagrams out

    def datagrams(self, now: float, most: int) -> list[Datagram]:
        """Return what is to be sent now, those to one address in a row.

        Once there are `most` of them the connections that are left have to wait for the next call.
        """
        out, self._answers = self._answers, []
        dirty, self._dirty = self._dirty, []
        for at, link in enumerate(dirty):
            if len(out) >= most:
                self._dirty = dirty[at:] + self._dirty
                break
            if link.is_over:
                continue
            try:
                out += link.datagrams(now)
            except Exception as error:
                self._kill(link, error)
            else:
                self._arm(link)
        while self._gone:
            self._gone.pop().let_go()
        return out

    def shut(self) -> None:
        """Take no new connections."""
        self._is_shut = True

    # ------------------------------------------------------------------ connections

    def _drive(self, link: Link, step: Callable[[], None]) -> None:
        """Let a link take a step; what fails ends this one and nobody else."""
        try:
            step()
        except Exception as error:
            self._kill(link, error)
            return
        if link in self._beginning and (link.is_handshaken or link.engine.closing):
            self._beginning.discard(link)
            if not link.is_handshaken:
                self._audience.refused()
        if link.is_over:
            self._forget(link)
        else:
            self._touch(link)

    def _kill(self, link: Link, error: Exception) -> None:
        self._audience.failed(error)
        self._forget(link)
        try:
            link.break_off()
        except Exception as another:
            self._audience.failed(another)

    def _forget(self, link: Link) -> None:
        if link in self._open:
            self._gone.append(link)
        link.due = None
        link.is_over = True
        self._open.discard(link)
        self._beginning.discard(link)
        for cid in link.cids:
            if self._links.get(cid) is link:
                del self._links[cid]

    def _touch(self, link: Link) -> None:
        if not link.is_dirty:
            link.is_dirty = True
            self._dirty.append(link)

    def _arm(self, link: Link) -> None:
        if link.is_over:
            self._forget(link)
            return
        when = link.timer()
        if when is not None and (link.due is None or when < link.due):
            link.due = when
            heapq.heappush(self._timers, (when, next(self._numbers), link))
            if len(self._timers) > _SWEEP_AT + 2 * len(self._open):
                self._sweep()

    def _sweep(self) -> None:
        """Forget the times that were replaced by earlier ones, or whose connections are over."""
        self._timers = [entry for entry in self._timers if entry[2].due == entry[0]]
        heapq.heapify(self._timers)

    def _issued(self, link: Link, cid: bytes) -> None:
        self._links[cid] = link

    def _retired(self, cid: bytes) -> None:
        self._links.pop(cid, None)
