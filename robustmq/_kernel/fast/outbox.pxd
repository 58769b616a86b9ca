# cython: language_level=3
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.turn cimport Turn

cdef struct Segment:
    PyObject* data
    size_t offset
    size_t length

cdef class Outbox:
    cdef Turn turn
    cdef public object stream
    cdef public object drained
    cdef readonly bint closed
    cdef readonly size_t size
    cdef bint dirty
    cdef uint8_t* buffer
    cdef size_t start, end, capacity
    cdef Segment* segments
    cdef uint32_t segment_first, segment_count, segment_capacity

    cdef int mark(self) except -1
    cdef uint8_t* reserve(self, size_t length) except NULL
    cdef int wrote(self, size_t length) except -1
    cdef int put_raw(self, const uint8_t* data, size_t length) except -1
    cdef int put_reference(self, bytes data, size_t offset, size_t length) except -1
    cdef int add_segment(self, PyObject* data, size_t offset, size_t length) except -1
    cpdef int send(self, int fd) except -2
    cdef int compact(self) noexcept
    cdef void consumed(self, size_t length) noexcept
    cdef void release(self) noexcept
