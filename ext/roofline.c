/* What the machine can do at best: multiply-adds in registers, and memory read or copied.
 *
 * A burst is work for the caller's clock and returns how much of it there was: floating-point
 * operations or bytes moved. No kernel uses these, and they compute nothing of use.
 */
#include "pool.h"
#include "tiles.h"

/* Sums that don't wait for one another: enough to hide the latency of an addition everywhere. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define CHAINS 24 /* of 32 registers */
#else
#define CHAINS 12 /* of 16 registers */
#endif
#define BLOCK 8 /* vectors read or copied at a time */

typedef struct {
    int threads;
    ptrdiff_t rounds, count;
    const real *from;
    real *to;
} burst_job;

/* To the compiler, all memory may be read and changed here: nothing is left out or merged. */
INLINE void touch_memory(const void *address) { __asm__ volatile("" : : "r"(address) : "memory"); }

static void multiply_add(const void *argument, ptrdiff_t task, int worker) {
    (void)task, (void)worker;
    const burst_job *job = argument;
    vec chains[CHAINS], factor = fill((real)0.5), summand = fill(1);
    touch_memory(&factor);
    touch_memory(&summand);
    UNROLLED (i, CHAINS)
        chains[i] = fill((real)i);
    for (ptrdiff_t round = 0; round < job->rounds; round++)
        UNROLLED (i, CHAINS)
            chains[i] = chains[i] * factor + summand;
    touch_memory(chains);
}

/* The vectors of one task: whole blocks of its share. */
INLINE ptrdiff_t share(const burst_job *job) {
    return job->count / job->threads / (BLOCK * VLEN) * (BLOCK * VLEN);
}

static void read_share(const void *argument, ptrdiff_t task, int worker) {
    (void)worker;
    const burst_job *job = argument;
    const ptrdiff_t count = share(job);
    const real *from = job->from + task * count;
    vec sums[BLOCK] = {{0}};
    for (ptrdiff_t round = 0; round < job->rounds; round++) {
        for (ptrdiff_t i = 0; i < count; i += BLOCK * VLEN)
            UNROLLED (j, BLOCK)
                sums[j] += load(from + i + j * VLEN);
        touch_memory(from);
    }
    touch_memory(sums);
}

static void copy_share(const void *argument, ptrdiff_t task, int worker) {
    (void)worker;
    const burst_job *job = argument;
    const ptrdiff_t count = share(job);
    const real *from = job->from + task * count;
    real *to = job->to + task * count;
    for (ptrdiff_t round = 0; round < job->rounds; round++)
        for (ptrdiff_t i = 0; i < count; i += BLOCK * VLEN) {
            UNROLLED (j, BLOCK)
                store(to + i + j * VLEN, load(from + i + j * VLEN));
            touch_memory(to); /* or a compiler may call memcpy */
        }
}

double NAME(fma_burst)(int threads, ptrdiff_t rounds) {
    const burst_job job = {.threads = threads, .rounds = rounds};
    pool_run(threads, threads, multiply_add, &job);
    return 2.0 * CHAINS * VLEN * (double)rounds * threads;
}

double NAME(read_burst)(int threads, ptrdiff_t rounds, ptrdiff_t count, const void *from) {
    const burst_job job = {threads, rounds, count, from, NULL};
    pool_run(threads, threads, read_share, &job);
    return (double)sizeof(real) * (double)share(&job) * (double)rounds * threads;
}

double NAME(copy_burst)(int threads, ptrdiff_t rounds, ptrdiff_t count, const void *from, void *to) {
    const burst_job job = {threads, rounds, count, from, to};
    pool_run(threads, threads, copy_share, &job);
    return 2.0 * sizeof(real) * (double)share(&job) * (double)rounds * threads;
}
