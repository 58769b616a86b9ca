# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t

cdef class Meter:
    cdef public int64_t messages
    cdef public int64_t size
    cdef public object refill

    cdef int ask(self, object intake) except -1

cdef int spent(list meters, Meter other, object intake) except -1
cdef int64_t allowed(list meters, Meter other, uint32_t length, int64_t most) except -1
cdef int charge(list meters, Meter other, object intake, int64_t messages, int64_t size) except -1
