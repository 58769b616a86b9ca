# cython: language_level=3, binding=True, boundscheck=False, wraparound=False
"""A single-producer single-consumer byte ring in shared memory: compiled.

The layout and the contract are those of `robustmq._kernel.pure.ring`; here the order between the
processes is made by acquire, release and full fences, so it holds on every processor.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from robustmq.errors import Corrupt

cdef extern from "Python.h":
    object PySequence_Fast(object sequence, const char* message)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t i)

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    typedef struct {
        uint64_t tail;            /* written by the producer only */
        uint64_t tail_line[7];
        uint64_t head;            /* written by the consumer only */
        uint64_t head_line[7];
        uint64_t sleeping;        /* set by the consumer, cleared by both */
        uint64_t waiting;         /* set by the producer, cleared by both */
        uint64_t flag_line[6];
        uint8_t data[];
    } rmq_ring;

    #define RMQ_RING_HEADER ((int)offsetof(rmq_ring, data))
    #define RMQ_FRAME_HEADER 16

    static inline uint64_t rmq_get(const uint64_t *word) {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline void rmq_set(uint64_t *word, uint64_t value) {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    /* Between writing one's own word and reading the other side's: neither may be late. */
    static inline void rmq_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

    static inline int rmq_take_flag(uint64_t *flag) {
        rmq_fence();
        return __atomic_load_n(flag, __ATOMIC_RELAXED)
            && __atomic_exchange_n(flag, 0, __ATOMIC_SEQ_CST);
    }
    static inline uint64_t rmq_space(uint64_t length) {
        return RMQ_FRAME_HEADER + ((length + 7) & ~(uint64_t)7);
    }
    /* A place in the ring is below capacity; a step beyond the end goes on at the start. */
    static inline uint64_t rmq_step(uint64_t place, uint64_t n, uint64_t capacity) {
        place += n;
        return place >= capacity ? place - capacity : place;
    }
    static inline void rmq_copy_out(const rmq_ring *r, uint64_t capacity, uint64_t place,
                                    void *to, uint64_t n) {
        uint64_t first = capacity - place;
        if (first >= n) { memcpy(to, r->data + place, n); return; }
        memcpy(to, r->data + place, first);
        memcpy((uint8_t *)to + first, r->data, n - first);
    }
    static inline void rmq_copy_in(rmq_ring *r, uint64_t capacity, uint64_t place,
                                   const void *from, uint64_t n) {
        uint64_t first = capacity - place;
        if (first >= n) { memcpy(r->data + place, from, n); return; }
        memcpy(r->data + place, from, first);
        memcpy(r->data, (const uint8_t *)from + first, n - first);
    }
    static inline uint64_t rmq_word(const rmq_ring *r, uint64_t place) {
        uint64_t word;
        memcpy(&word, r->data + place, 8);
        return word;
    }
    static inline void rmq_write(rmq_ring *r, uint64_t capacity, uint64_t place, uint64_t word,
                                 uint64_t stamp, const void *payload, uint64_t n) {
        memcpy(r->data + place, &word, 8);
        memcpy(r->data + rmq_step(place, 8, capacity), &stamp, 8);
        rmq_copy_in(r, capacity, rmq_step(place, RMQ_FRAME_HEADER, capacity), payload, n);
    }
    """
    ctypedef struct rmq_ring:
        uint64_t tail
        uint64_t head
        uint64_t sleeping
        uint64_t waiting

    const int RMQ_RING_HEADER
    const int RMQ_FRAME_HEADER
    uint64_t rmq_get(const uint64_t*) noexcept nogil
    void rmq_set(uint64_t*, uint64_t) noexcept nogil
    void rmq_fence() noexcept nogil
    bint rmq_take_flag(uint64_t*) noexcept nogil
    uint64_t rmq_space(uint64_t) noexcept nogil
    uint64_t rmq_step(uint64_t, uint64_t, uint64_t) noexcept nogil
    uint64_t rmq_word(const rmq_ring*, uint64_t) noexcept nogil
    void rmq_copy_out(const rmq_ring*, uint64_t, uint64_t, void*, uint64_t) noexcept nogil
    void rmq_write(
        rmq_ring*, uint64_t, uint64_t, uint64_t, uint64_t, const void*, uint64_t
    ) noexcept nogil

