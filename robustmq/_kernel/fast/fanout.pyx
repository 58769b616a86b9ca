# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From a batch of records to every subscriber of this core; the twin is `pure/fanout.py`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from robustmq._kernel.fast.batch cimport HEADER, big32, put32, read_record
from robustmq._kernel.fast.run cimport IDS, new_run
from robustmq.errors import Corrupt
from robustmq.metrics import MESSAGES_DROPPED_TOO_LARGE as _TOO_LARGE

cdef int TOO_LARGE = _TOO_LARGE

cdef enum:
    MAX_TOPIC = 65535
    MAX_REMAINING = 268435455
    LARGE_VALUE = 1 << 27
    PASSED_OVER = 255


cdef class Group:
    """Subscribers of a topic for whom a message is encoded alike.

    `identifiers` are the subscription identifier properties, encoded; with `no_local` the
    windows of the publisher itself are passed over. The windows of a `stored` group get
    records of QoS 1 and 2 from their inbox.
    """

    def __init__(self, uint8_t version, uint8_t qos, bint retain_as_published, bint no_local,
                 bytes identifiers not None, list windows not None, bint stored=False):
        self.version = version
        self.qos = qos
        self.retain_as_published = retain_as_published
        self.no_local = no_local
        self.identifiers = identifiers
        self.windows = windows
        self.stored = stored
        self.run = None


cdef class Route:
    """Who gets the messages of one topic: groups of windows, and taps (callables).

    With an `origin`, runs are marked with it, and `source` says where their records lie:
    (batch, byte position of the first record, number of records to skip).
    """

    def __init__(self, list groups not None, list taps not None, uint16_t alias, origin=None):
        self.origin = origin
        self.groups = groups
        self.taps = taps
        self.alias = alias


