/* The clients of a run and the event loop. */
#include "run.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Topic, identifier and properties of the longest PUBLISH that a broker may send us. */
#define PACKET_ROOM 66000u

void run_error(Run *run, const char *format, ...)
{
    va_list arguments;
    if (run->errors++)
        return;
    va_start(arguments, format);
    vsnprintf(run->first_error, sizeof run->first_error, format, arguments);
    va_end(arguments);
}

static uint32_t slots(unsigned window)
{
    uint32_t size = 1;
    while (size < window)
        size *= 2;
    return size;
}

static size_t stream_count(const Options *o)
{
    size_t each = o->topology == TOPOLOGY_PAIR ? o->topics : (size_t)o->publishers * o->topics;
    return o->publishers ? each * o->subscribers : 0;
}

static bool allocate(Run *run)
{
    const Options *o = &run->options;
    size_t topics = (size_t)o->publishers * o->topics;
    run->scratch_rest = o->payload + PACKET_ROOM;
    run->scratch = malloc(run->scratch_rest + READ_BYTES);
    run->replies = malloc(run->scratch_rest + READ_BYTES);
    run->clients = calloc(run->count, sizeof *run->clients);
    run->publishers = calloc(o->publishers + 1, sizeof *run->publishers);
    run->list = calloc(o->publishers + 1, sizeof *run->list);
    run->topics = calloc(topics + 1, sizeof *run->topics);
    run->streams = calloc(stream_count(o) + 1, sizeof *run->streams);
    if (!run->scratch || !run->replies || !run->clients || !run->publishers || !run->list ||
        !run->topics || !run->streams)
        return false;
    for (size_t i = 0; i < topics; i++)
        wire_topic(run->topics[i], (unsigned)(i / o->topics), (unsigned)(i % o->topics));
    for (uint32_t i = 0; i < o->publishers; i++)
        if (!publisher_open(run, i))
            return false;
    return true;
}

bool run_open(Run *run)
{
    const Options *o = &run->options;
    struct rlimit files;
    run->count = o->subscribers + o->publishers;
    run->mask = slots(o->window) - 1;
    run->copies = o->topology == TOPOLOGY_PAIR ? 1 : o->subscribers;
    run->held = o->backlog ? 0 : run->copies;
    run->quota = o->backlog ? o->backlog / o->publishers : UINT64_MAX;
    run->leaving = o->backlog || o->topology == TOPOLOGY_OFFLINE;
    run->tag = (uint32_t)(clock_ns() ^ (uint64_t)getpid() << 16);
    run->measure_from = UINT64_MAX;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    /* The default slack of 50 us would be seen in the latencies of the open loop. */
    prctl(PR_SET_TIMERSLACK, 1ul);
    if (o->realtime) {
        struct sched_param priority = {.sched_priority = 1};
        run->realtime = sched_setscheduler(0, SCHED_RR, &priority) == 0;
    }
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->epoll < 0 || !allocate(run)) {
        run_error(run, "not enough memory or descriptors");
        return false;
    }
    for (uint32_t i = 0; i < run->count; i++) {
        bool publisher = i >= o->subscribers;
        run->clients[i].role = publisher ? ROLE_PUBLISHER : ROLE_SUBSCRIBER;
        run->clients[i].index = publisher ? i - o->subscribers : i;
    }
    return true;
}

void run_turn(Run *run, uint64_t wait_ns)
{
    static struct epoll_event events[TURN_EVENTS];
    struct timespec wait = {(time_t)(wait_ns / NS_PER_S), (long)(wait_ns % NS_PER_S)};
    int count = epoll_pwait2(run->epoll, events, TURN_EVENTS, &wait, NULL);
    if (count < 0 && errno != EINTR)
        run_error(run, "epoll: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        client_event(run, events[i].data.ptr, events[i].events);
}

bool run_connect(Run *run, uint32_t from, uint32_t to, uint64_t deadline)
{
    uint32_t opened = from, goal = run->ready + (to - from);
    while (run->ready < goal && run->errors == 0) {
        uint64_t now = clock_ns();
        if (now >= deadline) {
            run_error(run, "%u of %u clients were ready in time", run->ready, run->count);
            break;
        }
        while (opened < to && run->opening < run->options.parallel)
            if (!client_open(run, &run->clients[opened++]))
                return false;
        run_turn(run, deadline - now);
    }
    return run->errors == 0;
}

void run_return(Run *run)
{
    for (uint32_t i = 0; i < run->options.subscribers; i++)
        run->clients[i].state = STATE_NEW;
    run->leaving = false;
    run->returning = true;
    run->ready -= run->options.subscribers;
}

void run_close(Run *run)
{
    for (uint32_t i = 0; run->clients && i < run->count; i++)
        client_goodbye(run, &run->clients[i]);
    close(run->epoll);
}
