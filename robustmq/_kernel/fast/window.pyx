# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A session's outgoing messages: in flight, then queued; the twin is `pure/window.py`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from robustmq._kernel.fast.alias cimport aliased_packet
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

cdef enum:
    IDS = 65535
    ORIGIN = 1 << 30
    FIRST_CAPACITY = 4
    KEPT_CAPACITY = 64


cdef Run new_run(bytes data, uint32_t* ends, uint32_t count, uint8_t qos, uint64_t sequence):
    """A run that takes ownership of `ends` (malloc'd, `count` end offsets into `data`)."""
    cdef Run run = Run.__new__(Run)
    cdef uint32_t i, size
    run.data = data
    run.ends = ends
    run.count = count
    run.qos = qos
    run.sequence = sequence
    run.first_id = <uint16_t>(sequence % IDS + 1) if qos else 0
    run.largest = 0
    for i in range(count):
        size = ends[i] - run.begin(i)
        if size > run.largest:
            run.largest = size
    return run


cdef class Run:
    """PUBLISH packets of one topic, encoded once and shared by every session that gets them."""

    def __cinit__(self, *arguments, **options):
        self.ends = NULL
        self.aliased = None

    def __init__(self, bytes data not None, ends, uint8_t qos, uint64_t sequence,
                 int64_t deadline=0, uint32_t expiry_at=0):
        cdef uint32_t i
        cdef uint32_t* copied = <uint32_t*>malloc(len(ends) * sizeof(uint32_t))
        if copied == NULL:
            raise MemoryError()
        self.count = len(ends)
        self.ends = copied
        for i in range(self.count):
            copied[i] = ends[i]
            if copied[i] - self.begin(i) > self.largest:
                self.largest = copied[i] - self.begin(i)
        self.data = data
        self.qos = qos
        self.sequence = sequence
        self.first_id = <uint16_t>(sequence % IDS + 1) if qos else 0
        self.deadline = deadline
        self.expiry_at = expiry_at

    def __dealloc__(self):
        free(self.ends)

    def packet(self, uint32_t i):
        """Packet `i` of the run."""
        if i >= self.count:
            raise IndexError(i)
        return self.data[self.begin(i):self.ends[i]]


cdef inline uint32_t id_position(const uint8_t* packet) noexcept:
    """Where the packet identifier of a PUBLISH with QoS 1 or 2 lies."""
    cdef uint32_t i = 1
    while packet[i] & 128:
        i += 1
    i += 1
    return i + 2 + ((<uint32_t>packet[i]) << 8 | packet[i + 1])


