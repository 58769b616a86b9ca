# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One MQTT connection's input: framing, runs of PUBLISH, acknowledgements in order.

The twin is `pure/intake.py`.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove

from robustmq._kernel.fast.meter cimport allowed, charge, spent
from robustmq.metrics import (
    BYTES_RECEIVED as _BYTES_RECEIVED,
    MESSAGES_RECEIVED as _MESSAGES_RECEIVED,
    PACKETS_RECEIVED as _PACKETS_RECEIVED,
    PACKETS_SENT as _PACKETS_SENT,
    PUBLISHERS_PAUSED as _PUBLISHERS_PAUSED,
    PUBLISHERS_THROTTLED as _PUBLISHERS_THROTTLED,
)

cdef int BYTES_RECEIVED = _BYTES_RECEIVED, MESSAGES_RECEIVED = _MESSAGES_RECEIVED
cdef int PACKETS_RECEIVED = _PACKETS_RECEIVED, PACKETS_SENT = _PACKETS_SENT
cdef int PUBLISHERS_PAUSED = _PUBLISHERS_PAUSED, PUBLISHERS_THROTTLED = _PUBLISHERS_THROTTLED

cdef enum:
    PUBLISH = 3
    PUBACK = 0x40
    PUBREC = 0x50
    MAX_HANDLES = 1024
    KEPT_TAIL = 4096
    WORDED = 0xFF
    BLOCKED = 1
    STARVED = 2
    SPENT = 4

cdef Py_ssize_t NOT_FAST = -2


cdef class Handle:
    """What was decided for one publisher and topic: the builder that takes its records.

    `topic` is what the records are for; it may differ from what the publisher calls it.
    """

    def __init__(self, bytes topic not None, BatchBuilder builder not None):
        self.topic = topic
        self.builder = builder


