# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""PUBLISH packets of one topic, encoded once and shared; the twin is `pure/run.py`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc

from robustmq._kernel.fast.alias cimport aliased_packet
from robustmq._kernel.fast.alias import with_block

cdef enum:
    DUP = 8
    SMALLEST = 4


cdef Run new_run(bytes data, uint32_t* ends, uint32_t count, uint8_t qos, uint64_t sequence):
    """A run that takes ownership of `ends` (malloc'd, `count` end offsets into `data`)."""
    cdef Run run = Run.__new__(Run)
    cdef uint32_t i
    run.data = data
    run.ends = ends
    run.count = count
    run.qos = qos
    run.sequence = sequence
    run.first_id = <uint16_t>(sequence % IDS + 1) if qos else 0
    run.largest = 0
    for i in range(count):
        if run.size(i, 1) > run.largest:
            run.largest = run.size(i, 1)
    return run


cdef class Run:
    """PUBLISH packets of one topic, encoded once and shared by every session that gets them."""

    def __cinit__(self, *arguments, **options):
        self.ends = NULL
        self.aliased = None

    def __init__(self, bytes data not None, ends, uint8_t qos, uint64_t sequence,
                 int64_t deadline=0, uint32_t expiry_at=0):
        cdef uint32_t i
        if self.ends != NULL:
            raise ValueError("a run is made once")
        if not len(ends) or qos > 2:
            raise ValueError("a run has packets, and a QoS of 0, 1 or 2")
        self.ends = <uint32_t*>malloc(len(ends) * sizeof(uint32_t))
        if self.ends == NULL:
            raise MemoryError()
        self.count = len(ends)
        for i in range(self.count):
            self.ends[i] = ends[i]
        self.data = data
        self.qos = qos
        self.sequence = sequence
        self.check(PyBytes_GET_SIZE(data))
        if expiry_at and (self.count != 1 or <uint64_t>expiry_at + 4 > self.ends[0]):
            raise ValueError("the expiry interval lies outside the one packet")
        self.deadline = deadline
        self.expiry_at = expiry_at

    def __dealloc__(self):
        free(self.ends)

    def packet(self, Py_ssize_t i):
        """Packet `i` of the run."""
        if i < 0 or i >= self.count:
            raise IndexError(i)
        return self.data[self.begin(<uint32_t>i):self.ends[i]]

    cdef int check(self, Py_ssize_t length) except -1:
        """Look at every packet, so that nobody who patches one writes outside of it."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(self.data)
        cdef uint32_t i, begin, at
        for i in range(self.count):
            begin = self.begin(i)
            if self.ends[i] < begin or self.ends[i] - begin < SMALLEST or self.ends[i] > length:
                raise ValueError("the ends of a run lie outside its data")
            if self.ends[i] - begin > self.largest:
                self.largest = self.ends[i] - begin
            if self.qos == 0:
                continue
            at = id_position(p + begin, self.ends[i] - begin)
            if at == 0 or (p[begin + at] == 0 and p[begin + at + 1] == 0):
                raise ValueError("a packet without an identifier")
            if i == 0:
                self.first_id = <uint16_t>((<uint32_t>p[at]) << 8 | p[at + 1])
        if self.qos and self.sequence:
            self.first_id = <uint16_t>(self.sequence % IDS + 1)
        return 0

    cdef bytes changed(self, uint32_t first, uint32_t count, bint again, int64_t now_ms):
        """Packets with DUP when sent `again`, and with the remaining expiry interval."""
        cdef uint32_t start = self.begin(first), i
        cdef int64_t remaining
        cdef bytes copied = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.data) + start, self.size(first, count))
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(copied)
        if again and self.qos:
            for i in range(count):
                p[self.begin(first + i) - start] |= DUP
        if self.deadline and self.expiry_at:
            remaining = min(max(0, (self.deadline - now_ms + 999) // 1000), 0xFFFFFFFF)
            for i in range(4):
                p[self.expiry_at + i] = <uint8_t>(remaining >> (24 - 8 * i))
        return copied

    cdef Run renumbered(self, uint32_t first, uint32_t count, uint32_t start_id):
        """A private copy of some packets with identifiers from `start_id` on."""
        cdef uint32_t base = self.begin(first), i, at, packet_id
        cdef bytes data = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.data) + base, self.size(first, count))
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(data)
        cdef uint32_t* ends = <uint32_t*>malloc(count * sizeof(uint32_t))
        cdef Run private
        if ends == NULL:
            raise MemoryError()
        for i in range(count):
            at = self.begin(first + i) - base
            at += id_position(p + at, self.size(first + i, 1))
            packet_id = (start_id - 1 + i) % IDS + 1
            p[at] = <uint8_t>(packet_id >> 8)
            p[at + 1] = <uint8_t>packet_id
            ends[i] = self.ends[first + i] - base
        private = new_run(data, ends, count, self.qos, 0)
        private.first_id = <uint16_t>start_id
        private.deadline = self.deadline
        private.expiry_at = self.expiry_at
        private.alias = self.alias
        private.since = self.since
        private.position = self.position + first if self.position else 0
        private.origin = self.origin
        if self.source is not None:
            private.source = (self.source[0], self.source[1], self.source[2] + first)
        return private

    cdef Run translated(self, uint8_t version):
        """The run for a session that speaks MQTT 5 now, or no longer."""
        cdef bytes block = b"", packet
        cdef list packets = [], ends = []
        cdef uint32_t i, expiry_at = 0
        cdef Py_ssize_t at = 0
        cdef Run run
        if version == 5:
            block = b"\x05\x02\0\0\0\0" if self.deadline and self.count == 1 else b"\0"
        for i in range(self.count):
            packet = with_block(self.packet(i), version != 5, block)
            packets.append(packet)
            at += len(packet)
            ends.append(at)
        if len(block) > 1:
            packet = packets[0]
            expiry_at = id_position(<const uint8_t*>PyBytes_AS_STRING(packet), len(packet)) + 4
        run = Run(b"".join(packets), ends, self.qos, self.sequence, self.deadline, expiry_at)
        run.alias = self.alias if version == 5 else 0
        run.position = self.position
        run.since = self.since
        run.origin = self.origin
        run.source = self.source
        return run

    cdef Run without_topic(self):
        """The run with its topic alias in place of its topic; made once."""
        cdef list packets, ends
        cdef uint32_t i
        cdef Py_ssize_t at = 0
        if self.aliased is None:
            packets = []
            ends = []
            for i in range(self.count):
                packets.append(aliased_packet(self.packet(i), self.alias, False))
                at += len(packets[i])
                ends.append(at)
            self.aliased = Run(b"".join(packets), ends, self.qos, self.sequence)
        return self.aliased


cdef uint32_t id_position(const uint8_t* packet, uint32_t length) noexcept:
    """Where the identifier of a PUBLISH of QoS 1 or 2 lies; 0 when the packet is too short."""
    cdef uint32_t i = 1
    while i < length and packet[i] & 128:
        i += 1
    i += 1
    if i + 2 > length:
        return 0
    i += 2 + ((<uint32_t>packet[i]) << 8 | packet[i + 1])
    return i if i + 2 <= length else 0
