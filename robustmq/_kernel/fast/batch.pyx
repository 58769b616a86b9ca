# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Building and walking record batches (Kafka message format v2); the twin is `pure/batch.py`."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from robustmq._kernel.fast.crc cimport crc32c_raw
from robustmq._kernel.fast.turn cimport AckTarget
from robustmq.errors import Corrupt

cdef enum:
    RECORD_OVERHEAD = 48
    FIRST_CAPACITY = 4096
    KEPT_CAPACITY = 1 << 20


cdef inline uint32_t big32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0]) << 24 | (<uint32_t>p[1]) << 16 | (<uint32_t>p[2]) << 8 | p[3]


cdef inline uint64_t big64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>big32(p)) << 32 | big32(p + 4)


cdef inline void put32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef inline void put64(uint8_t* p, uint64_t value) noexcept nogil:
    put32(p, <uint32_t>(value >> 32))
    put32(p + 4, <uint32_t>value)


cdef inline uint8_t* put_varint(uint8_t* p, int64_t value) noexcept nogil:
    """Zigzag varint, as in protocol buffers."""
    cdef uint64_t v = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    while v >= 128:
        p[0] = <uint8_t>(v | 128)
        v >>= 7
        p += 1
    p[0] = <uint8_t>v
    return p + 1


cdef inline int varint_size(int64_t value) noexcept nogil:
    cdef uint64_t v = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    cdef int n = 1
    while v >= 128:
        v >>= 7
        n += 1
    return n


cdef const uint8_t* read_varint(const uint8_t* p, const uint8_t* end, int64_t* out) noexcept nogil:
    """The position behind the varint, or NULL when it is cut or too long."""
    cdef uint64_t v = 0
    cdef int shift = 0
    while p < end and shift < 64:
        v |= (<uint64_t>(p[0] & 127)) << shift
        if p[0] < 128:
            out[0] = <int64_t>(v >> 1) ^ -<int64_t>(v & 1)
            return p + 1
        p += 1
        shift += 7
    return NULL


cdef int read_record(const uint8_t* p, const uint8_t* end, RecordView* out) noexcept nogil:
    """Fill `out` from the record at `p`: 1 read, 0 damaged."""
    cdef int64_t length
    out.start = p
    p = read_varint(p, end, &length)
    if p == NULL or length < 1 or length > end - p:
        return 0
    end = p + length
    out.end = end
    out.attributes = p[0]
    p = read_varint(p + 1, end, &out.timestamp_delta)
    if p == NULL:
        return 0
    p = read_varint(p, end, &out.offset_delta)
    if p == NULL:
        return 0
    p = read_varint(p, end, &out.key_length)
    if p == NULL or out.key_length > end - p:
        return 0
    out.key = p
    if out.key_length > 0:
        p += out.key_length
    p = read_varint(p, end, &out.value_length)
    if p == NULL or out.value_length > end - p:
        return 0
    out.value = p
    if out.value_length > 0:
        p += out.value_length
    if p >= end:
        return 0
    out.headers = p
    return 1


cdef class Acks:
    """Who must be told when a batch has been appended, in the order of its records."""

    def __cinit__(self):
        self.targets = []
        self.expected = NULL
        self.count = self.capacity = 0

    def __dealloc__(self):
        free(self.expected)

    def __len__(self):
        return self.count

    cdef int add(self, object target, uint64_t ticket, uint32_t index) except -1:
        cdef Expected* grown
        cdef uint32_t capacity
        if self.count == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 16
            grown = <Expected*>realloc(self.expected, capacity * sizeof(Expected))
            if grown == NULL:
                raise MemoryError()
            self.expected = grown
            self.capacity = capacity
        self.targets.append(target)
        self.expected[self.count].ticket = ticket
        self.expected[self.count].index = index
        self.count += 1
        return 0

    def settle(self, int code, list unmatched not None):
        """Tell everybody: `code` 0 or a Refusal; `unmatched` are (start, stop) record ranges."""
        cdef uint32_t i, index
        cdef uint32_t start = 0, stop = 0
        cdef Py_ssize_t position = 0, ranges = len(unmatched)
        cdef bint matched
        cdef list targets = self.targets
        cdef uint32_t count = self.count
        self.targets = []
        self.count = 0
        for i in range(count):
            index = self.expected[i].index
            while index >= stop and position < ranges:
                start, stop = unmatched[position]
                position += 1
            matched = not (start <= index < stop)
            target = targets[i]
            if isinstance(target, AckTarget):
                (<AckTarget>target).settle_raw(self.expected[i].ticket, code, matched)
            else:
                target(code, matched)


