/* A log-linear histogram of durations: 64 buckets for each power of two, so that a value read
 * back is at most 1.6 % above the one recorded, from 1 ns to centuries, without allocation. */
#ifndef LOADGEN_HISTOGRAM_H
#define LOADGEN_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_SUB (1u << HISTOGRAM_BITS)
#define HISTOGRAM_CELLS ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_SUB)

typedef struct {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t cells[HISTOGRAM_CELLS];
} Histogram;

static inline unsigned histogram_cell(uint64_t value)
{
    if (value < HISTOGRAM_SUB)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return (shift + 1) * HISTOGRAM_SUB + (unsigned)((value >> shift) & (HISTOGRAM_SUB - 1));
}

static inline void histogram_record(Histogram *h, uint64_t value)
{
    h->cells[histogram_cell(value)]++;
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
}

/* The upper bound of the cell in which the given fraction (0 to 1) of the values is reached; 0
 * when nothing was recorded, and never more than the largest value. */
uint64_t histogram_quantile(const Histogram *h, double fraction);

#endif
