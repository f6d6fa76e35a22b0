/* Updates: what optimizers do to weights and slots, in place, after summing the weights' squares.
 *
 * Bound by memory: one pass, in tasks of fixed size, so that the sums do not depend on threads. What
 * is not finite is noticed as it is written.
 */
#include "elementary.h"
#include "pool.h"

/* Elements an update handles at a time: those whose squares were summed are still at hand. */
#define UPDATE_RUN 2048

typedef struct update_job update_job;
/* Returns what `bits_of` tells of all it has written, or'ed together. */
typedef real_int update_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count);

struct update_job {
    update_rule *rule; /* NULL: nothing but the squares of dw is wanted */
    ptrdiff_t count;
    real *w, *slots[UPDATE_SLOTS];
    const real *dw;
    double *sums;
    real lr, l2, keep, momentum, undamped, nesterov, beta1, beta2, one_minus1, one_minus2, eps;
    real scale1, scale2; /* lr and 1, each without the bias of its moment */
};

/* Sum of squares, in a fixed order. */
INLINE double sum_squares(const real *w, ptrdiff_t count) {
    enum { CHAINS = 4 };
    vec sums[CHAINS] = {{0}};
    ptrdiff_t i = 0;
    for (; i + CHAINS * VLEN <= count; i += CHAINS * VLEN)
        UNROLLED (chain, CHAINS) {
            vec value = load(w + i + chain * VLEN);
            sums[chain] += value * value;
        }
    double total = 0;
    UNROLLED (chain, CHAINS)
        for (ptrdiff_t lane = 0; lane < VLEN; lane++)
            total += (double)sums[chain][lane];
    for (; i < count; i++)
        total += (double)(w[i] * w[i]);
    return total;
}

/* 0 times a number: no bit but the sign if it was finite, however large, and a NaN's otherwise. To or
 * them leaves a loop the order of its own that a sum of reals would not. */
INLINE real_int bits_of(real zero) {
    real_int bits;
    memcpy(&bits, &zero, sizeof bits);
    return bits;
}

static double add_up(const double *sums, ptrdiff_t count) {
    double total = 0;
    for (ptrdiff_t i = 0; i < count; i++)
        total += sums[i];
    return total;
}

static void update_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const update_job *job = context;
    ptrdiff_t end = at_most(job->count, (block + 1) * UPDATE_BLOCK);
    double sum = 0;
    real_int bits = 0;
    for (ptrdiff_t start = block * UPDATE_BLOCK; start < end; start += UPDATE_RUN) {
        ptrdiff_t count = at_most(UPDATE_RUN, end - start);
        sum += sum_squares((job->rule ? job->w : job->dw) + start, count);
        if (job->rule)
            bits |= job->rule(job, start, count);
    }
    job->sums[block] = bits & ~SIGN_BIT ? NAN : sum;
}

static real_int sgd_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    real *restrict w = job->w + start, *restrict velocity = job->slots[0] + start;
    const real *restrict dw = job->dw + start;
    real lr = job->lr, l2 = job->l2, momentum = job->momentum, undamped = job->undamped;
    real nesterov = job->nesterov;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        real v = momentum * velocity[i] + undamped * g;
        velocity[i] = v;
        w[i] -= lr * (nesterov != 0 ? g + momentum * v : v);
        bits |= bits_of(0 * v + 0 * w[i]);
    }
    return bits;
}

static real_int adam_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    real *restrict w = job->w + start, *restrict m = job->slots[0] + start;
    real *restrict v = job->slots[1] + start;
    const real *restrict dw = job->dw + start;
    real l2 = job->l2, keep = job->keep, beta1 = job->beta1, beta2 = job->beta2, eps = job->eps;
    real one_minus1 = job->one_minus1, one_minus2 = job->one_minus2;
    real scale1 = job->scale1, scale2 = job->scale2;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        m[i] = beta1 * m[i] + one_minus1 * g;
        v[i] = beta2 * v[i] + one_minus2 * g * g;
        w[i] = keep * w[i] - scale1 * m[i] / (square_root(v[i] * scale2) + eps);
        bits |= bits_of(0 * m[i] + 0 * v[i] + 0 * w[i]);
    }
    return bits;
}

static real_int adagrad_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    real *restrict w = job->w + start, *restrict square = job->slots[0] + start;
    const real *restrict dw = job->dw + start;
    real lr = job->lr, l2 = job->l2, eps = job->eps;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        square[i] += g * g;
        w[i] -= lr * g / (square_root(square[i]) + eps);
        bits |= bits_of(0 * square[i] + 0 * w[i]);
    }
    return bits;
}

/* Without a mean it is not centred, without a velocity it has no momentum. */
INLINE real_int rmsprop_run(const update_job *job, ptrdiff_t start, ptrdiff_t count, const int centered,
                            const int moving) {
    real *restrict w = job->w + start, *restrict square = job->slots[0] + start;
    real *restrict mean = centered ? job->slots[1] + start : NULL;
    real *restrict velocity = moving ? job->slots[2] + start : NULL;
    const real *restrict dw = job->dw + start;
    real lr = job->lr, l2 = job->l2, momentum = job->momentum, eps = job->eps;
    real alpha = job->beta2, rest = job->one_minus2;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        square[i] = alpha * square[i] + rest * g * g;
        real variance = square[i];
        if (centered) {
            mean[i] = alpha * mean[i] + rest * g;
            variance -= mean[i] * mean[i];
            variance = variance < 0 ? 0 : variance; /* NaN stays */
        }
        real move = g / (square_root(variance) + eps);
        if (moving)
            move = velocity[i] = momentum * velocity[i] + move;
        w[i] -= lr * move;
        bits |= bits_of(0 * square[i] + (centered ? 0 * mean[i] : 0) + (moving ? 0 * move : 0) + 0 * w[i]);
    }
    return bits;
}

