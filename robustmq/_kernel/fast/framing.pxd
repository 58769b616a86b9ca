# cython: language_level=3
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

cdef class Framing:
    cdef public Py_ssize_t most
    cdef readonly Py_ssize_t held
    cdef list frames
    cdef Py_ssize_t given
    cdef object fault
    cdef PyObject* partial
    cdef Py_ssize_t size, filled, room
    cdef uint8_t head[4]
    cdef int heads

    cdef int feed_raw(self, const uint8_t* p, Py_ssize_t length) except -1
    cdef Py_ssize_t target_raw(self, uint8_t** p) except -1
    cdef int took_raw(self, Py_ssize_t length) except -1
    cdef int begin(self, Py_ssize_t size) except -1
    cdef int grow(self) except -1
    cdef int finish(self) except -1
    cdef int refuse(self, Py_ssize_t size) except -1
    cdef int release(self) noexcept