cdef class Intake(AckTarget):
    """Bytes in; records into builders, packets to `connection`, acknowledgements to `outbox`.

    `connection` has `on_packet(first_byte, body)`, `on_route(topic) -> Handle | None` (None:
    the packet goes to `on_packet`), `on_malformed(reason, detail)` and `settled(kind,
    packet_id, code, matched) -> reason` (asked only when code is not 0 or nothing matched; in
    MQTT 5 bytes instead are the whole answer).
    """

    def __cinit__(self, Turn turn not None, Outbox outbox not None, connection, uint32_t max_packet):
        self.turn = turn
        self.outbox = outbox
        self.connection = connection
        self.max_packet = max_packet
        self.receive_max = 65535
        self.max_handles = MAX_HANDLES
        # All else begins as 0 or None.

    def __dealloc__(self):
        free(self.tail)
        free(self.owed)

    @property
    def paused(self):
        """Whether it takes nothing now."""
        return self.reasons != 0

    @property
    def throttled(self):
        """Whether a meter has nothing left for it."""
        return self.reasons & SPENT != 0

    @property
    def outstanding(self):
        """PUBLISH packets of QoS 1 and 2 that are not answered yet."""
        return self.owed_next - self.owed_first

    def feed(self, bytes data not None):
        """Take what the socket gave; everything complete is handled before this returns."""
        self.feed_raw(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def resume(self):
        """The core takes more: go on with what was kept first, if nothing else holds it."""
        self.reasons &= ~BLOCKED
        if not (self.reasons or self.scanning):
            self.feed_raw(NULL, 0)

    def hold(self, uint8_t reason):
        """Stop handling packets until `let_go` of the same reason, a bit from 8 to 128."""
        self.reasons |= reason

    cpdef let_go(self, uint8_t reason):
        """Go on in this turn, if it was held for this and nothing else holds it."""
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons:
                self.turn.resumes.append(self)

    cpdef block(self):
        """Stop handling packets until the core takes more."""
        self.reasons |= BLOCKED
        self.turn.cells[PUBLISHERS_PAUSED] += 1
        self.turn.resumes.append(self)

    def throttle(self):
        """Stop handling packets until `release`: a meter has nothing left."""
        self.reasons |= SPENT
        self.turn.cells[PUBLISHERS_THROTTLED] += 1

    def release(self):
        """Go on in this turn, if nothing else holds it."""
        self.let_go(SPENT)

    def forget(self):
        """What was decided for this publisher's topics is void."""
        self.handles = None
        self.last = None
        self.last_name = None

    def close(self):
        """Take nothing more; what is still to be acknowledged is forgotten."""
        self.closed = True
        self.open = False
        self.forget()
        self.window = None
        # A connection and its intake know each other: the memory of both comes back at once.
        self.connection = None
        free(self.tail)
        self.tail = NULL
        self.tail_length = self.tail_capacity = 0
        self.owed_first = self.owed_next
        self.worded = None

    def settle(self, uint64_t ticket, int code, bint matched):
        """Ticket `ticket` is decided: answer in the order of the PUBLISH packets."""
        self.settle_raw(ticket, code, matched)

    def admit(self, uint16_t packet_id, uint8_t kind):
        """A ticket for a PUBLISH handled elsewhere; `kind` is the answer's first byte.

        One that reaches the receive maximum of MQTT 3 pauses reading until an answer goes out.
        """
        self.owe(packet_id, kind)
        if self.version < 5 and self.owed_next - self.owed_first >= self.receive_max:
            self.starve()
        return self.owed_next - 1

    cdef int feed_raw(self, const uint8_t* data, size_t length) except -1:
        if self.closed:
            return 0
        self.turn.cells[BYTES_RECEIVED] += length
        if length:
            self.last_read_ms = self.turn.now_ms
        if self.reasons or self.scanning:
            return self.keep(data, length)
        self.scanning = True
        try:
            self.handle_input(data, length)
        finally:
            self.scanning = False
        return 0

    cdef int handle_input(self, const uint8_t* data, size_t length) except -1:
        """Handle what was kept and then `data`; keep what is not complete, or came meanwhile.

        The buffer that is scanned belongs to nobody else, so that callbacks may feed and close.
        """
        cdef uint8_t* own = NULL
        cdef size_t used, size, capacity
        cdef bint meanwhile
        while True:
            own = NULL
            size = length
            capacity = 0
            if self.tail_length:
                self.keep(data, length)
                own = self.tail
                size = self.tail_length
                capacity = self.tail_capacity
                self.tail = NULL
                self.tail_length = self.tail_capacity = 0
            try:
                used = self.scan(own if own != NULL else <uint8_t*>data, size)
            except:
                free(own)
                raise
            if self.closed:
                free(own)
                return 0
            meanwhile = self.tail_length > 0
            if own != NULL:
                self.put_back(own, used, size, capacity)
            elif used < size:
                if meanwhile:
                    own = <uint8_t*>malloc(size - used)
                    if own == NULL:
                        raise MemoryError()
                    memcpy(own, data + used, size - used)
                    self.put_back(own, 0, size - used, size - used)
                else:
                    self.keep(data + used, size - used)
            if not meanwhile or self.reasons:
                return 0
            length = 0

    cdef int put_back(self, uint8_t* own, size_t used, size_t length, size_t capacity) except -1:
        """Make `own` from `used` on the kept bytes again, before those that came meanwhile."""
        cdef uint8_t* later = self.tail
        cdef uint32_t later_length = self.tail_length
        if length == used and (later_length or capacity > KEPT_TAIL):
            free(own)
            return 0
        if used:
            memmove(own, own + used, length - used)
        self.tail = own
        self.tail_length = <uint32_t>(length - used)
        self.tail_capacity = <uint32_t>capacity
        try:
            self.keep(later, later_length)
        finally:
            free(later)
        return 0

    cdef int keep(self, const uint8_t* data, size_t length) except -1:
        if length == 0:
            return 0
        self.reserve_tail(length)
        memcpy(self.tail + self.tail_length, data, length)
        self.tail_length += <uint32_t>length
        return 0

    cdef int reserve_tail(self, size_t length) except -1:
        cdef size_t need = self.tail_length + length
        cdef size_t capacity
        cdef uint8_t* grown
        if need <= self.tail_capacity:
            return 0
        capacity = max(need, <size_t>self.tail_capacity * 2) if self.tail_capacity else need
        grown = <uint8_t*>realloc(self.tail, capacity)
        if grown == NULL:
            raise MemoryError()
        self.tail = grown
        self.tail_capacity = <uint32_t>capacity
        return 0

    cdef size_t scan(self, const uint8_t* p, size_t n) except -1:
        """Handle the complete packets in [p, p + n); returns how many bytes they are."""
        cdef size_t i = 0
        cdef uint32_t body, size, shift
        cdef Py_ssize_t used
        cdef uint8_t first
        cdef bint acknowledged = False
        cdef uint64_t packets = 0
        while n - i >= 2 and not (self.reasons or self.closed):
            first = p[i]
            size = p[i + 1] & 127
            body = 2
            if p[i + 1] & 128:
                shift = 7
                while True:
                    if i + body >= n:
                        break
                    size |= (<uint32_t>(p[i + body] & 127)) << shift
                    shift += 7
                    body += 1
                    if not p[i + body - 1] & 128 or shift == 28:
                        break
                if shift == 28 and p[i + body - 1] & 128:
                    self.malformed(0x81, "the remaining length has over 4 bytes")
                    break
                if p[i + body - 1] & 128:
                    break
            if body + size > self.max_packet:
                self.malformed(0x95, "the packet exceeds the maximum packet size")
                break
            if i + body + size > n:
                break
            packets += 1
            if self.open:
                if first == 0x30 or first == 0x32 or first == 0x3A:
                    used = self.publish_run(p + i, n - i, body, size)
                    if used != NOT_FAST:
                        if used == 0:
                            packets -= 1
                        i += used
                        continue
                elif first == PUBACK and size == 2 and self.window is not None:
                    if p[i + body] == 0 and p[i + body + 1] == 0:
                        self.malformed(0x81, "a packet identifier of 0")
                        break
                    self.window.puback_raw(
                        (<uint16_t>p[i + body]) << 8 | p[i + body + 1], 1)
                    acknowledged = True
                    i += body + 2
                    continue
            if self.closed:
                break
            if self.meters is not None and first >> 4 == PUBLISH and spent(self.meters, None, self):
                packets -= 1
                break
            self.connection.on_packet(
                first, PyBytes_FromStringAndSize(<const char*>p + i + body, size))
            if self.meters is not None and first >> 4 == PUBLISH:
                charge(self.meters, None, self, 1, body + size)
            i += body + size
        self.turn.cells[PACKETS_RECEIVED] += packets
        if acknowledged and self.window is not None:
            self.window.pump_raw()
        return i

    cdef Py_ssize_t publish_run(self, const uint8_t* p, size_t n, uint32_t body,
                                uint32_t size) except -1:
        """PUBLISH packets that begin alike, from p on: bytes handled, or NOT_FAST.

        Alike is: the same fixed header and topic, QoS 0 or 1, not retained, no properties.
        """
        cdef uint32_t topic = (<uint32_t>p[body]) << 8 | p[body + 1] if size >= 2 else 0
        cdef uint32_t head = body + 2 + topic
        cdef uint32_t id_size = 0 if p[0] == 0x30 else 2
        cdef uint32_t fixed = head + id_size + (1 if self.version == 5 else 0)
        cdef uint32_t length = body + size
        cdef uint16_t packet_id
        cdef Handle handle
        cdef size_t i = 0
        cdef uint32_t count = 0
        cdef bint metered
        if topic == 0 or fixed > length or (self.version == 5 and p[fixed - 1]):
            return NOT_FAST
        handle = self.handle(p + body + 2, topic)
        if handle is None or self.closed:
            return NOT_FAST
        metered = self.meters is not None or handle.meter is not None
        if metered:
            if spent(self.meters, handle.meter, self):
                return 0
            n = min(n, <size_t>allowed(self.meters, handle.meter, length, n // length) * length)
        while True:
            if handle.builder.blocked:
                self.block()
                break
            if id_size:
                packet_id = (<uint16_t>p[i + head]) << 8 | p[i + head + 1]
                if packet_id == 0:
                    self.malformed(0x81, "a packet identifier of 0")
                    break
                if self.owed_next - self.owed_first >= self.receive_max:
                    if self.version == 5:
                        self.malformed(0x93, "the receive maximum is exceeded")
                    else:
                        self.starve()
                    break
                self.owe(packet_id, PUBACK)
            handle.builder.append_raw(
                <const uint8_t*>PyBytes_AS_STRING(handle.topic), PyBytes_GET_SIZE(handle.topic),
                p + i + fixed, length - fixed,
                <const uint8_t*>b"\0", 1, 1 if id_size else 0, self.turn.now_ms)
            if id_size:
                handle.builder.expect_raw(self, self.owed_next - 1)
            handle.builder.settle_size()
            count += 1
            i += length
            if self.closed or handle.stale:
                break
            if (i + length > n or memcmp(p, p + i, head) != 0
                    or (self.version == 5 and p[i + fixed - 1])):
                break
        self.turn.cells[MESSAGES_RECEIVED] += count
        if count > 1:
            self.turn.cells[PACKETS_RECEIVED] += count - 1
        if metered:
            charge(self.meters, handle.meter, self, count, i)
        return i

    cdef Handle handle(self, const uint8_t* topic, uint32_t length):
        cdef Handle last = self.last
        cdef bytes name
        cdef PyObject* found
        if (last is not None and not last.stale and PyBytes_GET_SIZE(self.last_name) == length
                and memcmp(PyBytes_AS_STRING(self.last_name), topic, length) == 0):
            return last
        name = PyBytes_FromStringAndSize(<const char*>topic, length)
        if self.handles is None:
            self.handles = {}
        found = PyDict_GetItem(self.handles, name)
        if found != NULL:
            last = <Handle>found
            if not last.stale:
                self.last = last
                self.last_name = name
                return last
        last = self.connection.on_route(name)
        if last is None or self.handles is None:
            return last
        if len(self.handles) >= self.max_handles:
            self.handles.clear()
        self.handles[name] = last
        self.last = last
        self.last_name = name
        return last

    cdef int starve(self) except -1:
        """Stop reading until our own acknowledgements catch up."""
        self.reasons |= STARVED
        self.turn.cells[PUBLISHERS_PAUSED] += 1

    cdef int malformed(self, uint8_t reason, object detail) except -1:
        self.connection.on_malformed(reason, detail)
        self.close()

    cdef int owe(self, uint16_t packet_id, uint8_t kind) except -1:
        cdef Owed* ring
        cdef uint32_t capacity
        cdef uint64_t s
        cdef Owed* entry
        if self.owed_next - self.owed_first == self.owed_capacity:
            capacity = self.owed_capacity * 2 if self.owed_capacity else 4
            ring = <Owed*>malloc(capacity * sizeof(Owed))
            if ring == NULL:
                raise MemoryError()
            for s in range(self.owed_first, self.owed_next):
                ring[s & (capacity - 1)] = self.owed[s & (self.owed_capacity - 1)]
            free(self.owed)
            self.owed = ring
            self.owed_capacity = capacity
        entry = &self.owed[self.owed_next & (self.owed_capacity - 1)]
        entry.packet_id = packet_id
        entry.kind = kind
        entry.done = 0
        entry.reason = 0
        self.owed_next += 1

    cdef int settle_raw(self, uint64_t ticket, int code, bint matched) except -1:
        cdef Owed* entry
        cdef object answer
        cdef uint8_t reason
        if ticket < self.owed_first or ticket >= self.owed_next:
            return 0
        entry = &self.owed[ticket & (self.owed_capacity - 1)]
        if entry.done:
            return 0
        entry.done = 1
        if code or not matched:
            answer = self.connection.settled(entry.kind, entry.packet_id, code, matched)
            if ticket < self.owed_first:
                return 0
            if isinstance(answer, bytes):
                if self.worded is None:
                    self.worded = {}
                self.worded[ticket] = answer
                reason = WORDED
            else:
                reason = answer
            # The connection may have let the ring grow.
            self.owed[ticket & (self.owed_capacity - 1)].reason = reason
        if ticket == self.owed_first:
            self.pay()
        return 0

    cdef int pay(self) except -1:
        """Answer in the order of the PUBLISH packets (MQTT5 4.6) as far as decided."""
        cdef Owed* entry
        cdef uint8_t packet[5]
        cdef bytes answer
        cdef uint64_t sent = 0
        while self.owed_first < self.owed_next:
            entry = &self.owed[self.owed_first & (self.owed_capacity - 1)]
            if not entry.done:
                break
            self.owed_first += 1
            packet[0] = entry.kind
            packet[1] = 2
            packet[2] = <uint8_t>(entry.packet_id >> 8)
            packet[3] = <uint8_t>entry.packet_id
            if entry.reason == WORDED:
                answer = self.worded.pop(self.owed_first - 1)
                self.outbox.put_raw(
                    <const uint8_t*>PyBytes_AS_STRING(answer), PyBytes_GET_SIZE(answer))
            elif self.version == 5 and entry.reason:
                packet[1] = 3
                packet[4] = entry.reason
                self.outbox.put_raw(packet, 5)
            else:
                self.outbox.put_raw(packet, 4)
            sent += 1
        self.turn.cells[PACKETS_SENT] += sent
        if self.owed_first == self.owed_next and self.owed_capacity > 64:
            free(self.owed)
            self.owed = NULL
            self.owed_capacity = 0
        self.let_go(STARVED)
