# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The bytes that wait for one connection's next send; the twin is `pure/outbox.py`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from robustmq._kernel.fast.turn cimport POOLED
from robustmq.metrics import BYTES_SENT as _BYTES_SENT

cdef int BYTES_SENT = _BYTES_SENT

cdef enum:
    BY_REFERENCE = 1024
    VECTORS = 256

cdef extern from *:
    """
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    static inline ssize_t gathered_send(int fd, struct iovec *vectors, int count) {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = vectors;
        message.msg_iovlen = count;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t gathered_send(int fd, iovec* vectors, int count) nogil


cdef class Outbox:
    """Small pieces are copied into one buffer, large ones are queued by reference."""

    def __cinit__(self, Turn turn not None):
        self.turn = turn
        self.stream = None
        self.drained = None
        self.closed = False
        self.dirty = False
        self.buffer = NULL
        self.segments = NULL

    def __dealloc__(self):
        # The collector may have cleared `turn` by now, so the pool cannot be reached.
        if self.turn is None and self.buffer != NULL:
            free(self.buffer)
            self.buffer = NULL
        self.release()
        free(self.segments)

    def put(self, bytes data not None):
        """Queue `data` behind everything that waits."""
        self.put_reference(data, 0, PyBytes_GET_SIZE(data))

    def put_slice(self, bytes data not None, Py_ssize_t start, Py_ssize_t end):
        """Queue `data[start:end]`; a large slice is kept by reference."""
        if not 0 <= start <= end <= PyBytes_GET_SIZE(data):
            raise ValueError("the slice lies outside the data")
        self.put_reference(data, start, end - start)

    def take(self):
        """All that waits, as one bytes object; the outbox is empty afterwards."""
        cdef list parts = []
        cdef uint32_t i
        cdef Segment* segment
        cdef bytes whole
        if self.segment_count == 0:
            if self.buffer != NULL:
                parts.append(PyBytes_FromStringAndSize(
                    <char*>self.buffer + self.start, self.end - self.start))
        else:
            for i in range(self.segment_first, self.segment_count):
                segment = &self.segments[i]
                if segment.data == NULL:
                    parts.append(PyBytes_FromStringAndSize(
                        <char*>self.buffer + segment.offset, segment.length))
                else:
                    parts.append((<bytes>segment.data)[
                        segment.offset:segment.offset + segment.length])
        whole = b"".join(parts)
        self.release()
        self.dirty = False
        return whole

    def settle(self):
        """The end of the turn has seen this outbox: the next put marks it anew."""
        self.dirty = False

    def close(self):
        """Forget what waits and take nothing more."""
        self.closed = True
        self.release()
        self.stream = None
        self.drained = None

    cdef int mark(self) except -1:
        if not self.dirty:
            self.dirty = True
            self.turn.outboxes.append(self)
        return 0

    cdef uint8_t* reserve(self, size_t length) except NULL:
        """Room for `length` contiguous bytes at the end; `wrote` commits them."""
        cdef size_t capacity
        cdef uint8_t* grown
        if not self.dirty:
            self.mark()
        if self.buffer == NULL:
            self.start = self.end = 0
            if length <= POOLED:
                self.buffer = self.turn.take_buffer()
                self.capacity = POOLED
            else:
                self.buffer = <uint8_t*>malloc(length)
                if self.buffer == NULL:
                    raise MemoryError()
                self.capacity = length
        elif self.end + length > self.capacity:
            if self.start and self.segment_count == 0:
                memmove(self.buffer, self.buffer + self.start, self.end - self.start)
                self.end -= self.start
                self.start = 0
            elif self.segment_count:
                self.compact()
            capacity = self.capacity
            while self.end + length > capacity:
                capacity *= 2
            if capacity != self.capacity:
                grown = <uint8_t*>realloc(self.buffer, capacity)
                if grown == NULL:
                    raise MemoryError()
                self.buffer = grown
                self.capacity = capacity
        return self.buffer + self.end

    cdef int compact(self) noexcept:
        """Move what waits to the front, in the buffer and among the segments.

        A connection that is never quite drained must not grow.
        """
        cdef uint32_t i, live = self.segment_count - self.segment_first
        cdef size_t first = self.end
        memmove(self.segments, self.segments + self.segment_first, live * sizeof(Segment))
        self.segment_first = 0
        self.segment_count = live
        for i in range(live):
            if self.segments[i].data == NULL:
                first = self.segments[i].offset
                break
        if first == 0 or self.buffer == NULL:
            return 0
        memmove(self.buffer, self.buffer + first, self.end - first)
        self.end -= first
        for i in range(live):
            if self.segments[i].data == NULL:
                self.segments[i].offset -= first
        return 0

    cdef int wrote(self, size_t length) except -1:
        cdef Segment* last
        if self.segment_count:
            last = &self.segments[self.segment_count - 1]
            if last.data == NULL:
                last.length += length
            else:
                self.add_segment(NULL, self.end, length)
        self.end += length
        self.size += length
        return 0

    cdef int put_raw(self, const uint8_t* data, size_t length) except -1:
        if self.closed or length == 0:
            return 0
        memcpy(self.reserve(length), data, length)
        return self.wrote(length)

    cdef int put_reference(self, bytes data, size_t offset, size_t length) except -1:
        if self.closed or length == 0:
            return 0
        if length < BY_REFERENCE:
            return self.put_raw(<const uint8_t*>PyBytes_AS_STRING(data) + offset, length)
        if not self.dirty:
            self.mark()
        if self.segment_count == 0 and self.end > self.start:
            self.add_segment(NULL, self.start, self.end - self.start)
        Py_INCREF(data)
        try:
            self.add_segment(<PyObject*>data, offset, length)
        except MemoryError:
            Py_DECREF(data)
            raise
        self.size += length
        return 0

    cdef int add_segment(self, PyObject* data, size_t offset, size_t length) except -1:
        cdef Segment* grown
        cdef uint32_t capacity
        if self.segment_count == self.segment_capacity and (
                self.segment_first > self.segment_count // 2):
            self.compact()
        if self.segment_count == self.segment_capacity:
            capacity = self.segment_capacity * 2 if self.segment_capacity else 8
            grown = <Segment*>realloc(self.segments, capacity * sizeof(Segment))
            if grown == NULL:
                raise MemoryError()
            self.segments = grown
            self.segment_capacity = capacity
        self.segments[self.segment_count].data = data
        self.segments[self.segment_count].offset = offset
        self.segments[self.segment_count].length = length
        self.segment_count += 1
        return 0

    cpdef int send(self, int fd) except -2:
        """Send what waits: 1 all sent, 0 the socket is full, -1 the peer is gone."""
        cdef iovec vectors[VECTORS]
        cdef uint32_t i, count
        cdef ssize_t sent
        cdef size_t wanted
        cdef Segment* segment
        while self.size:
            wanted = 0
            if self.segment_count == 0:
                vectors[0].iov_base = self.buffer + self.start
                vectors[0].iov_len = wanted = self.end - self.start
                count = 1
            else:
                count = 0
                for i in range(self.segment_first, self.segment_count):
                    if count == VECTORS:
                        break
                    segment = &self.segments[i]
                    if segment.data == NULL:
                        vectors[count].iov_base = self.buffer + segment.offset
                    else:
                        vectors[count].iov_base = (
                            PyBytes_AS_STRING(<bytes>segment.data) + segment.offset)
                    vectors[count].iov_len = segment.length
                    wanted += segment.length
                    count += 1
            with nogil:
                sent = gathered_send(fd, vectors, count)
            if sent < 0:
                if errno == EINTR:
                    continue
                return 0 if errno == EAGAIN else -1
            self.consumed(sent)
            if <size_t>sent < wanted:
                return 0
        self.release()
        return 1

    cdef void consumed(self, size_t length) noexcept:
        cdef Segment* segment
        self.turn.cells[BYTES_SENT] += length
        self.size -= length
        if self.segment_count == 0:
            self.start += length
            return
        while length:
            segment = &self.segments[self.segment_first]
            if length < segment.length:
                segment.offset += length
                segment.length -= length
                return
            length -= segment.length
            if segment.data != NULL:
                Py_DECREF(<object>segment.data)
            self.segment_first += 1

    cdef void release(self) noexcept:
        cdef Segment* segment
        if self.buffer != NULL:
            if self.capacity == POOLED:
                self.turn.give_buffer(self.buffer)
            else:
                free(self.buffer)
            self.buffer = NULL
        self.start = self.end = self.size = 0
        while self.segment_first < self.segment_count:
            segment = &self.segments[self.segment_first]
            if segment.data != NULL:
                Py_DECREF(<object>segment.data)
            self.segment_first += 1
        self.segment_first = self.segment_count = 0
        if self.segment_capacity > 64:
            free(self.segments)
            self.segments = NULL
            self.segment_capacity = 0