cdef class BatchBuilder:
    """The turn's batch for one shard: records in, one v2 batch out.

    With a `producer_id` the batches carry `producer_epoch` and a running base sequence.
    """

    def __cinit__(self, Turn turn not None, shard, uint32_t max_bytes, on_full):
        self.turn = turn
        self.shard = shard
        self.max_bytes = max_bytes
        self.on_full = on_full
        self.blocked = False
        self.retained = False
        self.qos = 0
        self.producer_id = -1
        self.producer_epoch = -1
        self.buffer = NULL
        self.length = HEADER
        self.count = 0
        self.acks = Acks()

    def __dealloc__(self):
        free(self.buffer)

    @property
    def size(self):
        """Bytes of the batch as it stands."""
        return self.length

    def append(self, bytes key not None, bytes value not None, bytes headers not None,
               uint8_t attributes, int64_t timestamp):
        """Add a record; `headers` is its header block, count included. Returns its index."""
        cdef uint32_t index = self.count
        if not headers:
            raise ValueError("a header block has at least its count")
        self.append_raw(
            <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
            <const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value),
            <const uint8_t*>PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers),
            attributes, timestamp)
        return index

    def expect(self, target, uint64_t ticket):
        """`target` (an Intake, or a callable) waits for the record appended last."""
        if not self.count:
            raise ValueError("there is no record to wait for")
        self.expect_raw(target, ticket)

    def settle_if_full(self):
        """Hand the batch over at once when it has reached its limit."""
        self.settle_size()

    def take(self):
        """`(batch, acks)`; the builder is empty afterwards. CRC and lengths are final."""
        cdef Acks acks = self.acks
        cdef bytes batch
        cdef uint8_t* p = self.buffer
        if not self.count:
            raise ValueError("an empty batch cannot be taken")
        memset(p, 0, HEADER)
        put32(p + 8, <uint32_t>(self.length - 12))
        p[16] = 2
        put32(p + 23, self.count - 1)
        put64(p + 27, <uint64_t>self.base_timestamp)
        put64(p + 35, <uint64_t>self.last_timestamp)
        put64(p + 43, <uint64_t>self.producer_id)
        p[51] = <uint8_t>(self.producer_epoch >> 8)
        p[52] = <uint8_t>self.producer_epoch
        put32(p + 53, self.sequence if self.producer_id >= 0 else 0xFFFFFFFF)
        self.sequence = (self.sequence + self.count) & 0x7FFFFFFF
        put32(p + 57, self.count)
        put32(p + 17, crc32c_raw(p + 21, self.length - 21, 0))
        batch = PyBytes_FromStringAndSize(<char*>p, self.length)
        self.acks = Acks()
        self.count = 0
        self.length = HEADER
        self.retained = False
        self.qos = 0
        if self.capacity > KEPT_CAPACITY:
            free(self.buffer)
            self.buffer = NULL
            self.capacity = 0
        return batch, acks

    cdef int append_raw(self, const uint8_t* key, size_t key_length, const uint8_t* value,
                        size_t value_length, const uint8_t* headers, size_t headers_length,
                        uint8_t attributes, int64_t timestamp) except -1:
        cdef size_t need = self.length + key_length + value_length + headers_length + RECORD_OVERHEAD
        cdef size_t capacity
        cdef uint8_t* grown
        cdef uint8_t* p
        cdef int64_t body, stamp
        if self.count == 0:
            self.base_timestamp = self.last_timestamp = timestamp
            self.turn.builders.append(self)
        if need > self.capacity:
            capacity = self.capacity * 2 if self.capacity else FIRST_CAPACITY
            while capacity < need:
                capacity *= 2
            grown = <uint8_t*>realloc(self.buffer, capacity)
            if grown == NULL:
                raise MemoryError()
            self.buffer = grown
            self.capacity = capacity
        if timestamp > self.last_timestamp:
            self.last_timestamp = timestamp
        stamp = <int64_t>(<uint64_t>timestamp - <uint64_t>self.base_timestamp)
        body = (1 + varint_size(stamp) + varint_size(self.count) + varint_size(key_length)
                + key_length + varint_size(value_length) + value_length + headers_length)
        p = put_varint(self.buffer + self.length, body)
        p[0] = attributes
        p = put_varint(p + 1, stamp)
        p = put_varint(p, self.count)
        p = put_varint(p, key_length)
        memcpy(p, key, key_length)
        p = put_varint(p + key_length, value_length)
        memcpy(p, value, value_length)
        p += value_length
        memcpy(p, headers, headers_length)
        self.length = (p - self.buffer) + headers_length
        self.count += 1
        if attributes & 4:
            self.retained = True
        if attributes & 3 > self.qos:
            self.qos = attributes & 3
        return 0

    cdef int expect_raw(self, object target, uint64_t ticket) except -1:
        return self.acks.add(target, ticket, self.count - 1)

    cdef int settle_size(self) except -1:
        if self.length >= self.max_bytes and self.on_full is not None:
            self.on_full(self)
        return 0


