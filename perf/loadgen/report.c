/* The one line of JSON with which a run ends. */
#include <stdio.h>

#include "run.h"

#define NS_PER_US 1000.0

static uint64_t published_on(const Run *run, uint32_t publisher, uint32_t topic)
{
    uint64_t next = run->publishers[publisher].next, topics = run->options.topics;
    return next / topics + (topic < next % topics);
}

uint64_t report_lost(const Run *run)
{
    const Options *o = &run->options;
    uint64_t lost = 0;
    if (o->publishers == 0)
        return 0;
    for (uint32_t s = 0; s < o->subscribers; s++) {
        bool pair = o->topology == TOPOLOGY_PAIR;
        uint32_t from = pair ? s : 0, to = pair ? s + 1 : o->publishers;
        for (uint32_t p = from; p < to; p++)
            for (uint32_t t = 0; t < o->topics; t++) {
                size_t stream = pair ? (size_t)s * o->topics + t
                                     : ((size_t)s * o->publishers + p) * o->topics + t;
                lost += stream_missing(&run->streams[stream], published_on(run, p, t));
            }
    }
    return lost;
}

static void print_histogram(const char *name, const Histogram *h)
{
    printf(", \"%s\": {\"count\": %llu, \"mean\": %.3f, \"p50\": %.3f, \"p99\": %.3f, "
           "\"p999\": %.3f, \"max\": %.3f}",
           name, (unsigned long long)h->count, h->count ? h->sum / NS_PER_US / h->count : 0.0,
           histogram_quantile(h, 0.5) / NS_PER_US, histogram_quantile(h, 0.99) / NS_PER_US,
           histogram_quantile(h, 0.999) / NS_PER_US, h->max / NS_PER_US);
}

static void print_string(const char *name, const char *text)
{
    printf(", \"%s\": \"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < ' ' ? ' ' : *text);
    }
    putchar('"');
}

void report_print(const Run *run, double connect_seconds, double seconds, uint64_t deliveries,
                  uint64_t publishes, double fill_seconds, double cpu_seconds, bool timed_out)
{
    const Options *o = &run->options;
    double publishing = o->backlog ? fill_seconds : seconds;
    uint64_t awaited = o->qos ? run->published - run->acknowledged : 0;
    printf("{\"event\": \"report\", \"connections\": %u, \"connect_seconds\": %.6f, "
           "\"connect_rate\": %.1f, \"published\": %llu, \"expected\": %llu, \"deliveries\": %llu",
           run->ready, connect_seconds, connect_seconds > 0 ? run->ready / connect_seconds : 0.0,
           (unsigned long long)run->published, (unsigned long long)(run->published * run->copies),
           (unsigned long long)run->deliveries);
    printf(", \"seconds\": %.6f, \"throughput\": %.1f, \"publish_rate\": %.1f, "
           "\"fill_seconds\": %.6f, \"cpu_seconds\": %.6f",
           seconds, seconds > 0 ? deliveries / seconds : 0.0,
           publishing > 0 ? publishes / publishing : 0.0, fill_seconds, cpu_seconds);
    print_histogram("latency_us", &run->latency);
    print_histogram("lag_us", &run->lag);
    printf(", \"lost\": %llu, \"reordered\": %llu, \"duplicates\": %llu, \"corrupt\": %llu, "
           "\"unacknowledged\": %llu, \"unordered_acks\": %llu, \"errors\": %llu, "
           "\"timed_out\": %s, \"realtime\": %s",
           (unsigned long long)report_lost(run), (unsigned long long)run->ledger.reordered,
           (unsigned long long)run->ledger.duplicates, (unsigned long long)run->corrupt,
           (unsigned long long)awaited, (unsigned long long)run->unordered_acks,
           (unsigned long long)run->errors, timed_out ? "true" : "false", run->realtime ? "true" : "false");
    print_string("first_error", run->first_error);
    puts("}");
    fflush(stdout);
}
