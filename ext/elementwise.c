/* Pooling, activations and dropout on their own, and layouts.
 *
 * All of it is bound by memory, not arithmetic: one pass each, in tasks of fixed size.
 */
#include "activation.h"
#include "pool.h"
#include "pooling.h"
#include "tiles.h"

#define BLOCK (1 << 14) /* reals of a task that needs no image to be whole */

/* Pooling */

typedef struct {
    const pool_shape *s;
    const real *in;
    real *out;
    const tap_index *index_in;
    tap_index *index_out;
} pooling_job;

static void maxpool_forward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const pooling_job *job = context;
    const pool_shape *s = job->s;
    maxpool_image(&s->x, &s->y, &s->window, job->in + n * s->x.image, job->out + n * s->y.image,
                  job->index_out + n * s->y.image);
}

void NAME(maxpool_forward)(const pool_shape *s, int threads, ptrdiff_t n, const void *x, void *y,
                           tap_index *index) {
    pooling_job job = {.s = s, .in = x, .out = y, .index_out = index};
    pool_run(threads, n, maxpool_forward_image, &job);
}

static void maxpool_backward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const pooling_job *job = context;
    const pool_shape *s = job->s;
    unpool_maxima(ACTIVATION_NONE, 0, &s->x, &s->y, &s->window, job->in + n * s->y.image, NULL,
                  job->index_in + n * s->y.image, job->out + n * s->x.image);
}

void NAME(maxpool_backward)(const pool_shape *s, int threads, ptrdiff_t n, const void *dy,
                            const tap_index *index, void *dx) {
    pooling_job job = {.s = s, .in = dy, .index_in = index, .out = dx};
    pool_run(threads, n, maxpool_backward_image, &job);
}

static void avgpool_forward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const pooling_job *job = context;
    const pool_shape *s = job->s;
    avgpool_image(&s->x, &s->y, &s->window, job->in + n * s->x.image, job->out + n * s->y.image);
}

void NAME(avgpool_forward)(const pool_shape *s, int threads, ptrdiff_t n, const void *x, void *y) {
    pooling_job job = {.s = s, .in = x, .out = y};
    pool_run(threads, n, avgpool_forward_image, &job);
}

static void avgpool_backward_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const pooling_job *job = context;
    const pool_shape *s = job->s;
    unpool_averages(&s->x, &s->y, &s->window, job->in + n * s->y.image, job->out + n * s->x.image);
}

void NAME(avgpool_backward)(const pool_shape *s, int threads, ptrdiff_t n, const void *dy, void *dx) {
    pooling_job job = {.s = s, .in = dy, .out = dx};
    pool_run(threads, n, avgpool_backward_image, &job);
}

/* Activations, over all reals there are */

typedef struct {
    activation_kind kind;
    real alpha;
    const image_shape *s;
    ptrdiff_t count;
    const real *in, *known; /* x, NULL; or dy, x or y */
    real *out;
} activation_job;

INLINE void activate_row(const activation_kind kind, real alpha, ptrdiff_t count, const real *x, real *y) {
    for (ptrdiff_t i = 0; i < count; i += VLEN)
        store(y + i, activate(kind, alpha, load(x + i)));
}

INLINE void activation_gradient_row(const activation_kind kind, real alpha, ptrdiff_t count, const real *dy,
                                    const real *x_or_y, real *dx) {
    for (ptrdiff_t i = 0; i < count; i += VLEN)
        store(dx + i, activation_gradient(kind, alpha, load(dy + i), load(x_or_y + i)));
}

static void activation_forward_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const activation_job *job = context;
    ptrdiff_t start = block * BLOCK, count = at_most(BLOCK, job->count - start);
    DISPATCH_ACTIVATION(job->kind, activate_row, job->alpha, count, job->in + start, job->out + start)
}

static void activation_backward_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const activation_job *job = context;
    ptrdiff_t start = block * BLOCK, count = at_most(BLOCK, job->count - start);
    DISPATCH_ACTIVATION(job->kind, activation_gradient_row, job->alpha, count, job->in + start,
                        job->known + start, job->out + start)
}

static void clear_padding_of_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const activation_job *job = context;
    const image_shape *s = job->s;
    for (ptrdiff_t i = 0; i < s->H * s->W; i++)
        memset(job->out + n * s->image + i * s->pixel + s->C, 0, (size_t)(s->pixel - s->C) * sizeof(real));
}

void NAME(activation_forward)(activation_kind kind, double alpha, const image_shape *s, int threads,
                              ptrdiff_t n, const void *x, void *y) {
    activation_job job = {
        .kind = kind, .alpha = (real)alpha, .s = s, .count = n * s->image, .in = x, .out = y};
    pool_run(threads, ceil_div(job.count, BLOCK), activation_forward_block, &job);
    if (kind == ACTIVATION_SIGMOID && s->pixel > s->C) /* of 0 it is 1/2 */
        pool_run(threads, n, clear_padding_of_image, &job);
}

void NAME(activation_backward)(activation_kind kind, double alpha, const image_shape *s, int threads,
                               ptrdiff_t n, const void *dy, const void *x_or_y, void *dx) {
    activation_job job = {.kind = kind,
                          .alpha = (real)alpha,
                          .s = s,
                          .count = n * s->image,
                          .in = dy,
                          .known = x_or_y,
                          .out = dx};
    pool_run(threads, ceil_div(job.count, BLOCK), activation_backward_block, &job);
}

/* Dropout */

typedef struct {
    const image_shape *s;
    ptrdiff_t pixels, block; /* of all images; of a task */
    const real *x;
    real *y;
    uint32_t threshold, low, high;
    real scale;
    int spatial;
} dropout_job;

typedef uint32_t hash_vec __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(uint32_t))));

/* Wellons' lowbias32: every bit of the result depends on every bit of h. */
INLINE hash_vec mix_bits(hash_vec h) {
    h = (h ^ h >> 16) * 0x7feb352du;
    h = (h ^ h >> 15) * 0x846ca68bu;
    return h ^ h >> 16;
}

static void dropout_block(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const dropout_job *job = context;
    const image_shape *s = job->s;
    hash_vec lanes;
    for (uint32_t lane = 0; lane < VLEN; lane++)
        lanes[lane] = lane + job->low;
    ptrdiff_t end = at_most(job->pixels, (block + 1) * job->block);
    for (ptrdiff_t pixel = block * job->block; pixel < end; pixel++) {
        ptrdiff_t first = (job->spatial ? pixel / (s->H * s->W) : pixel) * s->C;
        for (ptrdiff_t c = 0; c < s->pixel; c += VLEN) {
            hash_vec hash = mix_bits(mix_bits(lanes + (uint32_t)(first + c)) ^ job->high);
            mask kept = __builtin_convertvector(hash >= job->threshold, mask);
            vec value = load(job->x + pixel * s->pixel + c) * job->scale;
            store(job->y + pixel * s->pixel + c, (vec)((mask)value & kept));
        }
    }
}

void NAME(dropout)(const image_shape *s, int threads, ptrdiff_t n, double rate, int spatial, uint64_t key,
                   const void *x, void *y) {
    dropout_job job = {.s = s,
                       .pixels = n * s->H * s->W,
                       .block = ceil_div(BLOCK, s->pixel),
                       .x = x,
                       .y = y,
                       .threshold = (uint32_t)(rate * 4294967296.0),
                       .low = (uint32_t)key,
                       .high = (uint32_t)(key >> 32),
                       .scale = (real)(1 / (1 - rate)),
                       .spatial = spatial};
    pool_run(threads, ceil_div(job.pixels, job.block), dropout_block, &job);
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