def records(bytes batch not None):
    """Every record as `(attributes, timestamp, offset, key, value, headers)`; Corrupt when damaged."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
    cdef RecordView view
    cdef uint32_t i, count
    cdef uint64_t base, stamp
    cdef list out = []
    if end - p < HEADER:
        raise Corrupt("record batch: shorter than its header")
    base = big64(p)
    stamp = big64(p + 27)
    count = big32(p + 57)
    p += HEADER
    for i in range(count):
        if not read_record(p, end, &view):
            raise Corrupt(f"record batch: record {i} of {count}")
        out.append((
            view.attributes,
            <int64_t>(stamp + <uint64_t>view.timestamp_delta),
            <int64_t>(base + <uint64_t>view.offset_delta),
            PyBytes_FromStringAndSize(<char*>view.key, view.key_length)
            if view.key_length >= 0 else None,
            PyBytes_FromStringAndSize(<char*>view.value, view.value_length)
            if view.value_length >= 0 else None,
            PyBytes_FromStringAndSize(<char*>view.headers, view.end - view.headers),
        ))
        p = view.end
    return out


def cut(bytes batch not None, Py_ssize_t start, uint32_t count):
    """The raw bytes of the `count` records that begin at byte `start`; Corrupt when damaged."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
    cdef RecordView view
    cdef uint32_t i
    cdef list out = []
    if start < HEADER or start > end - p:
        raise Corrupt("record batch: a record outside of it")
    p += start
    for i in range(count):
        if not read_record(p, end, &view):
            raise Corrupt(f"record batch: record {i} of {count}")
        out.append(PyBytes_FromStringAndSize(<char*>view.start, view.end - view.start))
        p = view.end
    return out


def gather(bytes batch not None, list raw not None):
    """A batch of records cut from `batch`: its header, their count, no CRC (memory only)."""
    cdef bytes whole
    cdef uint8_t* p
    if PyBytes_GET_SIZE(batch) < HEADER:
        raise Corrupt("record batch: shorter than its header")
    # Of two pieces and more, for the join of one is the piece itself, which is not ours.
    whole = b"".join([batch[:12], batch[12:HEADER], *raw])
    p = <uint8_t*>PyBytes_AS_STRING(whole)
    put32(p + 8, <uint32_t>(PyBytes_GET_SIZE(whole) - 12))
    put32(p + 17, 0)
    put32(p + 57, <uint32_t>len(raw))
    return whole


