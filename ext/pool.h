/* A small thread pool: fixed tasks, any number of threads, the same result.
 *
 * It hands out task numbers and knows nothing of what they do. Work is cut into tasks
 * by shape alone, so who runs a task never shows in the numbers. It never nests: a
 * call made while another runs is served by the calling thread alone.
 */
#ifndef CNNCTL_POOL_H
#define CNNCTL_POOL_H

#include <stddef.h>

#define POOL_MAX_THREADS 256

/* Runs one task; `worker` < threads numbers the scratch it may use. */
typedef void pool_task(const void *job, ptrdiff_t task, int worker);

/* Run tasks 0 .. tasks-1 on up to `threads` threads, the caller's among them. Subnormal
 * results are flushed to zero meanwhile; the caller's floating-point mode is restored. */
void pool_run(int threads, ptrdiff_t tasks, pool_task *run, const void *job);

#endif
