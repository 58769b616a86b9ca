# cython: language_level=3
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.turn cimport Turn

cdef enum:
    HEADER = 61

cdef struct Expected:
    uint64_t ticket
    uint32_t index

cdef struct RecordView:
    const uint8_t* start
    const uint8_t* end
    uint8_t attributes
    int64_t timestamp_delta
    int64_t offset_delta
    const uint8_t* key
    int64_t key_length
    const uint8_t* value
    int64_t value_length
    const uint8_t* headers

cdef int read_record(const uint8_t* p, const uint8_t* end, RecordView* out) noexcept nogil
cdef const uint8_t* read_varint(const uint8_t* p, const uint8_t* end, int64_t* out) noexcept nogil
cdef uint32_t big32(const uint8_t* p) noexcept nogil
cdef void put32(uint8_t* p, uint32_t value) noexcept nogil
cdef uint64_t big64(const uint8_t* p) noexcept nogil

cdef class Acks:
    cdef list targets
    cdef Expected* expected
    cdef uint32_t count, capacity

    cdef int add(self, object target, uint64_t ticket, uint32_t index) except -1

cdef class BatchBuilder:
    cdef Turn turn
    cdef public object shard
    cdef public object on_full
    cdef public bint blocked
    cdef public bint retained
    cdef public uint8_t qos
    cdef readonly uint32_t count
    cdef public int64_t producer_id
    cdef public int16_t producer_epoch
    cdef public uint32_t sequence
    cdef uint32_t max_bytes
    cdef uint8_t* buffer
    cdef size_t length, capacity
    cdef int64_t base_timestamp, last_timestamp
    cdef Acks acks

    cdef int append_raw(self, const uint8_t* key, size_t key_length, const uint8_t* value,
                        size_t value_length, const uint8_t* headers, size_t headers_length,
                        uint8_t attributes, int64_t timestamp) except -1
    cdef int expect_raw(self, object target, uint64_t ticket) except -1
    cdef int settle_size(self) except -1
