# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    POOLED = 16384
    POOL = 256

cdef class Turn:
    cdef public int64_t now_ms
    cdef public list outboxes
    cdef public list builders
    cdef public list resumes
    cdef public list hungry
    cdef public list acknowledged
    cdef public list exact
    cdef public uint64_t sequence
    cdef readonly object row
    cdef uint64_t[::1] view
    cdef uint64_t* cells
    cdef uint8_t* pool[POOL]
    cdef uint32_t pooled

    cdef uint8_t* take_buffer(self) except NULL
    cdef void give_buffer(self, uint8_t* buffer) noexcept

cdef class AckTarget:
    cdef int settle_raw(self, uint64_t ticket, int code, bint matched) except -1
