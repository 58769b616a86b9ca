# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A session's outgoing messages: in flight, then queued; the twin is `pure/window.py`."""
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc

from robustmq._kernel.fast.alias cimport ALIAS_GROWTH, aliased_packet
from robustmq._kernel.fast.run cimport IDS
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
    ORIGIN = 1 << 30
    FIRST_CAPACITY = 4
    KEPT_CAPACITY = 64


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
        self.take_back()
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
        self.outbox = None
        self.aliases = None
        self.take_back()

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

    def clear(self):
        """Forget everything."""
        while self.head < self.tail:
            self.blank(&self.ring[self.head & (self.capacity - 1)])
            self.head += 1
        self.sent = self.head
        self.in_flight = self.queued = self.redeliver = 0
        self.queued_bytes = 0
        self.released = None

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
        if self.outbox is not None:
            self.in_flight -= 1
        self.pump_raw()
        return True

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
        cdef uint32_t i
        cdef uint64_t size
        cdef uint64_t* cells = self.turn.cells
        if run.qos == 0:
            if self.outbox is None:
                return 0
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
        size = run.ends[run.count - 1]
        if (self.queued + run.count > self.max_queued
                or self.queued_bytes + size > self.max_queued_bytes) and (
                self.queued or self.outbox is None):
            cells[QUEUE] += run.count
            self.dropped += run.count
            return 0
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

    cdef int compact(self) noexcept:
        """Close the gaps that answers out of order leave, so that they need no room."""
        cdef uint64_t s, at = self.head, sent = self.sent
        for s in range(self.head, self.tail):
            if s == self.sent:
                sent = at
            if self.ring[s & (self.capacity - 1)].left:
                self.ring[at & (self.capacity - 1)] = self.ring[s & (self.capacity - 1)]
                at += 1
            else:
                self.blank(&self.ring[s & (self.capacity - 1)])
        self.sent = at if self.sent == self.tail else sent
        self.tail = at
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
        return 0

    cdef Entry* next_entry(self) except NULL:
        """The entry at `sent`, cut so that nothing of it is in flight."""
        cdef uint32_t out = self.ring[self.sent & (self.capacity - 1)].out
        if out:
            self.split(self.sent, out)
        return &self.ring[self.sent & (self.capacity - 1)]

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
            self.note(run, first, count)
            entry.out += count
            self.in_flight += count
            self.queued -= count
            self.queued_bytes -= run.size(first, count)
            if again:
                self.redeliver -= count
            if entry.out == entry.left:
                self.sent += 1
        return 0

    cdef void note(self, Run run, uint32_t first, uint32_t count) noexcept:
        """Messages are about to be in flight: keep the range of all that are, or `mixed`."""
        cdef uint64_t start = run.sequence + first
        if self.in_flight == 0:
            self.mixed = run.sequence == 0
            self.floor = start
            self.ceiling = start + count
        elif run.sequence == 0:
            self.mixed = True
        else:
            self.floor = min(self.floor, start)
            self.ceiling = max(self.ceiling, start + count)
            if self.ceiling - self.floor > IDS:
                self.mixed = True

    cdef bint conflicts(self, Run run, uint32_t first, uint32_t count) except -1:
        """Is an id of these messages in use?

        Not when all in flight lies in a range of sequence numbers that is `IDS` wide with them.
        """
        cdef uint64_t start = run.sequence + first
        cdef uint32_t past
        if run.sequence and start >= self.ceiling:
            if not self.mixed and start + count - self.floor <= IDS:
                return False
            if self.find_range() and start + count - self.floor <= IDS:
                return False
        return self.overlaps(run.packet_id(first), count, &past)

    cdef bint find_range(self) except -1:
        """Set `floor`, `ceiling` and `mixed` from what is in flight now; is it one range?"""
        cdef uint64_t s = self.head, start, floor = <uint64_t>-1, ceiling = 0
        cdef Entry* entry
        cdef Run run
        self.mixed = True
        while s < self.tail and s <= self.sent:
            entry = &self.ring[s & (self.capacity - 1)]
            s += 1
            if not entry.out:
                continue
            run = <Run>entry.run
            if run.sequence == 0:
                return False
            start = run.sequence + entry.first
            floor = min(floor, start)
            ceiling = max(ceiling, start + entry.out)
        if self.released:
            for value in self.released.values():
                start = value
                if start == 0:
                    return False
                floor = min(floor, start)
                ceiling = max(ceiling, start + 1)
        self.floor = floor
        self.ceiling = ceiling
        self.mixed = ceiling - floor > IDS
        return not self.mixed

    cdef bint overlaps(self, uint32_t start, uint32_t count, uint32_t* past) except -1:
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
        cdef uint32_t past = 0, tries = <uint32_t>(self.sent - self.head) + 2
        if self.released:
            tries += <uint32_t>len(self.released)
        while self.overlaps(start, entry.left, &past):
            start = past
            tries -= 1
            if tries == 0:
                return 0
        private = run.renumbered(entry.first, entry.left, start)
        Py_INCREF(private)
        Py_DECREF(<object>entry.run)
        entry.run = <PyObject*>private
        entry.first = 0
        return 1

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
