# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The ring of a window's messages and the packet ids in use; serves `window.pyx`.

The twin, `pure/window.py`, has deques and a set of the ids in their place.
"""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc

from robustmq._kernel.fast.run cimport IDS

cdef enum:
    ORIGIN = 1 << 30
    FIRST_CAPACITY = 4
    KEPT_CAPACITY = 64


cdef class Flight:
    """Messages in flight, then queued, by reference into shared runs.

    Entries from `head` to before `sent` are in flight, the one at `sent` may be partly so, the
    rest is queued. A packet id is the run's; ids come from one sequence per core, so they clash
    only for a session whose oldest unacknowledged message is 65535 messages behind the core;
    then its messages are numbered privately.

    Of stored messages, no entry before `front` has any; `last` is the position of the last
    one, and `unordered` says that the positions may not ascend along the ring.
    """

    def __cinit__(self):
        self.head = self.sent = self.tail = self.front = ORIGIN
        self.ring = NULL
        self.released = None

    def __dealloc__(self):
        self.drop_all()
        free(self.ring)

    cdef int drop_all(self) noexcept:
        while self.head < self.tail:
            self.blank(&self.ring[self.head & (self.capacity - 1)])
            self.head += 1
        self.sent = self.head
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
        self.front = self.head
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
                    if run.position:
                        self.progress()
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
        if packet_id == 0:
            return 0
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
        if (<Run>self.ring[at & (self.capacity - 1)].run).position:
            self.progress()
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
        if self.front <= at:
            self.front -= 1
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

    cdef int insert(self, Run run, uint32_t depth) except -1:
        """Put `run` behind the first `depth` messages of the ring, of which none is in flight."""
        cdef uint64_t s = self.head, at
        cdef Entry* entry
        while s < self.tail and depth >= self.ring[s & (self.capacity - 1)].left:
            depth -= self.ring[s & (self.capacity - 1)].left
            s += 1
        if depth:
            self.split(s, depth)
        if self.tail - self.head == self.capacity:
            self.grow()
        for at in range(self.tail, s, -1):
            self.ring[at & (self.capacity - 1)] = self.ring[(at - 1) & (self.capacity - 1)]
        self.tail += 1
        self.sent = self.front = self.head
        entry = &self.ring[s & (self.capacity - 1)]
        Py_INCREF(run)
        entry.run = <PyObject*>run
        entry.first = entry.out = 0
        entry.left = run.count
        return 0

    cdef uint64_t lowest(self) noexcept:
        """The lowest position of a stored message; 0 when there is none."""
        cdef uint64_t s, position, before = 0, found = 0
        cdef Entry* entry
        cdef bint ascending = True
        self.front = max(self.front, self.head)
        for s in range(self.front, self.tail):
            entry = &self.ring[s & (self.capacity - 1)]
            if entry.left == 0 or (<Run>entry.run).position == 0:
                continue
            position = (<Run>entry.run).position + entry.first
            if not self.unordered:
                self.front = s
                return position
            if position < before:
                ascending = False
            if found == 0 or position < found:
                found = position
            before = position + entry.left - 1
        if not self.unordered:
            self.front = self.tail
        elif ascending:
            self.unordered = False
        return found

    cdef int progress(self) except -1:
        """A stored message is done with: the cursor of the session may move on."""
        if not self.noted_once:
            self.noted_once = True
            self.turn.acknowledged.append(self)
        return 0

    cdef Entry* next_entry(self) except NULL:
        """The entry at `sent`, cut so that nothing of it is in flight."""
        cdef uint32_t out = self.ring[self.sent & (self.capacity - 1)].out
        if out:
            self.split(self.sent, out)
        return &self.ring[self.sent & (self.capacity - 1)]

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
