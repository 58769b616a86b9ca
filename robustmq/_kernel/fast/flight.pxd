# cython: language_level=3
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.run cimport Run
from robustmq._kernel.fast.turn cimport Turn

cdef struct Entry:
    PyObject* run
    uint32_t first
    uint32_t left
    uint32_t out

cdef class Flight:
    cdef Turn turn
    cdef Entry* ring
    cdef uint64_t head, sent, tail
    cdef uint64_t front, last
    cdef uint64_t floor, ceiling
    cdef dict released
    cdef uint32_t capacity
    cdef readonly uint32_t in_flight
    cdef bint mixed
    cdef uint8_t unordered
    cdef uint8_t noted_once

    cdef uint64_t lowest(self) noexcept
    cdef int progress(self) except -1
    cdef int insert(self, Run run, uint32_t depth) except -1
    cdef int drop_all(self) noexcept
    cdef int puback_raw(self, uint16_t packet_id, uint8_t qos) except -1
    cdef int find(self, uint16_t packet_id, uint8_t qos, uint64_t* at, uint32_t* depth) noexcept
    cdef int remove(self, uint64_t at, uint32_t depth) except -1
    cdef int split(self, uint64_t at, uint32_t depth) except -1
    cdef int grow(self) except -1
    cdef int compact(self) noexcept
    cdef void pop_head(self) noexcept
    cdef int blank(self, Entry* entry) noexcept
    cdef Entry* next_entry(self) except NULL
    cdef bint conflicts(self, Run run, uint32_t first, uint32_t count) except -1
    cdef bint find_range(self) except -1
    cdef void note(self, Run run, uint32_t first, uint32_t count) noexcept
    cdef bint overlaps(self, uint32_t start, uint32_t count, uint32_t* past) except -1
    cdef int renumber(self, Entry* entry) except -1
