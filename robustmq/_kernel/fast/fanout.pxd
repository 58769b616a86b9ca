# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from robustmq._kernel.fast.batch cimport RecordView
from robustmq._kernel.fast.run cimport Run
from robustmq._kernel.fast.turn cimport Turn
from robustmq._kernel.fast.window cimport Window

cdef class Group:
    cdef readonly uint8_t version
    cdef readonly uint8_t qos
    cdef readonly bint retain_as_published
    cdef readonly bint no_local
    cdef readonly bint stored
    cdef readonly bytes identifiers
    cdef readonly list windows
    cdef Run run
    cdef uint8_t effective

cdef class Route:
    cdef readonly list groups
    cdef readonly list taps
    cdef readonly uint16_t alias
    cdef readonly object origin

cdef class Fanout:
    cdef Turn turn
    cdef public dict routes
    cdef object resolve
    cdef object describe
    cdef uint32_t max_routes

    cdef int walk(self, bytes batch, Route fixed, uint64_t position) except -1
    cdef Route route(self, const uint8_t* topic, size_t length)
    cdef int deliver_run(self, Route route, bytes batch, const uint8_t* start, uint32_t count,
                         const uint8_t* end, uint64_t position, bint by_key) except -1
    cdef Run encode_run(self, Group group, uint8_t qos, bint retain, const uint8_t* start,
                        uint32_t count, const uint8_t* end, bytes properties, uint16_t own_id)
