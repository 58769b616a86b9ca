# cython: language_level=3, boundscheck=False, wraparound=False
"""The frames of a WebSocket client, unmasked and taken apart; twin: `pure/websocket.py`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef enum:
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    MAX_CONTROL = 125
    MAX_HEAD = 14


cdef void unmask(
    unsigned char* target, const unsigned char* source, Py_ssize_t length, const unsigned char* key
) noexcept nogil:
    """Write `source`, unmasked with the four bytes of `key`, to `target`."""
    cdef uint64_t wide, word
    cdef Py_ssize_t at = 0
    memcpy(&wide, key, 4)
    memcpy(<unsigned char*>&wide + 4, key, 4)
    while at + 8 <= length:
        memcpy(&word, source + at, 8)
        word ^= wide
        memcpy(target + at, &word, 8)
        at += 8
    while at < length:
        target[at] = source[at] ^ key[at & 3]
        at += 1


cdef class FrameReader:
    """What one client sends: `feed` takes bytes as they come and returns those of its messages."""

    cdef public bytes ping
    cdef readonly bytes close
    cdef readonly tuple failure
    cdef uint64_t _max_message, _left, _message
    cdef unsigned char _head[MAX_HEAD]
    cdef unsigned char _mask[4]
    cdef unsigned char _control[MAX_CONTROL]
    cdef int _head_size, _control_size, _opcode
    cdef bint _in_message

    def __init__(self, uint64_t max_message):
        self._max_message = max_message
        self._opcode = BINARY

    def feed(self, bytes data not None):
        """Take what the socket gave; return the bytes of messages in it, unmasked."""
        cdef const unsigned char* source = <const unsigned char*>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = 0, used = 0, length
        cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
        cdef unsigned char* target = <unsigned char*>PyBytes_AS_STRING(out)
        while at < size and self.close is None and self.failure is None:
            if self._left == 0:
                at += self._read_head(source + at, size - at)
                if self._head_size or self.failure is not None:
                    break
            if self._left == 0 and self._opcode < CLOSE:
                continue
            length = size - at
            if <uint64_t>length > self._left:
                length = <Py_ssize_t>self._left
            if self._opcode < CLOSE:
                unmask(target + used, source + at, length, self._mask)
                used += length
            else:
                unmask(self._control + self._control_size, source + at, length, self._mask)
                self._control_size += <int>length
            at += length
            self._left -= length
            self._turn_mask(length & 3)
            if self._opcode >= CLOSE and self._left == 0:
                self._end_control()
        return out if used == size else PyBytes_FromStringAndSize(<char*>target, used)

    cdef Py_ssize_t _read_head(self, const unsigned char* source, Py_ssize_t size) except -1:
        """Take the rest of a frame's head from `source`; return how many bytes that were.

        The frame begins, or there is a failure, or `_head_size` says that some is missing.
        """
        cdef int had = self._head_size, whole
        cdef int have = had + <int>min(size, MAX_HEAD - had)
        cdef uint64_t length
        cdef int index
        memcpy(self._head + had, source, have - had)
        self._head_size = have
        if have < 2:
            return have - had
        self.failure = self._mistake(self._head[0], self._head[1])
        if self.failure is not None:
            return 0
        length = self._head[1] & 127
        whole = 8 if length == 126 else 14 if length == 127 else 6
        if have < whole:
            return have - had
        if whole > 6:
            length = 0
            for index in range(2, whole - 4):
                length = length << 8 | self._head[index]
        memcpy(self._mask, self._head + whole - 4, 4)
        self._head_size = 0
        self._begin(self._head[0], length)
        return whole - had

    cdef tuple _mistake(self, int first, int second):
        """What is wrong with the first two bytes of a frame."""
        cdef int opcode = first & 15
        if first & 0x70:
            return 1002, "a reserved bit is set, and no extension was negotiated"
        if not second & 0x80:
            return 1002, "a frame from a client is masked"
        if opcode >= CLOSE:
            if opcode > PONG:
                return 1002, f"opcode {opcode} is reserved"
            if not first & 0x80:
                return 1002, "a control frame is not fragmented"
            if second & 127 > MAX_CONTROL:
                return 1002, "a control frame has at most 125 bytes"
        elif opcode > BINARY:
            return 1002, f"opcode {opcode} is reserved"
        elif opcode == CONTINUATION and not self._in_message:
            return 1002, "there is no message to continue"
        elif opcode != CONTINUATION and self._in_message:
            return 1002, "a message begins within another one"
        elif opcode == TEXT:
            return 1003, "MQTT is sent in binary messages"
        return None

    cdef int _begin(self, int first, uint64_t length) except -1:
        self._opcode = first & 15
        self._left = length
        if self._opcode >= CLOSE:
            self._control_size = 0
            return 0
        if length >> 63:
            self.failure = (1002, "the length of a frame has 63 bits")
            return 0
        if not self._in_message:
            self._message = 0
        self._message += length
        self._in_message = not first & 0x80
        if self._message > self._max_message:
            self.failure = (1009, f"a message has at most {self._max_message} bytes")
        return 0

    cdef void _turn_mask(self, int by) noexcept:
        cdef unsigned char old[4]
        cdef int index
        if by:
            memcpy(old, self._mask, 4)
            for index in range(4):
                self._mask[index] = old[(index + by) & 3]

    cdef int _end_control(self) except -1:
        cdef bytes payload = PyBytes_FromStringAndSize(<char*>self._control, self._control_size)
        if self._opcode == PING:
            self.ping = payload
        elif self._opcode == CLOSE:
            self.close = payload
        self._opcode = BINARY
        return 0
