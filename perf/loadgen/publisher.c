/* What a publisher does: send while its window is open, in order, and follow acknowledgements.
 *
 * A message holds its place in the window until all its deliveries and, above QoS 0, its
 * acknowledgement have come, so that QoS 0 cannot flood and window 1 waits for both. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

#define IDENTIFIERS 65535u

enum { ACK_AWAITED, ACK_RECEIVED, ACK_DONE };

bool publisher_open(Run *run, uint32_t index)
{
    const Options *o = &run->options;
    Publisher *p = &run->publishers[index];
    size_t slots = (size_t)run->mask + 1, room = (size_t)o->payload + WIRE_CONTROL_BYTES;
    p->frame = malloc(room * o->batch);
    p->waiting = calloc(slots, sizeof *p->waiting);
    p->state = calloc(slots, sizeof *p->state);
    if (!p->frame || !p->waiting || !p->state)
        return false;
    p->window = o->window;
    uint8_t *at = p->frame;
    for (unsigned i = 0; i < o->batch; i++)
        at += wire_publish(at, o->protocol, o->qos, run->topics[index * o->topics], o->payload,
                           &run->layout);
    return true;
}

static void queue(Run *run, uint32_t index)
{
    Publisher *p = &run->publishers[index];
    if (!p->queued) {
        p->queued = true;
        run->list[run->listed++] = index;
    }
}

void publisher_complete(Run *run, uint32_t index, uint64_t serial, uint32_t by)
{
    Publisher *p = &run->publishers[index];
    if (by) {
        p->waiting[serial & run->mask] -= by;
        if (serial != p->head || p->waiting[serial & run->mask])
            return;
        while (p->head < p->next && p->waiting[p->head & run->mask] == 0)
            p->head++;
    }
    queue(run, index);
}

/* The serial of an acknowledgement, or UINT64_MAX when nothing with its identifier is awaited. */
static uint64_t acknowledged(const Publisher *p, const uint8_t *body)
{
    unsigned identifier = (unsigned)(body[0] << 8 | body[1]);
    if (identifier == 0)
        return UINT64_MAX;
    uint64_t offset = (identifier - 1 + IDENTIFIERS - p->acked % IDENTIFIERS) % IDENTIFIERS;
    return p->acked + offset < p->next ? p->acked + offset : UINT64_MAX;
}

/* PUBACK and PUBREC come in the order of the PUBLISH packets (MQTT5 4.6). One that comes after a
 * later one is out of order; one that never comes is counted as unacknowledged. */
static void check_order(Run *run, Publisher *p, uint64_t serial)
{
    if (serial < p->received)
        run->unordered_acks++;
    else
        p->received = serial + 1;
}

static void finish(Run *run, Publisher *p, uint32_t index, uint64_t serial)
{
    p->state[serial & run->mask] = ACK_DONE;
    run->acknowledged++;
    while (p->acked < p->next && p->state[p->acked & run->mask] == ACK_DONE)
        p->acked++;
    publisher_complete(run, index, serial, 1);
}

void publisher_acknowledgement(Run *run, Client *client, unsigned type, const uint8_t *body,
                               size_t length)
{
    const Options *o = &run->options;
    if (client->role == ROLE_SUBSCRIBER || length < 2) {
        client_fail(run, client, "an acknowledgement that nobody asked for");
        return;
    }
    Publisher *p = &run->publishers[client->index];
    uint64_t serial = acknowledged(p, body);
    bool last = type == (o->qos == 1 ? PACKET_PUBACK : PACKET_PUBCOMP);
    uint8_t awaited = type == PACKET_PUBCOMP ? ACK_RECEIVED : ACK_AWAITED;
    if (serial == UINT64_MAX || o->qos == 0 || (!last && (o->qos != 2 || type != PACKET_PUBREC)) ||
        p->state[serial & run->mask] != awaited) {
        run_error(run, "publisher %u: an acknowledgement for nothing", client->index);
        return;
    }
    if (length > 2 && body[2] >= 0x80) {
        run_error(run, "publisher %u: refused with reason 0x%02x", client->index, body[2]);
        return;
    }
    if (type != PACKET_PUBCOMP)
        check_order(run, p, serial);
    if (last) {
        finish(run, p, client->index, serial);
    } else {
        p->state[serial & run->mask] = ACK_RECEIVED;
        run->replied += wire_acknowledgement(run->replies + run->replied, PACKET_PUBREL,
                                             (unsigned)(body[0] << 8 | body[1]));
    }
}

