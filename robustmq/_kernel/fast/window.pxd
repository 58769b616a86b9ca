# cython: language_level=3
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.flight cimport Entry, Flight
from robustmq._kernel.fast.outbox cimport Outbox
from robustmq._kernel.fast.run cimport Run
cdef class Window(Flight):
    cdef readonly Outbox outbox
    cdef public object session
    cdef public uint64_t key
    cdef set aliases
    cdef public uint64_t resume
    cdef readonly uint64_t queued_bytes
    cdef public uint64_t max_queued_bytes
    cdef public uint64_t max_outbox_bytes
    cdef readonly uint64_t dropped
    cdef public uint32_t max_queued
    cdef readonly uint32_t queued
    cdef uint32_t redeliver
    cdef readonly uint32_t limit
    cdef readonly uint32_t max_packet
    cdef readonly uint16_t alias_max
    cdef public uint8_t version
    cdef uint8_t hungry_once
    cdef public bint lagging

    cdef bint admits(self, Run run) noexcept
    cdef int check_hunger(self) except -1
    cdef uint64_t drop_stored(self) except? 0
    cdef int take_back(self) except -1
    cdef int translate(self, uint8_t version) except -1
    cdef int offer_run(self, Run run) except -1
    cdef int offer_at_most_once(self, Run run) except -1
    cdef int note_exact(self, Run run, uint32_t first, uint32_t count) except -1
    cdef void ascend(self, Run run) noexcept
    cdef int pump_raw(self) except -1
    cdef int drop_unsent(self, uint32_t count, int cell) except -1
    cdef int emit(self, Run run, uint32_t first, uint32_t count, bint again) except -1
    cdef int put_whole(self, bytes data) except -1
