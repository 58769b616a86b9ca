# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Where frames begin and end in a stream; the twin is `pure/framing.py`.

A frame that a read does not end goes on where it is: the poller reads the rest of it into the
object that is given out (`target_raw`), so that nothing of it is copied twice.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from robustmq.errors import ProtocolError

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1

cdef enum:
    SIZE_BYTES = 4
    # What is set aside for a frame before so much of it has come.
    ROOM = 2097152


cdef class Framing:
    """Collects what a stream brings, and gives it out by frames, each an object of its own."""

    def __cinit__(self, Py_ssize_t most):
        self.most = most
        self.frames = []
        self.partial = NULL

    def __dealloc__(self):
        self.release()

    def feed(self, bytes data not None):
        """Take what was read."""
        self.feed_raw(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def next(self):
        """Give out the next frame; None until it is whole. Raises ProtocolError."""
        cdef bytes frame
        if self.given < len(self.frames):
            frame = self.frames[self.given]
            self.frames[self.given] = None
            self.given += 1
            if self.given == len(self.frames):
                self.frames.clear()
                self.given = 0
            self.held -= SIZE_BYTES + PyBytes_GET_SIZE(frame)
            return frame
        if self.fault is not None:
            raise self.fault
        return None

    def clear(self):
        """Forget what is here."""
        self.frames.clear()
        self.release()
        self.fault = None
        self.given = self.held = self.heads = 0

    cdef int feed_raw(self, const uint8_t* p, Py_ssize_t length) except -1:
        """Take bytes that lie somewhere else."""
        cdef const uint8_t* end = p + length
        cdef Py_ssize_t step, size
        if self.fault is not None:
            return 0
        self.held += length
        while p < end:
            if self.partial != NULL:
                if self.filled == self.room:
                    self.grow()
                step = min(end - p, self.room - self.filled)
                memcpy(PyBytes_AS_STRING(<object>self.partial) + self.filled, p, step)
                p += step
                self.filled += step
                if self.filled == self.size:
                    self.finish()
                continue
            while self.heads < SIZE_BYTES and p < end:
                self.head[self.heads] = p[0]
                self.heads += 1
                p += 1
            if self.heads < SIZE_BYTES:
                return 0
            self.heads = 0
            size = <int32_t>(<uint32_t>self.head[0] << 24 | <uint32_t>self.head[1] << 16
                             | <uint32_t>self.head[2] << 8 | <uint32_t>self.head[3])
            if not 0 <= size <= self.most:
                return self.refuse(size)
            if end - p >= size:
                self.frames.append(PyBytes_FromStringAndSize(<const char*>p, size))
                p += size
            else:
                self.begin(size)
        return 0

    cdef Py_ssize_t target_raw(self, uint8_t** p) except -1:
        """How much of the frame under way may be read to `p`; 0: none is under way."""
        if self.partial == NULL:
            return 0
        if self.filled == self.room:
            self.grow()
        p[0] = <uint8_t*>PyBytes_AS_STRING(<object>self.partial) + self.filled
        return self.room - self.filled

    cdef int took_raw(self, Py_ssize_t length) except -1:
        """So much was read to where `target_raw` said."""
        self.held += length
        self.filled += length
        if self.filled == self.size:
            self.finish()
        return 0

    cdef int begin(self, Py_ssize_t size) except -1:
        """A frame is under way, of which more comes."""
        cdef bytes room
        self.size = size
        self.filled = 0
        self.room = min(size, <Py_ssize_t>ROOM)
        room = PyBytes_FromStringAndSize(NULL, self.room)
        Py_INCREF(room)
        self.partial = <PyObject*>room
        return 0

    cdef int grow(self) except -1:
        self.room = min(self.size, 2 * self.room)
        _PyBytes_Resize(&self.partial, self.room)
        return 0

    cdef int finish(self) except -1:
        self.frames.append(<object>self.partial)
        self.release()
        return 0

    cdef int refuse(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t i
        self.fault = ProtocolError(
            0, f"a request has {size} bytes: at most {self.most} are taken"
        )
        self.held = 0
        for i in range(self.given, len(self.frames)):
            self.held += SIZE_BYTES + PyBytes_GET_SIZE(self.frames[i])
        return 0

    cdef int release(self) noexcept:
        Py_XDECREF(self.partial)
        self.partial = NULL
        return 0
