/* Batch normalisation and local response normalisation.
 *
 * Batch norm sweeps contiguous memory twice each way: once for the sums of all channels, once
 * to apply them. Sums are taken in blocks that stay in the first-level cache, squares about the
 * block's own mean, and blocks are joined in double and in order (Chan, Golub, LeVeque 1983):
 * nothing cancels, and nothing depends on the number of threads.
 */
#include "elementary.h"
#include "pool.h"
#include "tiles.h"

#define BLOCK_BYTES 16384
#define MAX_CHUNKS 64    /* parts of the batch that are summed apart */
#define COLUMN_VECTORS 4 /* sums that run side by side, since each has to wait for itself */

/* Batch normalisation. The pixels of all images lie end to end. Pixels of few channels are taken
 * several at a time, as one row of `width` reals; what goes with channels is repeated as often. */

typedef struct {
    ptrdiff_t pixels, pixel, repeats, width;
    ptrdiff_t block, blocks, chunks; /* a chunk is a run of blocks, a block so many pixels */
} sweep;

typedef struct {
    sweep w;
    const real *x, *dy;
    real *out;
    double *sums;                           /* two a channel for each chunk */
    real *centre, *factor, *slope, *offset; /* of width */
    real *work;                             /* two of width for each worker */
} batchnorm_job;

static sweep plan_sweep(const image_shape *s, ptrdiff_t n) {
    sweep w = {.pixels = n * s->H * s->W, .pixel = s->pixel};
    ptrdiff_t lines = s->pixel / LANES;
    w.repeats = lines % 4 == 0 ? 1 : lines % 2 == 0 ? 2 : 4;
    w.width = w.repeats * w.pixel;
    w.block = round_up(at_least(8, BLOCK_BYTES / (w.pixel * (ptrdiff_t)sizeof(real))), w.repeats);
    w.blocks = ceil_div(w.pixels, w.block);
    w.chunks = at_most(w.blocks, MAX_CHUNKS);
    return w;
}

static ptrdiff_t count_sums(const sweep *w) {
    return w->chunks * 2 * w->pixel * (ptrdiff_t)(sizeof(double) / sizeof(real));
}

ptrdiff_t NAME(batchnorm_scratch)(const batchnorm_shape *s, ptrdiff_t n, int threads) {
    sweep w = plan_sweep(&s->x, n);
    return count_sums(&w) + (4 + 2 * threads) * w.width;
}

static batchnorm_job place_scratch(const batchnorm_shape *s, ptrdiff_t n, real *scratch) {
    batchnorm_job job = {.w = plan_sweep(&s->x, n), .sums = (double *)scratch};
    job.centre = scratch + count_sums(&job.w);
    job.factor = job.centre + job.w.width;
    job.slope = job.factor + job.w.width;
    job.offset = job.slope + job.w.width;
    job.work = job.offset + job.w.width;
    return job;
}

/* Number of pixels of a block, and the last + 1 block of a chunk. */
static ptrdiff_t block_pixels(const sweep *w, ptrdiff_t block) {
    return at_most(w->block, w->pixels - block * w->block);
}
static ptrdiff_t first_block(const sweep *w, ptrdiff_t chunk) { return w->blocks * chunk / w->chunks; }

/* Call function(vectors, j, rows, ...) with a constant number of vectors for columns j. */
#define BY_COLUMNS(first, end, function, rows, ...)                                                          \
    for (ptrdiff_t j = first; j < (end);) {                                                                  \
        if ((end) - j >= COLUMN_VECTORS * VLEN) {                                                            \
            function(COLUMN_VECTORS, j, rows, __VA_ARGS__);                                                  \
            j += COLUMN_VECTORS * VLEN;                                                                      \
        } else {                                                                                             \
            function(1, j, rows, __VA_ARGS__);                                                               \
            j += VLEN;                                                                                       \
        }                                                                                                    \
    }
/* The same for all columns of `count` pixels, whose last row may be a shorter one. */
#define BY_PIXELS(w, count, function, ...)                                                                   \
    {                                                                                                        \
        ptrdiff_t rows = (count) / (w)->repeats, edge = (count) % (w)->repeats * (w)->pixel;                 \
        BY_COLUMNS(0, edge, function, rows + 1, (w)->width, __VA_ARGS__)                                     \
        BY_COLUMNS(edge, (w)->width, function, rows, (w)->width, __VA_ARGS__)                                \
    }

INLINE void load_columns(const ptrdiff_t vectors, vec columns[COLUMN_VECTORS], const real *from) {
    UNROLLED (v, vectors)
        columns[v] = load(from + v * VLEN);
}

