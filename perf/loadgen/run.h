/* One run: its clients, its account and the event loop that all of them share.
 *
 * Everything happens in one thread. A client is a socket with two buffers that are empty most of
 * the time: the packet that was cut at the end of a read, and what a socket did not take. */
#ifndef LOADGEN_RUN_H
#define LOADGEN_RUN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "histogram.h"
#include "ledger.h"
#include "options.h"
#include "payload.h"
#include "wire.h"

#define READ_BYTES (256u * 1024)
#define TURN_EVENTS 512

typedef struct Run Run;
typedef struct Client Client;

typedef enum {
    STATE_NEW,
    STATE_CONNECTING, /* TCP */
    STATE_GREETING,   /* CONNECT was sent */
    STATE_SUBSCRIBING,
    STATE_READY,
    STATE_LEAVING, /* DISCONNECT was sent; the broker closes the connection */
    STATE_CLOSED,
} State;

typedef enum { ROLE_PUBLISHER, ROLE_SUBSCRIBER } Role;

typedef struct {
    uint8_t *bytes;
    size_t length, room;
} Buffer;

struct Client {
    int fd;
    uint8_t role, state;
    bool watched; /* for EPOLLOUT as well */
    uint32_t index;
    uint32_t filters; /* subscriber: SUBSCRIBE packets still to be sent */
    Buffer rest, out;
};

typedef struct {
    uint8_t *frame;    /* batch PUBLISH packets, patched before each send */
    uint32_t *waiting; /* by serial & mask: deliveries and the acknowledgement still to come */
    uint8_t *state;    /* by serial & mask: how far the acknowledgement of this message is */
    uint64_t head;     /* the oldest serial that is not complete */
    uint64_t next;     /* the next serial to be sent; serial = sequence * topics + topic */
    uint64_t acked;    /* the oldest serial whose acknowledgement is not there */
    uint64_t received; /* behind the last serial of which a PUBACK or PUBREC came */
    uint64_t due;      /* open loop: when the next message is scheduled, ns */
    uint32_t window;
    bool queued;       /* on the run's list of publishers that may be able to send */
} Publisher;

struct Run {
    Options options;
    int epoll;
    uint32_t tag;
    uint32_t mask;          /* slots of a publisher's window - 1 */
    uint32_t copies;        /* deliveries of one message */
    uint32_t held;          /* those of them for which a message holds its place in the window */
    uint64_t quota;         /* messages of each publisher; UINT64_MAX: as many as the time allows */
    bool leaving;           /* subscribers leave as soon as they have subscribed */
    bool returning;         /* subscribers have subscribed before, and are remembered */
    PublishLayout layout;
    Client *clients;        /* subscribers first, then publishers */
    uint32_t count, opened, opening, ready;
    Publisher *publishers;
    Stream *streams;
    char (*topics)[WIRE_TOPIC_BYTES];
    uint32_t *list;         /* publishers that may be able to send */
    uint32_t listed;
    uint8_t *scratch;       /* what was read last */
    size_t scratch_rest;    /* the longest packet that can be left over from a read */
    uint8_t *replies;       /* acknowledgements for what was read last */
    size_t replied;
    uint64_t now;           /* at the last read */
    uint64_t measure_from;  /* stamps from here on are recorded in the histogram */
    bool sending, realtime;
    Ledger ledger;
    Histogram latency, lag;
    uint64_t published, acknowledged, deliveries;
    uint64_t unordered_acks, corrupt, errors;
    char first_error[256];
};

/* run.c */
bool run_open(Run *run);
bool run_connect(Run *run, uint32_t from, uint32_t to, uint64_t deadline);
/* One pass over the sockets that are ready; waits for at most `wait_ns`. */
void run_turn(Run *run, uint64_t wait_ns);
void run_error(Run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes the subscribers, who have left, new clients of the sessions that they had. */
void run_return(Run *run);
void run_close(Run *run);

/* client.c */
bool client_open(Run *run, Client *client);
void client_event(Run *run, Client *client, uint32_t events);
/* Sends, and keeps what the socket does not take. */
void client_send(Run *run, Client *client, const uint8_t *bytes, size_t length);
void client_fail(Run *run, Client *client, const char *why);
void client_goodbye(Run *run, Client *client);

/* handshake.c: the packets before the load */
void handshake_connect(Run *run, Client *client);
void handshake_packet(Run *run, Client *client, uint8_t header, const uint8_t *body, size_t length);
uint32_t handshake_filters(const Run *run);

/* subscriber.c: a whole PUBLISH, or a PUBREL */
void subscriber_publish(Run *run, Client *client, uint8_t header, const uint8_t *body,
                        const uint8_t *end);
void subscriber_release(Run *run, Client *client, const uint8_t *body, size_t length);

/* publisher.c */
bool publisher_open(Run *run, uint32_t index);
void publisher_acknowledgement(Run *run, Client *client, unsigned type, const uint8_t *body,
                               size_t length);
/* The deliveries of one message became `by` fewer; lets the publisher go on when it was the last. */
void publisher_complete(Run *run, uint32_t index, uint64_t serial, uint32_t by);
/* Lets every publisher that may send do so, in turn. */
void publishers_push(Run *run);
/* Open loop: when the next message is scheduled; UINT64_MAX when nothing can be sent now. */
uint64_t publishers_due(const Run *run);
void publishers_start(Run *run, uint64_t at);

/* report.c */
uint64_t report_lost(const Run *run);
void report_print(const Run *run, double connect_seconds, double seconds, uint64_t deliveries,
                  uint64_t publishes, double fill_seconds, double cpu_seconds, bool timed_out);

#endif
