/* Batch, group and local response normalisation, and the scaling of channels.
 *
 * Batch norm sweeps contiguous memory twice each way: once for the sums of all channels, once
 * to apply them; group norm does so image by image. Sums are taken in blocks that stay in the first-level
 * cache, squares about the block's own mean, and blocks are joined in double and in order (Chan, Golub,
 * LeVeque 1983): nothing cancels, and nothing depends on the number of threads.
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

#define DOUBLES (ptrdiff_t)(sizeof(double) / sizeof(real))

static ptrdiff_t count_sums(const sweep *w) { return w->chunks * 2 * w->pixel * DOUBLES; }

static ptrdiff_t sweep_scratch(sweep w, int threads) { return count_sums(&w) + (4 + 2 * threads) * w.width; }

ptrdiff_t NAME(batchnorm_scratch)(const batchnorm_shape *s, ptrdiff_t n, int threads) {
    return sweep_scratch(plan_sweep(&s->x, n), threads);
}

static batchnorm_job place_scratch(sweep w, real *scratch) {
    batchnorm_job job = {.w = w, .sums = (double *)scratch};
    job.centre = scratch + count_sums(&job.w);
    job.factor = job.centre + job.w.width;
    job.slope = job.factor + job.w.width;
    job.offset = job.slope + job.w.width;
    job.work = job.offset + job.w.width;
    return job;
}

/* Pixels in a block: the last may have fewer. */
static ptrdiff_t block_pixels(const sweep *w, ptrdiff_t block) {
    return at_most(w->block, w->pixels - block * w->block);
}
/* Where a chunk begins, and the one before it ends. */
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
    batchnorm_job job = place_scratch(plan_sweep(&s->x, n), scratch);
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
    batchnorm_job job = place_scratch(plan_sweep(&s->x, n), scratch);
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

/* What all chunks come to, of one channel. */
static void add_chunks(const batchnorm_job *job, ptrdiff_t c, double *sum, double *product) {
    const sweep *w = &job->w;
    *sum = *product = 0;
    for (ptrdiff_t chunk = 0; chunk < w->chunks; chunk++) {
        *sum += job->sums[chunk * 2 * w->pixel + c];
        *product += job->sums[(chunk * 2 + 1) * w->pixel + c];
    }
}

