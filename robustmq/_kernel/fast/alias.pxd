# cython: language_level=3
cdef enum:
    ALIAS_GROWTH = 5

cdef bytes aliased_packet(bytes packet, int alias, bint keep_topic)
