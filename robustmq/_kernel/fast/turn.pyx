# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What everything within one worker's turn shares; the twin is `pure/turn.py`."""
from libc.stdlib cimport free, malloc

from robustmq.metrics import CELLS


cdef class Turn:
    """The time, the counters, and what the end of the turn must flush."""

    def __cinit__(self, row):
        if len(row) < CELLS:
            raise ValueError(f"a row of counters has at least {CELLS} cells of u64")
        self.row = memoryview(row)
        self.view = row
        self.cells = &self.view[0]
        self.now_ms = 0
        self.outboxes = []
        self.builders = []
        self.resumes = []
        self.hungry = []
        self.acknowledged = []
        self.exact = []
        self.sequence = 0
        self.pooled = 0

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.pooled):
            free(self.pool[i])

    cdef uint8_t* take_buffer(self) except NULL:
        """A buffer of POOLED bytes."""
        cdef uint8_t* buffer
        if self.pooled:
            self.pooled -= 1
            return self.pool[self.pooled]
        buffer = <uint8_t*>malloc(POOLED)
        if buffer == NULL:
            raise MemoryError()
        return buffer

    cdef void give_buffer(self, uint8_t* buffer) noexcept:
        if self.pooled < POOL:
            self.pool[self.pooled] = buffer
            self.pooled += 1
        else:
            free(buffer)


cdef class AckTarget:
    """Whoever is told by ticket that a record was appended."""

    cdef int settle_raw(self, uint64_t ticket, int code, bint matched) except -1:
        self.settle(ticket, code, matched)
        return 0

    def settle(self, uint64_t ticket, int code, bint matched):
        """Ticket `ticket` is decided: `code` 0 or a Refusal."""
        raise NotImplementedError("an AckTarget must say how it settles")
