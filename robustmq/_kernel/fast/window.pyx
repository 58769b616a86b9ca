# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A session's outgoing messages: in flight, then queued; the twin is `pure/window.py`."""
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport free

from robustmq._kernel.fast.alias cimport ALIAS_GROWTH, aliased_packet
from robustmq._kernel.fast.run cimport IDS
from robustmq._kernel.fast.turn cimport Turn
from robustmq.metrics import (
    MESSAGES_DROPPED_EXPIRED as _EXPIRED,
    MESSAGES_DROPPED_QUEUE as _QUEUE,
    MESSAGES_DROPPED_SLOW as _SLOW,
    MESSAGES_DROPPED_TOO_LARGE as _TOO_LARGE,
    MESSAGES_SENT as _SENT,
    PACKETS_SENT as _PACKETS_SENT,
)

cdef int EXPIRED = _EXPIRED, QUEUE = _QUEUE, SLOW = _SLOW, TOO_LARGE = _TOO_LARGE
cdef int SENT = _SENT, PACKETS_SENT = _PACKETS_SENT


cdef class Window(Flight):
    """In-flight window and queue of one session, by reference into shared runs."""

    def __cinit__(self, Turn turn not None, uint32_t max_queued, uint64_t max_queued_bytes,
                  uint64_t max_outbox_bytes):
        self.turn = turn
        self.outbox = None
        self.session = None
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.max_outbox_bytes = max_outbox_bytes
        self.aliases = None

    def attach(self, Outbox outbox not None, uint8_t version, uint32_t limit, uint32_t max_packet,
               uint16_t alias_max):
        """A connection is there: what was in flight goes out again first (MQTT5 4.4)."""
        self.take_back()
        if self.version and (version == 5) != (self.version == 5):
            self.translate(version)
        self.outbox = outbox
        self.version = version
        self.limit = limit
        self.max_packet = max_packet
        self.alias_max = alias_max
        self.aliases = None
        if self.released:
            self.in_flight = len(self.released)
            self.mixed = True
            for packet_id in self.released:
                outbox.put(b"\x62\x02" + (<int>packet_id).to_bytes(2, "big"))
                self.turn.cells[PACKETS_SENT] += 1
        self.pump_raw()

    def detach(self):
        """The connection is gone; what was in flight waits at the front of the queue."""
        cdef uint64_t lowest
        self.outbox = None
        self.aliases = None
        self.take_back()
        lowest = self.drop_stored()
        if not self.lagging:
            self.lagging = True
            self.resume = lowest
        elif lowest and (self.resume == 0 or lowest < self.resume):
            self.resume = lowest

    @property
    def oldest(self):
        """The lowest position of a stored message that is in flight or queued; 0: none."""
        return self.lowest()

    def foremost(self, bint queued):
        """The run of the oldest message that waits for the client, or that is not in flight."""
        cdef uint64_t s
        cdef Entry* entry
        for s in range(self.sent if queued else self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left > (entry.out if queued else 0):
                return <Run>entry.run
        return None

    cdef uint64_t drop_stored(self) except? 0:
        """Take what is stored and was never sent out of the queue; the lowest position."""
        cdef uint64_t s, lowest = 0
        cdef uint32_t kept, first, earlier = self.redeliver
        cdef Entry* entry
        cdef Run run
        self.last = 0
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left == 0:
                continue
            run = <Run>entry.run
            kept = min(entry.left, earlier)
            earlier -= kept
            if run.position == 0:
                continue
            first = entry.first + kept
            if kept:
                self.last = max(self.last, run.position + first - 1)
            if kept == entry.left:
                continue
            if lowest == 0 or run.position + first < lowest:
                lowest = run.position + first
            self.queued -= entry.left - kept
            self.queued_bytes -= run.size(first, entry.left - kept)
            entry.left = kept
            if kept == 0:
                self.blank(entry)
        self.pop_head()
        if self.head == self.tail:
            free(self.ring)
            self.ring = NULL
            self.capacity = 0
        return lowest

    cdef int take_back(self) except -1:
        cdef uint64_t s
        cdef Entry* entry
        cdef Run run
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.out:
                run = <Run>entry.run
                self.redeliver += entry.out
                self.queued += entry.out
                self.queued_bytes += run.size(entry.first, entry.out)
                entry.out = 0
        self.sent = self.head
        self.in_flight = 0
        return 0

    cdef int translate(self, uint8_t version) except -1:
        """Encode everything that waits for another version."""
        cdef dict done = {}
        cdef uint64_t s
        cdef Entry* entry
        cdef Run run
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left == 0:
                continue
            run = <Run>entry.run
            if run not in done:
                done[run] = run.translated(version)
            self.queued_bytes -= run.size(entry.first, entry.left)
            Py_DECREF(run)
            run = <Run>done[run]
            Py_INCREF(run)
            entry.run = <PyObject*>run
            self.queued_bytes += run.size(entry.first, entry.left)
        return 0

    def clear(self):
        """Forget everything."""
        self.drop_all()
        self.in_flight = self.queued = self.redeliver = 0
        self.queued_bytes = 0
        self.released = None
        self.lagging = False
        self.resume = self.last = 0
        self.unordered = False

    def offer(self, Run run not None):
        """Deliver `run`: at once, or queued, or dropped and counted."""
        self.offer_run(run)

    def pump(self):
        """Send what the window and the outbox have room for."""
        self.pump_raw()

    def puback(self, uint16_t packet_id):
        """The client has the QoS 1 message; False when none with that id is in flight."""
        cdef bint known = self.puback_raw(packet_id, 1)
        self.pump_raw()
        return known

    def pubrec(self, uint16_t packet_id, bint refused):
        """The client has (or refuses) the QoS 2 message; False when the id is not in flight."""
        cdef uint64_t at, sequence
        cdef uint32_t depth
        cdef Run run
        if self.released is not None and packet_id in self.released:
            return True
        if not self.find(packet_id, 2, &at, &depth):
            return False
        run = <Run>self.ring[at & (self.capacity - 1)].run
        sequence = run.sequence
        if sequence:
            sequence += self.ring[at & (self.capacity - 1)].first + depth
        self.remove(at, depth)
        if not refused:
            if self.released is None:
                self.released = {}
            self.released[packet_id] = sequence
            self.in_flight += 1
            self.check_hunger()
        else:
            self.pump_raw()
        return True

    def pubcomp(self, uint16_t packet_id):
        """The QoS 2 exchange is complete; False when it was not under way."""
        if self.released is None or self.released.pop(packet_id, None) is None:
            return False
        if self.outbox is not None:
            self.in_flight -= 1
        self.pump_raw()
        return True

    def restore(self, Run run not None):
        """The stored messages of `run` were sent on an earlier connection."""
        if self.outbox is not None or run.position == 0 or run.qos == 0:
            raise ValueError("what is restored was stored, and there is no connection")
        self.insert(run, self.redeliver)
        self.redeliver += run.count
        self.queued += run.count
        self.queued_bytes += run.ends[run.count - 1]
        self.ascend(run)

    def release(self, int packet_id):
        """A QoS 2 exchange waits for its PUBCOMP: PUBREL goes out on `attach`."""
        if self.outbox is not None or packet_id < 1 or packet_id > IDS:
            raise ValueError("an exchange has an identifier, and there is no connection")
        if self.released is None:
            self.released = {}
        self.released[packet_id] = 0

    def exchanges(self):
        """The identifiers of the QoS 2 exchanges that wait for their PUBCOMP."""
        return [] if self.released is None else list(self.released)

    def fed(self):
        """The window was taken out of `turn.hungry`; it may come again."""
        self.hungry_once = False

    def noted(self):
        """The window was taken out of `turn.acknowledged`; it may come again."""
        self.noted_once = False

    cdef bint admits(self, Run run) noexcept:
        """Is there room for a stored run? The window lags from it when not."""
        cdef bint full
        if self.lagging:
            return False
        if self.outbox is None:
            full = True
        elif run.qos:
            full = self.queued and (
                self.queued + run.count > self.max_queued
                or self.queued_bytes + run.ends[run.count - 1] > self.max_queued_bytes)
        else:
            full = self.outbox.size > self.max_outbox_bytes and not (
                run.deadline and run.deadline <= self.turn.now_ms)
        if full:
            self.lagging = True
            self.resume = run.position
        return not full

    cdef int check_hunger(self) except -1:
        if self.lagging and not self.hungry_once and not self.queued and self.outbox is not None:
            self.hungry_once = True
            self.turn.hungry.append(self)
        return 0

    cdef void ascend(self, Run run) noexcept:
        """A stored run has come behind all others, or (restored) not."""
        if run.position < self.last:
            self.unordered = True
        else:
            self.last = run.position + run.count - 1

    def withdraw(self, origin):
        """Take out what came from `origin` and may go to somebody else: [(run, index), …].

        With a connection, what is in flight stays (MQTT5 3.10.4-3); without one, a QoS 2
        message that was sent stays (MQTT5 4.8.2).
        """
        cdef uint64_t s
        cdef uint32_t i, kept, before, earlier = self.redeliver
        cdef Entry* entry
        cdef Run run
        cdef list taken = []
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left == entry.out:
                continue
            before = min(entry.left - entry.out, earlier)
            earlier -= before
            run = <Run>entry.run
            if run.origin is not origin:
                continue
            kept = entry.out
            if run.qos == 2 or self.outbox is not None:
                kept += before
            else:
                self.redeliver -= before
            if kept == entry.left:
                continue
            for i in range(kept, entry.left):
                taken.append((run, entry.first + i))
            self.queued -= entry.left - kept
            self.queued_bytes -= run.size(entry.first + kept, entry.left - kept)
            entry.left = kept
            if kept == 0:
                self.blank(entry)
        self.pop_head()
        self.pump_raw()
        return taken

    cdef int offer_run(self, Run run) except -1:
        cdef Entry* entry
        cdef uint64_t size
        if run.position and not self.admits(run):
            return 0
        if run.qos == 0:
            if self.outbox is None:
                return 0
            if run.position:
                self.progress()
            return self.offer_at_most_once(run)
        size = run.ends[run.count - 1]
        if (self.queued + run.count > self.max_queued
                or self.queued_bytes + size > self.max_queued_bytes) and (
                self.queued or self.outbox is None):
            self.turn.cells[QUEUE] += run.count
            self.dropped += run.count
            return 0
        if run.position:
            self.ascend(run)
        if self.tail - self.head == self.capacity:
            self.compact()
            if self.tail - self.head >= self.capacity // 2:
                self.grow()
        entry = &self.ring[self.tail & (self.capacity - 1)]
        Py_INCREF(run)
        entry.run = <PyObject*>run
        entry.first = 0
        entry.left = run.count
        entry.out = 0
        self.tail += 1
        self.queued += run.count
        self.queued_bytes += size
        if self.queued == run.count:
            self.pump_raw()
        return 0

    cdef int offer_at_most_once(self, Run run) except -1:
        cdef uint32_t i
        cdef uint64_t* cells = self.turn.cells
        if run.deadline and run.deadline <= self.turn.now_ms:
            cells[EXPIRED] += run.count
            self.dropped += run.count
            return 0
        if self.outbox.size > self.max_outbox_bytes:
            cells[SLOW] += run.count
            self.dropped += run.count
            return 0
        if self.max_packet and run.largest > self.max_packet:
            for i in range(run.count):
                if run.size(i, 1) > self.max_packet:
                    cells[TOO_LARGE] += 1
                    self.dropped += 1
                else:
                    self.emit(run, i, 1, False)
            return 0
        return self.emit(run, 0, run.count, False)

    cdef int drop_unsent(self, uint32_t count, int cell) except -1:
        """The next `count` messages of the entry at `sent` are not sent."""
        cdef Entry* entry = self.next_entry()
        cdef Run run = <Run>entry.run
        self.queued -= count
        self.queued_bytes -= run.size(entry.first, count)
        self.redeliver -= min(self.redeliver, count)
        entry.first += count
        entry.left -= count
        self.turn.cells[cell] += count
        self.dropped += count
        if run.position:
            self.progress()
        return 0

    cdef int pump_raw(self) except -1:
        cdef Entry* entry
        cdef Run run
        cdef uint32_t first, count
        cdef bint again
        while self.sent < self.tail:
            entry = &self.ring[self.sent & (self.capacity - 1)]
            if entry.left == entry.out:
                if entry.left == 0:
                    self.blank(entry)
                self.sent += 1
                self.pop_head()
                continue
            if (self.outbox is None or self.in_flight >= self.limit
                    or self.outbox.size > self.max_outbox_bytes):
                return 0
            run = <Run>entry.run
            first = entry.first + entry.out
            count = min(entry.left - entry.out, self.limit - self.in_flight)
            again = self.redeliver > 0
            if again:
                count = min(count, self.redeliver)
            elif run.deadline and run.deadline <= self.turn.now_ms:
                self.drop_unsent(entry.left - entry.out, EXPIRED)
                continue
            if self.max_packet and run.largest > self.max_packet:
                if run.size(first, 1) > self.max_packet:
                    self.drop_unsent(1, TOO_LARGE)
                    continue
                count = 1
            if not again and self.in_flight and self.conflicts(run, first, count):
                if not self.renumber(self.next_entry()):
                    return 0
                continue
            self.emit(run, first, count, again)
            if run.position and run.qos == 2 and not again:
                self.note_exact(run, first, count)
            self.note(run, first, count)
            entry.out += count
            self.in_flight += count
            self.queued -= count
            self.queued_bytes -= run.size(first, count)
            if again:
                self.redeliver -= count
            if entry.out == entry.left:
                self.sent += 1
        if self.lagging:
            self.check_hunger()
        return 0

    cdef int note_exact(self, Run run, uint32_t first, uint32_t count) except -1:
        cdef uint32_t i
        for i in range(first, first + count):
            self.turn.exact.append((self, run.position + i, run.packet_id(i)))
        return 0

    cdef int emit(self, Run run, uint32_t first, uint32_t count, bint again) except -1:
        """Put packets `first` … `first + count - 1` into the outbox."""
        self.turn.cells[SENT] += count
        self.turn.cells[PACKETS_SENT] += count
        if again or run.deadline:
            return self.put_whole(run.changed(first, count, again, self.turn.now_ms))
        if run.alias and run.alias <= self.alias_max and (
                self.max_packet == 0 or run.largest + ALIAS_GROWTH <= self.max_packet):
            if self.aliases is None:
                self.aliases = set()
            if run.alias not in self.aliases:
                self.aliases.add(run.alias)
                self.put_whole(aliased_packet(run.packet(first), run.alias, True))
                first += 1
                count -= 1
                if count == 0:
                    return 0
            run = run.without_topic()
        return self.outbox.put_reference(run.data, run.begin(first), run.size(first, count))

    cdef int put_whole(self, bytes data) except -1:
        return self.outbox.put_reference(data, 0, PyBytes_GET_SIZE(data))


# `Run` lives in its own module and is handed out here too, as in the twin.
globals()["Run"] = Run
