"""What became of proposals: every command is folded once, however often it was proposed.

A command is known by its origin's node, that node's life and a sequence without gaps. It is folded
when it is the next of its origin; one that comes again has the outcome that is kept, one whose
turn has not come is left out, and proposed again by its origin. What is kept here lies in the
group's store, so it is the same on every node, and part of every snapshot.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from robustmq.meta.machine import Store

_ORIGIN: Final = b"\0o"
_RESULTS: Final = b"\0r"
_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Batch(Struct, frozen=True, array_like=True, gc=False):
    """Commands of one origin; the sequence of the first is `first`.

    floor: The origin asks for nothing below this any more: it was answered, or given up.
    """

    node: _Number
    life: _Number
    floor: _Number
    first: _Number
    commands: tuple[bytes, ...]


class Result(Struct, frozen=True, array_like=True, gc=False):
    """What folding a command gave; `data` is None when the machine failed."""

    position: int
    data: bytes | None


class _Row(Struct, array_like=True):
    life: int = 0
    next: int = 0


class _Block(Struct):
    """The results of one batch, in order of sequence."""

    first: int
    results: list[Result]


class _Origin(Struct):
    row: _Row
    blocks: deque[_Block]


_encode: Final = msgspec.msgpack.encode
_batches: Final = msgspec.msgpack.Decoder(list[Batch])
_origins: Final = msgspec.msgpack.Decoder(_Row)
_results: Final = msgspec.msgpack.Decoder(list[Result])


def entry_data(batches: Sequence[Batch]) -> bytes:
    """Return the data of an entry that holds batches."""
    return _encode(batches)


def batches_of(data: bytes) -> list[Batch]:
    """Return the batches of an entry. Raises msgspec.DecodeError."""
    return _batches.decode(data)


class Outcomes:
    """The origins of one group's commands, over its store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._origins: dict[int, _Origin] = {}
        self.reload()

    def reload(self) -> None:
        """Take the store as it is now."""
        self._origins.clear()
        for key, value in self._store.walk(_ORIGIN):
            node = int.from_bytes(key[len(_ORIGIN) :], "big")
            self._origins[node] = _Origin(_origins.decode(value), deque())
        for key, value in self._store.walk(_RESULTS):
            node = int.from_bytes(key[2:10], "big")
            first = int.from_bytes(key[10:18], "big")
            self._origins[node].blocks.append(_Block(first, _results.decode(value)))

    def fold(self, batch: Batch, fold: Callable[[bytes], Result]) -> tuple[int, list[Result]]:
        """Fold the commands of a batch that are new; returns the first one's sequence, and results.

        The sequence is below `batch.first` when the batch does not follow what was folded, and
        the results are none when there was nothing new.
        """
        origin = self._origins.setdefault(batch.node, _Origin(_Row(), deque()))
        row = origin.row
        if batch.life < row.life:
            return batch.first, []
        if batch.life > row.life:
            self._forget(batch.node, origin, None)
            row.life, row.next = batch.life, batch.floor
        row.next = max(row.next, batch.floor)
        self._forget(batch.node, origin, batch.floor)
        start = row.next
        results: list[Result] = []
        if batch.first <= start:
            results = [fold(command) for command in batch.commands[start - batch.first :]]
            if results:
                origin.blocks.append(_Block(start, results))
                self._store.put(_results_key(batch.node, start), _encode(results))
                row.next += len(results)
        self._store.put(_ORIGIN + batch.node.to_bytes(8, "big"), _encode(row))
        return start, results

    def known(self, node: int, life: int) -> dict[int, Result]:
        """Return the results that are kept of an origin, by sequence."""
        origin = self._origins.get(node)
        if origin is None or origin.row.life != life:
            return {}
        return {
            block.first + place: result
            for block in origin.blocks
            for place, result in enumerate(block.results)
        }

    def _forget(self, node: int, origin: _Origin, floor: int | None) -> None:
        """Drop the results below a sequence; None: all of them."""
        blocks = origin.blocks
        while blocks and (floor is None or blocks[0].first + len(blocks[0].results) <= floor):
            self._store.delete(_results_key(node, blocks.popleft().first))


def _results_key(node: int, first: int) -> bytes:
    return _RESULTS + node.to_bytes(8, "big") + first.to_bytes(8, "big")