def slice_of(bytes batch not None, Py_ssize_t start, Py_ssize_t stop, uint32_t count):
    """A batch of the `count` consecutive records in the bytes from `start` to before `stop`.

    It is `batch` itself when they are all of it, else without CRC; Corrupt when outside of it.
    """
    cdef Py_ssize_t length = PyBytes_GET_SIZE(batch)
    cdef const uint8_t* given = <const uint8_t*>PyBytes_AS_STRING(batch)
    cdef bytes whole
    cdef uint8_t* p
    if length < HEADER:
        raise Corrupt("record batch: shorter than its header")
    if start < HEADER or stop < start or stop > length:
        raise Corrupt("record batch: a record outside of it")
    if start == HEADER and stop == length and count == big32(given + 57):
        return batch
    whole = PyBytes_FromStringAndSize(NULL, HEADER + stop - start)
    p = <uint8_t*>PyBytes_AS_STRING(whole)
    memcpy(p, given, HEADER)
    memcpy(p + HEADER, given + start, stop - start)
    put32(p + 8, <uint32_t>(HEADER + stop - start - 12))
    put32(p + 17, 0)
    put32(p + 57, count)
    return whole


def max_qos(bytes batch not None):
    """The highest QoS bits of the records of `batch`; Corrupt when it is damaged."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
    cdef RecordView view
    cdef uint32_t i, count
    cdef int highest = 0
    if end - p < HEADER:
        raise Corrupt("record batch: shorter than its header")
    count = big32(p + 57)
    p += HEADER
    for i in range(count):
        if not read_record(p, end, &view):
            raise Corrupt(f"record batch: record {i} of {count}")
        highest = max(highest, view.attributes & 3)
        p = view.end
    return highest


cdef bint are_headers(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether a header block is whole: a count, then names and values, and nothing else."""
    cdef int64_t count, length, i
    p = read_varint(p, end, &count)
    if p == NULL or count < 0:
        return False
    for i in range(count):
        p = read_varint(p, end, &length)
        if p == NULL or length < 0 or length > end - p:
            return False
        p = read_varint(p + length, end, &length)
        if p == NULL or length > end - p:
            return False
        if length > 0:
            p += length
    return p == end


def survey(batch not None):
    """The earliest and the latest timestamp (-1: none), and how many records have no key.

    Corrupt unless the records are numbered from 0 on and, with their headers, fill the batch.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
    try:
        return survey_raw(<const uint8_t*>view.buf, <const uint8_t*>view.buf + view.len)
    finally:
        PyBuffer_Release(&view)


cdef tuple survey_raw(const uint8_t* p, const uint8_t* end):
    cdef RecordView view
    cdef uint32_t i, count
    cdef int64_t base, timestamp, oldest = -1, newest = -1
    cdef uint32_t keyless = 0
    if end - p < HEADER:
        raise Corrupt("record batch: shorter than its header")
    count = big32(p + 57)
    base = <int64_t>big64(p + 27)
    p += HEADER
    for i in range(count):
        if not read_record(p, end, &view) or not are_headers(view.headers, view.end):
            raise Corrupt(f"record batch: record {i} of {count}")
        if view.offset_delta != i:
            raise Corrupt(f"record batch: record {i} of {count} has number {view.offset_delta}")
        timestamp = <int64_t>(<uint64_t>base + <uint64_t>view.timestamp_delta)
        if timestamp != -1:
            if oldest == -1 or timestamp < oldest:
                oldest = timestamp
            if newest == -1 or timestamp > newest:
                newest = timestamp
        keyless += view.key_length < 0
        p = view.end
    if p != end:
        raise Corrupt(f"record batch: {end - p} bytes behind the last record")
    return oldest, newest, keyless