/* sums[j] = sum of x over the rows. */
INLINE void sum_columns(const ptrdiff_t vectors, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t width, const real *x,
                        real *sums) {
    vec sum[COLUMN_VECTORS] = {0};
    for (ptrdiff_t row = 0; row < rows; row++)
        UNROLLED (v, vectors)
            sum[v] += load(x + row * width + j + v * VLEN);
    UNROLLED (v, vectors)
        store(sums + j + v * VLEN, sum[v]);
}

/* sums[j] = sum of (x - centre)^2. */
INLINE void square_columns(const ptrdiff_t vectors, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t width,
                           const real *x, const real *centre, real *sums) {
    vec sum[COLUMN_VECTORS] = {0}, middle[COLUMN_VECTORS];
    load_columns(vectors, middle, centre + j);
    for (ptrdiff_t row = 0; row < rows; row++) {
        UNROLLED (v, vectors) {
            vec distance = load(x + row * width + j + v * VLEN) - middle[v];
            sum[v] += distance * distance;
        }
    }
    UNROLLED (v, vectors)
        store(sums + j + v * VLEN, sum[v]);
}

/* sums[j] = sum of dy, products[j] = sum of dy (x - centre). */
INLINE void gradient_columns(const ptrdiff_t vectors, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t width,
                             const real *dy, const real *x, const real *centre, real *sums, real *products) {
    vec sum[COLUMN_VECTORS] = {0}, product[COLUMN_VECTORS] = {0}, middle[COLUMN_VECTORS];
    load_columns(vectors, middle, centre + j);
    for (ptrdiff_t row = 0; row < rows; row++) {
        UNROLLED (v, vectors) {
            vec gradient = load(dy + row * width + j + v * VLEN);
            sum[v] += gradient;
            product[v] += gradient * (load(x + row * width + j + v * VLEN) - middle[v]);
        }
    }
    UNROLLED (v, vectors) {
        store(sums + j + v * VLEN, sum[v]);
        store(products + j + v * VLEN, product[v]);
    }
}

/* y = (x - centre) factor + offset. */
INLINE void apply_columns(const ptrdiff_t vectors, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t width,
                          const batchnorm_job *job, const real *x, real *y) {
    vec middle[COLUMN_VECTORS], factor[COLUMN_VECTORS], offset[COLUMN_VECTORS];
    load_columns(vectors, middle, job->centre + j);
    load_columns(vectors, factor, job->factor + j);
    load_columns(vectors, offset, job->offset + j);
    for (ptrdiff_t row = 0; row < rows; row++) {
        UNROLLED (v, vectors) {
            ptrdiff_t at = row * width + j + v * VLEN;
            store(y + at, (load(x + at) - middle[v]) * factor[v] + offset[v]);
        }
    }
}

/* dx = dy factor + (x - centre) slope + offset. */
INLINE void apply_gradient_columns(const ptrdiff_t vectors, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t width,
                                   const batchnorm_job *job, const real *dy, const real *x, real *dx) {
    vec middle[COLUMN_VECTORS], factor[COLUMN_VECTORS], slope[COLUMN_VECTORS], offset[COLUMN_VECTORS];
    load_columns(vectors, middle, job->centre + j);
    load_columns(vectors, factor, job->factor + j);
    load_columns(vectors, slope, job->slope + j);
    load_columns(vectors, offset, job->offset + j);
    for (ptrdiff_t row = 0; row < rows; row++) {
        UNROLLED (v, vectors) {
            ptrdiff_t at = row * width + j + v * VLEN;
            store(dx + at, load(dy + at) * factor[v] + ((load(x + at) - middle[v]) * slope[v] + offset[v]));
        }
    }
}

/* Repeat the first `pixel` reals to the whole width. */
static void repeat_channels(const sweep *w, real *channels) {
    for (ptrdiff_t j = w->pixel; j < w->width; j++)
        channels[j] = channels[j - w->pixel];
}

/* Add up what belongs to one channel: the first `pixel` reals become its sums. */
static void fold_channels(const sweep *w, real *sums) {
    for (ptrdiff_t j = w->pixel; j < w->width; j++)
        sums[j % w->pixel] += sums[j];
}

/* Join mean and squared distances from it, of `before` pixels, with those of `count` more. */
static void join_channel(double *mean, double *squares, double more_mean, double more_squares,
                         ptrdiff_t before, ptrdiff_t count) {
    double share = (double)count / (double)(before + count), distance = more_mean - *mean;
    *mean += distance * share;
    *squares += more_squares + distance * distance * share * (double)before;
}

