/* What each message carries so that its delivery can be checked, in the byte order of the machine
 * (the same process reads it back). The seal is the last eight bytes of the payload: a message
 * that was cut, shifted or mixed with another one does not end with it. */
#ifndef LOADGEN_PAYLOAD_H
#define LOADGEN_PAYLOAD_H

#include <stdint.h>
#include <string.h>

typedef struct {
    uint32_t run;       /* the same in all messages of a run, so that a stale message is noticed */
    uint32_t publisher;
    uint32_t topic;     /* number of the topic within its publisher */
    uint32_t size;      /* bytes of the whole payload */
    uint64_t sequence;  /* counts from 0 for each publisher and topic */
    uint64_t stamp;     /* scheduled time (open loop) or time of the send (closed loop), ns */
} Stamp;

#define PAYLOAD_MIN ((unsigned)(sizeof(Stamp) + sizeof(uint64_t)))

static inline uint64_t payload_seal(const Stamp *s)
{
    return (s->sequence + 1) * 0x9e3779b97f4a7c15ull ^ ((uint64_t)s->publisher << 32 | s->topic);
}

static inline void payload_write(uint8_t *payload, const Stamp *s)
{
    uint64_t seal = payload_seal(s);
    memcpy(payload, s, sizeof *s);
    memcpy(payload + s->size - sizeof seal, &seal, sizeof seal);
}

/* Reads the stamp of a payload of the given length; returns 0 when it is not one of this run. */
static inline int payload_read(const uint8_t *payload, size_t length, uint32_t run, Stamp *s)
{
    uint64_t seal;
    if (length < PAYLOAD_MIN)
        return 0;
    memcpy(s, payload, sizeof *s);
    memcpy(&seal, payload + length - sizeof seal, sizeof seal);
    return s->run == run && s->size == length && seal == payload_seal(s);
}

#endif
