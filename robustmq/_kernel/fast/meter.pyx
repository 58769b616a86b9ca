# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How much intakes may take before somebody is asked; the twin is `pure/meter.py`.

The functions are for `intake.pyx`: a publisher's own meters, and `other`, that of a topic.
"""
from libc.stdint cimport int64_t, uint32_t


cdef class Meter:
    """What may be taken before its owner is asked again: PUBLISH packets, and bytes of them.

    `refill(intake)` is called when either is used up: it grants more by setting `messages` and
    `size` above 0, or throttles the intake.
    """

    def __init__(self, refill):
        self.refill = refill
        self.messages = 0
        self.size = 0

    def charge(self, intake, int64_t messages, int64_t size):
        """Take from what is granted; the last packet may exceed it."""
        self.messages -= messages
        self.size -= size
        self.ask(intake)

    def check(self, intake):
        """Ask for more if there is nothing left."""
        self.ask(intake)

    cdef int ask(self, object intake) except -1:
        if (self.messages <= 0 or self.size <= 0) and not intake.throttled:
            self.refill(intake)
        return 0


cdef int spent(list meters, Meter other, object intake) except -1:
    """Ask those that have nothing left; 1 when one of them throttles."""
    cdef Meter meter
    if meters is not None:
        for meter in meters:
            meter.ask(intake)
    if other is not None:
        other.ask(intake)
    return bool(intake.throttled)


cdef int64_t allowed(list meters, Meter other, uint32_t length, int64_t most) except -1:
    """How many packets of a length all allow; the last one may exceed the bytes."""
    cdef Meter meter
    if meters is not None:
        for meter in meters:
            most = min(most, meter.messages, (meter.size + length - 1) // length)
    if other is not None:
        most = min(most, other.messages, (other.size + length - 1) // length)
    return most


cdef int charge(list meters, Meter other, object intake, int64_t messages, int64_t size) except -1:
    """Take from all of them."""
    cdef Meter meter
    if meters is not None:
        for meter in meters:
            meter.messages -= messages
            meter.size -= size
            meter.ask(intake)
    if other is not None:
        other.messages -= messages
        other.size -= size
        other.ask(intake)
    return 0
