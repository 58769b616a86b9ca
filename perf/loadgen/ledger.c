#include "ledger.h"

#include <stdlib.h>
#include <string.h>

static Gap *room_for_one(Stream *stream)
{
    if (stream->count == stream->room) {
        stream->room = stream->room ? stream->room * 2 : 4;
        stream->gaps = realloc(stream->gaps, stream->room * sizeof(Gap));
        if (!stream->gaps)
            abort();
    }
    return &stream->gaps[stream->count++];
}

/* The first gap that ends after the number, or count. */
static uint32_t search(const Stream *stream, uint64_t sequence)
{
    uint32_t low = 0, high = stream->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (stream->gaps[middle].to > sequence)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool fill(Stream *stream, uint64_t sequence)
{
    uint32_t i = search(stream, sequence);
    if (i == stream->count || stream->gaps[i].from > sequence)
        return false;
    Gap gap = stream->gaps[i];
    if (gap.from == sequence && gap.to == sequence + 1) {
        stream->count--;
        memmove(&stream->gaps[i], &stream->gaps[i + 1], (stream->count - i) * sizeof(Gap));
    } else if (gap.from == sequence) {
        stream->gaps[i].from++;
    } else if (gap.to == sequence + 1) {
        stream->gaps[i].to--;
    } else {
        room_for_one(stream);
        memmove(&stream->gaps[i + 2], &stream->gaps[i + 1],
                (stream->count - i - 2) * sizeof(Gap));
        stream->gaps[i].to = sequence;
        stream->gaps[i + 1] = (Gap){sequence + 1, gap.to};
    }
    return true;
}

bool ledger_exception(Ledger *ledger, Stream *stream, uint64_t sequence)
{
    if (sequence < stream->next) {
        if (fill(stream, sequence)) {
            ledger->reordered++;
            ledger->fresh++;
        } else {
            ledger->duplicates++;
        }
        return false;
    }
    *room_for_one(stream) = (Gap){stream->next, sequence};
    stream->next = sequence + 1;
    ledger->fresh++;
    return true;
}

uint64_t stream_missing(const Stream *stream, uint64_t published)
{
    uint64_t missing = published > stream->next ? published - stream->next : 0;
    for (uint32_t i = 0; i < stream->count; i++)
        missing += stream->gaps[i].to - stream->gaps[i].from;
    return missing;
}