static void sum_chunk(const void *context, ptrdiff_t chunk, int worker) {
    const batchnorm_job *job = context;
    const sweep *w = &job->w;
    double *mean = job->sums + chunk * 2 * w->pixel, *squares = mean + w->pixel;
    real *block_mean = job->work + worker * 2 * w->width, *block_squares = block_mean + w->width;
    memset(mean, 0, (size_t)(2 * w->pixel) * sizeof(double));
    ptrdiff_t before = 0;
    for (ptrdiff_t block = first_block(w, chunk); block < first_block(w, chunk + 1); block++) {
        ptrdiff_t count = block_pixels(w, block);
        const real *x = job->x + block * w->block * w->pixel;
        BY_PIXELS(w, count, sum_columns, x, block_mean)
        fold_channels(w, block_mean);
        for (ptrdiff_t c = 0; c < w->pixel; c++)
            block_mean[c] /= (real)count;
        repeat_channels(w, block_mean);
        BY_PIXELS(w, count, square_columns, x, block_mean, block_squares)
        fold_channels(w, block_squares);
        for (ptrdiff_t c = 0; c < w->pixel; c++)
            join_channel(mean + c, squares + c, block_mean[c], block_squares[c], before, count);
        before += count;
    }
}

static void apply_chunk(const void *context, ptrdiff_t chunk, int worker) {
    (void)worker;
    const batchnorm_job *job = context;
    const sweep *w = &job->w;
    for (ptrdiff_t block = first_block(w, chunk); block < first_block(w, chunk + 1); block++) {
        ptrdiff_t at = block * w->block * w->pixel;
        BY_PIXELS(w, block_pixels(w, block), apply_columns, job, job->x + at, job->out + at)
    }
}

/* Apply these statistics to every pixel. */
static void apply_statistics(batchnorm_job *job, int threads, double eps, const real *mean, const real *var,
                             const real *gamma, const real *beta) {
    const sweep *w = &job->w;
    for (ptrdiff_t c = 0; c < w->pixel; c++) {
        job->centre[c] = mean[c];
        job->factor[c] = (real)(gamma[c] / sqrt(var[c] + eps));
        job->offset[c] = beta[c];
    }
    repeat_channels(w, job->centre);
    repeat_channels(w, job->factor);
    repeat_channels(w, job->offset);
    pool_run(threads, w->chunks, apply_chunk, job);
}

void NAME(batchnorm_forward)(const batchnorm_shape *s, int threads, ptrdiff_t n, const void *x,
                             const void *gamma, const void *beta, void *y, void *mean, void *var,
                             void *running_mean, void *running_var, void *scratch) {
    batchnorm_job job = place_scratch(s, n, scratch);
    const sweep *w = &job.w;
    job.x = x;
    job.out = y;
    pool_run(threads, w->chunks, sum_chunk, &job);
    for (ptrdiff_t c = 0; c < w->pixel; c++) {
        double all_mean = 0, squares = 0;
        for (ptrdiff_t chunk = 0; chunk < w->chunks; chunk++) {
            const double *sums = job.sums + chunk * 2 * w->pixel;
            ptrdiff_t before = at_most(w->pixels, first_block(w, chunk) * w->block);
            ptrdiff_t end = at_most(w->pixels, first_block(w, chunk + 1) * w->block);
            join_channel(&all_mean, &squares, sums[c], sums[w->pixel + c], before, end - before);
        }
        double count = (double)at_least(w->pixels, 1),
               unbiased = squares / (double)at_least(w->pixels - 1, 1);
        ((real *)mean)[c] = (real)all_mean;
        ((real *)var)[c] = (real)(squares / count);
        if (running_mean && w->pixels) {
            real *moved_mean = running_mean, *moved_var = running_var;
            moved_mean[c] = (real)(moved_mean[c] + s->momentum * (all_mean - moved_mean[c]));
            moved_var[c] = (real)(moved_var[c] + s->momentum * (unbiased - moved_var[c]));
        }
    }
    apply_statistics(&job, threads, s->eps, mean, var, gamma, beta);
}

void NAME(batchnorm_inference)(const batchnorm_shape *s, int threads, ptrdiff_t n, const void *x,
                               const void *gamma, const void *beta, const void *mean, const void *var,
                               void *y, void *scratch) {
    batchnorm_job job = place_scratch(s, n, scratch);
    job.x = x;
    job.out = y;
    apply_statistics(&job, threads, s->eps, mean, var, gamma, beta);
}

