# cython: language_level=3
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.outbox cimport Outbox
from robustmq._kernel.fast.run cimport Run
from robustmq._kernel.fast.turn cimport Turn

cdef struct Entry:
    PyObject* run
    uint32_t first
    uint32_t left
    uint32_t out

cdef class Window:
    cdef Turn turn
    cdef readonly Outbox outbox
    cdef public object session
    cdef public uint64_t key
    cdef readonly uint8_t version
    cdef readonly uint32_t limit
    cdef readonly uint32_t max_packet
    cdef readonly uint16_t alias_max
    cdef readonly uint32_t in_flight
    cdef readonly uint32_t queued
    cdef readonly uint64_t queued_bytes
    cdef public uint32_t max_queued
    cdef public uint64_t max_queued_bytes
    cdef public uint64_t max_outbox_bytes
    cdef readonly uint64_t dropped
    cdef Entry* ring
    cdef uint64_t head, sent, tail
    cdef uint32_t capacity
    cdef uint32_t redeliver
    cdef bint mixed
    cdef uint64_t floor, ceiling
    cdef dict released
    cdef set aliases

    cdef int take_back(self) except -1
    cdef int offer_run(self, Run run) except -1
    cdef int pump_raw(self) except -1
    cdef int puback_raw(self, uint16_t packet_id, uint8_t qos) except -1
    cdef int find(self, uint16_t packet_id, uint8_t qos, uint64_t* at, uint32_t* depth) noexcept
    cdef int remove(self, uint64_t at, uint32_t depth) except -1
    cdef int split(self, uint64_t at, uint32_t depth) except -1
    cdef int grow(self) except -1
    cdef int compact(self) noexcept
    cdef void pop_head(self) noexcept
    cdef int blank(self, Entry* entry) noexcept
    cdef int drop_unsent(self, uint32_t count, int cell) except -1
    cdef Entry* next_entry(self) except NULL
    cdef bint conflicts(self, Run run, uint32_t first, uint32_t count) except -1
    cdef bint find_range(self) except -1
    cdef void note(self, Run run, uint32_t first, uint32_t count) noexcept
    cdef bint overlaps(self, uint32_t start, uint32_t count, uint32_t* past) except -1
    cdef int renumber(self, Entry* entry) except -1
    cdef int emit(self, Run run, uint32_t first, uint32_t count, bint again) except -1
    cdef int put_whole(self, bytes data) except -1