cdef class Window:
    """In-flight window and queue of one session, by reference into shared runs.

    Entries from `head` to before `sent` are in flight, the one at `sent` may be partly so, the
    rest is queued. A packet id is the run's; ids come from one sequence per core, so they clash
    only for a session whose oldest unacknowledged message is 65535 messages behind the core;
    then its messages are numbered privately.
    """

    def __cinit__(self, Turn turn not None, uint32_t max_queued, uint64_t max_queued_bytes,
                  uint64_t max_outbox_bytes):
        self.turn = turn
        self.outbox = None
        self.session = None
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.max_outbox_bytes = max_outbox_bytes
        self.head = self.sent = self.tail = ORIGIN
        self.ring = NULL
        self.released = None
        self.aliases = None

    def __dealloc__(self):
        while self.head < self.tail:
            self.blank(&self.ring[self.head & (self.capacity - 1)])
            self.head += 1
        free(self.ring)

    def attach(self, Outbox outbox not None, uint8_t version, uint32_t limit, uint32_t max_packet,
               uint16_t alias_max):
        """A connection is there: what was in flight goes out again first (MQTT5 4.4)."""
        cdef uint64_t s
        cdef Entry* entry
        self.outbox = outbox
        self.version = version
        self.limit = limit
        self.max_packet = max_packet
        self.alias_max = alias_max
        self.aliases = None
        self.take_back()
        if self.released:
            self.in_flight = len(self.released)
            for packet_id in self.released:
                outbox.put(b"\x62\x02" + (<int>packet_id).to_bytes(2, "big"))
                self.turn.cells[PACKETS_SENT] += 1
        self.pump_raw()

    def detach(self):
        """The connection is gone; what was in flight waits at the front of the queue."""
        self.outbox = None
        self.aliases = None
        self.take_back()

    cdef int take_back(self) except -1:
        cdef uint64_t s
        cdef uint32_t i
        cdef Entry* entry
        cdef Run run
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.out:
                run = <Run>entry.run
                self.redeliver += entry.out
                self.queued += entry.out
                self.queued_bytes += run.ends[entry.first + entry.out - 1] - run.begin(entry.first)
                entry.out = 0
        self.sent = self.head
        self.in_flight = 0
        self.mixed = False
        return 0

    def clear(self):
        """Forget everything."""
        while self.head < self.tail:
            self.blank(&self.ring[self.head & (self.capacity - 1)])
            self.head += 1
        self.sent = self.head
        self.in_flight = self.queued = self.redeliver = 0
        self.queued_bytes = 0
        self.released = None
        self.mixed = False

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
        else:
            self.pump_raw()
        return True

    def pubcomp(self, uint16_t packet_id):
        """The QoS 2 exchange is complete; False when it was not under way."""
        if self.released is None or self.released.pop(packet_id, None) is None:
            return False
        self.in_flight -= 1
        if self.in_flight == 0:
            self.mixed = False
        self.pump_raw()
        return True

    def withdraw(self, origin):
        """Take out what came from `origin` and may go to somebody else: [(run, index), …].

        A QoS 2 message that was sent stays (MQTT5 4.8.2).
        """
        cdef uint64_t s
        cdef uint32_t i, kept
        cdef Entry* entry
        cdef Run run
        cdef list taken = []
        for s in range(self.head, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left == 0:
                continue
            run = <Run>entry.run
            if run.origin is not origin:
                continue
            kept = 0
            if run.qos == 2:
                kept = entry.out
                if not kept and self.redeliver:
                    kept = min(entry.left, self.sent_before(s))
            for i in range(kept, entry.left):
                taken.append((run, entry.first + i))
                if i < entry.out:
                    self.in_flight -= 1
                else:
                    self.queued -= 1
                    self.queued_bytes -= run.ends[entry.first + i] - run.begin(entry.first + i)
            if not entry.out and self.redeliver:
                self.redeliver -= min(entry.left - kept, self.sent_before(s) - kept)
            if entry.out > kept:
                entry.out = kept
            entry.left = kept
            if kept == 0:
                self.blank(entry)
        self.pop_head()
        return taken

    cdef uint32_t sent_before(self, uint64_t at) noexcept:
        """How many messages of the queued entry `at` had been sent on the last connection."""
        cdef uint64_t s
        cdef uint32_t before = 0
        for s in range(self.sent, at):
            before += self.ring[s & (self.capacity - 1)].left
        return self.redeliver - before if self.redeliver > before else 0

    cdef int offer_run(self, Run run) except -1:
        cdef Entry* entry
        cdef uint32_t i
        cdef uint64_t size
        cdef uint64_t* cells = self.turn.cells
        if run.qos == 0:
            if self.outbox is None:
                return 0
            if run.deadline and run.deadline <= self.turn.now_ms:
                cells[EXPIRED] += run.count
                return 0
            if self.outbox.size > self.max_outbox_bytes:
                cells[SLOW] += run.count
                self.dropped += run.count
                return 0
            if self.max_packet and run.largest > self.max_packet:
                for i in range(run.count):
                    if run.ends[i] - run.begin(i) > self.max_packet:
                        cells[TOO_LARGE] += 1
                    else:
                        self.emit(run, i, 1, False)
                return 0
            return self.emit(run, 0, run.count, False)
        size = run.ends[run.count - 1]
        if (self.queued + run.count > self.max_queued
                or self.queued_bytes + size > self.max_queued_bytes) and (
                self.queued or self.outbox is None):
            cells[QUEUE] += run.count
            self.dropped += run.count
            return 0
        if self.tail - self.head == self.capacity:
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
        if self.sent + 1 == self.tail:
            self.pump_raw()
        return 0

    cdef int grow(self) except -1:
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else FIRST_CAPACITY
        cdef Entry* ring = <Entry*>malloc(capacity * sizeof(Entry))
        cdef uint64_t s
        if ring == NULL:
            raise MemoryError()
        for s in range(self.head, self.tail):
            ring[s & (capacity - 1)] = self.ring[s & (self.capacity - 1)]
        free(self.ring)
        self.ring = ring
        self.capacity = capacity
        return 0

    cdef int blank(self, Entry* entry) noexcept:
        if entry.run != NULL:
            Py_DECREF(<object>entry.run)
            entry.run = NULL
        entry.left = entry.out = 0
        return 0

    cdef void pop_head(self) noexcept:
        while self.head < self.tail and self.ring[self.head & (self.capacity - 1)].left == 0:
            self.blank(&self.ring[self.head & (self.capacity - 1)])
            self.head += 1
        if self.sent < self.head:
            self.sent = self.head
        if self.head == self.tail and self.capacity > KEPT_CAPACITY:
            free(self.ring)
            self.ring = NULL
            self.capacity = 0

    cdef int puback_raw(self, uint16_t packet_id, uint8_t qos) except -1:
        cdef Entry* entry
        cdef Run run
        cdef uint64_t at
        cdef uint32_t depth
        if self.head < self.tail:
            entry = &self.ring[self.head & (self.capacity - 1)]
            if entry.out:
                run = <Run>entry.run
                if run.qos == qos and run.packet_id(entry.first) == packet_id:
                    entry.first += 1
                    entry.out -= 1
                    entry.left -= 1
                    self.in_flight -= 1
                    if entry.left == 0:
                        self.pop_head()
                    if self.in_flight == 0:
                        self.mixed = False
                    return 1
        if not self.find(packet_id, qos, &at, &depth):
            return 0
        self.remove(at, depth)
        return 1

    cdef int find(self, uint16_t packet_id, uint8_t qos, uint64_t* at, uint32_t* depth) noexcept:
        cdef uint64_t s = self.head
        cdef Entry* entry
        cdef Run run
        cdef uint32_t distance
        while s < self.tail and s <= self.sent:
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.out:
                run = <Run>entry.run
                distance = (<uint32_t>packet_id + IDS - run.packet_id(entry.first)) % IDS
                if distance < entry.out and run.qos == qos:
                    at[0] = s
                    depth[0] = distance
                    return 1
            s += 1
        return 0

    cdef int remove(self, uint64_t at, uint32_t depth) except -1:
        """Message `depth` of the entry `at`, which is in flight, is done."""
        cdef Entry* entry
        if depth:
            self.split(at, depth)
        entry = &self.ring[at & (self.capacity - 1)]
        entry.first += 1
        entry.left -= 1
        entry.out -= 1
        self.in_flight -= 1
        if entry.left == 0:
            self.blank(entry)
            self.pop_head()
        if self.in_flight == 0:
            self.mixed = False
        return 0

    cdef int split(self, uint64_t at, uint32_t depth) except -1:
        """Cut the entry `at` in two; its messages from `depth` on stay at `at`."""
        cdef uint64_t s
        cdef Entry* before
        cdef Entry* entry
        if self.tail - self.head == self.capacity:
            self.grow()
        for s in range(self.head, at + 1):
            self.ring[(s - 1) & (self.capacity - 1)] = self.ring[s & (self.capacity - 1)]
        self.head -= 1
        before = &self.ring[(at - 1) & (self.capacity - 1)]
        entry = &self.ring[at & (self.capacity - 1)]
        Py_INCREF(<object>entry.run)
        entry.first = before.first + depth
        entry.left = before.left - depth
        entry.out = before.out - depth if before.out > depth else 0
        before.left = depth
        if before.out > depth:
            before.out = depth
        return 0

    cdef int drop_unsent(self, Entry* entry, uint32_t count, int cell) except -1:
        """The first `count` messages of an entry of which nothing is in flight are not sent."""
        cdef Run run = <Run>entry.run
        self.queued -= count
        self.queued_bytes -= run.ends[entry.first + count - 1] - run.begin(entry.first)
        self.redeliver -= min(self.redeliver, count)
        entry.first += count
        entry.left -= count
        self.turn.cells[cell] += count
        self.dropped += count
        return 0

    cdef int pump_raw(self) except -1:
        cdef Entry* entry
        cdef Run run
        cdef uint32_t first, count
        cdef bint again
        while self.sent < self.tail:
            entry = &self.ring[self.sent & (self.capacity - 1)]
            if entry.left == 0:
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
            if run.deadline and not again and run.deadline <= self.turn.now_ms:
                self.drop_unsent(entry, entry.left, EXPIRED)
                continue
            if self.max_packet and run.largest > self.max_packet:
                if run.ends[first] - run.begin(first) > self.max_packet:
                    if entry.out:
                        self.split(self.sent, entry.out)
                        entry = &self.ring[self.sent & (self.capacity - 1)]
                    self.drop_unsent(entry, 1, TOO_LARGE)
                    continue
                count = 1
            if not again and self.in_flight and self.conflicts(run, first, count):
                if entry.out:
                    self.split(self.sent, entry.out)
                    entry = &self.ring[self.sent & (self.capacity - 1)]
                if not self.renumber(entry):
                    return 0
                continue
            self.emit(run, first, count, again)
            entry.out += count
            self.in_flight += count
            self.queued -= count
            self.queued_bytes -= run.ends[first + count - 1] - run.begin(first)
            if again:
                self.redeliver -= count
            if run.sequence == 0 or again:
                self.mixed = True
            if entry.out == entry.left:
                self.sent += 1
        return 0

    cdef bint conflicts(self, Run run, uint32_t first, uint32_t count) noexcept:
        cdef uint64_t oldest = run.sequence
        cdef Entry* entry = &self.ring[self.head & (self.capacity - 1)]
        cdef uint32_t past
        if not self.mixed and run.sequence:
            if entry.out:
                oldest = (<Run>entry.run).sequence + entry.first
            if self.released:
                oldest = min(oldest, <uint64_t>next(iter(self.released.values())))
            return run.sequence + first + count - oldest > IDS
        return self.overlaps(run.packet_id(first), count, &past)

    cdef bint overlaps(self, uint32_t start, uint32_t count, uint32_t* past) noexcept:
        """Is an id of [start, start + count) in use? `past` is then the id behind that use."""
        cdef uint64_t s = self.head
        cdef Entry* entry
        cdef uint32_t used, packet_id
        while s < self.tail and s <= self.sent:
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.out:
                used = (<Run>entry.run).packet_id(entry.first)
                if (start + IDS - used) % IDS < entry.out or (used + IDS - start) % IDS < count:
                    past[0] = (used - 1 + entry.out) % IDS + 1
                    return True
            s += 1
        if self.released:
            for key in self.released:
                packet_id = key
                if (packet_id + IDS - start) % IDS < count:
                    past[0] = packet_id % IDS + 1
                    return True
        return False

    cdef int renumber(self, Entry* entry) except -1:
        """Give the entry's messages ids of their own, in a private copy; 0 when none are free."""
        cdef Run run = <Run>entry.run
        cdef Run private
        cdef uint32_t start = run.packet_id(entry.first)
        cdef uint32_t past = 0, i, tries, base = run.begin(entry.first)
        cdef uint32_t* ends
        cdef bytes data
        cdef uint8_t* p
        tries = <uint32_t>(self.sent - self.head) + 2
        tries += <uint32_t>(len(self.released) if self.released else 0)
        while self.overlaps(start, entry.left, &past):
            start = past
            tries -= 1
            if tries == 0:
                return 0
        data = run.data[base:run.ends[entry.first + entry.left - 1]]
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        ends = <uint32_t*>malloc(entry.left * sizeof(uint32_t))
        if ends == NULL:
            raise MemoryError()
        p = <uint8_t*>PyBytes_AS_STRING(data)
        for i in range(entry.left):
            past = run.begin(entry.first + i) - base
            past += id_position(p + past)
            p[past] = <uint8_t>(((start - 1 + i) % IDS + 1) >> 8)
            p[past + 1] = <uint8_t>((start - 1 + i) % IDS + 1)
            ends[i] = run.ends[entry.first + i] - base
        private = new_run(data, ends, entry.left, run.qos, 0)
        private.first_id = <uint16_t>start
        private.deadline = run.deadline
        private.expiry_at = run.expiry_at
        private.origin = run.origin
        private.source = (
            run.source[0], run.source[1], run.source[2] + entry.first
        ) if run.source is not None else None
        private.alias = run.alias
        Py_INCREF(private)
        Py_DECREF(<object>entry.run)
        entry.run = <PyObject*>private
        entry.first = 0
        return 1

    cdef int emit(self, Run run, uint32_t first, uint32_t count, bint again) except -1:
        """Put packets `first` … `first + count - 1` into the outbox."""
        cdef uint32_t start = run.begin(first), end = run.ends[first + count - 1], i
        cdef int64_t remaining
        cdef bytes copied
        cdef uint8_t* p
        self.turn.cells[SENT] += count
        self.turn.cells[PACKETS_SENT] += count
        if not again and run.deadline == 0:
            if self.alias_max and run.alias and run.alias <= self.alias_max:
                return self.emit_aliased(run, first, count)
            return self.outbox.put_reference(run.data, start, end - start)
        copied = PyBytes_FromStringAndSize(PyBytes_AS_STRING(run.data) + start, end - start)
        p = <uint8_t*>PyBytes_AS_STRING(copied)
        if again and run.qos:
            for i in range(count):
                p[run.begin(first + i) - start] |= 8
        if run.deadline and run.expiry_at:
            remaining = max(0, (run.deadline - self.turn.now_ms + 999) // 1000)
            for i in range(4):
                p[run.expiry_at + i] = <uint8_t>(remaining >> (24 - 8 * i))
        return self.outbox.put_reference(copied, 0, end - start)

    cdef int emit_aliased(self, Run run, uint32_t first, uint32_t count) except -1:
        """Introduce the run's topic alias on this connection, then send the alias alone."""
        cdef Run aliased
        cdef list packets, ends
        cdef uint32_t i
        cdef int at = 0
        if self.aliases is None:
            self.aliases = set()
        if run.alias not in self.aliases:
            self.aliases.add(run.alias)
            self.outbox.put(aliased_packet(run.packet(first), run.alias, True))
            first += 1
            count -= 1
            if count == 0:
                return 0
        aliased = run.aliased
        if aliased is None:
            packets = []
            ends = []
            for i in range(run.count):
                packets.append(aliased_packet(run.packet(i), run.alias, False))
                at += len(packets[i])
                ends.append(at)
            aliased = run.aliased = Run(b"".join(packets), ends, run.qos, run.sequence)
        return self.outbox.put_reference(
            aliased.data, aliased.begin(first), aliased.ends[first + count - 1] - aliased.begin(first))
