/* loadgen: a load generator for MQTT brokers that verifies every delivery.
 *
 * The phases of a run: connect (subscribers and their SUBACKs first), load (warm-up, then what is
 * measured), drain, linger, report. Exit status: 0 when everything was delivered once and in
 * order, 1 when not, 2 when the command line is wrong, 3 when the clients could not connect. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "run.h"

#define GATE_MS 120000

typedef struct {
    uint64_t limit; /* when the run ends whatever happens */
    double connect_seconds, seconds, fill_seconds, cpu_seconds;
    uint64_t deliveries, published;
    bool timed_out;
} Outcome;

static uint64_t ns(double seconds)
{
    return (uint64_t)(seconds * (double)NS_PER_S);
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Tells the caller where the run is and waits for a line (or the end) of stdin, with a bound. */
static void gate(Run *run, Outcome *outcome, const char *event)
{
    char line[64];
    if (!run->options.gate)
        return;
    uint64_t before = clock_ns();
    printf("{\"event\": \"%s\", \"deliveries\": %llu, \"connections\": %u}\n", event,
           (unsigned long long)run->deliveries, run->ready);
    fflush(stdout);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&input, 1, GATE_MS) > 0 && read(STDIN_FILENO, line, sizeof line) < 0)
        run_error(run, "the gate could not be read");
    outcome->limit += clock_ns() - before;
}

static bool connect_all(Run *run, Outcome *outcome)
{
    uint64_t start = clock_ns();
    bool connected = run_connect(run, 0, run->options.subscribers, outcome->limit) &&
                     run_connect(run, run->options.subscribers, run->count, outcome->limit);
    outcome->connect_seconds = (double)(clock_ns() - start) / (double)NS_PER_S;
    return connected;
}

/* Runs the load until `until`; ends early when the run has failed. */
static void load(Run *run, uint64_t until)
{
    for (uint64_t now = clock_ns(); now < until && run->errors == 0; now = clock_ns()) {
        uint64_t due = publishers_due(run);
        uint64_t next = due < until ? due : until;
        run_turn(run, next > now ? next - now : 0);
        publishers_push(run);
    }
}

static bool complete(const Run *run)
{
    return run->ledger.fresh == run->published * run->copies &&
           (run->options.qos == 0 || run->acknowledged == run->published);
}

static void drain(Run *run, Outcome *outcome)
{
    uint64_t patience = ns(run->options.drain), progress = clock_ns(), seen = 0;
    run->sending = false;
    while (!complete(run)) {
        uint64_t now = clock_ns(), marks = run->deliveries + run->acknowledged;
        if (marks != seen) {
            seen = marks;
            progress = now;
        }
        outcome->timed_out = now >= outcome->limit;
        if (outcome->timed_out || now >= progress + patience)
            return;
        run_turn(run, progress + patience - now);
    }
    uint64_t until = clock_ns() + ns(run->options.linger);
    for (uint64_t now = clock_ns(); now < until; now = clock_ns())
        run_turn(run, until - now);
}

static void measure(Run *run, Outcome *outcome)
{
    double cpu = own_cpu();
    uint64_t start = clock_ns();
    publishers_start(run, start);
    publishers_push(run);
    load(run, start + ns(run->options.warmup));
    uint64_t deliveries = run->deliveries, published = run->published;
    run->measure_from = clock_ns();
    load(run, run->measure_from + ns(run->options.seconds));
    outcome->seconds = (double)(clock_ns() - run->measure_from) / (double)NS_PER_S;
    outcome->deliveries = run->deliveries - deliveries;
    outcome->published = run->published - published;
    drain(run, outcome);
    outcome->cpu_seconds = own_cpu() - cpu;
}

/* The offline subscribers come back and take what was published meanwhile; `seconds` is the time
 * from the first connection to the last delivery. */
static void measure_backlog(Run *run, Outcome *outcome)
{
    uint64_t start = clock_ns(), goal = run->quota * run->options.publishers;
    publishers_start(run, start);
    publishers_push(run);
    while (run->acknowledged < goal && run->errors == 0 && clock_ns() < outcome->limit) {
        run_turn(run, publishers_due(run) == 0 ? 0 : ns(run->options.drain));
        publishers_push(run);
    }
    outcome->fill_seconds = (double)(clock_ns() - start) / (double)NS_PER_S;
    outcome->published = run->acknowledged;
    gate(run, outcome, "filled");
    double cpu = own_cpu();
    start = clock_ns();
    run_return(run);
    if (run_connect(run, 0, run->options.subscribers, outcome->limit))
        drain(run, outcome);
    outcome->seconds = (double)(run->now - start) / (double)NS_PER_S;
    outcome->deliveries = run->deliveries;
    outcome->cpu_seconds = own_cpu() - cpu;
}

static bool clean(const Run *run)
{
    return run->errors == 0 && run->corrupt == 0 && run->ledger.reordered == 0 &&
           run->ledger.duplicates == 0 && run->unordered_acks == 0 && report_lost(run) == 0 &&
           (run->options.qos == 0 || run->acknowledged == run->published);
}

int main(int argc, char **argv)
{
    static Run run;
    Outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    if (!options_parse(&run.options, argc, argv))
        return 2;
    outcome.limit = clock_ns() + ns(run.options.timeout);
    bool connected = run_open(&run) && connect_all(&run, &outcome);
    if (connected) {
        gate(&run, &outcome, "ready");
        if (run.options.publishers == 0)
            run_turn(&run, 0);
        else if (run.options.backlog)
            measure_backlog(&run, &outcome);
        else
            measure(&run, &outcome);
        gate(&run, &outcome, "done");
    }
    report_print(&run, outcome.connect_seconds, outcome.seconds, outcome.deliveries,
                 outcome.published, outcome.fill_seconds, outcome.cpu_seconds, outcome.timed_out);
    run_close(&run);
    return !connected ? 3 : clean(&run) ? 0 : 1;
}