RING_HEADER_BYTES = RMQ_RING_HEADER
FRAME_HEADER_BYTES = RMQ_FRAME_HEADER


cdef class Ring:
    """One direction between two processes: one of them pushes, the other one pulls.

    `memory` is a writable shared buffer, `offset` (a multiple of 8) where the ring begins in it,
    `size` its bytes including `RING_HEADER_BYTES`. `capacity` is the ring space for frames.
    After a pull `stamp` and `kind` are those of its frames and `taken` the ring space that it
    freed. Raises ValueError when the memory does not fit.
    """

    cdef Py_buffer _view
    cdef bint _held
    cdef rmq_ring* _ring
    cdef Py_ssize_t _offset
    cdef readonly uint64_t capacity
    cdef readonly uint64_t stamp
    cdef readonly uint32_t kind
    cdef readonly uint64_t taken

    def __cinit__(self, memory, Py_ssize_t offset, Py_ssize_t size):
        try:
            PyObject_GetBuffer(memory, &self._view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except BufferError:
            raise ValueError("a ring needs writable memory") from None
        self._held = True
        if (
            offset % 8
            or offset < 0
            or size < RMQ_RING_HEADER + 64
            or size > RMQ_RING_HEADER + 0xFFFFFFFF
            or size > self._view.len
            or offset > self._view.len - size
        ):
            raise ValueError(f"no ring of {size} bytes fits at offset {offset}")
        if <size_t>self._view.buf % 8:
            raise ValueError("a ring needs memory aligned to 8 bytes")
        self.capacity = <uint64_t>(size - RMQ_RING_HEADER) & ~<uint64_t>7
        self._ring = <rmq_ring*>(<uint8_t*>self._view.buf + offset)
        self._offset = offset

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)

    cdef uint64_t _used(self) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t head = rmq_get(&self._ring.head), tail = rmq_get(&self._ring.tail)
        if tail - head > self.capacity or (head | tail) & 7:
            raise Corrupt(f"ring at {self._offset}: head {head}, tail {tail}")
        return tail - head

    def used(self):
        """Return the ring space in use, in bytes; raises Corrupt when the positions are."""
        return self._used()

    def free(self):
        """Return the ring space that is left, in bytes."""
        return self.capacity - self._used()

    def push(self, frames, uint64_t stamp=0, kinds=b""):
        """Write as many whole frames as fit, in order, and return how many.

        They become visible together, when the last byte of the last one is written. `stamp`
        (u64) goes with every frame; `kinds` holds one byte for each (all 0 when empty). Raises
        ValueError when the first frame cannot fit into an empty ring, or `kinds` is too short.
        """
        cdef object sequence = PySequence_Fast(frames, "frames must be a sequence")
        cdef Py_buffer marks
        PyObject_GetBuffer(kinds, &marks, PyBUF_SIMPLE)
        try:
            if marks.len and marks.len < PySequence_Fast_GET_SIZE(sequence):
                raise ValueError("fewer kinds than frames")
            return self._push(sequence, stamp, <const uint8_t*>marks.buf if marks.len else NULL)
        finally:
            PyBuffer_Release(&marks)

    cdef Py_ssize_t _push(self, object frames, uint64_t stamp, const uint8_t* kinds) except -1:
        cdef uint64_t room = self.capacity - self._used()
        cdef uint64_t start = self._ring.tail, tail = start, space
        cdef uint64_t place = start % self.capacity
        cdef uint64_t kind
        cdef Py_ssize_t count = 0
        cdef Py_buffer view
        cdef object frame
        while count < PySequence_Fast_GET_SIZE(frames):
            frame = <object>PySequence_Fast_GET_ITEM(frames, count)
            kind = kinds[count] if kinds != NULL else 0
            if PyBytes_CheckExact(frame):
                space = rmq_space(<uint64_t>PyBytes_GET_SIZE(frame))
                if space <= room:
                    rmq_write(
                        self._ring, self.capacity, place,
                        kind << 32 | <uint64_t>PyBytes_GET_SIZE(frame), stamp,
                        PyBytes_AS_STRING(frame), <uint64_t>PyBytes_GET_SIZE(frame),
                    )
            else:
                PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
                space = rmq_space(<uint64_t>view.len)
                if space <= room:
                    rmq_write(
                        self._ring, self.capacity, place, kind << 32 | <uint64_t>view.len, stamp,
                        view.buf, <uint64_t>view.len,
                    )
                PyBuffer_Release(&view)
            if space > room:
                if space > self.capacity and not count:
                    raise ValueError(f"a frame of {len(frame)} bytes exceeds the ring")
                break
            tail += space
            place = rmq_step(place, space, self.capacity)
            room -= space
            count += 1
        if tail != start:
            rmq_set(&self._ring.tail, tail)
        return count

    def pull(self, Py_ssize_t limit_bytes, only=None):
        """Take the frames at the head that have the same stamp and kind.

        Takes no more than `limit_bytes` of ring space, but at least one frame; with `only`, none
        of another stamp. The space is given back at once, at the end. Raises Corrupt when a
        length cannot be; the frames before it have been returned by then.
        """
        cdef uint64_t left = self._used()
        cdef uint64_t start = self._ring.head, head = start
        cdef uint64_t place = start % self.capacity
        cdef uint64_t word, stamp, space
        cdef uint64_t limit = <uint64_t>limit_bytes if limit_bytes > 0 else 0
        cdef bint any_stamp = only is None
        cdef uint64_t wanted = 0 if any_stamp else only
        cdef list frames = []
        cdef bytes frame
        while left:
            word = rmq_word(self._ring, place)
            stamp = rmq_word(self._ring, rmq_step(place, 8, self.capacity))
            space = rmq_space(word & 0xFFFFFFFF)
            if space > left:
                if PyList_GET_SIZE(frames):
                    break
                raise Corrupt(
                    f"ring at {self._offset}: a frame of {word & 0xFFFFFFFF} bytes at {head}"
                )
            if PyList_GET_SIZE(frames):
                if stamp != self.stamp or word >> 32 != self.kind or head - start + space > limit:
                    break
            elif not any_stamp and stamp != wanted:
                break
            else:
                self.stamp = stamp
                self.kind = <uint32_t>(word >> 32)
            frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(word & 0xFFFFFFFF))
            rmq_copy_out(
                self._ring, self.capacity, rmq_step(place, RMQ_FRAME_HEADER, self.capacity),
                PyBytes_AS_STRING(frame), word & 0xFFFFFFFF,
            )
            frames.append(frame)
            head += space
            place = rmq_step(place, space, self.capacity)
            left -= space
        self.taken = head - start
        if head != start:
            rmq_set(&self._ring.head, head)
        return frames

    def sleep(self):
        """Consumer: announce sleep; True when the ring is still empty, else the flag is cleared."""
        rmq_set(&self._ring.sleeping, 1)
        rmq_fence()
        if rmq_get(&self._ring.tail) == self._ring.head:
            return True
        rmq_set(&self._ring.sleeping, 0)
        return False

    def awake(self):
        """Consumer: take the announcement back."""
        rmq_set(&self._ring.sleeping, 0)

    def wants_bell(self):
        """Producer, after a push: whether the consumer may be asleep; clears its flag."""
        return rmq_take_flag(&self._ring.sleeping)

    def wait_for_room(self, Py_ssize_t length):
        """Producer: announce that a frame of `length` bytes waits; False when it fits by now."""
        rmq_set(&self._ring.waiting, 1)
        rmq_fence()
        if self.capacity - self._used() < rmq_space(<uint64_t>length):
            return True
        rmq_set(&self._ring.waiting, 0)
        return False

    def room_wanted(self):
        """Consumer, after a pull: whether the producer may wait for room; clears its flag."""
        return rmq_take_flag(&self._ring.waiting)