static void patch(Run *run, Publisher *p, uint32_t index, uint8_t *frame, uint64_t stamp)
{
    const Options *o = &run->options;
    uint64_t serial = p->next++;
    Stamp s = {.run = run->tag, .publisher = index, .topic = (uint32_t)(serial % o->topics),
               .size = o->payload, .sequence = serial / o->topics, .stamp = stamp};
    if (o->topics > 1)
        memcpy(frame + run->layout.topic, run->topics[index * o->topics + s.topic],
               WIRE_TOPIC_BYTES - 1);
    if (run->layout.identifier) {
        unsigned identifier = (unsigned)(serial % IDENTIFIERS) + 1;
        frame[run->layout.identifier] = (uint8_t)(identifier >> 8);
        frame[run->layout.identifier + 1] = (uint8_t)identifier;
    }
    payload_write(frame + run->layout.payload, &s);
    p->waiting[serial & run->mask] = run->held + (o->qos ? 1 : 0);
    p->state[serial & run->mask] = ACK_AWAITED;
}

static void dispatch(Run *run, Publisher *p, uint32_t index, uint64_t stamp)
{
    const Options *o = &run->options;
    for (unsigned i = 0; i < o->batch; i++)
        patch(run, p, index, p->frame + i * run->layout.length, stamp);
    run->published += o->batch;
    client_send(run, &run->clients[o->subscribers + index], p->frame,
                run->layout.length * o->batch);
}

static bool able(const Run *run, uint32_t index)
{
    const Publisher *p = &run->publishers[index];
    const Client *client = &run->clients[run->options.subscribers + index];
    return client->state == STATE_READY && client->out.length == 0 &&
           p->next - p->head + run->options.batch <= p->window && p->next < run->quota;
}

static uint64_t period(const Run *run)
{
    return (uint64_t)((double)NS_PER_S * run->options.publishers / run->options.rate);
}

/* Open loop: each publisher has a fixed schedule; a message that is late keeps the time at which
 * it was due as its stamp, so that a stall of the broker counts for all that waited (no
 * coordinated omission). */
static void push_scheduled(Run *run)
{
    uint64_t step = period(run);
    for (uint32_t index = 0; index < run->options.publishers; index++) {
        Publisher *p = &run->publishers[index];
        for (unsigned i = 0; i < run->options.burst && able(run, index); i++) {
            uint64_t now = clock_ns();
            if (p->due > now)
                break;
            if (p->due >= run->measure_from)
                histogram_record(&run->lag, now - p->due);
            dispatch(run, p, index, p->due);
            p->due += step;
        }
    }
}

static void push_windows(Run *run)
{
    uint32_t kept = 0, listed = run->listed;
    for (uint32_t i = 0; i < listed; i++) {
        uint32_t index = run->list[i];
        Publisher *p = &run->publishers[index];
        for (unsigned n = 0; n < run->options.burst && able(run, index); n++)
            dispatch(run, p, index, clock_ns());
        p->queued = able(run, index);
        if (p->queued)
            run->list[kept++] = index;
    }
    run->listed = kept;
}

void publishers_push(Run *run)
{
    if (!run->sending)
        return;
    if (run->options.rate > 0)
        push_scheduled(run);
    else
        push_windows(run);
}

uint64_t publishers_due(const Run *run)
{
    uint64_t due = UINT64_MAX;
    if (!run->sending)
        return due;
    if (run->options.rate == 0)
        return run->listed ? 0 : due;
    for (uint32_t index = 0; index < run->options.publishers; index++)
        if (run->publishers[index].due < due && able(run, index))
            due = run->publishers[index].due;
    return due;
}

void publishers_start(Run *run, uint64_t at)
{
    run->sending = true;
    for (uint32_t index = 0; index < run->options.publishers; index++) {
        if (run->options.rate > 0)
            run->publishers[index].due = at + period(run) * index / run->options.publishers;
        queue(run, index);
    }
}
