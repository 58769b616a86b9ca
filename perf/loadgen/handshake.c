/* The packets before the load: CONNECT, CONNACK, SUBSCRIBE, SUBACK. */
#include <stdio.h>
#include <string.h>

#include "run.h"

static void ready(Run *run, Client *client)
{
    if (run->leaving && client->role == ROLE_SUBSCRIBER) {
        uint8_t bytes[4];
        client->state = STATE_LEAVING;
        client_send(run, client, bytes, wire_disconnect(bytes));
        return;
    }
    client->state = STATE_READY;
    run->opening--;
    run->ready++;
}

uint32_t handshake_filters(const Run *run)
{
    const Options *o = &run->options;
    if (o->topology == TOPOLOGY_CONNECT)
        return 0;
    if (o->wildcard || o->topology == TOPOLOGY_OFFLINE)
        return 1;
    return o->topology == TOPOLOGY_PAIR ? o->topics : o->publishers * o->topics;
}

static const char *filter(const Run *run, const Client *client, uint32_t number, char *room,
                          size_t size)
{
    const Options *o = &run->options;
    if (o->topology == TOPOLOGY_OFFLINE) {
        wire_topic(room, (o->first + client->index) / 10000, (o->first + client->index) % 10000);
        return room;
    }
    if (o->wildcard && o->topology == TOPOLOGY_FAN)
        return "perf/#";
    if (o->wildcard) {
        snprintf(room, size, "perf/%05u/+", client->index);
        return room;
    }
    uint32_t base = o->topology == TOPOLOGY_PAIR ? client->index * o->topics : 0;
    return run->topics[base + number];
}

void handshake_connect(Run *run, Client *client)
{
    const Options *o = &run->options;
    char id[128];
    uint8_t bytes[WIRE_CONTROL_BYTES];
    snprintf(id, sizeof id, "%s%u",
             client->role == ROLE_PUBLISHER ? o->publisher_prefix : o->subscriber_prefix,
             o->first + client->index);
    bool durable = o->durable && client->role == ROLE_SUBSCRIBER;
    client_send(run, client, bytes, wire_connect(bytes, o->protocol, durable, id));
}

static void connack(Run *run, Client *client, const uint8_t *body, size_t length)
{
    if (length < 2 || body[1]) {
        client_fail(run, client, "CONNECT was refused");
        return;
    }
    if (client->role == ROLE_PUBLISHER) {
        Publisher *publisher = &run->publishers[client->index];
        unsigned most = run->options.protocol == 5 ? wire_receive_maximum(body, length) : 65535;
        /* A batch must fit, or this publisher could never send. */
        if (run->options.qos && most < publisher->window)
            publisher->window = most > run->options.batch ? most : run->options.batch;
    }
    bool returns = run->returning && client->role == ROLE_SUBSCRIBER;
    if (returns && !(body[0] & 1)) {
        client_fail(run, client, "the session was forgotten");
        return;
    }
    client->filters = client->role == ROLE_SUBSCRIBER && !returns ? handshake_filters(run) : 0;
    if (client->filters == 0) {
        ready(run, client);
        return;
    }
    client->state = STATE_SUBSCRIBING;
    for (uint32_t i = 0; i < client->filters && client->state != STATE_CLOSED; i++) {
        char room[64];
        uint8_t bytes[WIRE_CONTROL_BYTES];
        size_t size = wire_subscribe(bytes, run->options.protocol, run->options.qos,
                                     filter(run, client, i, room, sizeof room));
        client_send(run, client, bytes, size);
    }
}

void handshake_packet(Run *run, Client *client, uint8_t header, const uint8_t *body, size_t length)
{
    unsigned type = header >> 4;
    if (type == PACKET_CONNACK && client->state == STATE_GREETING) {
        connack(run, client, body, length);
    } else if (type == PACKET_SUBACK && client->state == STATE_SUBSCRIBING) {
        if (length < 3 || body[length - 1] != run->options.qos)
            client_fail(run, client, "SUBSCRIBE was refused or granted another QoS");
        else if (--client->filters == 0)
            ready(run, client);
    } else {
        client_fail(run, client, "an unexpected packet during the handshake");
    }
}
