"""PUBLISH packets of one topic, encoded once and shared by every session: readable twin."""

from __future__ import annotations

import contextlib
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from robustmq._kernel.pure.alias import after_variable_integer, with_alias, with_block

if TYPE_CHECKING:
    from collections.abc import Sequence

IDS: Final = 65535
"""How many packet identifiers there are; 0 is none of them (MQTT5 2.2.1)."""
DUP: Final = 8
"""The bit of a PUBLISH's first byte that marks a redelivery (MQTT5 3.3.1.1)."""


def id_position(packet: bytes | bytearray, at: int) -> int:
    """Return where the packet identifier of the QoS 1 or 2 PUBLISH at `at` lies."""
    at = after_variable_integer(packet, at + 1)
    return at + 2 + int.from_bytes(packet[at : at + 2], "big")


class Run:
    """PUBLISH packets of one topic, encoded once and shared by every session that gets them.

    `data` are the packets one after the other, `ends` where each one ends (ascending, at least
    one), `count` how many they are, `largest` the bytes of the largest. All have the same
    `qos`. Their packet identifiers are consecutive; with a `sequence` (that of the core, of
    the first packet) the identifier of packet i is `(sequence + i) % 65535 + 1`, with 0 it is
    the one that the first packet carries, `first_id`. `deadline` (wall clock in ms, 0 for
    none) ends the message; `expiry_at`, for a run of one packet, is where in `data` its message
    expiry interval lies (0 for nowhere). `alias` is the topic alias that the core gave to the
    topic, 0 for none. `origin` says on whose behalf it came (a shared subscription), `source`
    where its records lie: (batch, byte position of the first record, records to skip). A
    stored run has the inbox's `position` of its first packet, packet i that of `position + i`;
    0 is a run that is not stored. `since` is the turn's time at which it was encoded, in ms.

    Raises ValueError when ends, qos or expiry_at do not fit the data.
    """

    __slots__ = (
        "_aliased", "_ends", "alias", "count", "data", "deadline", "expiry_at", "first_id",
        "largest", "origin", "position", "qos", "sequence", "since", "source",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917
        self,
        data: bytes,
        ends: Sequence[int],
        qos: int,
        sequence: int,
        deadline: int = 0,
        expiry_at: int = 0,
    ) -> None:
        if not ends or qos > 2:
            raise ValueError("a run has packets, and a QoS of 0, 1 or 2")
        limits = [0, *ends]
        self.largest = max(end - begin for begin, end in pairwise(limits))
        if min(end - begin for begin, end in pairwise(limits)) < 4 or ends[-1] > len(data):
            raise ValueError("the ends of a run lie outside its data")
        if expiry_at and (len(ends) != 1 or expiry_at + 4 > ends[0]):
            raise ValueError("the expiry interval lies outside the one packet")
        self.data = data
        self.count = len(ends)
        self.qos = qos
        self.sequence = sequence
        self.deadline = deadline
        self.expiry_at = expiry_at
        self.alias = 0
        self.position = 0
        self.since = 0
        self.origin: object = None
        self.source: tuple[bytes, int, int] | None = None
        self._ends = list(ends)
        self._aliased: Run | None = None
        self.first_id = 0
        if qos:
            ids = [self._id_in_data(i) for i in range(self.count)]
            self.first_id = sequence % IDS + 1 if sequence else ids[0]

    def packet(self, i: int) -> bytes:
        """Return packet `i` of the run; IndexError when there is none."""
        if not 0 <= i < self.count:
            raise IndexError(i)
        return self.data[self._begin(i) : self._ends[i]]

    def _begin(self, i: int) -> int:
        return self._ends[i - 1] if i else 0

    def _bytes(self, first: int, count: int) -> int:
        """Count the bytes of the packets `first` … `first + count - 1`."""
        return self._ends[first + count - 1] - self._begin(first)

    def _packet_id(self, i: int) -> int:
        return (self.first_id - 1 + i) % IDS + 1

    def _id_in_data(self, i: int) -> int:
        """Return the identifier that packet `i` carries; ValueError when it has none."""
        packet = self.packet(i)
        at = len(packet)
        with contextlib.suppress(IndexError):
            at = id_position(packet, 0)
        packet_id = int.from_bytes(packet[at : at + 2], "big")
        if at + 2 > len(packet) or not packet_id:
            raise ValueError("a packet without an identifier")
        return packet_id

    def _changed(self, first: int, count: int, again: bool, now_ms: int) -> bytes:
        """Return packets with DUP when sent `again`, and with the remaining expiry interval."""
        start = self._begin(first)
        copied = bytearray(self.data[start : self._ends[first + count - 1]])
        if again and self.qos:
            for i in range(first, first + count):
                copied[self._begin(i) - start] |= DUP
        if self.deadline and self.expiry_at:
            remaining = min(max(0, (self.deadline - now_ms + 999) // 1000), 0xFFFFFFFF)
            copied[self.expiry_at : self.expiry_at + 4] = remaining.to_bytes(4, "big")
        return bytes(copied)

    def _renumbered(self, first: int, count: int, start_id: int) -> Run:
        """Return a private copy of some packets with identifiers from `start_id` on."""
        base = self._begin(first)
        data = bytearray(self.data[base : self._ends[first + count - 1]])
        ends = []
        for i in range(count):
            at = id_position(data, self._begin(first + i) - base)
            data[at : at + 2] = ((start_id - 1 + i) % IDS + 1).to_bytes(2, "big")
            ends.append(self._ends[first + i] - base)
        private = Run(bytes(data), ends, self.qos, 0, self.deadline, self.expiry_at)
        private.alias = self.alias
        private.since = self.since
        private.position = self.position + first if self.position else 0
        private.origin = self.origin
        if self.source is not None:
            batch, position, skipped = self.source
            private.source = batch, position, skipped + first
        return private

    def _translated(self, version: int) -> Run:
        """Return the run for a session that speaks MQTT 5 now, or (`version` below 5) no longer.

        Of the properties only the message expiry interval is there, for MQTT 5.
        """
        block = b""
        if version == 5:
            block = b"\x05\x02\0\0\0\0" if self.deadline and self.count == 1 else b"\0"
        packets = [with_block(self.packet(i), version != 5, block) for i in range(self.count)]
        expiry_at = id_position(packets[0], 0) + 4 if len(block) > 1 else 0
        ends = list(accumulate(map(len, packets)))
        run = Run(b"".join(packets), ends, self.qos, self.sequence, self.deadline, expiry_at)
        run.alias = self.alias if version == 5 else 0
        run.position = self.position
        run.since = self.since
        run.origin = self.origin
        run.source = self.source
        return run

    def _without_topic(self) -> Run:
        """Return the run with its topic alias in place of its topic; made once."""
        if self._aliased is None:
            packets = [with_alias(self.packet(i), self.alias, False) for i in range(self.count)]
            ends = []
            at = 0
            for packet in packets:
                at += len(packet)
                ends.append(at)
            self._aliased = Run(b"".join(packets), ends, self.qos, self.sequence)
        return self._aliased
