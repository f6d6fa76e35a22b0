/* Losses over rows of scores that are padded to whole vectors, and their gradients.
 *
 * Sums are taken in double, in blocks of rows that depend on the batch alone. Padding stays zero.
 */
#include <math.h>

#include "elementary.h"
#include "pool.h"

#define MAX_ROW_BLOCKS 64

typedef struct {
    const loss_settings *settings;
    const real *weights; /* as in the settings */
    double all_weights;  /* their sum */
    double divisor;      /* what the sum over all rows is divided by */
    ptrdiff_t n, classes, row, blocks;
    const real *scores, *p;
    real *out;
    const int64_t *labels;
    double *losses; /* a sum for each block of rows */
    ptrdiff_t *correct;
} loss_job;

typedef double wide_vec __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(double))));

/* Blocks of rows, a few thousand numbers each. */
static ptrdiff_t count_row_blocks(ptrdiff_t n, ptrdiff_t row) {
    return at_most(at_most(n, MAX_ROW_BLOCKS), ceil_div(n * row, 4096));
}

static loss_job create_job(const loss_settings *settings, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row,
                           const int64_t *labels) {
    loss_job job = {.settings = settings,
                    .weights = settings->weights,
                    .all_weights = (double)classes,
                    .divisor = (double)n,
                    .n = n,
                    .classes = classes,
                    .row = row,
                    .blocks = count_row_blocks(n, row),
                    .labels = labels};
    if (job.weights) {
        job.all_weights = job.divisor = 0;
        for (ptrdiff_t k = 0; k < classes; k++)
            job.all_weights += (double)job.weights[k];
        for (ptrdiff_t i = 0; i < n; i++)
            job.divisor += (double)job.weights[labels[i]];
    }
    if (job.divisor == 0) /* no images, or none that counts */
        job.divisor = 1;
    return job;
}

/* The largest of `classes` scores, or NaN if there is one. */
INLINE real find_top(const real *scores, ptrdiff_t classes) {
    vec tops = fill(scores[0]);
    ptrdiff_t k = 0;
    for (; k + VLEN <= classes; k += VLEN) {
        vec value = load(scores + k);
        tops = choose((mask)(value > tops) | (mask)(value != value), value, tops);
    }
    real top = scores[0];
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        if (tops[lane] > top || tops[lane] != tops[lane])
            top = tops[lane];
    for (; k < classes; k++)
        if (scores[k] > top || scores[k] != scores[k])
            top = scores[k];
    return top;
}

/* p = exp(scores - top) and zeros behind it; returns the sum. */
INLINE double exponential_row(const real *scores, real top, ptrdiff_t classes, ptrdiff_t row, real *p) {
    wide_vec sums = {0};
    for (ptrdiff_t k = 0; k < row; k += VLEN) {
        vec below = limit_to(top - load(scores + k), EXPONENTIAL_LIMIT);
        store(p + k, bounded_exponential(-below, (vec){0}));
        for (ptrdiff_t tail = at_least(classes, k); tail < k + VLEN; tail++)
            p[tail] = 0;
        sums += __builtin_convertvector(load(p + k), wide_vec);
    }
    double sum = 0;
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        sum += sums[lane];
    return sum;
}

/* Whether the first maximum `top`, or the first NaN, stands at the label. */
INLINE int is_right(const real *scores, real top, int64_t label) {
    ptrdiff_t first = 0;
    while (scores[first] != top && (top == top || scores[first] == scores[first]))
        first++;
    return first == label;
}

INLINE real find_weight(const loss_job *job, int64_t label) { return job->weights ? job->weights[label] : 1; }

/* sum of t (-log p), t as base.py has it; p may lie where the scores do. */
static double cross_entropy_row(const loss_job *job, const real *scores, real top, int64_t label, real *p) {
    double smoothing = job->settings->smoothing, own = (double)scores[label] - (double)top, all = 0;
    for (ptrdiff_t k = 0; smoothing > 0 && k < job->classes; k++)
        all += (double)job->weights[k] * ((double)scores[k] - (double)top);
    double sum = exponential_row(scores, top, job->classes, job->row, p), log_sum = log(sum);
    real scale = (real)(1 / sum);
    for (ptrdiff_t k = 0; k < job->row; k += VLEN)
        store(p + k, load(p + k) * scale);
    double loss = (1 - smoothing) * (double)find_weight(job, label) * (log_sum - own);
    return smoothing > 0 ? loss + smoothing / (double)job->classes * (job->all_weights * log_sum - all)
                         : loss;
}

/* max(0, s - s[label] + margin) of another class's score, in the scores' own precision. */
INLINE real find_excess(const loss_job *job, const real *scores, int64_t label, ptrdiff_t k) {
    real excess = scores[k] - scores[label] + (real)job->settings->margin;
    return k == label || excess < 0 ? 0 : excess;
}

