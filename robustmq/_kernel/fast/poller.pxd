# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from robustmq._kernel.fast.framing cimport Framing
from robustmq._kernel.fast.intake cimport Intake
from robustmq._kernel.fast.outbox cimport Outbox
from robustmq._kernel.fast.turn cimport Turn

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef class Watch:
    cdef Poller poller
    cdef readonly int fd
    cdef object callback

    cdef int ready(self, uint32_t events) except -1

cdef class Stream(Watch):
    cdef Intake intake
    cdef Framing framing
    cdef size_t ahead
    cdef object sink
    cdef readonly Outbox outbox
    cdef object on_lost
    cdef bint blocked
    cdef bint unread
    cdef readonly bint closing
    cdef bint finished

    cdef int readable(self, bint ending) except -1
    cdef bint is_paused(self) except -1
    cdef ssize_t receive(self, size_t* full) except? -2
    cdef int feed(self, size_t length) except -1
    cdef int flush_raw(self) except -1
    cdef int finish(self) except -1
    cdef int release(self) except -1

cdef class Poller:
    cdef Turn turn
    cdef object end_turn, on_alarm, on_error
    cdef public int64_t alarm_ms
    cdef bint quiet, interrupted
    cdef int64_t offset_ns, steady_ns
    cdef readonly uint32_t streams
    cdef int epoll
    cdef epoll_event* events
    cdef object received
    cdef uint8_t* buffer
    cdef set watches
    cdef list dead
    cdef bint reading
    cdef size_t taken

    cdef int forget(self, Watch watch) noexcept
    cdef int later(self, Watch watch) except -1
    cdef int control(self, int operation, Watch watch, uint32_t events) except -1
    cdef int handle(self, int count) except -1
    cdef int64_t now(self) noexcept
    cdef int block(self, int timeout_ms, int64_t deadline) noexcept
