/* What a subscriber does with a delivery: check it, account for it, acknowledge it. */
#include <string.h>

#include "run.h"

static void corrupt(Run *run, const Client *client, const char *why)
{
    run->corrupt++;
    run_error(run, "subscriber %u: %s", client->index, why);
}

static void reply(Run *run, unsigned type, const uint8_t *identifier)
{
    run->replied += wire_acknowledgement(run->replies + run->replied, type,
                                         (unsigned)(identifier[0] << 8 | identifier[1]));
}

/* The stream of a message, or NULL when this subscriber should not have got it. */
static Stream *stream(Run *run, const Client *client, const Stamp *stamp)
{
    const Options *o = &run->options;
    if (stamp->publisher >= o->publishers || stamp->topic >= o->topics)
        return NULL;
    if (stamp->sequence * o->topics + stamp->topic >= run->publishers[stamp->publisher].next)
        return NULL;
    if (o->topology == TOPOLOGY_PAIR)
        return stamp->publisher == client->index
                   ? &run->streams[client->index * o->topics + stamp->topic]
                   : NULL;
    return &run->streams[(client->index * o->publishers + stamp->publisher) * o->topics +
                         stamp->topic];
}

static void account(Run *run, const Client *client, const Stamp *stamp, Stream *expected)
{
    const Options *o = &run->options;
    uint64_t from = expected->next;
    (void)client;
    ledger_delivery(&run->ledger, expected, stamp->sequence);
    /* A message that was skipped no longer holds the window, or one loss would stop the load. */
    for (uint64_t n = from; run->held && n < expected->next; n++)
        publisher_complete(run, stamp->publisher, n * o->topics + stamp->topic, 1);
    if (stamp->stamp >= run->measure_from)
        histogram_record(&run->latency, run->now > stamp->stamp ? run->now - stamp->stamp : 0);
}

void subscriber_publish(Run *run, Client *client, uint8_t header, const uint8_t *body,
                        const uint8_t *end)
{
    const Options *o = &run->options;
    const uint8_t *at = body + 2 + WIRE_TOPIC_BYTES - 1, *identifier = at;
    run->deliveries++;
    if ((header & 15u) != o->qos << 1) {
        corrupt(run, client, "a PUBLISH with other flags than it was sent with");
        return;
    }
    at += o->qos ? 2 : 0;
    if (at >= end || body[0] || body[1] != WIRE_TOPIC_BYTES - 1) {
        corrupt(run, client, "a PUBLISH for an unknown topic");
        return;
    }
    if (o->protocol == 5) {
        int32_t properties = wire_varint(&at, end);
        at += properties > 0 ? properties : 0;
    }
    Stamp stamp;
    if (at > end || !payload_read(at, (size_t)(end - at), run->tag, &stamp)) {
        corrupt(run, client, "a payload that was not published");
        return;
    }
    Stream *expected = stream(run, client, &stamp);
    if (!expected || memcmp(body + 2, run->topics[stamp.publisher * o->topics + stamp.topic],
                            WIRE_TOPIC_BYTES - 1)) {
        corrupt(run, client, "a message that was not for this subscriber or this topic");
        return;
    }
    if (o->qos)
        reply(run, o->qos == 1 ? PACKET_PUBACK : PACKET_PUBREC, identifier);
    account(run, client, &stamp, expected);
}

void subscriber_release(Run *run, Client *client, const uint8_t *body, size_t length)
{
    if (length < 2 || run->options.qos != 2)
        client_fail(run, client, "a PUBREL that nobody asked for");
    else
        reply(run, PACKET_PUBCOMP, body);
}
