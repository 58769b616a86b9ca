# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.batch cimport BatchBuilder
from robustmq._kernel.fast.meter cimport Meter
from robustmq._kernel.fast.outbox cimport Outbox
from robustmq._kernel.fast.turn cimport AckTarget, Turn
from robustmq._kernel.fast.window cimport Window

cdef class Handle:
    cdef readonly bytes topic
    cdef readonly BatchBuilder builder
    cdef public Meter meter
    cdef public bint stale

cdef struct Owed:
    uint16_t packet_id
    uint8_t kind
    uint8_t done
    uint8_t reason

cdef class Intake(AckTarget):
    cdef Turn turn
    cdef readonly Outbox outbox
    cdef public object connection
    cdef public Window window
    cdef public uint8_t version
    cdef public bint open
    cdef public bint closed
    cdef readonly uint8_t reasons
    cdef public list meters
    cdef bint scanning
    cdef public uint32_t max_handles
    cdef public uint32_t max_packet
    cdef public uint32_t receive_max
    cdef public int64_t last_read_ms
    cdef dict handles
    cdef Handle last
    cdef bytes last_name
    cdef dict worded
    cdef uint8_t* tail
    cdef uint32_t tail_length, tail_capacity
    cdef Owed* owed
    cdef uint64_t owed_first, owed_next
    cdef uint32_t owed_capacity

    cdef int feed_raw(self, const uint8_t* data, size_t length) except -1
    cdef int handle_input(self, const uint8_t* data, size_t length) except -1
    cdef int put_back(self, uint8_t* own, size_t used, size_t length, size_t capacity) except -1
    cdef int malformed(self, uint8_t reason, object detail) except -1
    cdef size_t scan(self, const uint8_t* p, size_t n) except -1
    cdef int keep(self, const uint8_t* data, size_t length) except -1
    cdef int reserve_tail(self, size_t length) except -1
    cdef Py_ssize_t publish_run(self, const uint8_t* p, size_t n, uint32_t body, uint32_t size) except -1
    cdef Handle handle(self, const uint8_t* topic, uint32_t length)
    cdef int owe(self, uint16_t packet_id, uint8_t kind) except -1
    cdef int pay(self) except -1
    cpdef let_go(self, uint8_t reason)
    cpdef block(self)
    cdef int starve(self) except -1
