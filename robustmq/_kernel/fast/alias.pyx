# cython: language_level=3
"""A PUBLISH packet of MQTT 5 rewritten to carry a topic alias; the twin is `pure/alias.py`."""


cdef bytes variable_integer(int value):
    cdef bytearray out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


cdef bytes aliased_packet(bytes packet, int alias, bint keep_topic):
    cdef int at = 1, topic, tail, length = 0, shift = 0
    cdef const unsigned char* p = packet
    cdef bytes head, properties
    while p[at] & 128:
        at += 1
    at += 1
    topic = at
    tail = topic + 2 + (p[topic] << 8 | p[topic + 1])
    head = packet[topic:tail] if keep_topic else b"\0\0"
    if packet[0] & 6:
        head += packet[tail:tail + 2]
        tail += 2
    while True:
        length |= (p[tail] & 127) << shift
        shift += 7
        tail += 1
        if not p[tail - 1] & 128:
            break
    head += variable_integer(length + 3) + b"\x23" + alias.to_bytes(2, "big")
    properties = packet[tail:]
    return packet[:1] + variable_integer(len(head) + len(properties)) + head + properties


def with_alias(bytes packet not None, int alias, bint keep_topic):
    """`packet` with topic alias `alias`; the topic itself only when `keep_topic`."""
    return aliased_packet(packet, alias, keep_topic)