/* 1 at the label, 0 elsewhere; the label itself where there is one score alone. */
INLINE real find_target(const loss_job *job, int64_t label, ptrdiff_t k) {
    return (real)(job->classes == 1 ? label : k == label);
}

static double hinge_row(const loss_job *job, const real *scores, int64_t label) {
    double loss = 0;
    for (ptrdiff_t k = 0; k < job->classes; k++)
        loss += (double)find_excess(job, scores, label, k);
    return loss;
}

static double squared_error_row(const loss_job *job, const real *scores, int64_t label) {
    double loss = 0;
    for (ptrdiff_t k = 0; k < job->classes; k++) {
        double away = (double)(scores[k] - find_target(job, label, k));
        loss += 0.5 * away * away;
    }
    return loss;
}

static void forward_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const loss_job *job = context;
    double loss = 0;
    ptrdiff_t correct = 0, end = job->n * (block + 1) / job->blocks;
    int kind = job->settings->kind, halves = kind == LOSS_SQUARED_ERROR && job->classes == 1;
    for (ptrdiff_t i = job->n * block / job->blocks; i < end; i++) {
        const real *scores = job->scores + i * job->row;
        real top = find_top(scores, job->classes);
        int64_t label = job->labels[i];
        correct += halves ? (scores[0] > (real)0.5) == label : is_right(scores, top, label);
        if (kind == LOSS_CROSS_ENTROPY)
            loss += cross_entropy_row(job, scores, top, label, job->out + i * job->row);
        else if (kind == LOSS_HINGE)
            loss += hinge_row(job, scores, label);
        else
            loss += squared_error_row(job, scores, label);
    }
    job->losses[block] = loss;
    job->correct[block] = correct;
}

double NAME(loss_forward)(const loss_settings *settings, int threads, ptrdiff_t n, ptrdiff_t classes,
                          ptrdiff_t row, const void *scores, const int64_t *labels, void *p,
                          ptrdiff_t *correct) {
    double losses[MAX_ROW_BLOCKS], loss = 0;
    ptrdiff_t counts[MAX_ROW_BLOCKS];
    loss_job job = create_job(settings, n, classes, row, labels);
    job.scores = scores;
    job.out = p;
    job.losses = losses;
    job.correct = counts;
    pool_run(threads, job.blocks, forward_block, &job);
    *correct = 0;
    for (ptrdiff_t block = 0; block < job.blocks; block++) {
        loss += losses[block];
        *correct += counts[block];
    }
    return loss / job.divisor;
}

/* (p sum of t - t) / divisor; dscores may lie where p does. */
static void cross_entropy_gradient(const loss_job *job, const real *p, int64_t label, real *dscores) {
    double smoothing = job->settings->smoothing;
    real own = (real)((1 - smoothing) * (double)find_weight(job, label));
    real share = (real)(smoothing / (double)job->classes), divisor = (real)job->divisor;
    real all = own + (real)(smoothing / (double)job->classes * job->all_weights);
    real at_label = (p[label] * all - share * find_weight(job, label) - own) / divisor;
    for (ptrdiff_t k = 0; k < job->row; k += VLEN) {
        vec value = load(p + k) * all;
        if (job->weights)
            value -= share * load(job->weights + k);
        store(dscores + k, value / divisor);
    }
    dscores[label] = at_label;
}

static void hinge_gradient(const loss_job *job, const real *scores, int64_t label, real *dscores) {
    real step = 1 / (real)job->divisor;
    ptrdiff_t count = 0;
    for (ptrdiff_t k = 0; k < job->row; k++) {
        int adds = k < job->classes && find_excess(job, scores, label, k) > 0;
        dscores[k] = adds ? step : 0;
        count += adds;
    }
    dscores[label] = -(real)count * step;
}

static void backward_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const loss_job *job = context;
    ptrdiff_t end = job->n * (block + 1) / job->blocks;
    for (ptrdiff_t i = job->n * block / job->blocks; i < end; i++) {
        const real *from = job->p + i * job->row;
        real *dscores = job->out + i * job->row;
        int64_t label = job->labels[i];
        if (job->settings->kind == LOSS_CROSS_ENTROPY)
            cross_entropy_gradient(job, from, label, dscores);
        else if (job->settings->kind == LOSS_HINGE)
            hinge_gradient(job, from, label, dscores);
        else
            for (ptrdiff_t k = 0; k < job->row; k++)
                dscores[k] =
                    k < job->classes ? (from[k] - find_target(job, label, k)) / (real)job->divisor : 0;
    }
}

void NAME(loss_backward)(const loss_settings *settings, int threads, ptrdiff_t n, ptrdiff_t classes,
                         ptrdiff_t row, const void *from, const int64_t *labels, void *dscores) {
    loss_job job = create_job(settings, n, classes, row, labels);
    job.p = from;
    job.out = dscores;
    pool_run(threads, job.blocks, backward_block, &job);
}
