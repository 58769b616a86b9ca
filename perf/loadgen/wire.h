/* The MQTT packets that the load generator writes and reads: 3.1.1 and 5 without the parts that a
 * plain publisher or subscriber does not use. Encoders return the number of bytes written. */
#ifndef LOADGEN_WIRE_H
#define LOADGEN_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACKET_CONNECT = 1,
    PACKET_CONNACK = 2,
    PACKET_PUBLISH = 3,
    PACKET_PUBACK = 4,
    PACKET_PUBREC = 5,
    PACKET_PUBREL = 6,
    PACKET_PUBCOMP = 7,
    PACKET_SUBSCRIBE = 8,
    PACKET_SUBACK = 9,
    PACKET_PINGRESP = 13,
    PACKET_DISCONNECT = 14,
};

#define KEEP_ALIVE_S 3600
#define EXPIRY_S 86400
#define WIRE_TOPIC_BYTES 16
#define WIRE_CONTROL_BYTES 512

/* The PUBLISH of one publisher: where its variable parts lie, all packets of it being equally
 * long. `identifier` is 0 at QoS 0. */
typedef struct {
    size_t length, topic, identifier, payload;
} PublishLayout;

/* "perf/PPPPP/TTTT": always 15 characters, so that all packets of a run are equally long. */
size_t wire_topic(char out[WIRE_TOPIC_BYTES], unsigned publisher, unsigned topic);

/* A durable session is kept for a day after its connection has ended, and found again. */
size_t wire_connect(uint8_t *out, unsigned protocol, bool durable, const char *client_id);
size_t wire_subscribe(uint8_t *out, unsigned protocol, unsigned qos, const char *filter);
size_t wire_publish(uint8_t *out, unsigned protocol, unsigned qos, const char *topic,
                    size_t payload, PublishLayout *layout);
size_t wire_disconnect(uint8_t *out);

static inline size_t wire_acknowledgement(uint8_t *out, unsigned type, unsigned identifier)
{
    out[0] = (uint8_t)(type << 4 | (type == PACKET_PUBREL ? 2 : 0));
    out[1] = 2;
    out[2] = (uint8_t)(identifier >> 8);
    out[3] = (uint8_t)identifier;
    return 4;
}

/* A variable byte integer (MQTT5 1.5.5) at *at: moves *at behind it and returns its value, or -1
 * when it goes past `end`, or -2 when it is longer than four bytes. */
static inline int32_t wire_varint(const uint8_t **at, const uint8_t *end)
{
    int32_t value = 0;
    for (int shift = 0; shift < 28; shift += 7) {
        if (*at == end)
            return -1;
        uint8_t byte = *(*at)++;
        value |= (int32_t)(byte & 127) << shift;
        if (byte < 128)
            return value;
    }
    return -2;
}

/* The Receive Maximum among the properties of a CONNACK (MQTT5 3.2.2.3.3); 65535 when absent. */
unsigned wire_receive_maximum(const uint8_t *body, size_t length);

#endif