void NAME(batchnorm_backward)(const batchnorm_shape *s, int threads, ptrdiff_t n, const void *dy,
                              const void *x, const void *gamma, const void *mean, const void *var, void *dx,
                              void *dgamma, void *dbeta, void *scratch) {
    batchnorm_job job = place_scratch(plan_sweep(&s->x, n), scratch);
    const sweep *w = &job.w;
    job.x = x;
    job.dy = dy;
    job.out = dx;
    memcpy(job.centre, mean, (size_t)w->pixel * sizeof(real));
    repeat_channels(w, job.centre);
    pool_run(threads, w->chunks, sum_gradient_chunk, &job);
    for (ptrdiff_t c = 0; c < w->pixel; c++) {
        double sum, product, count = (double)at_least(w->pixels, 1);
        add_chunks(&job, c, &sum, &product);
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

/* Scaling of channels: a batch norm whose mean is 0 and whose factors are given. */

ptrdiff_t NAME(scale_scratch)(const image_shape *s, ptrdiff_t n, int threads) {
    return sweep_scratch(plan_sweep(s, n), threads);
}

static void copy_channels(const sweep *w, real *channels, const real *from) {
    memcpy(channels, from, (size_t)w->pixel * sizeof(real));
    repeat_channels(w, channels);
}

void NAME(scale_forward)(const image_shape *s, int threads, ptrdiff_t n, const void *x, const void *w,
                         const void *b, void *y, void *scratch) {
    batchnorm_job job = place_scratch(plan_sweep(s, n), scratch);
    job.x = x;
    job.out = y;
    memset(job.centre, 0, (size_t)job.w.width * sizeof(real));
    copy_channels(&job.w, job.factor, w);
    copy_channels(&job.w, job.offset, b);
    pool_run(threads, job.w.chunks, apply_chunk, &job);
}

void NAME(scale_backward)(const image_shape *s, int threads, ptrdiff_t n, const void *dy, const void *x,
                          const void *w, void *dx, void *dw, void *db, void *scratch) {
    batchnorm_job job = place_scratch(plan_sweep(s, n), scratch);
    job.x = x;
    job.dy = dy;
    memset(job.centre, 0, (size_t)job.w.width * sizeof(real));
    pool_run(threads, job.w.chunks, sum_gradient_chunk, &job);
    for (ptrdiff_t c = 0; c < s->pixel; c++) {
        double sum, product;
        add_chunks(&job, c, &sum, &product);
        ((real *)dw)[c] = (real)product;
        ((real *)db)[c] = (real)sum;
    }
    if (!dx)
        return;
    job.x = dy;
    job.out = dx;
    copy_channels(&job.w, job.factor, w);
    memset(job.offset, 0, (size_t)job.w.width * sizeof(real));
    pool_run(threads, job.w.chunks, apply_chunk, &job);
}

/* Group normalisation, an image at a time, swept as batch norm sweeps a batch: its channels' sums are
 * joined to those of their groups. Gradients of gamma and beta are added up in runs of images. */

typedef struct {
    const groupnorm_shape *s;
    ptrdiff_t n, runs;
    const real *x, *dy, *gamma, *beta;
    real *out, *mean, *var;
    double *totals; /* two a channel for each run */
    real *work;     /* the scratch of a sweep for each worker */
} groupnorm_job;

static sweep plan_image(const image_shape *s) {
    sweep w = plan_sweep(s, 1);
    w.chunks = 1;
    return w;
}

static ptrdiff_t count_runs(ptrdiff_t n) { return at_most(n, MAX_CHUNKS); }

ptrdiff_t NAME(groupnorm_scratch)(const groupnorm_shape *s, ptrdiff_t n, int threads) {
    return count_runs(n) * 2 * s->x.pixel * DOUBLES + threads * sweep_scratch(plan_image(&s->x), 1);
}

static groupnorm_job plan_groups(const groupnorm_shape *s, ptrdiff_t n, const void *x, real *scratch) {
    ptrdiff_t runs = count_runs(n);
    return (groupnorm_job){.s = s,
                           .n = n,
                           .runs = runs,
                           .x = x,
                           .totals = (double *)scratch,
                           .work = scratch + runs * 2 * s->x.pixel * DOUBLES};
}

/* One image as a batch, with nothing to apply to padding channels. */
static batchnorm_job open_image(const groupnorm_job *job, ptrdiff_t n, int worker) {
    const image_shape *s = &job->s->x;
    sweep w = plan_image(s);
    batchnorm_job image = place_scratch(w, job->work + worker * sweep_scratch(w, 1));
    image.x = job->x + n * s->image;
    image.dy = job->dy ? job->dy + n * s->image : NULL;
    image.out = job->out ? job->out + n * s->image : NULL;
    size_t padding = (size_t)(s->pixel - s->C) * sizeof(real);
    memset(image.centre + s->C, 0, padding);
    memset(image.factor + s->C, 0, padding);
    memset(image.slope + s->C, 0, padding);
    memset(image.offset + s->C, 0, padding);
    return image;
}

/* total = sum of `term` for i from 0 on, several parts side by side since each has to wait for itself. */
#define PARTS 8
#define ADD_UP(total, i, count, term)                                                                        \
    {                                                                                                        \
        double parts[PARTS] = {0};                                                                           \
        ptrdiff_t i = 0;                                                                                     \
        while (i + PARTS <= (count)) {                                                                       \
            UNROLLED (k, PARTS) {                                                                            \
                parts[k] += (term);                                                                          \
                i++;                                                                                         \
            }                                                                                                \
        }                                                                                                    \
        for (; i < (count); i++)                                                                             \
            parts[0] += (term);                                                                              \
        total = 0;                                                                                           \
        UNROLLED (k, PARTS)                                                                                  \
            total += parts[k];                                                                               \
    }

/* The image's means and squared distances from them; a single pixel is its own mean. */
static void sum_image(const batchnorm_job *image) {
    if (image->w.pixels > 1) {
        sum_chunk(image, 0, 0);
        return;
    }
    for (ptrdiff_t c = 0; c < image->w.pixel; c++)
        image->sums[c] = image->x[c];
    memset(image->sums + image->w.pixel, 0, (size_t)image->w.pixel * sizeof(double));
}

/* Its sums of dy and of dy (x - centre). */
static void sum_image_gradient(const batchnorm_job *image) {
    if (image->w.pixels > 1) {
        sum_gradient_chunk(image, 0, 0);
        return;
    }
    double *products = image->sums + image->w.pixel;
    for (ptrdiff_t c = 0; c < image->w.pixel; c++) {
        image->sums[c] = image->dy[c];
        products[c] = (double)image->dy[c] * (image->x[c] - image->centre[c]);
    }
}

static void groupnorm_forward_image(const void *context, ptrdiff_t n, int worker) {
    const groupnorm_job *job = context;
    ptrdiff_t groups = job->s->groups, size = job->s->x.C / groups;
    batchnorm_job image = open_image(job, n, worker);
    sum_image(&image);
    for (ptrdiff_t g = 0; g < groups; g++) {
        ptrdiff_t first = g * size;
        const double *means = image.sums + first, *squares = means + image.w.pixel;
        double mean, within, between;
        ADD_UP(mean, c, size, means[c])
        mean /= (double)size;
        ADD_UP(within, c, size, squares[c])
        ADD_UP(between, c, size, (means[c] - mean) * (means[c] - mean))
        double pixels = (double)image.w.pixels, var = (within + pixels * between) / (pixels * (double)size);
        real rounded = job->var[n * groups + g] = (real)var, centre = job->mean[n * groups + g] = (real)mean;
        double scale = 1 / sqrt(rounded + job->s->eps);
        for (ptrdiff_t c = first; c < first + size; c++) {
            image.centre[c] = centre;
            image.factor[c] = (real)(job->gamma[c] * scale);
            image.offset[c] = job->beta[c];
        }
    }
    repeat_channels(&image.w, image.centre);
    repeat_channels(&image.w, image.factor);
    repeat_channels(&image.w, image.offset);
    apply_chunk(&image, 0, 0);
}

void NAME(groupnorm_forward)(const groupnorm_shape *s, int threads, ptrdiff_t n, const void *x,
                             const void *gamma, const void *beta, void *y, void *mean, void *var,
                             void *scratch) {
    groupnorm_job job = plan_groups(s, n, x, scratch);
    job.gamma = gamma;
    job.beta = beta;
    job.out = y;
    job.mean = mean;
    job.var = var;
    pool_run(threads, n, groupnorm_forward_image, &job);
}

/* Sums of one image to the totals of its run, and dx if there is one. */
static void groupnorm_backward_image(const groupnorm_job *job, ptrdiff_t n, int worker, double *dgamma,
                                     double *dbeta) {
    ptrdiff_t groups = job->s->groups, size = job->s->x.C / groups;
    batchnorm_job image = open_image(job, n, worker);
    for (ptrdiff_t g = 0; g < groups; g++)
        for (ptrdiff_t c = g * size; c < (g + 1) * size; c++)
            image.centre[c] = job->mean[n * groups + g];
    repeat_channels(&image.w, image.centre);
    sum_image_gradient(&image);
    for (ptrdiff_t g = 0; g < groups; g++) {
        ptrdiff_t first = g * size;
        const double *sums = image.sums + first, *products = sums + image.w.pixel;
        const real *gamma = job->gamma + first;
        double scale = 1 / sqrt(job->var[n * groups + g] + job->s->eps);
        double sum, product, count = (double)(size * image.w.pixels);
        ADD_UP(sum, c, size, gamma[c] * sums[c])
        ADD_UP(product, c, size, gamma[c] * products[c])
        real slope = (real)(-scale * scale * scale * product / count), offset = (real)(-scale * sum / count);
        for (ptrdiff_t c = 0; c < size; c++) {
            dbeta[first + c] += sums[c];
            dgamma[first + c] += products[c] * scale;
        }
        for (ptrdiff_t c = 0; c < size; c++) {
            image.factor[first + c] = (real)(gamma[c] * scale);
            image.slope[first + c] = slope;
            image.offset[first + c] = offset;
        }
    }
    if (!job->out)
        return;
    repeat_channels(&image.w, image.factor);
    repeat_channels(&image.w, image.slope);
    repeat_channels(&image.w, image.offset);
    apply_gradient_chunk(&image, 0, 0);
}

static void groupnorm_backward_run(const void *context, ptrdiff_t run, int worker) {
    const groupnorm_job *job = context;
    ptrdiff_t pixel = job->s->x.pixel;
    double *totals = job->totals + run * 2 * pixel;
    memset(totals, 0, (size_t)(2 * pixel) * sizeof(double));
    for (ptrdiff_t n = job->n * run / job->runs; n < job->n * (run + 1) / job->runs; n++)
        groupnorm_backward_image(job, n, worker, totals, totals + pixel);
}

void NAME(groupnorm_backward)(const groupnorm_shape *s, int threads, ptrdiff_t n, const void *dy,
                              const void *x, const void *gamma, const void *mean, const void *var, void *dx,
                              void *dgamma, void *dbeta, void *scratch) {
    groupnorm_job job = plan_groups(s, n, x, scratch);
    job.dy = dy;
    job.gamma = gamma;
    job.out = dx;
    job.mean = (real *)mean;
    job.var = (real *)var;
    pool_run(threads, job.runs, groupnorm_backward_run, &job);
    for (ptrdiff_t c = 0; c < s->x.pixel; c++) {
        double slope = 0, sum = 0;
        for (ptrdiff_t run = 0; run < job.runs; run++) {
            slope += job.totals[run * 2 * s->x.pixel + c];
            sum += job.totals[(run * 2 + 1) * s->x.pixel + c];
        }
        ((real *)dgamma)[c] = (real)slope;
        ((real *)dbeta)[c] = (real)sum;
    }
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
