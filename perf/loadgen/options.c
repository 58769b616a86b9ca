#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "payload.h"

#define MAX_CLIENTS 60000
#define MAX_SESSIONS 10000000
#define MAX_BACKLOG 100000000
#define MAX_PAYLOAD (1u << 20)
#define MAX_WINDOW 32768
#define MAX_TOPICS 1000
#define MAX_BATCH 1024
#define MAX_RATE 1e8
#define MAX_SECONDS 3600
#define MAX_PREFIX 64

/* While no window is asked for, an open loop is bounded only by the packet identifiers. */
#define OPEN_WINDOW 16384
#define CLOSED_WINDOW 32

typedef enum { KIND_UNSIGNED, KIND_SECONDS, KIND_STRING, KIND_SWITCH } Kind;

typedef struct {
    const char *name;
    Kind kind;
    void *target;
    double low, high;
} Row;

static bool fail(const char *name, const char *why)
{
    fprintf(stderr, "loadgen: --%s %s\n", name, why);
    return false;
}

static bool number(const char *name, const char *text, double low, double high, double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end)
        return fail(name, "needs a number");
    if (!(*value >= low && *value <= high))
        return fail(name, "is out of its bounds");
    return true;
}

static bool assign(const Row *row, const char *text)
{
    double value = 0;
    switch (row->kind) {
    case KIND_STRING:
        if (strlen(text) > MAX_PREFIX)
            return fail(row->name, "is too long");
        *(const char **)row->target = text;
        return true;
    case KIND_SWITCH:
        *(bool *)row->target = true;
        return true;
    case KIND_SECONDS:
        if (!number(row->name, text, row->low, row->high, &value))
            return false;
        *(double *)row->target = value;
        return true;
    case KIND_UNSIGNED:
        if (!number(row->name, text, row->low, row->high, &value))
            return false;
        *(unsigned *)row->target = (unsigned)value;
        return true;
    }
    return false;
}

static bool consistent(Options *o, unsigned port, const char *topology)
{
    if (port == 0)
        return fail("port", "is missing");
    o->port = (uint16_t)port;
    if (!strcmp(topology, "fan"))
        o->topology = TOPOLOGY_FAN;
    else if (!strcmp(topology, "pair"))
        o->topology = TOPOLOGY_PAIR;
    else if (!strcmp(topology, "connect"))
        o->topology = TOPOLOGY_CONNECT;
    else if (!strcmp(topology, "offline"))
        o->topology = TOPOLOGY_OFFLINE;
    else
        return fail("topology", "is fan, pair, connect or offline");
    if (o->subscribers > MAX_CLIENTS && o->topology != TOPOLOGY_OFFLINE)
        return fail("subscribers", "is out of its bounds");
    if (o->backlog && (o->qos == 0 || o->rate > 0 || o->publishers == 0 ||
                       o->backlog % (o->publishers * o->batch)))
        return fail("backlog", "is for the closed loop above QoS 0, in whole batches of each");
    o->durable = o->durable || o->backlog || o->topology == TOPOLOGY_OFFLINE;
    if (o->topology == TOPOLOGY_CONNECT || o->topology == TOPOLOGY_OFFLINE)
        o->publishers = 0;
    else if (o->publishers == 0 || o->subscribers == 0)
        return fail("publishers", "and --subscribers must be at least 1");
    if (o->topology == TOPOLOGY_PAIR && o->publishers != o->subscribers)
        return fail("topology", "pair needs as many subscribers as publishers");
    if (o->rate > 0 && o->batch != 1)
        return fail("batch", "is for the closed loop only");
    if (o->window == 0)
        o->window = o->rate > 0 ? OPEN_WINDOW : CLOSED_WINDOW;
    if (o->window < o->batch)
        return fail("window", "is smaller than the batch");
    if (o->timeout == 0)
        o->timeout = o->warmup + o->seconds + o->drain + o->linger + 30;
    return true;
}

bool options_parse(Options *o, int argc, char **argv)
{
    unsigned port = 0;
    const char *topology = "fan";
    *o = (Options){
        .host = "127.0.0.1", .publishers = 1, .subscribers = 1, .topics = 1, .protocol = 4,
        .payload = 64, .batch = 1, .burst = 16, .parallel = 64, .warmup = 0.3, .seconds = 1,
        .drain = 2, .linger = 0.05, .publisher_prefix = "load-pub-", .subscriber_prefix = "load-sub-",
    };
    const Row rows[] = {
        {"host", KIND_STRING, &o->host, 0, 0},
        {"port", KIND_UNSIGNED, &port, 1, 65535},
        {"topology", KIND_STRING, &topology, 0, 0},
        {"publishers", KIND_UNSIGNED, &o->publishers, 0, MAX_CLIENTS},
        {"subscribers", KIND_UNSIGNED, &o->subscribers, 0, MAX_SESSIONS},
        {"topics", KIND_UNSIGNED, &o->topics, 1, MAX_TOPICS},
        {"protocol", KIND_UNSIGNED, &o->protocol, 4, 5},
        {"qos", KIND_UNSIGNED, &o->qos, 0, 2},
        {"payload", KIND_UNSIGNED, &o->payload, PAYLOAD_MIN, MAX_PAYLOAD},
        {"window", KIND_UNSIGNED, &o->window, 1, MAX_WINDOW},
        {"batch", KIND_UNSIGNED, &o->batch, 1, MAX_BATCH},
        {"burst", KIND_UNSIGNED, &o->burst, 1, MAX_WINDOW},
        {"parallel", KIND_UNSIGNED, &o->parallel, 1, MAX_CLIENTS},
        {"first", KIND_UNSIGNED, &o->first, 0, 1e9},
        {"backlog", KIND_UNSIGNED, &o->backlog, 0, MAX_BACKLOG},
        {"durable", KIND_SWITCH, &o->durable, 0, 0},
        {"wildcard", KIND_SWITCH, &o->wildcard, 0, 0},
        {"gate", KIND_SWITCH, &o->gate, 0, 0},
        {"realtime", KIND_SWITCH, &o->realtime, 0, 0},
        {"rate", KIND_SECONDS, &o->rate, 0, MAX_RATE},
        {"warmup", KIND_SECONDS, &o->warmup, 0, MAX_SECONDS},
        {"seconds", KIND_SECONDS, &o->seconds, 0.01, MAX_SECONDS},
        {"drain", KIND_SECONDS, &o->drain, 0.01, MAX_SECONDS},
        {"linger", KIND_SECONDS, &o->linger, 0, MAX_SECONDS},
        {"timeout", KIND_SECONDS, &o->timeout, 0.1, MAX_SECONDS},
        {"publisher-prefix", KIND_STRING, &o->publisher_prefix, 0, 0},
        {"subscriber-prefix", KIND_STRING, &o->subscriber_prefix, 0, 0},
    };
    enum { ROWS = sizeof rows / sizeof rows[0] };
    struct option table[ROWS + 1];
    memset(table, 0, sizeof table);
    for (unsigned i = 0; i < ROWS; i++) {
        table[i].name = rows[i].name;
        table[i].has_arg = rows[i].kind == KIND_SWITCH ? no_argument : required_argument;
    }
    int index = 0, found;
    while ((found = getopt_long(argc, argv, "", table, &index)) != -1)
        if (found == '?' || !assign(&rows[index], optarg))
            return false;
    if (optind != argc)
        return fail("help", "is in perf/loadgen/options.h; there are no positional arguments");
    return consistent(o, port, topology);
}
