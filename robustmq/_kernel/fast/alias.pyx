# cython: language_level=3
"""A PUBLISH rewritten to carry a topic alias or other properties; twin: `pure/alias.py`."""


cdef bytes variable_integer(Py_ssize_t value):
    cdef bytearray out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


cdef bytes aliased_packet(bytes packet, int alias, bint keep_topic):
    cdef Py_ssize_t at = 1, topic, tail, length = 0, size = len(packet)
    cdef int shift = 0
    cdef const unsigned char* p = packet
    cdef bytes head, properties
    while at < size and p[at] & 128:
        at += 1
    topic = at + 1
    if topic + 2 > size:
        raise ValueError("the packet is not a whole PUBLISH of MQTT 5")
    tail = topic + 2 + (p[topic] << 8 | p[topic + 1])
    head = packet[topic:tail] if keep_topic else b"\0\0"
    if p[0] & 6:
        head += packet[tail:tail + 2]
        tail += 2
    while tail < size and shift < 28:
        length |= (<Py_ssize_t>(p[tail] & 127)) << shift
        shift += 7
        tail += 1
        if not p[tail - 1] & 128:
            break
    if shift == 0 or p[tail - 1] & 128 or length > size - tail:
        raise ValueError("the packet is not a whole PUBLISH of MQTT 5")
    head += variable_integer(length + 3) + b"\x23" + alias.to_bytes(2, "big")
    properties = packet[tail:]
    return packet[:1] + variable_integer(len(head) + len(properties)) + head + properties


def with_alias(bytes packet not None, int alias, bint keep_topic):
    """`packet` with topic alias `alias`; the topic itself only when `keep_topic`."""
    if not 1 <= alias <= 65535:
        raise ValueError("a topic alias is a number from 1 to 65535")
    return aliased_packet(packet, alias, keep_topic)


def with_block(bytes packet not None, bint has_block, bytes block not None):
    """`packet` with `block` in place of its properties; it has some only with `has_block`."""
    cdef Py_ssize_t topic = 1, tail, rest, length = 0, size = len(packet)
    cdef int shift = 0
    cdef const unsigned char* p = packet
    cdef bytes body
    while topic < size and p[topic] & 128:
        topic += 1
    topic += 1
    if topic + 2 > size:
        raise ValueError("the packet is not a whole PUBLISH")
    rest = tail = topic + 2 + (p[topic] << 8 | p[topic + 1]) + (2 if p[0] & 6 else 0)
    if has_block:
        while rest < size and shift < 28:
            length |= (<Py_ssize_t>(p[rest] & 127)) << shift
            shift += 7
            rest += 1
            if not p[rest - 1] & 128:
                break
        if shift == 0 or p[rest - 1] & 128:
            raise ValueError("the packet is not a whole PUBLISH")
        rest += length
    if rest > size:
        raise ValueError("the packet is not a whole PUBLISH")
    body = packet[topic:tail] + block + packet[rest:]
    return packet[:1] + variable_integer(len(body)) + body
