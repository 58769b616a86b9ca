# cython: language_level=3
cdef bytes aliased_packet(bytes packet, int alias, bint keep_topic)