cdef class Fanout:
    """Delivers batches; resolves a topic once and keeps the route until it is forgotten.

    `resolve(topic) -> Route`; `describe(headers, version) -> (properties, deadline_ms,
    publisher)` turns a record's header block into the MQTT properties to send.
    """

    def __init__(self, Turn turn not None, resolve, describe, uint32_t max_routes):
        self.turn = turn
        self.resolve = resolve
        self.describe = describe
        self.routes = {}
        self.max_routes = max_routes

    def deliver(self, bytes batch not None):
        """Give every record of `batch` to the subscribers of its key; Corrupt when damaged."""
        self.walk(batch, None, 0)

    def deliver_to(self, Route route not None, bytes batch not None, uint64_t position=0):
        """Give every record of `batch` to `route`, whatever its key; Corrupt when damaged.

        With a `position` the runs are stored ones: record i has the position `position + i`.
        """
        self.walk(batch, route, position)

    def encode(self, Group group not None, bytes batch not None, uint64_t position,
               int packet_id):
        """The one record of `batch` as a stored run with that packet identifier, or None."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
        cdef RecordView view
        cdef uint8_t qos
        cdef bytes properties = b""
        cdef int64_t deadline = 0
        cdef Run run
        if end - p < HEADER:
            raise Corrupt("record batch: shorter than its header")
        if big32(p + 57) != 1 or packet_id < 1 or packet_id > IDS:
            raise ValueError("one record is encoded, and with an identifier")
        if not read_record(p + HEADER, end, &view):
            raise Corrupt("record batch: its first record")
        qos = min(view.attributes & 3, group.qos)
        if view.key_length < 0 or view.key_length > MAX_TOPIC or not qos:
            return None
        if view.headers[0]:
            headers = PyBytes_FromStringAndSize(<char*>view.headers, view.end - view.headers)
            properties, deadline, _ = self.describe(headers, group.version)
        run = self.encode_run(group, qos, group.retain_as_published and view.attributes & 4,
                              view.start, 1, view.end, properties, packet_id)
        if run is not None:
            run.position = position
            run.deadline = deadline
            if deadline and group.version == 5:
                run.expiry_at = expiry_position(run.data, qos)
        return run

    cdef int walk(self, bytes batch, Route fixed, uint64_t position) except -1:
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(batch)
        cdef const uint8_t* start
        cdef const uint8_t* stop
        cdef RecordView first, view
        cdef uint32_t i = 0, count, total
        cdef Route route
        if end - p < HEADER:
            raise Corrupt("record batch: shorter than its header")
        total = big32(p + 57)
        p += HEADER
        if total and not read_record(p, end, &view):
            raise Corrupt("record batch: its first record")
        while i < total:
            first = view
            start = first.start
            count = 0
            while True:
                stop = view.end
                count += 1
                i += 1
                if i == total:
                    break
                if not read_record(stop, end, &view):
                    raise Corrupt(f"record batch: record {i} of {total}")
                if (view.attributes != first.attributes or view.key_length != first.key_length
                        or first.key_length < 0
                        or memcmp(view.key, first.key, first.key_length) != 0
                        or view.headers[0] != 0 or first.headers[0] != 0
                        or view.value_length > LARGE_VALUE or first.value_length > LARGE_VALUE):
                    break
            if first.key_length < 0 or first.key_length > MAX_TOPIC:
                continue
            route = fixed if fixed is not None else self.route(first.key, first.key_length)
            self.deliver_run(route, batch, start, count, stop,
                             position + i - count if position else 0, fixed is None)
        return 0

    def forget(self, bytes topic=None):
        """The subscriptions of `topic` (or of everything) have changed."""
        if topic is None:
            self.routes.clear()
        else:
            self.routes.pop(topic, None)

    cdef Route route(self, const uint8_t* topic, size_t length):
        cdef bytes name = PyBytes_FromStringAndSize(<char*>topic, length)
        cdef PyObject* found = PyDict_GetItem(self.routes, name)
        cdef Route route
        if found != NULL:
            return <Route>found
        route = self.resolve(name)
        if len(self.routes) >= self.max_routes:
            self.routes.clear()
        self.routes[name] = route
        return route

    cdef int deliver_run(self, Route route, bytes batch, const uint8_t* start, uint32_t count,
                         const uint8_t* end, uint64_t position, bint by_key) except -1:
        cdef Group group, other
        cdef Window window
        cdef RecordView view
        cdef Run run
        cdef uint8_t qos, effective
        cdef bint retain, described
        cdef bytes properties = b""
        cdef Py_ssize_t g, h
        cdef int64_t deadline = 0
        cdef uint64_t publisher = 0
        read_record(start, end, &view)
        qos = view.attributes & 3
        described = view.headers[0] != 0
        if described:
            headers = PyBytes_FromStringAndSize(<char*>view.headers, view.end - view.headers)
        for tap in route.taps:
            tap(batch, start - <const uint8_t*>PyBytes_AS_STRING(batch),
                end - <const uint8_t*>PyBytes_AS_STRING(batch), count)
        for g in range(len(route.groups)):
            group = <Group>route.groups[g]
            if group.stored and by_key and qos:
                group.effective = PASSED_OVER
                continue
            effective = qos if qos < group.qos else group.qos
            retain = group.retain_as_published and view.attributes & 4
            if described:
                properties, deadline, publisher = self.describe(headers, group.version)
            run = None
            group.effective = effective | (<int>retain) << 2
            for h in range(g):
                other = <Group>route.groups[h]
                if (other.effective == group.effective and other.version == group.version
                        and other.identifiers == group.identifiers):
                    run = other.run
                    break
            if run is None:
                run = self.encode_run(
                    group, effective, retain, start, count, end, properties, 0)
                if run is None:
                    group.run = None
                    self.turn.cells[TOO_LARGE] += count * len(group.windows)
                    continue
                run.alias = route.alias if group.version == 5 else 0
                run.position = position
                run.deadline = deadline
                if route.origin is not None:
                    run.origin = route.origin
                    run.source = (batch, start - <const uint8_t*>PyBytes_AS_STRING(batch), 0)
                if deadline and group.version == 5:
                    run.expiry_at = expiry_position(run.data, effective)
            group.run = run
            if group.no_local and publisher:
                for window in group.windows:
                    if window.key != publisher:
                        window.offer_run(run)
            else:
                for window in group.windows:
                    window.offer_run(run)
        for group in route.groups:
            group.run = None
        return 0

    cdef Run encode_run(self, Group group, uint8_t qos, bint retain, const uint8_t* start,
                        uint32_t count, const uint8_t* end, bytes properties, uint16_t own_id):
        """`count` records of one topic as PUBLISH packets, with ids from the core's sequence.

        With an `own_id` the ids begin there. None when one is larger than a packet can be.
        """
        cdef Run run
        cdef uint32_t* ends
        cdef uint64_t sequence = 0
        cdef uint32_t i, id_size = 2 if qos else 0, length, property_length = 0, packet_id = 0
        cdef uint32_t identifiers = <uint32_t>PyBytes_GET_SIZE(group.identifiers)
        cdef uint32_t described = <uint32_t>PyBytes_GET_SIZE(properties)
        cdef uint32_t marked, topic_length
        cdef size_t total = 0, fixed
        cdef const uint8_t* p = start
        cdef RecordView view
        cdef uint8_t* out
        cdef uint8_t* base
        cdef bytes data
        property_length = described + identifiers
        read_record(p, end, &view)
        marked = mark_length(view.key, view.key_length)
        topic_length = <uint32_t>(view.key_length - marked)
        fixed = 2 + topic_length + id_size
        if group.version == 5:
            fixed += property_length + variable_size(property_length)
        ends = <uint32_t*>malloc(count * sizeof(uint32_t))
        if ends == NULL:
            raise MemoryError()
        for i in range(count):
            read_record(p, end, &view)
            p = view.end
            if fixed + max(view.value_length, 0) > MAX_REMAINING:
                free(ends)
                return None
            length = <uint32_t>(fixed + max(view.value_length, 0))
            total += 1 + variable_size(length) + length
            ends[i] = <uint32_t>total
        if total > 0xFFFFFFFF:
            free(ends)
            raise Corrupt("record batch: larger than 4 GiB")
        if own_id:
            sequence = own_id - 1
        elif qos:
            sequence = self.turn.sequence + 1
            self.turn.sequence += count
        try:
            data = PyBytes_FromStringAndSize(NULL, total)
        except MemoryError:
            free(ends)
            raise
        out = base = <uint8_t*>PyBytes_AS_STRING(data)
        p = start
        for i in range(count):
            read_record(p, end, &view)
            p = view.end
            out[0] = <uint8_t>(0x30 | qos << 1 | <int>retain)
            out = put_variable(out + 1, <uint32_t>(fixed + max(view.value_length, 0)))
            out[0] = <uint8_t>(topic_length >> 8)
            out[1] = <uint8_t>topic_length
            memcpy(out + 2, view.key + marked, topic_length)
            out += 2 + topic_length
            if qos:
                packet_id = <uint32_t>((sequence + i) % IDS + 1)
                out[0] = <uint8_t>(packet_id >> 8)
                out[1] = <uint8_t>packet_id
                out += 2
            if group.version == 5:
                out = put_variable(out, property_length)
                memcpy(out, PyBytes_AS_STRING(properties), described)
                memcpy(out + described, PyBytes_AS_STRING(group.identifiers), identifiers)
                out += property_length
            if view.value_length > 0:
                memcpy(out, view.value, view.value_length)
                out += view.value_length
        run = new_run(data, ends, count, qos, sequence)
        if own_id:
            run.sequence = 0
        run.since = self.turn.now_ms
        return run


cdef inline uint32_t mark_length(const uint8_t* topic, int64_t length) noexcept nogil:
    """How many bytes in front of a topic name its tenant (`message.tenancy`): mostly none."""
    cdef int64_t i = 2
    if length < 2 or topic[0] != 36 or topic[1] != 1:
        return 0
    while i < length and topic[i] != 1:
        i += 1
    if i == length:
        return 0
    i += 1
    return <uint32_t>(i + 1 if i < length and topic[i] == 47 else i)


cdef inline int variable_size(uint32_t value) noexcept nogil:
    return 1 if value < 128 else 2 if value < 16384 else 3 if value < 2097152 else 4


cdef inline uint8_t* put_variable(uint8_t* p, uint32_t value) noexcept nogil:
    while value >= 128:
        p[0] = <uint8_t>(value & 127 | 128)
        value >>= 7
        p += 1
    p[0] = <uint8_t>value
    return p + 1


cdef uint32_t expiry_position(bytes data, uint8_t qos) noexcept:
    """Where the message expiry interval lies: `describe` puts it first among the properties."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef uint32_t i = 1, length
    while p[i] & 128:
        i += 1
    i += 1
    i += 2 + ((<uint32_t>p[i]) << 8 | p[i + 1])
    if qos:
        i += 2
    length = p[i]
    while p[i] & 128:
        i += 1
    i += 1
    return i + 1 if length >= 5 and p[i] == 2 else 0
