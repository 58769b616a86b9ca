"""Bequests: what a session is owed on a node that has it no more goes to the node that has.

The node that had it asks the cores which the client id hashes to, one of which has the session by
now, and sends it page by page; a page is forgotten here when it is on the disk there. Whatever is
lost on the way is asked for or sent again, and is taken once:

    WHERE     who has this session? Nobody answers who does not know yet
    THERE     it is here, or not
    BEQUEST   what comes next; without anything it was all
    ACCEPTED  it is on the disk here, or is to be tried again

When all say several times that they have it not, it has ended, and nothing is owed any more.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from robustmq import metrics
from robustmq.broker.api import Broker, Heir, Legacy, client_of
from robustmq.message.batch import count_of
from robustmq.mqtt.registry import Registrar
from robustmq.mqtt.seeker import Cluster
from robustmq.mqtt.session import Session
from robustmq.mqtt.session_table import SessionTable

FIRST_KIND: Final = 242
"""The frames' kinds from this on are those of bequests."""
WHERE: Final = 242
THERE: Final = 243
BEQUEST: Final = 244
ACCEPTED: Final = 245

HERE: Final = 0
"""The core of a bequest that stays on this core, which has its session again."""

_WHERE: Final = struct.Struct("<BQQQ")
_THERE: Final = struct.Struct("<BBQQ")
_BEQUEST: Final = struct.Struct("<BQQQH")
_ACCEPTED: Final = struct.Struct("<BBQ")

_ROUNDS: Final = 3
"""How often all must say that a session is nowhere: a node that has it may just have come."""
_PATIENCE: Final = 20
"""Times `retry_ms` until something is asked or sent again that was not answered, or refused."""

_PACKER: Final = msgspec.msgpack.Encoder()
_LEGACIES: Final = msgspec.msgpack.Decoder(list[Legacy])


@dataclass(slots=True, eq=False)
class _Bequest:
    """One session that is being looked for, or is handed what it is owed."""

    number: int
    heir: Heir
    call: int = 0
    asked: int = 0
    owing: set[int] = field(default_factory=set)
    home: int | None = None
    absences: int = 0
    after: int | None = None
    records: int = 0
    is_over: bool = False


