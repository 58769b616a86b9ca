/* What one run of the load generator is told on its command line. */
#ifndef LOADGEN_OPTIONS_H
#define LOADGEN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    TOPOLOGY_FAN,     /* every subscriber receives what every publisher sends */
    TOPOLOGY_PAIR,    /* subscriber i receives what publisher i sends */
    TOPOLOGY_CONNECT, /* connections only, nothing is published */
    TOPOLOGY_OFFLINE, /* each subscriber subscribes to a filter of its own and leaves */
} Topology;

typedef struct {
    const char *host;
    uint16_t port;
    Topology topology;
    unsigned publishers;
    unsigned subscribers;  /* TOPOLOGY_CONNECT, TOPOLOGY_OFFLINE: the number of clients */
    unsigned topics;       /* topics of each publisher, used in rotation */
    unsigned protocol;     /* 4 is MQTT 3.1.1, 5 is MQTT 5 */
    unsigned qos;
    unsigned payload;      /* bytes */
    unsigned window;       /* messages of one publisher that are not yet delivered and acknowledged */
    unsigned batch;        /* PUBLISH packets in one send */
    unsigned burst;        /* sends of one publisher before the others have their turn */
    unsigned parallel;     /* connections that are being opened at the same time */
    unsigned first;        /* the number of the first client of each kind */
    unsigned backlog;      /* messages published while the subscribers are away; 0: they stay */
    bool durable;          /* the subscribers' sessions outlive their connections */
    bool wildcard;         /* subscribe with a wildcard filter */
    bool gate;             /* wait for a line on stdin before the load and after it */
    bool realtime;         /* ask for a real-time priority, so that other programs do not delay us */
    double rate;           /* publishes per second of all publishers together; 0: closed loop */
    double warmup;         /* seconds of load that are verified but not measured */
    double seconds;        /* seconds of load that are measured */
    double drain;          /* seconds without progress after which missing deliveries are lost */
    double linger;         /* seconds to wait for duplicates after the last delivery */
    double timeout;        /* seconds after which the run ends whatever happens */
    const char *publisher_prefix;
    const char *subscriber_prefix;
} Options;

/* Fills the options; writes one line to stderr and returns false when they make no sense. */
bool options_parse(Options *options, int argc, char **argv);

#endif
