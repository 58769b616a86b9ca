# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From an appended batch to the cores that want its records; the twin is `pure/interest.py`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from robustmq._kernel.fast.batch cimport HEADER, RecordView, big32, put32, read_record
from robustmq.errors import Corrupt


cdef class Interest:
    """Which cores want which topic, decided once per topic and kept until it is forgotten.

    `resolve(topic) -> tuple of core numbers`, the same tuple object for equal answers.
    """

    cdef public dict targets
    cdef object resolve
    cdef uint32_t max_targets

    def __init__(self, resolve, uint32_t max_targets):
        self.resolve = resolve
        self.targets = {}
        self.max_targets = max_targets

    def forget(self, bytes topic=None):
        """The interest in `topic` (or in everything) has changed."""
        if topic is None:
            self.targets.clear()
        else:
            self.targets.pop(topic, None)

    cdef object find(self, const uint8_t* topic, int64_t length):
        cdef bytes name
        cdef PyObject* found
        if length < 0:
            return ()
        name = PyBytes_FromStringAndSize(<char*>topic, length)
        found = PyDict_GetItem(self.targets, name)
        if found != NULL:
            return <object>found
        cores = self.resolve(name)
        if len(self.targets) >= self.max_targets:
            self.targets.clear()
        self.targets[name] = cores
        return cores

    def split(self, bytes batch not None):
        """`([(core, batch), …], [(start, stop), …])`: what goes where, and whom nobody wants.

        A core that wants every record gets `batch` itself; else a batch of just its records,
        with their offset deltas kept and no CRC (it never leaves this machine's memory).
        """
        cdef const uint8_t* base = <const uint8_t*>PyBytes_AS_STRING(batch)
        cdef const uint8_t* p = base
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
        cdef RecordView first, view
        cdef uint32_t i = 0, total, started
        cdef list ranges = []
        cdef list last = None
        if end - p < HEADER:
            raise Corrupt("record batch: shorter than its header")
        total = big32(p + 57)
        p += HEADER
        if total and not read_record(p, end, &view):
            raise Corrupt("record batch: its first record")
        while i < total:
            first = view
            started = i
            while True:
                p = view.end
                i += 1
                if i == total:
                    break
                if not read_record(p, end, &view):
                    raise Corrupt(f"record batch: record {i} of {total}")
                if (view.key_length != first.key_length or first.key_length < 0
                        or memcmp(view.key, first.key, first.key_length) != 0):
                    break
            cores = self.find(first.key, first.key_length)
            if last is not None and last[0] is cores:
                last[2] = i
                last[4] = p - base
            else:
                last = [cores, started, i, first.start - base, p - base]
                ranges.append(last)
        if len(ranges) == 1:
            cores = ranges[0][0]
            if cores:
                return [(core, batch) for core in cores], []
            return [], [(0, total)]
        return share_out(batch, ranges)


cdef tuple share_out(bytes batch, list ranges):
    """Copy each core's records together, behind a header that counts them."""
    cdef dict parts = {}
    cdef dict counts = {}
    cdef list unmatched = []
    cdef list out = []
    cdef bytes whole
    cdef uint8_t* p
    for cores, start, stop, first, last in ranges:
        if not cores:
            unmatched.append((start, stop))
            continue
        for core in cores:
            if core in parts:
                parts[core].append(batch[first:last])
                counts[core] += stop - start
            else:
                parts[core] = [batch[:HEADER], batch[first:last]]
                counts[core] = stop - start
    for core, pieces in parts.items():
        whole = b"".join(pieces)
        p = <uint8_t*>PyBytes_AS_STRING(whole)
        put32(p + 8, <uint32_t>(PyBytes_GET_SIZE(whole) - 12))
        put32(p + 17, 0)
        put32(p + 57, <uint32_t>counts[core])
        out.append((core, whole))
    return out, unmatched
