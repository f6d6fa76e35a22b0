/* Pooling and ReLU on their own, layouts, softmax cross-entropy and the optimizers' updates.
 *
 * All of it is bound by memory, not arithmetic: one pass each, in tasks of fixed size.
 */
#include "maxpool.h"
#include "pool.h"
#include "tiles.h"

/* Max pooling */

typedef struct {
    const maxpool_shape *s;
    const real *in;
    real *out;
    const tap_index *index_in;
    tap_index *index_out;
} maxpool_job;

static void maxpool_forward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const maxpool_job *job = context;
    const maxpool_shape *s = job->s;
    maxpool_image(&s->x, &s->y, &s->window, job->in + n * s->x.image, job->out + n * s->y.image,
                  job->index_out + n * s->y.image);
}

void NAME(maxpool_forward)(const maxpool_shape *s, int threads, ptrdiff_t n, const void *x, void *y,
                           tap_index *index) {
    maxpool_job job = {.s = s, .in = x, .out = y, .index_out = index};
    pool_run(threads, n, maxpool_forward_image, &job);
}

static void maxpool_backward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const maxpool_job *job = context;
    const maxpool_shape *s = job->s;
    unpool_image(&s->x, &s->y, &s->window, job->in + n * s->y.image, NULL, job->index_in + n * s->y.image,
                 job->out + n * s->x.image);
}

void NAME(maxpool_backward)(const maxpool_shape *s, int threads, ptrdiff_t n, const void *dy,
                            const tap_index *index, void *dx) {
    maxpool_job job = {.s = s, .in = dy, .index_in = index, .out = dx};
    pool_run(threads, n, maxpool_backward_image, &job);
}

/* ReLU, on any number of reals that is a multiple of LANES */

#define RELU_BLOCK (1 << 14)

typedef struct {
    ptrdiff_t count;
    const real *in, *y;
    real *out;
} relu_job;

static void relu_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const relu_job *job = context;
    ptrdiff_t start = block * RELU_BLOCK, count = at_most(RELU_BLOCK, job->count - start);
    if (job->y) {
        relu_gradient_row(count, job->in + start, job->y + start, job->out + start);
        return;
    }
    for (ptrdiff_t i = start; i < start + count; i += VLEN)
        store(job->out + i, relu_vector(load(job->in + i)));
}

void NAME(relu_forward)(int threads, ptrdiff_t count, const void *x, void *y) {
    relu_job job = {.count = count, .in = x, .out = y};
    pool_run(threads, ceil_div(count, RELU_BLOCK), relu_block, &job);
}

void NAME(relu_backward)(int threads, ptrdiff_t count, const void *dy, const void *y, void *dx) {
    relu_job job = {.count = count, .in = dy, .y = y, .out = dx};
    pool_run(threads, ceil_div(count, RELU_BLOCK), relu_block, &job);
}

/* Layouts */

typedef struct {
    const image_shape *s;
    const real *from;
    real *to;
} layout_job;

static void import_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const layout_job *job = context;
    const image_shape *s = job->s;
    ptrdiff_t plane = s->H * s->W, used = plane * s->pixel;
    const real *from = job->from + n * s->C * plane;
    real *to = job->to + n * s->image;
    for (ptrdiff_t i = 0; i < plane; i++) {
        for (ptrdiff_t c = 0; c < s->C; c++)
            to[i * s->pixel + c] = from[c * plane + i];
        for (ptrdiff_t c = s->C; c < s->pixel; c++)
            to[i * s->pixel + c] = 0;
    }
    memset(to + used, 0, (size_t)(s->image - used) * sizeof(real));
}

void NAME(import_images)(const image_shape *s, int threads, ptrdiff_t n, const void *nchw, void *nhwc) {
    layout_job job = {s, nchw, nhwc};
    pool_run(threads, n, import_image, &job);
}

static void export_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const layout_job *job = context;
    const image_shape *s = job->s;
    ptrdiff_t plane = s->H * s->W;
    const real *from = job->from + n * s->image;
    real *to = job->to + n * s->C * plane;
    for (ptrdiff_t c = 0; c < s->C; c++)
        for (ptrdiff_t i = 0; i < plane; i++)
            to[c * plane + i] = from[i * s->pixel + c];
}

void NAME(export_images)(const image_shape *s, int threads, ptrdiff_t n, const void *nhwc, void *nchw) {
    layout_job job = {s, nhwc, nchw};
    pool_run(threads, n, export_image, &job);
}

/* Softmax cross-entropy: a few thousand numbers a step, so plainly, and summed in double */

double NAME(softmax_forward)(ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, const void *scores,
                             const int64_t *labels, void *p, ptrdiff_t *correct) {
    double loss = 0;
    *correct = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const real *s = (const real *)scores + i * row;
        real *probability = (real *)p + i * row;
        ptrdiff_t first = 0; /* of the maxima; a NaN is one */
        for (ptrdiff_t k = 1; k < classes; k++)
            if (s[k] > s[first] || (s[k] != s[k] && s[first] == s[first]))
                first = k;
        double sum = 0, top = s[first], label = s[labels[i]]; /* p may lie where the scores do */
        for (ptrdiff_t k = 0; k < classes; k++)
            sum += probability[k] = (real)exp(s[k] - top);
        for (ptrdiff_t k = 0; k < classes; k++)
            probability[k] = (real)(probability[k] / sum);
        memset(probability + classes, 0, (size_t)(row - classes) * sizeof(real));
        loss += log(sum) - (label - top);
        *correct += first == labels[i];
    }
    return n ? loss / (double)n : 0;
}

