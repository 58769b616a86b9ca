"""The transactions of a shard: which are open, where what is stable ends, which were aborted."""

import struct
from bisect import bisect_left
from collections import deque
from typing import Final, NamedTuple

from robustmq.errors import Corrupt

_COUNT: Final = struct.Struct(">I")
_OPEN: Final = struct.Struct(">qQ")
_ABORTED: Final = struct.Struct(">qQQQ")

_BEGUN: Final = 100_000
"""Transactions without a batch that are remembered; who is forgotten asks its coordinator anew."""


class Aborted(NamedTuple):
    """An aborted transaction: its records lie from `first` on, its marker at `last`.

    `stable` is the first offset that was open when it had been aborted: whatever was aborted
    later begins there or behind it.
    """

    producer_id: int
    first: int
    last: int
    stable: int


class _Closing(NamedTuple):
    """A transaction whose marker, at `last`, may not be durable yet."""

    first: int
    last: int


class Transactions:
    """What is known of transactions by the batches and markers of one log (KIP-98)."""

    def __init__(self) -> None:
        # In the order in which they began, which is that of their offsets.
        self._open: dict[int, int] = {}
        # Whose next transactional batch is let in, and with which epoch.
        self._begun: dict[int, int] = {}
        self._closing: deque[_Closing] = deque()
        self._aborted: list[Aborted] = []
        self._of: dict[int, list[Aborted]] = {}

    def open_offset(self, producer_id: int) -> int:
        """The first offset of a producer's open transaction; -1: it has none."""
        return self._open.get(producer_id, -1)

    def is_open(self, producer_id: int) -> bool:
        """Say whether a producer has an open transaction."""
        return producer_id in self._open

    @property
    def is_quiet(self) -> bool:
        """Whether no transaction is open, or not durably ended."""
        return not self._open and not self._closing

    def stable_offset(self, high_watermark: int) -> int:
        """The offset below which every record is durable and its transaction, if any, ended."""
        if self.is_quiet:
            return high_watermark
        closing = self._closing
        while closing and closing[0].last < high_watermark:
            closing.popleft()
        firsts = [each.first for each in closing]
        return min(self._first_open(high_watermark), high_watermark, *firsts)

    def expect(self, producer_id: int, epoch: int) -> None:
        """A coordinator says that a producer has a transaction here; nothing is open yet."""
        self._begun.pop(producer_id, None)
        self._begun[producer_id] = epoch
        if len(self._begun) > _BEGUN:
            del self._begun[next(iter(self._begun))]

    def lets_in(self, producer_id: int, epoch: int) -> bool:
        """Say whether a transactional batch belongs to a transaction that has begun here."""
        return producer_id in self._open or self._begun.get(producer_id) == epoch

    def begin(self, producer_id: int, offset: int) -> None:
        """A transactional batch lies at `offset`: its transaction is open."""
        self._open.setdefault(producer_id, offset)

    def end(self, producer_id: int, offset: int, is_committed: bool) -> None:
        """The marker of a transaction lies at `offset`."""
        self._begun.pop(producer_id, None)
        first = self._open.pop(producer_id, None)
        if first is None:
            return
        self._closing.append(_Closing(first, offset))
        if not is_committed:
            self._add(Aborted(producer_id, first, offset, self._first_open(offset + 1)))

    def aborted(self, offset: int, upper: int) -> list[Aborted]:
        """The aborted transactions that may have records from `offset` on and below `upper`."""
        found = []
        for number in range(bisect_left(self._aborted, offset, key=_last), len(self._aborted)):
            each = self._aborted[number]
            if each.first < upper:
                found.append(each)
            if each.stable >= upper:
                break
        return found

    def is_void(self, producer_id: int, offset: int) -> bool:
        """Say whether a transactional record of a producer was aborted."""
        aborted = self._of.get(producer_id)
        if not aborted:
            return False
        number = bisect_left(aborted, offset, key=_last)
        return number < len(aborted) and aborted[number].first <= offset

    def trim(self, start: int) -> None:
        """Nothing below `start` is kept any more."""
        gone = bisect_left(self._aborted, start, key=_last)
        if not gone:
            return
        for producer_id in {each.producer_id for each in self._aborted[:gone]}:
            mine = self._of[producer_id]
            del mine[: bisect_left(mine, start, key=_last)]
            if not mine:
                del self._of[producer_id]
        del self._aborted[:gone]

    def encode(self) -> bytes:
        """All that `decode` needs to know it again, once everything is durable."""
        return b"".join((
            _COUNT.pack(len(self._open)),
            *(_OPEN.pack(*each) for each in self._open.items()),
            *(_ABORTED.pack(*each) for each in self._aborted),
        ))  # fmt: skip

    def decode(self, data: bytes) -> None:
        """Know what was encoded. Raises Corrupt."""
        size = len(data) - _COUNT.size
        count = _COUNT.unpack_from(data)[0] if size >= 0 else 0
        behind = _COUNT.size + count * _OPEN.size
        if size < 0 or behind > len(data) or (len(data) - behind) % _ABORTED.size:
            raise Corrupt("a shard's transactions: cut")
        self._open = dict(_OPEN.iter_unpack(data[_COUNT.size : behind]))
        for row in _ABORTED.iter_unpack(data[behind:]):
            self._add(Aborted(*row))

    def _first_open(self, otherwise: int) -> int:
        return next(iter(self._open.values()), otherwise)

    def _add(self, aborted: Aborted) -> None:
        self._aborted.append(aborted)
        self._of.setdefault(aborted.producer_id, []).append(aborted)


def _last(aborted: Aborted) -> int:
    return aborted.last
