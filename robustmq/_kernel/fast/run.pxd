# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    IDS = 65535

cdef class Run:
    cdef readonly bytes data
    cdef uint32_t* ends
    cdef readonly uint32_t count
    cdef readonly uint8_t qos
    cdef readonly uint16_t first_id
    cdef readonly uint64_t sequence
    cdef readonly uint32_t largest
    cdef readonly int64_t deadline
    cdef public int64_t since
    cdef public uint64_t position
    cdef readonly uint32_t expiry_at
    cdef public uint16_t alias
    cdef public object origin
    cdef public tuple source
    cdef Run aliased

    cdef inline uint16_t packet_id(self, uint32_t i) noexcept:
        return <uint16_t>((<uint32_t>self.first_id - 1 + i) % IDS + 1)

    cdef inline uint32_t begin(self, uint32_t i) noexcept:
        return self.ends[i - 1] if i else 0

    cdef inline uint32_t size(self, uint32_t first, uint32_t count) noexcept:
        return self.ends[first + count - 1] - self.begin(first)

    cdef int check(self, Py_ssize_t length) except -1
    cdef bytes changed(self, uint32_t first, uint32_t count, bint again, int64_t now_ms)
    cdef Run renumbered(self, uint32_t first, uint32_t count, uint32_t start_id)
    cdef Run translated(self, uint8_t version)
    cdef Run without_topic(self)

cdef Run new_run(bytes data, uint32_t* ends, uint32_t count, uint8_t qos, uint64_t sequence)