void NAME(softmax_backward)(ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, const void *p,
                            const int64_t *labels, void *dscores) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const real *probability = (const real *)p + i * row;
        real *d = (real *)dscores + i * row;
        for (ptrdiff_t k = 0; k < classes; k++)
            d[k] = (probability[k] - (real)(k == labels[i])) / (real)n;
        memset(d + classes, 0, (size_t)(row - classes) * sizeof(real));
    }
}

/* Updates */

typedef struct {
    ptrdiff_t count;
    real *w, *first, *second; /* the slots: velocity; m and v */
    const real *dw;
    double *sums;
    real lr, l2, momentum, nesterov;                                /* SGD */
    real beta1, beta2, eps, one_minus1, one_minus2, scale1, scale2; /* Adam */
} update_job;

/* Sum of squares of up to UPDATE_BLOCK reals, in a fixed order. */
INLINE double sum_squares(const real *w, ptrdiff_t count) {
    double total = 0;
    for (ptrdiff_t start = 0; start < count; start += 512) {
        real lanes[64] = {0};
        ptrdiff_t end = at_most(count, start + 512), i = start;
        for (; i + 64 <= end; i += 64)
            for (ptrdiff_t lane = 0; lane < 64; lane++)
                lanes[lane] += w[i + lane] * w[i + lane];
        for (; i < end; i++)
            lanes[0] += w[i] * w[i];
        for (ptrdiff_t lane = 0; lane < 64; lane++)
            total += lanes[lane];
    }
    return total;
}

static double run_update(update_job *job, int threads, pool_task *task) {
    ptrdiff_t blocks = ceil_div(job->count, UPDATE_BLOCK);
    pool_run(threads, blocks, task, job);
    double total = 0;
    for (ptrdiff_t block = 0; block < blocks; block++)
        total += job->sums[block];
    return total;
}

static void sgd_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const update_job *job = context;
    ptrdiff_t start = block * UPDATE_BLOCK, count = at_most(UPDATE_BLOCK, job->count - start);
    real *restrict w = job->w + start, *restrict velocity = job->first + start;
    const real *restrict dw = job->dw + start;
    real lr = job->lr, l2 = job->l2, momentum = job->momentum, nesterov = job->nesterov;
    job->sums[block] = sum_squares(w, count);
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        real v = momentum * velocity[i] + g;
        velocity[i] = v;
        w[i] -= lr * (nesterov != 0 ? g + momentum * v : v);
    }
}

double NAME(sgd_update)(const sgd_settings *settings, int threads, ptrdiff_t count, void *w, const void *dw,
                        void *velocity, double *sums) {
    update_job job = {.count = count,
                      .w = w,
                      .first = velocity,
                      .dw = dw,
                      .sums = sums,
                      .lr = (real)settings->lr,
                      .l2 = (real)settings->l2,
                      .momentum = (real)settings->momentum,
                      .nesterov = (real)settings->nesterov};
    return run_update(&job, threads, sgd_block);
}

static void adam_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const update_job *job = context;
    ptrdiff_t start = block * UPDATE_BLOCK, count = at_most(UPDATE_BLOCK, job->count - start);
    real *restrict w = job->w + start, *restrict m = job->first + start, *restrict v = job->second + start;
    const real *restrict dw = job->dw + start;
    real l2 = job->l2, beta1 = job->beta1, beta2 = job->beta2, eps = job->eps;
    real one_minus1 = job->one_minus1, one_minus2 = job->one_minus2;
    real scale1 = job->scale1, scale2 = job->scale2;
    job->sums[block] = sum_squares(w, count);
    for (ptrdiff_t i = 0; i < count; i++) {
        real g = dw[i] + l2 * w[i];
        m[i] = beta1 * m[i] + one_minus1 * g;
        v[i] = beta2 * v[i] + one_minus2 * g * g;
#if REAL_BITS == 64
        w[i] -= scale1 * m[i] / (sqrt(v[i] * scale2) + eps);
#else
        w[i] -= scale1 * m[i] / (sqrtf(v[i] * scale2) + eps);
#endif
    }
}

double NAME(adam_update)(const adam_settings *settings, int threads, ptrdiff_t count, void *w, const void *dw,
                         void *m, void *v, double *sums) {
    double step = (double)settings->step;
    update_job job = {.count = count,
                      .w = w,
                      .first = m,
                      .second = v,
                      .dw = dw,
                      .sums = sums,
                      .l2 = (real)settings->l2,
                      .beta1 = (real)settings->beta1,
                      .beta2 = (real)settings->beta2,
                      .eps = (real)settings->eps,
                      .one_minus1 = (real)(1 - settings->beta1),
                      .one_minus2 = (real)(1 - settings->beta2),
                      .scale1 = (real)(settings->lr / (1 - pow(settings->beta1, step))),
                      .scale2 = (real)(1 / (1 - pow(settings->beta2, step)))};
    return run_update(&job, threads, adam_block);
}