static void sum_gradient_chunk(const void *context, ptrdiff_t chunk, int worker) {
    const batchnorm_job *job = context;
    const sweep *w = &job->w;
    double *sums = job->sums + chunk * 2 * w->pixel, *products = sums + w->pixel;
    real *block_sums = job->work + worker * 2 * w->width, *block_products = block_sums + w->width;
    memset(sums, 0, (size_t)(2 * w->pixel) * sizeof(double));
    for (ptrdiff_t block = first_block(w, chunk); block < first_block(w, chunk + 1); block++) {
        ptrdiff_t at = block * w->block * w->pixel;
        BY_PIXELS(w, block_pixels(w, block), gradient_columns, job->dy + at, job->x + at, job->centre,
                  block_sums, block_products)
        fold_channels(w, block_sums);
        fold_channels(w, block_products);
        for (ptrdiff_t c = 0; c < w->pixel; c++) {
            sums[c] += block_sums[c];
            products[c] += block_products[c];
        }
    }
}

static void apply_gradient_chunk(const void *context, ptrdiff_t chunk, int worker) {
    (void)worker;
    const batchnorm_job *job = context;
    const sweep *w = &job->w;
    for (ptrdiff_t block = first_block(w, chunk); block < first_block(w, chunk + 1); block++) {
        ptrdiff_t at = block * w->block * w->pixel;
        BY_PIXELS(w, block_pixels(w, block), apply_gradient_columns, job, job->dy + at, job->x + at,
                  job->out + at)
    }
}

void NAME(batchnorm_backward)(const batchnorm_shape *s, int threads, ptrdiff_t n, const void *dy,
                              const void *x, const void *gamma, const void *mean, const void *var, void *dx,
                              void *dgamma, void *dbeta, void *scratch) {
    batchnorm_job job = place_scratch(s, n, scratch);
    const sweep *w = &job.w;
    job.x = x;
    job.dy = dy;
    job.out = dx;
    memcpy(job.centre, mean, (size_t)w->pixel * sizeof(real));
    repeat_channels(w, job.centre);
    pool_run(threads, w->chunks, sum_gradient_chunk, &job);
    for (ptrdiff_t c = 0; c < w->pixel; c++) {
        double sum = 0, product = 0, count = (double)at_least(w->pixels, 1);
        for (ptrdiff_t chunk = 0; chunk < w->chunks; chunk++) {
            sum += job.sums[chunk * 2 * w->pixel + c];
            product += job.sums[(chunk * 2 + 1) * w->pixel + c];
        }
        double scale = 1 / sqrt(((const real *)var)[c] + s->eps), factor = ((const real *)gamma)[c] * scale;
        ((real *)dgamma)[c] = (real)(product * scale);
        ((real *)dbeta)[c] = (real)sum;
        job.factor[c] = (real)factor;
        job.slope[c] = (real)(-factor * scale * scale * product / count);
        job.offset[c] = (real)(-factor * sum / count);
    }
    if (!dx)
        return;
    repeat_channels(w, job.factor);
    repeat_channels(w, job.slope);
    repeat_channels(w, job.offset);
    pool_run(threads, w->chunks, apply_gradient_chunk, &job);
}

/* Local response normalisation, a few pixels at a time: squares go to rows with zeros on either
 * side, so that sums of neighbours are sums of shifted rows. */

#define STRIP 8 /* pixels, so that what was just stored has reached the cache when it is loaded */

typedef struct {
    const lrn_shape *s;
    ptrdiff_t row; /* reals of a padded row */
    const real *x, *dy;
    real *out, *scratch; /* three strips of rows for each worker */
} lrn_job;

static ptrdiff_t lrn_row(const lrn_shape *s) { return round_up(s->x.pixel + s->size, LANES); }

ptrdiff_t NAME(lrn_scratch)(const lrn_shape *s, int threads) { return threads * 3 * STRIP * lrn_row(s); }

/* s^-beta; for 3/4, the usual exponent, without logarithms. */
INLINE vec lrn_power(const lrn_shape *s, vec sums) {
    if (s->beta == 0.75) {
        vec root = inverse_fourth_root(sums);
        return root * root * root;
    }
    return exponential(logarithm(sums) * (real)-s->beta);
}

/* For each channel the sum over `size` neighbours, which begin at that channel of the padded row. */
INLINE vec sum_neighbours(const real *padded, ptrdiff_t size) {
    vec sum = load(padded);
    for (ptrdiff_t j = 1; j < size; j++)
        sum += load(padded + j);
    return sum;
}

/* k + alpha/size (squares of the neighbours). */
INLINE vec lrn_sums(const lrn_shape *s, const real *padded) {
    return sum_neighbours(padded, s->size) * (real)(s->alpha / (double)s->size) + (real)s->k;
}