static real_int rmsprop_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    if (job->slots[1])
        return job->slots[2] ? rmsprop_run(job, start, count, 1, 1) : rmsprop_run(job, start, count, 1, 0);
    return job->slots[2] ? rmsprop_run(job, start, count, 0, 1) : rmsprop_run(job, start, count, 0, 0);
}

static real_int adamax_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    real *restrict w = job->w + start, *restrict m = job->slots[0] + start;
    real *restrict u = job->slots[1] + start;
    const real *restrict dw = job->dw + start;
    real l2 = job->l2, beta1 = job->beta1, beta2 = job->beta2, one_minus1 = job->one_minus1;
    real scale1 = job->scale1, eps = job->eps;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        real size = (g < 0 ? -g : g) + eps, old = beta2 * u[i];
        m[i] = beta1 * m[i] + one_minus1 * g;
        u[i] = ((size > old) | (size != size)) ? size : old; /* NaN wins */
        w[i] -= scale1 * m[i] / u[i];
        bits |= bits_of(0 * m[i] + 0 * u[i] + 0 * w[i]);
    }
    return bits;
}

static real_int lion_rule(const update_job *job, ptrdiff_t start, ptrdiff_t count) {
    real *restrict w = job->w + start, *restrict m = job->slots[0] + start;
    const real *restrict dw = job->dw + start;
    real lr = job->lr, l2 = job->l2, keep = job->keep, beta1 = job->beta1, beta2 = job->beta2;
    real one_minus1 = job->one_minus1, one_minus2 = job->one_minus2;
    real_int bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        real c = beta1 * m[i] + one_minus1 * g;
        real sign = c > 0 ? 1 : c < 0 ? -1 : c; /* of NaN it is NaN */
        m[i] = beta2 * m[i] + one_minus2 * g;
        w[i] = keep * w[i] - lr * sign;
        bits |= bits_of(0 * m[i] + 0 * w[i]);
    }
    return bits;
}

typedef struct {
    ptrdiff_t count;
    real l1;
    const real *w;
    real *dw;
    double *sums;
} l1_job;

static void l1_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const l1_job *job = context;
    const real *restrict w = job->w;
    real *restrict dw = job->dw;
    ptrdiff_t end = at_most(job->count, (block + 1) * UPDATE_BLOCK);
    double sum = 0;
    for (ptrdiff_t i = block * UPDATE_BLOCK; i < end; i++) {
        real size = w[i] < 0 ? -w[i] : w[i];
        real sign = w[i] > 0 ? 1 : w[i] < 0 ? -1 : w[i]; /* of NaN it is NaN */
        dw[i] += job->l1 * sign;
        sum += (double)size;
    }
    job->sums[block] = sum;
}

double NAME(add_l1_gradient)(int threads, ptrdiff_t count, double l1, const void *w, void *dw, double *sums) {
    l1_job job = {.count = count, .l1 = (real)l1, .w = w, .dw = dw, .sums = sums};
    ptrdiff_t blocks = ceil_div(count, UPDATE_BLOCK);
    pool_run(threads, blocks, l1_block, &job);
    return add_up(sums, blocks);
}

double NAME(update)(const update_settings *s, int threads, ptrdiff_t count, const update_arrays *arrays) {
    static update_rule *const rules[UPDATE_COUNT] = {
        [UPDATE_SGD] = sgd_rule,         [UPDATE_ADAM] = adam_rule,     [UPDATE_ADAGRAD] = adagrad_rule,
        [UPDATE_RMSPROP] = rmsprop_rule, [UPDATE_ADAMAX] = adamax_rule, [UPDATE_LION] = lion_rule,
    };
    double step = (double)s->step;
    update_job job = {.rule = rules[s->kind],
                      .count = count,
                      .w = arrays->w,
                      .slots = {arrays->slots[0], arrays->slots[1], arrays->slots[2]},
                      .dw = arrays->dw,
                      .sums = arrays->sums,
                      .lr = (real)s->lr,
                      .l2 = (real)s->l2,
                      .keep = (real)(1 - s->lr * s->weight_decay),
                      .momentum = (real)s->momentum,
                      .undamped = (real)(1 - s->dampening),
                      .nesterov = (real)s->nesterov,
                      .beta1 = (real)s->beta1,
                      .beta2 = (real)s->beta2,
                      .one_minus1 = (real)(1 - s->beta1),
                      .one_minus2 = (real)(1 - s->beta2),
                      .eps = (real)s->eps,
                      .scale1 = (real)(s->lr / (1 - pow(s->beta1, step))),
                      .scale2 = (real)(1 / (1 - pow(s->beta2, step)))};
    ptrdiff_t blocks = ceil_div(count, UPDATE_BLOCK);
    pool_run(threads, blocks, update_block, &job);
    return add_up(job.sums, blocks);
}
