/* See pool.h. Workers are started when first needed, spin briefly for the next job, since
 * the next layer follows within microseconds, and then sleep until woken. */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned int fp_mode;
static fp_mode flush_subnormals(void) {
    fp_mode mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u); /* flush to zero, denormals are zero */
    return mode;
}
static void restore_fp_mode(fp_mode mode) { _mm_setcsr(mode); }
static void relax(void) { _mm_pause(); }
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
static fp_mode flush_subnormals(void) {
    fp_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | (UINT64_C(1) << 24)));
    return mode;
}
static void restore_fp_mode(fp_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
static void relax(void) { __asm__ volatile("yield"); }
#else
typedef int fp_mode;
static fp_mode flush_subnormals(void) { return 0; }
static void restore_fp_mode(fp_mode mode) { (void)mode; }
static void relax(void) {}
#endif

#define SPINS 4000 /* some tens of microseconds */

static struct {
    pthread_mutex_t caller; /* held by the thread whose job runs */
    pthread_mutex_t lock;   /* guards sleeping and waking */
    pthread_cond_t wake;
    int started;
    atomic_int sleeping;
    atomic_int joined;      /* workers inside the current job */
    atomic_bool open;       /* a job may be joined */
    atomic_uint generation; /* counts jobs */
    _Alignas(64) atomic_ptrdiff_t next;
    /* The job: written before `open`, read after it. */
    _Alignas(64) int threads;
    ptrdiff_t tasks;
    pool_task *run;
    const void *job;
} pool = {
    .caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void take_tasks(int worker) {
    fp_mode mode = flush_subnormals();
    for (ptrdiff_t task; (task = atomic_fetch_add(&pool.next, 1)) < pool.tasks;)
        pool.run(pool.job, task, worker);
    restore_fp_mode(mode);
}

static void sleep_until_open(unsigned seen) {
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleeping, 1);
    while (!atomic_load(&pool.open) || atomic_load(&pool.generation) == seen)
        pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void *work(void *argument) {
    int worker = (int)(intptr_t)argument;
    unsigned seen = 0;
    for (int spins = 0;;) {
        if (!atomic_load(&pool.open) || atomic_load(&pool.generation) == seen) {
            relax();
            if (++spins >= SPINS) {
                sleep_until_open(seen);
                spins = 0;
            }
            continue;
        }
        spins = 0;
        /* Join first, look again afterwards: whoever closes the job waits for all who joined. */
        atomic_fetch_add(&pool.joined, 1);
        if (atomic_load(&pool.open)) {
            seen = atomic_load(&pool.generation);
            if (worker < pool.threads)
                take_tasks(worker);
        }
        atomic_fetch_sub(&pool.joined, 1);
    }
    return NULL;
}

/* A forked child has none of its parent's threads: start over. */
static void forget_workers(void) {
    pthread_mutex_init(&pool.caller, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.started = 0;
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.joined, 0);
    atomic_store(&pool.open, false);
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Called with pool.caller held. Too few threads is no error: the rest do the work. */
static void start_workers(int wanted) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (pool.started < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, (void *)(intptr_t)(pool.started + 1)))
            break;
        pool.started++;
    }
    pthread_attr_destroy(&attributes);
}

static void run_alone(ptrdiff_t tasks, pool_task *run, const void *job) {
    fp_mode mode = flush_subnormals();
    for (ptrdiff_t task = 0; task < tasks; task++)
        run(job, task, 0);
    restore_fp_mode(mode);
}

void pool_run(int threads, ptrdiff_t tasks, pool_task *run, const void *job) {
    if (threads > POOL_MAX_THREADS)
        threads = POOL_MAX_THREADS;
    if (threads <= 1 || tasks <= 1 || pthread_mutex_trylock(&pool.caller)) {
        run_alone(tasks, run, job);
        return;
    }
    if (pool.started < threads - 1)
        start_workers(threads - 1);
    pool.threads = threads;
    pool.tasks = tasks;
    pool.run = run;
    pool.job = job;
    atomic_store(&pool.next, 0);
    atomic_fetch_add(&pool.generation, 1);
    atomic_store(&pool.open, true);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    take_tasks(0);
    atomic_store(&pool.open, false);
    while (atomic_load(&pool.joined))
        relax();
    pthread_mutex_unlock(&pool.caller);
}