static void square_strip(const lrn_job *job, ptrdiff_t pixels, const real *x, real *squares) {
    ptrdiff_t pixel = job->s->x.pixel, before = job->s->size / 2;
    for (ptrdiff_t i = 0; i < pixels; i++)
        for (ptrdiff_t c = 0; c < pixel; c += VLEN) {
            vec value = load(x + i * pixel + c);
            store(squares + i * job->row + before + c, value * value);
        }
}

/* The padding of a pixel is zero, whatever infinities its neighbours made of it. */
INLINE void clear_padding(const image_shape *s, real *pixel) {
    memset(pixel + s->C, 0, (size_t)(s->pixel - s->C) * sizeof(real));
}

static void lrn_forward_strip(const lrn_job *job, ptrdiff_t pixels, const real *x, real *squares, real *y) {
    const image_shape *s = &job->s->x;
    square_strip(job, pixels, x, squares);
    for (ptrdiff_t i = 0; i < pixels; i++) {
        for (ptrdiff_t c = 0; c < s->pixel; c += VLEN) {
            vec power = lrn_power(job->s, lrn_sums(job->s, squares + i * job->row + c));
            store(y + i * s->pixel + c, load(x + i * s->pixel + c) * power);
        }
        clear_padding(s, y + i * s->pixel);
    }
}

static void lrn_forward_image(const void *context, ptrdiff_t n, int worker) {
    const lrn_job *job = context;
    const image_shape *s = &job->s->x;
    real *squares = job->scratch + worker * 3 * STRIP * job->row;
    memset(squares, 0, (size_t)(STRIP * job->row) * sizeof(real));
    for (ptrdiff_t i = 0; i < s->H * s->W; i += STRIP) {
        ptrdiff_t at = n * s->image + i * s->pixel;
        lrn_forward_strip(job, at_most(STRIP, s->H * s->W - i), job->x + at, squares, job->out + at);
    }
}

void NAME(lrn_forward)(const lrn_shape *s, int threads, ptrdiff_t n, const void *x, void *y, void *scratch) {
    lrn_job job = {.s = s, .row = lrn_row(s), .x = x, .out = y, .scratch = scratch};
    pool_run(threads, n, lrn_forward_image, &job);
}

static void lrn_backward_strip(const lrn_job *job, ptrdiff_t pixels, const real *dy, const real *x,
                               real *squares, real *dx) {
    const image_shape *s = &job->s->x;
    ptrdiff_t size = job->s->size, pixel = s->pixel;
    real *products = squares + STRIP * job->row, *powers = products + STRIP * job->row;
    real share = (real)(2 * job->s->alpha * job->s->beta / (double)size);
    square_strip(job, pixels, x, squares);
    for (ptrdiff_t i = 0; i < pixels; i++) {
        real *product = products + i * job->row + (size - 1) / 2; /* the neighbourhood mirrored */
        for (ptrdiff_t c = 0; c < pixel; c += VLEN) {
            vec sums = lrn_sums(job->s, squares + i * job->row + c), power = lrn_power(job->s, sums);
            store(powers + i * job->row + c, power);
            store(product + c, load(dy + i * pixel + c) * load(x + i * pixel + c) * power / sums);
        }
        clear_padding(s, product);
    }
    for (ptrdiff_t i = 0; i < pixels; i++) {
        for (ptrdiff_t c = 0; c < pixel; c += VLEN) {
            vec across = sum_neighbours(products + i * job->row + c, size) * share;
            vec straight = load(dy + i * pixel + c) * load(powers + i * job->row + c);
            store(dx + i * pixel + c, straight - load(x + i * pixel + c) * across);
        }
        clear_padding(s, dx + i * pixel);
    }
}

static void lrn_backward_image(const void *context, ptrdiff_t n, int worker) {
    const lrn_job *job = context;
    const image_shape *s = &job->s->x;
    real *squares = job->scratch + worker * 3 * STRIP * job->row;
    memset(squares, 0, (size_t)(2 * STRIP * job->row) * sizeof(real));
    for (ptrdiff_t i = 0; i < s->H * s->W; i += STRIP) {
        ptrdiff_t at = n * s->image + i * s->pixel, pixels = at_most(STRIP, s->H * s->W - i);
        lrn_backward_strip(job, pixels, job->dy + at, job->x + at, squares, job->out + at);
    }
}

void NAME(lrn_backward)(const lrn_shape *s, int threads, ptrdiff_t n, const void *dy, const void *x, void *dx,
                        void *scratch) {
    lrn_job job = {.s = s, .row = lrn_row(s), .dy = dy, .x = x, .out = dx, .scratch = scratch};
    pool_run(threads, n, lrn_backward_image, &job);
}
