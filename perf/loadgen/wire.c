#include "wire.h"

#include <stdio.h>
#include <string.h>

#define RECEIVE_MAXIMUM_DEFAULT 65535
#define PROPERTY_SESSION_EXPIRY 0x11
#define PROPERTY_RECEIVE_MAXIMUM 0x21

static uint8_t *put_varint(uint8_t *at, size_t value)
{
    do {
        uint8_t byte = value & 127;
        value >>= 7;
        *at++ = (uint8_t)(byte | (value ? 128 : 0));
    } while (value);
    return at;
}

static uint8_t *put_string(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    *at++ = (uint8_t)(length >> 8);
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

static size_t put_packet(uint8_t *out, uint8_t header, const uint8_t *body, size_t length)
{
    out[0] = header;
    uint8_t *at = put_varint(out + 1, length);
    memcpy(at, body, length);
    return (size_t)(at - out) + length;
}

size_t wire_topic(char out[WIRE_TOPIC_BYTES], unsigned publisher, unsigned topic)
{
    return (size_t)snprintf(out, WIRE_TOPIC_BYTES, "perf/%05u/%04u", publisher % 100000u,
                            topic % 10000u);
}

size_t wire_connect(uint8_t *out, unsigned protocol, bool durable, const char *client_id)
{
    uint8_t body[WIRE_CONTROL_BYTES], *at = put_string(body, "MQTT");
    *at++ = (uint8_t)protocol;
    *at++ = durable ? 0 : 0x02; /* clean session, clean start */
    *at++ = KEEP_ALIVE_S >> 8;
    *at++ = KEEP_ALIVE_S & 255;
    if (protocol == 5) {
        *at++ = durable ? 5 : 0;
        if (durable) {
            *at++ = PROPERTY_SESSION_EXPIRY;
            for (int shift = 24; shift >= 0; shift -= 8)
                *at++ = (uint8_t)(EXPIRY_S >> shift);
        }
    }
    at = put_string(at, client_id);
    return put_packet(out, PACKET_CONNECT << 4, body, (size_t)(at - body));
}

size_t wire_subscribe(uint8_t *out, unsigned protocol, unsigned qos, const char *filter)
{
    uint8_t body[WIRE_CONTROL_BYTES], *at = body;
    *at++ = 0;
    *at++ = 1;
    if (protocol == 5)
        *at++ = 0;
    at = put_string(at, filter);
    *at++ = (uint8_t)qos;
    return put_packet(out, PACKET_SUBSCRIBE << 4 | 2, body, (size_t)(at - body));
}

size_t wire_publish(uint8_t *out, unsigned protocol, unsigned qos, const char *topic,
                    size_t payload, PublishLayout *layout)
{
    size_t remaining = 2 + strlen(topic) + (qos ? 2 : 0) + (protocol == 5) + payload;
    out[0] = (uint8_t)(PACKET_PUBLISH << 4 | qos << 1);
    uint8_t *at = put_varint(out + 1, remaining);
    layout->topic = (size_t)(at - out) + 2;
    at = put_string(at, topic);
    layout->identifier = qos ? (size_t)(at - out) : 0;
    at += qos ? 2 : 0;
    if (protocol == 5)
        *at++ = 0;
    layout->payload = (size_t)(at - out);
    for (size_t i = 0; i < payload; i++)
        at[i] = (uint8_t)('a' + i % 26);
    layout->length = layout->payload + payload;
    return layout->length;
}

size_t wire_disconnect(uint8_t *out)
{
    out[0] = PACKET_DISCONNECT << 4;
    out[1] = 0;
    return 2;
}

/* Bytes of the value of a property of a CONNACK (MQTT5 3.2.2.3); 0 when it is none. */
static size_t property_bytes(const uint8_t *at, const uint8_t *end)
{
    switch (*at) {
    case 0x24: case 0x25: case 0x28: case 0x29: case 0x2a:
        return 1;
    case 0x13: case 0x21: case 0x22:
        return 2;
    case 0x11: case 0x27:
        return 4;
    case 0x12: case 0x15: case 0x16: case 0x1a: case 0x1c: case 0x1f:
        return end - at < 3 ? 0 : 2 + (size_t)(at[1] << 8 | at[2]);
    case 0x26: {
        if (end - at < 3)
            return 0;
        size_t key = 2 + (size_t)(at[1] << 8 | at[2]);
        const uint8_t *value = at + 1 + key;
        return value + 2 > end ? 0 : key + 2 + (size_t)(value[0] << 8 | value[1]);
    }
    default:
        return 0;
    }
}

unsigned wire_receive_maximum(const uint8_t *body, size_t length)
{
    const uint8_t *at = body + 2, *end = body + length;
    int32_t properties = length > 2 ? wire_varint(&at, end) : 0;
    if (properties <= 0 || properties > end - at)
        return RECEIVE_MAXIMUM_DEFAULT;
    end = at + properties;
    while (at < end) {
        size_t bytes = property_bytes(at, end);
        if (bytes == 0 || at + 1 + bytes > end)
            break;
        if (*at == PROPERTY_RECEIVE_MAXIMUM)
            return (unsigned)(at[1] << 8 | at[2]);
        at += 1 + bytes;
    }
    return RECEIVE_MAXIMUM_DEFAULT;
}
