"""The QoS 2 exchanges of durable sessions, as they are on disk (MQTT5 4.3.3).

Rows: `X` number, position -> the packet id of a message, and how far its exchange has come:
written before the packet leaves, so that no message is ever sent under two ids. The id 0 stands
for a message that the session is not to be given, though it lies behind the cursor.
"""

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from robustmq.broker.cursor import Cursor
from robustmq.broker.state import State

EXCHANGE_KEY: Final = struct.Struct(">cQQ")
_STAGE: Final = struct.Struct(">HB")


class Stage(enum.IntEnum):
    """How far an exchange has come: PUBLISH sent, PUBREC received, PUBCOMP received."""

    SENT = 0
    RELEASED = 1
    DONE = 2


class Exchange(NamedTuple):
    """A row of an earlier life."""

    key: bytes
    number: int
    position: int
    packet_id: int
    stage: Stage


class Exchanges:
    """Puts the rows of exchanges, and keeps them with the cursors of their sessions."""

    def __init__(self, state: State) -> None:
        self._state = state

    def rows(self) -> Iterator[Exchange]:
        """Yield what an earlier life has left, by session and position."""
        for key, value in self._state.walk(b"X", b"Y"):
            _, number, position = EXCHANGE_KEY.unpack(key)
            packet_id, stage = _STAGE.unpack(value)
            yield Exchange(key, number, position, packet_id, Stage(stage))

    def take_up(self, cursor: Cursor, exchange: Exchange, is_open: bool) -> None:
        """Know a row again: its position is not given again; `is_open`: its id is in flight."""
        if cursor.past is None:
            cursor.past = set()
        cursor.past.add(exchange.position)
        if is_open:
            if cursor.exchanges is None:
                cursor.exchanges = {}
            cursor.exchanges[exchange.packet_id] = exchange.position

    def sent(self, cursor: Cursor, packet_id: int, position: int) -> None:
        """A message is about to leave under an id."""
        if cursor.exchanges is None:
            cursor.exchanges = {}
        cursor.exchanges[packet_id] = position
        self._put(cursor, position, packet_id, Stage.SENT)

    def released(self, cursor: Cursor, packet_id: int) -> None:
        """The client has the message: it must not be sent again."""
        if cursor.exchanges and packet_id in cursor.exchanges:
            self._put(cursor, cursor.exchanges[packet_id], packet_id, Stage.RELEASED)

    def completed(self, cursor: Cursor, packet_id: int) -> None:
        """The exchange is over: its packet id is free."""
        if not cursor.exchanges:
            return
        position = cursor.exchanges.pop(packet_id, None)
        if position is None:
            return
        if not cursor.exchanges:
            cursor.exchanges = None
        if position < cursor.position:
            self._delete(cursor, position)
            return
        self._put(cursor, position, packet_id, Stage.DONE)
        if cursor.past is None:
            cursor.past = set()
        cursor.past.add(position)

    def skip(self, cursor: Cursor, positions: Iterable[int]) -> None:
        """What lies at these positions is not for the session."""
        if cursor.past is None:
            cursor.past = set()
        for position in positions:
            self._put(cursor, position, 0, Stage.DONE)
            cursor.past.add(position)

    def passed(self, cursor: Cursor, position: int) -> None:
        """The cursor has come to a position: what is over before it needs no row any more."""
        if not cursor.past:
            return
        passed = {each for each in cursor.past if each < position}
        for each in passed - set((cursor.exchanges or {}).values()):
            self._delete(cursor, each)
        cursor.past = (cursor.past - passed) or None

    def drop(self, cursor: Cursor) -> None:
        """The session has ended."""
        for position in {*(cursor.past or ()), *(cursor.exchanges or {}).values()}:
            self._delete(cursor, position)

    def discard(self, exchange: Exchange) -> None:
        """A row whose session is gone."""
        self._state.delete(exchange.key)

    def _put(self, cursor: Cursor, position: int, packet_id: int, stage: Stage) -> None:
        key = EXCHANGE_KEY.pack(b"X", cursor.window.key, position)
        self._state.put(key, _STAGE.pack(packet_id, stage))

    def _delete(self, cursor: Cursor, position: int) -> None:
        self._state.delete(EXCHANGE_KEY.pack(b"X", cursor.window.key, position))