class Bequests:
    """Hands on what this core owes to sessions that others have, and takes what others owe.

    `is_ready()`: it is known which sessions are here. At most `at_once` sessions are seen to at
    a time, each with a page of `page_bytes` on its way.
    """

    def __init__(
        self,
        broker: Broker,
        sessions: SessionTable,
        registrar: Registrar,
        cluster: Cluster,
        *,
        is_ready: Callable[[], bool],
        retry_ms: int,
        at_once: int,
        page_bytes: int,
    ) -> None:
        self._broker = broker
        self._sessions = sessions
        self._registrar = registrar
        self._cluster = cluster
        self._is_ready = is_ready
        self._retry_ms = retry_ms
        self._at_once = at_once
        self._page_bytes = page_bytes
        self._calls: dict[int, _Bequest] = {}
        self._under_way = 0
        self._last_call = 0

    def leave(self, session: Session) -> None:
        """Another node has the session: what it is owed here is for that one."""
        if session.is_durable:
            heir = Heir(session.principal.identity, session.born)
            self._broker.estates.leave(session.window, heir)

    @property
    def busy(self) -> bool:
        """Whether `run` has to be called again."""
        return self._can_begin and bool(self._broker.estates.waiting)

    @property
    def _can_begin(self) -> bool:
        is_free = self._under_way < self._at_once and self._broker.state.refusal is None
        return is_free and self._is_ready()

    def run(self) -> None:
        """Once a turn: see to those who wait."""
        waiting = self._broker.estates.waiting
        while waiting and self._can_begin:
            number = waiting.popleft()
            self._under_way += 1
            self._look_for(_Bequest(number, self._broker.estates.heir(number)))

    # ------------------------------------------------------------------ who has it

    def _begin(self, bequest: _Bequest) -> None:
        """Begin a step; if nothing comes of it, others are seen to first."""
        self._number(bequest)
        self._later(bequest, _PATIENCE, lambda: self._requeue(bequest))

    def _number(self, bequest: _Bequest) -> None:
        self._calls.pop(bequest.call, None)
        self._last_call += 1
        bequest.call = self._last_call
        self._calls[bequest.call] = bequest

    def _later(self, bequest: _Bequest, times: int, then: Callable[[], None]) -> None:
        call = bequest.call

        def due() -> None:
            if self._calls.get(call) is bequest:
                then()

        self._broker.at(self._broker.turn.now_ms + times * self._retry_ms, due)

    def _wait(self, bequest: _Bequest) -> None:
        """Look for it again a little later."""
        bequest.home = None
        bequest.owing = set()
        self._number(bequest)
        self._later(bequest, 1, lambda: self._look_for(bequest))

    def _requeue(self, bequest: _Bequest) -> None:
        """Look for it again when all others have been seen to."""
        self._forget(bequest)
        self._broker.estates.waiting.append(bequest.number)

    def _forget(self, bequest: _Bequest) -> None:
        self._calls.pop(bequest.call, None)
        self._under_way -= 1

    def _look_for(self, bequest: _Bequest) -> None:
        if not self._is_ready():
            self._wait(bequest)
            return
        self._begin(bequest)
        bequest.home = None
        if self._session(bequest.heir) is not None:
            self._found(bequest, HERE)
            return
        identity, born = bequest.heir
        _, client_id = client_of(identity)
        bequest.asked = self._cluster.version
        bequest.owing = set(self._cluster.homes(client_id.encode()))
        frame = _WHERE.pack(WHERE, bequest.call, bequest.asked, born) + identity.encode()
        for core in bequest.owing:
            self._cluster.send(core, frame)
        if not bequest.owing:
            self._nowhere(bequest)

    def _session(self, heir: Heir) -> Session | None:
        """The session that was another node's; not one that has begun anew since."""
        session = self._sessions.get(heir.identity)
        is_heir = session is not None and session.is_durable and session.born == heir.born
        return session if is_heir else None

    def _where(self, source: int, frame: bytes) -> None:
        _, call, version, born = _WHERE.unpack_from(frame)
        heir = Heir(frame[_WHERE.size :].decode(), born)
        is_known = self._is_ready() and self._registrar.is_quiet(heir.identity)
        if is_known and version <= self._cluster.version:
            is_here = self._session(heir) is not None
            there = _THERE.pack(THERE, is_here, call, self._cluster.version)
            self._cluster.send(source, there)

    def _there(self, source: int, frame: bytes) -> None:
        _, has_it, call, version = _THERE.unpack(frame)
        bequest = self._calls.get(call)
        if bequest is None or source not in bequest.owing:
            return
        bequest.owing.discard(source)
        if has_it:
            self._found(bequest, source)
        elif version > bequest.asked:
            # It knows more of the cluster: there may be others to ask.
            self._wait(bequest)
        elif not bequest.owing:
            self._nowhere(bequest)

    def _nowhere(self, bequest: _Bequest) -> None:
        bequest.absences += 1
        if bequest.absences < _ROUNDS:
            self._wait(bequest)
            return
        self._broker.turn.row[metrics.ESTATES_ENDED] += 1
        self._close(bequest)

    def _close(self, bequest: _Bequest) -> None:
        self._forget(bequest)
        self._broker.estates.close(bequest.number)

    def replaced(self, core: int) -> None:
        """A core has a new life, or is not there any more: it does not answer."""
        for bequest in list(self._calls.values()):
            if core == bequest.home or core in bequest.owing:
                self._wait(bequest)

    # ------------------------------------------------------------------ what it is owed

    def _found(self, bequest: _Bequest, home: int) -> None:
        bequest.owing = set()
        bequest.absences = 0
        bequest.home = home
        page = self._broker.estates.page(bequest.number, self._page_bytes)
        bequest.after = page.after
        bequest.records = sum(count_of(each.batch) for each in page.legacies)
        bequest.is_over = not page.legacies
        identity, born = bequest.heir[0].encode(), bequest.heir.born
        head = _BEQUEST.pack(BEQUEST, bequest.number, bequest.call, born, len(identity))
        self._send(home, head + identity + _PACKER.encode(page.legacies))

    def _send(self, core: int, frame: bytes) -> None:
        if core == HERE:
            self.receive(HERE, frame)
        else:
            self._cluster.send(core, frame)

    def _bequest(self, source: int, frame: bytes) -> None:
        _, number, call, born, length = _BEQUEST.unpack_from(frame)
        end = _BEQUEST.size + length
        session = self._session(Heir(frame[_BEQUEST.size : end].decode(), born))
        legacies = _LEGACIES.decode(frame[end:])
        if session is None or not self._is_ready():
            self._send(source, _ACCEPTED.pack(ACCEPTED, False, call))
            return
        window = session.window
        is_taken = True
        if legacies:
            is_taken = self._broker.legacies.take(window, source, number, legacies)
        else:
            self._broker.legacies.end(window, source, number)
        answer = partial(self._send, source, _ACCEPTED.pack(ACCEPTED, is_taken, call))
        self._broker.state.then(answer)

    def _accepted(self, frame: bytes) -> None:
        _, is_taken, call = _ACCEPTED.unpack(frame)
        bequest = self._calls.get(call)
        if bequest is None or bequest.home is None:
            return
        if not is_taken:
            # Its client may read nothing for long: nobody is to wait for that.
            self._forget(bequest)
            due_ms = self._broker.turn.now_ms + _PATIENCE * self._retry_ms
            waiting = self._broker.estates.waiting
            self._broker.at(due_ms, lambda: waiting.append(bequest.number))
        elif bequest.is_over:
            self._close(bequest)
        else:
            self._broker.turn.row[metrics.LEGACIES_SENT] += bequest.records
            self._broker.estates.passed(bequest.number, bequest.after)
            self._look_again(bequest)

    def _look_again(self, bequest: _Bequest) -> None:
        """Go on with the next page, when it is written how far it is."""
        home, call = bequest.home, bequest.call

        def go_on() -> None:
            if self._calls.get(call) is bequest and home is not None:
                self._begin(bequest)
                self._found(bequest, home)

        self._broker.state.then(go_on)

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame of another core (kinds from FIRST_KIND on)."""
        kind = frame[0]
        if kind == WHERE:
            self._where(source, frame)
        elif kind == THERE:
            self._there(source, frame)
        elif kind == BEQUEST:
            self._bequest(source, frame)
        else:
            self._accepted(frame)
