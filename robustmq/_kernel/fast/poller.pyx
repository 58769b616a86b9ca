# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The edge-triggered epoll that carries plain TCP; the twin is `pure/poller.py`."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc

import errno as errors
import os

cdef enum:
    BUFFER = 262144
    EVENTS = 512
    FOREVER_MS = 3600000
    READS = 4
    ROUND = 262144
    PEEKED = 4096
    SLEW = 64

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout)

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_PEEK
        SHUT_WR
    ssize_t recv(int fd, void* buffer, size_t length, int flags)
    int shutdown(int fd, int how)

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>
    #include <string.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <stdint.h>
    int accept4(int, struct sockaddr *, socklen_t *, int);
    static ssize_t receive_two(int fd, void *first, size_t ahead, void *second, size_t length) {
        struct iovec parts[2] = {{first, ahead}, {second, length}};
        struct msghdr message;
        if (!ahead) return recv(fd, second, length, MSG_DONTWAIT);
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        return recvmsg(fd, &message, MSG_DONTWAIT);
    }
    static int accept_nodelay(int fd) {
        int one = 1;
        int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return accepted;
    }
    static int peer_name(int fd, char *name, socklen_t size) {
        union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } peer;
        socklen_t length = sizeof peer;
        if (getpeername(fd, &peer.any, &length) < 0) return 0;
        if (peer.any.sa_family == AF_INET)
            return inet_ntop(AF_INET, &peer.v4.sin_addr, name, size) != NULL;
        if (peer.any.sa_family == AF_INET6)
            return inet_ntop(AF_INET6, &peer.v6.sin6_addr, name, size) != NULL;
        return 0;
    }
    static int64_t clock_ns(clockid_t clock) {
        struct timespec now;
        clock_gettime(clock, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    int accept_nodelay(int fd) nogil
    ssize_t receive_two(int fd, void* first, size_t ahead, void* second, size_t length) nogil
    int peer_name(int fd, char* name, size_t size) nogil
    int64_t clock_ns(int clock) nogil
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME


def slew(int64_t error_ns, int64_t elapsed_ns):
    """How far a clock that is wrong by `error_ns` is set right after `elapsed_ns`."""
    return slew_ns(error_ns, elapsed_ns)


cdef inline int64_t slew_ns(int64_t error_ns, int64_t elapsed_ns) noexcept nogil:
    cdef int64_t most = elapsed_ns // SLEW
    return max(-most, min(error_ns, most))


def accept(int fd, int limit):
    """Up to `limit` waiting connections as non-blocking descriptors with TCP_NODELAY.

    OSError when the process is out of descriptors; an empty list when nobody waits.
    """
    cdef list accepted = []
    cdef int new
    while len(accepted) < limit:
        new = accept_nodelay(fd)
        if new >= 0:
            accepted.append(new)
        elif errno in (errors.EMFILE, errors.ENFILE, errors.ENOBUFS, errors.ENOMEM):
            if accepted:
                break
            raise OSError(errno, os.strerror(errno))
        elif errno not in (EINTR, errors.ECONNABORTED):
            break
    return accepted


def peek(int fd, size_t length):
    """What the socket holds, up to `length` bytes and unread; None when nothing is there yet.

    b"" when the peer has closed; OSError when the connection broke.
    """
    cdef char data[PEEKED]
    cdef bytearray more
    cdef ssize_t got = recv(fd, data, min(length, <size_t>PEEKED), MSG_DONTWAIT | MSG_PEEK)
    if got == PEEKED and length > PEEKED:
        more = bytearray(length)
        got = recv(fd, <char*>more, length, MSG_DONTWAIT | MSG_PEEK)
        if got >= 0:
            return bytes(more[:got])
    if got >= 0:
        return PyBytes_FromStringAndSize(data, got)
    if errno in (EAGAIN, EINTR):
        return None
    raise OSError(errno, os.strerror(errno))


def peer_address(int fd):
    """The IP address of a connected socket's peer; "" when it has none."""
    cdef char name[64]
    return name.decode() if peer_name(fd, name, sizeof(name)) else ""


cdef class Watch:
    """A descriptor whose readiness is told to a callable."""

    def __init__(self, Poller poller not None, int fd, callback):
        self.poller = poller
        self.fd = fd
        self.callback = callback

    cdef int ready(self, uint32_t events) except -1:
        self.callback()
        return 0

    def cancel(self):
        """Watch no longer; the descriptor stays open and is the caller's."""
        if self.fd >= 0:
            self.poller.forget(self)
            self.fd = -1
            self.callback = None


cdef class Stream(Watch):
    """A connected socket: reads into `sink.feed`, sends what its outbox holds, owns the fd.

    `on_lost()` is called once, when the peer is gone or `close` has done its work.
    """

    def __init__(self, Poller poller not None, int fd, sink, Outbox outbox not None, on_lost):
        self.poller = poller
        self.fd = fd
        self.sink = sink
        self.intake = <Intake>sink if isinstance(sink, Intake) else None
        framing = getattr(sink, "framing", None)
        self.framing = <Framing>framing if isinstance(framing, Framing) else None
        self.outbox = outbox
        self.on_lost = on_lost
        outbox.stream = self

    cdef int ready(self, uint32_t events) except -1:
        if events & EPOLLOUT and self.blocked:
            self.blocked = False
            self.flush_raw()
        if self.fd >= 0 and events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP):
            self.readable(events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
        return 0

    cdef int readable(self, bint ending) except -1:
        """Read until the socket is empty or its share of the round is used up.

        A short read means that it is empty, unless the peer is `ending`. Within a callback of
        some sink it is put off: the bytes that the sink handles lie in the buffer.
        """
        cdef ssize_t got
        cdef size_t full = BUFFER
        cdef int reads
        if self.poller.reading:
            return self.poller.later(self)
        for reads in range(READS):
            if self.framing is not None and self.poller.taken >= ROUND and not ending:
                break
            if not self.finished and self.is_paused():
                self.unread = True
                return 0
            got = self.receive(&full)
            if got < 0 and errno == EINTR:
                continue
            if got < 0 and errno == EAGAIN:
                return 0
            if got <= 0:
                return self.release()
            if self.finished:
                continue
            self.poller.reading = True
            try:
                self.feed(got)
            finally:
                self.poller.reading = False
            if self.fd < 0 or (<size_t>got < full and not ending):
                return 0
        return self.poller.later(self)

    cdef ssize_t receive(self, size_t* full) except? -2:
        """Read at most `full` bytes: those of a frame under way to where it is, then the rest."""
        cdef uint8_t* frame = NULL
        cdef size_t room = 0
        if self.framing is not None and not self.finished:
            room = self.framing.target_raw(&frame)
        self.ahead = room
        full[0] = room + BUFFER
        return receive_two(self.fd, frame, room, self.poller.buffer, BUFFER)

    cdef int feed(self, size_t length) except -1:
        cdef Intake intake = self.intake
        cdef size_t ahead
        if intake is not None:
            return intake.feed_raw(self.poller.buffer, length)
        if self.framing is not None:
            ahead = min(length, self.ahead)
            if ahead:
                self.framing.took_raw(ahead)
            if length > ahead:
                self.framing.feed_raw(self.poller.buffer, length - ahead)
            self.poller.taken += length
            self.sink.arrived(length)
            return 0
        if self.sink is not None:
            self.sink.feed(self.poller.buffer[:length])
        return 0

    cdef bint is_paused(self) except -1:
        if self.intake is not None:
            return self.intake.reasons != 0
        return self.sink is not None and self.sink.paused

    cdef int flush_raw(self) except -1:
        cdef int result
        if self.fd < 0 or self.blocked or self.finished:
            return 0
        result = self.outbox.send(self.fd)
        if result < 0:
            return self.release()
        if result == 0:
            self.blocked = True
        elif self.closing:
            self.finish()
        elif self.outbox.drained is not None:
            self.outbox.drained()
        return 0

    cdef int finish(self) except -1:
        """End our side; what the peer still sends is read and forgotten, so that it gets ours."""
        self.finished = True
        self.outbox.close()
        shutdown(self.fd, SHUT_WR)
        return self.readable(True)

    def cancel(self):
        """Close at once, as `abort` does: the descriptor is the stream's."""
        self.abort()

    def flush(self):
        """Send what the outbox holds, as far as the peer takes it."""
        self.flush_raw()

    def resume(self):
        """The sink takes input again: hand it what was kept, then what the socket holds."""
        if self.fd < 0 or self.closing:
            return
        if self.intake is not None:
            self.intake.resume()
        if self.fd >= 0 and self.unread and not self.is_paused():
            self.unread = False
            self.readable(True)

    def close(self):
        """Send what waits, end our side with the turn, and wait for the peer to end its own."""
        if self.fd >= 0 and not self.closing:
            self.closing = True
            # The peer hears of it when all that follows from it is on its way to other cores.
            self.poller.turn.outboxes.append(self.outbox)

    def abort(self):
        """Close at once; what waits is lost."""
        if self.fd >= 0:
            self.release()

    cdef int release(self) except -1:
        on_lost = self.on_lost
        self.poller.forget(self)
        self.poller.streams -= 1
        close(self.fd)
        self.fd = -1
        self.closing = True
        self.outbox.close()
        self.sink = self.intake = self.framing = None
        self.on_lost = None
        if on_lost is not None:
            on_lost()
        return 0


cdef class Poller:
    """Waits for sockets; `end_turn()` is called after every round of events."""

    def __cinit__(self, Turn turn not None, end_turn, on_alarm, on_error):
        self.turn = turn
        self.end_turn = end_turn
        self.on_alarm = on_alarm
        self.on_error = on_error
        self.alarm_ms = 0
        self.quiet = False
        self.interrupted = False
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.events = <epoll_event*>malloc(EVENTS * sizeof(epoll_event))
        self.received = bytearray(BUFFER)
        self.buffer = <uint8_t*><char*>self.received
        self.watches = set()
        self.dead = []
        self.reading = False
        self.steady_ns = clock_ns(CLOCK_MONOTONIC)
        self.offset_ns = clock_ns(CLOCK_REALTIME) - self.steady_ns
        turn.now_ms = self.now()

    def __dealloc__(self):
        free(self.events)
        if self.epoll >= 0:
            close(self.epoll)

    def watch(self, int fd, callback, bint edge=True):
        """Call `callback()` whenever something new (not `edge`: anything) can be read from `fd`."""
        watch = Watch(self, fd, callback)
        self.control(EPOLL_CTL_ADD, watch, EPOLLIN | EPOLLRDHUP | (EPOLLET if edge else 0))
        self.watches.add(watch)
        return watch

    def adopt(self, int fd, sink, Outbox outbox not None, on_lost):
        """A Stream on the connected socket `fd`; what has arrived is read in this turn."""
        cdef Stream stream = Stream(self, fd, sink, outbox, on_lost)
        try:
            self.control(EPOLL_CTL_ADD, stream, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP)
        except OSError:
            outbox.stream = None
            raise
        self.watches.add(stream)
        self.streams += 1
        return stream

    cdef int forget(self, Watch watch) noexcept:
        """Take `watch` out of epoll, where a copy of its descriptor would keep it.

        Events of this round may still point to it: it lives on until their end.
        """
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, watch.fd, NULL)
        self.watches.discard(watch)
        self.dead.append(watch)
        return 0

    cdef int later(self, Watch watch) except -1:
        """Let epoll tell of `watch` once more if there is anything to read."""
        return self.control(EPOLL_CTL_MOD, watch, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP)

    cdef int control(self, int operation, Watch watch, uint32_t events) except -1:
        cdef epoll_event event
        event.events = events
        event.data.ptr = <void*>watch
        if epoll_ctl(self.epoll, operation, watch.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    def interrupt(self):
        """Let `wait` return at the end of this turn."""
        self.interrupted = True

    def wait(self, int timeout_ms):
        """Take turns until `interrupt` or until `timeout_ms` (-1: no limit) have passed."""
        cdef int64_t deadline = self.now() + timeout_ms
        cdef int block, count
        self.interrupted = False
        while True:
            block = self.block(timeout_ms, deadline)
            with nogil:
                count = epoll_wait(self.epoll, self.events, EVENTS, block)
            self.turn.now_ms = self.now()
            if count < 0:
                if errno != EINTR:
                    raise OSError(errno, os.strerror(errno))
                PyErr_CheckSignals()
                count = 0
            if count:
                self.handle(count)
            if self.alarm_ms and self.alarm_ms <= self.turn.now_ms:
                self.alarm_ms = 0
                self.on_alarm()
                self.quiet = False
            if count or not self.quiet:
                self.quiet = self.end_turn()
                self.dead.clear()
            if self.interrupted or (timeout_ms >= 0 and deadline <= self.turn.now_ms):
                return

    cdef int64_t now(self) noexcept:
        """The wall clock in ms, but steady: it never jumps, a step of it is made up for slowly."""
        cdef int64_t steady = clock_ns(CLOCK_MONOTONIC)
        cdef int64_t error = clock_ns(CLOCK_REALTIME) - steady - self.offset_ns
        self.offset_ns += slew_ns(error, steady - self.steady_ns)
        self.steady_ns = steady
        return (steady + self.offset_ns) // 1000000

    cdef int block(self, int timeout_ms, int64_t deadline) noexcept:
        """How long epoll may wait, in ms: as long as nothing is left to do or due."""
        cdef int64_t longest = FOREVER_MS
        if not self.quiet:
            return 0
        if timeout_ms >= 0:
            longest = min(longest, deadline - self.turn.now_ms)
        if self.alarm_ms:
            longest = min(longest, self.alarm_ms - self.turn.now_ms)
        return <int>max(0, longest)

    cdef int handle(self, int count) except -1:
        """Tell every watch of the round; whoever fails is ended and reported."""
        cdef int i
        cdef Watch watch
        self.taken = 0
        for i in range(count):
            watch = <Watch>self.events[i].data.ptr
            if watch.fd < 0:
                continue
            try:
                watch.ready(self.events[i].events)
            except Exception as error:
                if isinstance(watch, Stream):
                    watch.abort()
                self.on_error(error)
        return 0

    def tick(self):
        """Bring the time up to date outside `wait`; the next `wait` begins with a turn."""
        self.turn.now_ms = self.now()
        self.quiet = False

    def flush(self):
        """Send what the turn has put into outboxes: one gathered send per connection."""
        cdef list outboxes = self.turn.outboxes
        cdef Outbox outbox
        cdef Py_ssize_t i = 0
        while i < len(outboxes):
            outbox = <Outbox>outboxes[i]
            i += 1
            outbox.dirty = False
            if isinstance(outbox.stream, Stream):
                (<Stream>outbox.stream).flush_raw()
            elif outbox.stream is not None:
                outbox.stream.flush()
        outboxes.clear()

    def close(self):
        """Abort every connection and forget every watch."""
        for watch in list(self.watches):
            watch.cancel()
