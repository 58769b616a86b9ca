"""A single-producer single-consumer byte ring in shared memory: readable twin.

The layout, shared with the compiled kernel: three 64-byte lines (tail; head; the two flags), then
`capacity` bytes of frames. Tail and head count bytes and never wrap; their place in the ring is
the remainder by `capacity`. A frame is `[u32 length][u32 kind][u64 stamp][payload]`, padded to
8 bytes. Zeroed memory is an empty ring. The twin relies on the store order of x86 (a plain store
is a release); on other processors only the compiled ring may be shared between processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from robustmq.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

RING_HEADER_BYTES: Final = 192
"""Bytes of a ring's memory that hold no frames: tail, head, flags, each on its own line."""
FRAME_HEADER_BYTES: Final = 16
"""Bytes of ring space that a frame takes besides its padded payload."""

_TAIL: Final = 0
_HEAD: Final = 8
_SLEEPING: Final = 16
_WAITING: Final = 17
_DATA: Final = RING_HEADER_BYTES // 8
_SIZES: Final = range(RING_HEADER_BYTES + 64, RING_HEADER_BYTES + (1 << 32))


def _space(length: int) -> int:
    return FRAME_HEADER_BYTES + (length + 7 & ~7)


class Ring:
    """One direction between two processes: one of them pushes, the other one pulls.

    `memory` is a writable shared buffer, `offset` (a multiple of 8) where the ring begins in it,
    `size` its bytes including `RING_HEADER_BYTES`. `capacity` is the ring space for frames.
    After a pull `stamp` and `kind` are those of its frames and `taken` the ring space that it
    freed. Raises ValueError when the memory does not fit.
    """

    __slots__ = ("_bytes", "_offset", "_words", "capacity", "kind", "stamp", "taken")

    def __init__(self, memory: Buffer, offset: int, size: int) -> None:
        view = memoryview(memory).cast("B")
        if view.readonly:
            raise ValueError("a ring needs writable memory")
        if offset % 8 or offset < 0 or size not in _SIZES or offset + size > len(view):
            raise ValueError(f"no ring of {size} bytes fits at offset {offset}")
        self.capacity = (size - RING_HEADER_BYTES) & ~7
        part = view[offset : offset + RING_HEADER_BYTES + self.capacity]
        self._words = part.cast("Q")
        self._bytes = part[RING_HEADER_BYTES:]
        self._offset = offset
        self.stamp = 0
        self.kind = 0
        self.taken = 0

    def used(self) -> int:
        """Return the ring space in use, in bytes; raises Corrupt when the positions are."""
        head, tail = self._words[_HEAD], self._words[_TAIL]
        used = tail - head
        if not 0 <= used <= self.capacity or (head | tail) & 7:
            raise Corrupt(f"ring at {self._offset}: head {head}, tail {tail}")
        return used

    def free(self) -> int:
        """Return the ring space that is left, in bytes."""
        return self.capacity - self.used()

    def push(self, frames: Sequence[Buffer], stamp: int = 0, kinds: Buffer = b"") -> int:
        """Write as many whole frames as fit, in order, and return how many.

        They become visible together, when the last byte of the last one is written. `stamp`
        (u64) goes with every frame; `kinds` holds one byte for each (all 0 when empty). Raises
        ValueError when the first frame cannot fit into an empty ring, or `kinds` is too short.
        """
        kinds = bytes(kinds)
        if kinds and len(kinds) < len(frames):
            raise ValueError("fewer kinds than frames")
        room = self.free()
        start = tail = self._words[_TAIL]
        count = 0
        for frame in frames:
            payload = memoryview(frame).cast("B")
            space = _space(len(payload))
            if space > room:
                if space > self.capacity and not count:
                    raise ValueError(f"a frame of {len(payload)} bytes exceeds the ring")
                break
            kind = kinds[count] if kinds else 0
            self._put_word(tail, kind << 32 | len(payload))
            self._put_word(tail + 8, stamp)
            self._put(tail + FRAME_HEADER_BYTES, payload)
            tail += space
            room -= space
            count += 1
        if tail != start:
            self._words[_TAIL] = tail
        return count

    def pull(self, limit_bytes: int, only: int | None = None) -> list[bytes]:
        """Take the frames at the head that have the same stamp and kind.

        Takes no more than `limit_bytes` of ring space, but at least one frame; with `only`, none
        of another stamp. The space is given back at once, at the end. Raises Corrupt when a
        length cannot be; the frames before it have been returned by then.
        """
        left = self.used()
        start = head = self._words[_HEAD]
        frames: list[bytes] = []
        while left:
            word, stamp = self._word(head), self._word(head + 8)
            length, kind = word & 0xFFFFFFFF, word >> 32
            space = _space(length)
            if space > left:
                if frames:
                    break
                raise Corrupt(f"ring at {self._offset}: a frame of {length} bytes at {head}")
            if frames:
                if stamp != self.stamp or kind != self.kind or head - start + space > limit_bytes:
                    break
            elif only is not None and stamp != only:
                break
            else:
                self.stamp, self.kind = stamp, kind
            frames.append(self._get(head + FRAME_HEADER_BYTES, length))
            head += space
            left -= space
        self.taken = head - start
        if frames:
            self._words[_HEAD] = head
        return frames

    def sleep(self) -> bool:
        """Consumer: announce sleep; True when the ring is still empty, else the flag is cleared."""
        self._words[_SLEEPING] = 1
        if self._words[_TAIL] == self._words[_HEAD]:
            return True
        self._words[_SLEEPING] = 0
        return False

    def awake(self) -> None:
        """Consumer: take the announcement back."""
        self._words[_SLEEPING] = 0

    def wants_bell(self) -> bool:
        """Producer, after a push: whether the consumer may be asleep; clears its flag.

        Without a memory fence the flag can be in doubt after every push: the twin says True.
        """
        self._words[_SLEEPING] = 0
        return True

    def wait_for_room(self, length: int) -> bool:
        """Producer: announce that a frame of `length` bytes waits; False when it fits by now."""
        self._words[_WAITING] = 1
        if self.free() < _space(length):
            return True
        self._words[_WAITING] = 0
        return False

    def room_wanted(self) -> bool:
        """Consumer, after a pull: whether the producer may wait for room; clears its flag.

        As in `wants_bell` there is no fence: the twin says True.
        """
        self._words[_WAITING] = 0
        return True

    def _word(self, position: int) -> int:
        return self._words[_DATA + position % self.capacity // 8]

    def _put_word(self, position: int, word: int) -> None:
        self._words[_DATA + position % self.capacity // 8] = word

    def _get(self, position: int, length: int) -> bytes:
        place = position % self.capacity
        first = bytes(self._bytes[place : place + length])
        if len(first) == length:
            return first
        return first + bytes(self._bytes[: length - len(first)])

    def _put(self, position: int, payload: memoryview) -> None:
        place = position % self.capacity
        first = min(len(payload), self.capacity - place)
        self._bytes[place : place + first] = payload[:first]
        self._bytes[: len(payload) - first] = payload[first:]
