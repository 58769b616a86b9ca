/* The strict account of deliveries: one stream for each (subscriber, publisher, topic), whose
 * sequence numbers must arrive as 0, 1, 2, … each exactly once.
 *
 * A number that is skipped opens a gap. A message that arrives later and fills a gap is
 * reordered; one that fills none is a duplicate; a gap that stays, and the end of a stream that
 * never came, is lost. */
#ifndef LOADGEN_LEDGER_H
#define LOADGEN_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t from, to; /* the numbers from <= n < to are missing */
} Gap;

typedef struct {
    uint64_t next;
    Gap *gaps; /* ascending, disjoint */
    uint32_t count, room;
} Stream;

typedef struct {
    uint64_t fresh; /* deliveries without the duplicates */
    uint64_t reordered;
    uint64_t duplicates;
} Ledger;

/* Accounts for a message that is not the next one of its stream. Returns true when the numbers
 * from the old stream->next to sequence were skipped (a gap was opened), else false. */
bool ledger_exception(Ledger *ledger, Stream *stream, uint64_t sequence);

/* The numbers of the stream that never arrived, when `published` were sent. */
uint64_t stream_missing(const Stream *stream, uint64_t published);

/* Accounts for one delivery; see ledger_exception for the result. */
static inline bool ledger_delivery(Ledger *ledger, Stream *stream, uint64_t sequence)
{
    if (__builtin_expect(sequence != stream->next, 0))
        return ledger_exception(ledger, stream, sequence);
    stream->next++;
    ledger->fresh++;
    return false;
}

#endif
