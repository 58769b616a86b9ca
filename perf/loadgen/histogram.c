#include "histogram.h"

static uint64_t cell_top(unsigned cell)
{
    if (cell < HISTOGRAM_SUB)
        return cell;
    unsigned shift = cell / HISTOGRAM_SUB - 1;
    uint64_t bottom = (uint64_t)(HISTOGRAM_SUB + cell % HISTOGRAM_SUB) << shift;
    return bottom + ((1ull << shift) - 1);
}

uint64_t histogram_quantile(const Histogram *h, double fraction)
{
    if (h->count == 0)
        return 0;
    double exact = fraction * (double)h->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact || rank == 0)
        rank++;
    uint64_t seen = 0;
    for (unsigned cell = 0; cell < HISTOGRAM_CELLS; cell++) {
        seen += h->cells[cell];
        if (seen >= rank) {
            uint64_t top = cell_top(cell);
            return top < h->max ? top : h->max;
        }
    }
    return h->max;
}
