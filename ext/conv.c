/* Convolution with bias, ReLU and max pool behind it: direct, in NHWC, no column buffers.
 *
 * For one kernel row the taps of a pixel lie side by side in memory, so convolution is a
 * matrix product whose left matrix overlaps itself: rows are output pixels, `step` apart.
 * Images are padded left and right in a worker's scratch; taps above and below the image
 * are skipped. The input gradient is, at stride 1, the same product with flipped filters,
 * otherwise a product followed by a scatter. Nothing here depends on the number of threads:
 * forward works by image, backward by chunks of the batch that are summed in order.
 */
#include "tiles.h"

#include "maxpool.h"
#include "pool.h"

/* One product "image (*) packed filters": what forward and the flipped input gradient share. */
typedef struct {
    ptrdiff_t rows, columns;      /* output pixels */
    ptrdiff_t height, line;       /* input rows, and reals a row of the padded image */
    ptrdiff_t depth;              /* reals a run of adjacent taps */
    ptrdiff_t runs, run_offset;   /* runs a kernel row, reals between them */
    ptrdiff_t kernel_h, dilation; /* kernel rows, reals between them counted in image rows */
    ptrdiff_t top, row_stride;    /* image row of output row oh: oh*row_stride - top */
    ptrdiff_t step;               /* reals between neighbouring output pixels' first taps */
    ptrdiff_t filters, pixel;     /* output channels of a group, reals an output pixel */
    int relu;
} product;

static ptrdiff_t panels_of(ptrdiff_t filters) { return ceil_div(filters, PANEL); }

/* First and last + 1 of the kernel rows that fall inside the image. */
static void valid_rows(const product *p, ptrdiff_t oh, ptrdiff_t *first, ptrdiff_t *end) {
    ptrdiff_t origin = oh * p->row_stride - p->top;
    *first = origin < 0 ? ceil_div(-origin, p->dilation) : 0;
    *end = origin >= p->height ? 0 : at_most(p->kernel_h, ceil_div(p->height - origin, p->dilation));
    *first = at_most(*first, *end);
}

INLINE void product_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const product *p, const real *image,
                         ptrdiff_t origin, ptrdiff_t first, ptrdiff_t end, const real *panel,
                         const real *bias, real *out, ptrdiff_t out_step) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            sums[i][v] = load(bias + v * VLEN);
    for (ptrdiff_t kh = first; kh < end; kh++)
        for (ptrdiff_t r = 0; r < p->runs; r++)
            accumulate_nn(rows, vectors, sums,
                          image + (origin + kh * p->dilation * p->line + r * p->run_offset), p->step,
                          p->depth, panel + (kh * p->runs + r) * p->depth * PANEL);
    if (p->relu) {
        UNROLLED (i, rows)
            UNROLLED (v, vectors)
                sums[i][v] = relu_vector(sums[i][v]);
    }
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            store(out + i * out_step + v * VLEN, sums[i][v]);
}

/* All output pixels of one image and one group. `panels` as packed, `bias` padded to PANEL;
 * `whole`: the group's channels may be stored up to the next full vector. */
static void run_product(const product *p, const real *image, const real *panels, const real *bias, int whole,
                        real *out) {
    ptrdiff_t tiles = ceil_div(p->columns, TILE_ROWS), panel_size = p->kernel_h * p->runs * p->depth * PANEL;
    for (ptrdiff_t panel = 0; panel < panels_of(p->filters); panel++) {
        ptrdiff_t columns = at_most(PANEL, p->filters - panel * PANEL), vectors = ceil_div(columns, VLEN);
        int partial = !whole && columns < vectors * VLEN;
        for (ptrdiff_t oh = 0; oh < p->rows; oh++) {
            ptrdiff_t first, end;
            valid_rows(p, oh, &first, &end);
            for (ptrdiff_t tile = 0; tile < tiles; tile++) {
                ptrdiff_t ow = tile_start(p->columns, tiles, tile);
                ptrdiff_t rows = tile_start(p->columns, tiles, tile + 1) - ow;
                ptrdiff_t origin = (oh * p->row_stride - p->top) * p->line + ow * p->step;
                real *to = out + (oh * p->columns + ow) * p->pixel + panel * PANEL, aside[TILE_ROWS * PANEL];
                DISPATCH_TILE(rows, vectors, product_tile, p, image, origin, first, end,
                              panels + panel * panel_size, bias + panel * PANEL, partial ? aside : to,
                              partial ? PANEL : p->pixel)
                for (ptrdiff_t i = 0; partial && i < rows; i++) /* a neighbour's channels begin behind them */
                    memcpy(to + i * p->pixel, aside + i * PANEL, (size_t)columns * sizeof(real));
            }
        }
    }
}

/* Where the parts of the scratch begin, in reals. Shared parts first, then each worker's. */
typedef struct {
    ptrdiff_t filters, flipped, bias, zeros, partial, shared; /* shared: end of the shared parts */
    ptrdiff_t image, z, dz, column, gradient, worker;         /* within a worker's; worker: its size */
    ptrdiff_t chunks;
} layout;

static ptrdiff_t padded_line(const conv_shape *s) {
    return (s->x.W + s->window.pad_left + s->window.pad_right) * s->x.pixel;
}
static ptrdiff_t weight_rows(const conv_shape *s) {
    return s->window.kernel_h * s->window.kernel_w * (s->x.C / s->groups);
}
static ptrdiff_t weight_count(const conv_shape *s) { return weight_rows(s) * s->z.pixel; }

/* Padding of the output gradient that makes the flipped product yield dx's columns. */
static ptrdiff_t flipped_pad(ptrdiff_t kernel, ptrdiff_t dilation, ptrdiff_t pad) {
    return dilation * (kernel - 1) - pad;
}
static int flips(const conv_shape *s) {
    const window_shape *w = &s->window;
    return w->stride_h == 1 && w->stride_w == 1 &&
           flipped_pad(w->kernel_w, w->dilation_w, w->pad_left) >= 0 &&
           flipped_pad(w->kernel_w, w->dilation_w, w->pad_right) >= 0;
}
static ptrdiff_t gradient_line(const conv_shape *s) {
    const window_shape *w = &s->window;
    return (s->z.W + flipped_pad(w->kernel_w, w->dilation_w, w->pad_left) +
            flipped_pad(w->kernel_w, w->dilation_w, w->pad_right)) *
           s->z.pixel;
}

static layout lay_out(const conv_shape *s, ptrdiff_t n) {
    layout l = {0};
    ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups;
    ptrdiff_t taps = s->window.kernel_h * s->window.kernel_w, weights = weight_count(s);
    ptrdiff_t z = s->z.H * s->z.W * s->z.pixel;
    /* Fewer chunks for large filters: each needs a gradient of its own. */
    l.chunks = at_most(n, weights <= 1 << 16 ? 16 : weights <= 1 << 18 ? 8 : 4);
    l.filters = 0;
    l.flipped = l.filters + s->groups * panels_of(F) * taps * C * PANEL;
    l.bias = l.flipped + s->groups * panels_of(flips(s) ? C : taps * C) * F * (flips(s) ? taps : 1) * PANEL;
    l.zeros = l.bias + s->groups * panels_of(F) * PANEL; /* the bias of an input gradient */
    l.partial = l.zeros + panels_of(flips(s) ? C : taps * C) * PANEL;
    l.shared = round_up(l.partial + l.chunks * (weights + s->z.pixel), LANES);
    l.image = 0;
    l.z = l.image + s->x.H * padded_line(s);
    l.dz = l.z + (s->pooled ? z : 0);
    l.column = l.dz + z;
    l.gradient = l.column + (flips(s) ? 0 : s->z.W * panels_of(taps * C) * PANEL);
    /* One line more, so that neighbours never write to one cache line. */
    l.worker =
        round_up(l.gradient + (flips(s) ? s->z.H * gradient_line(s) : s->x.H * padded_line(s)), LANES) +
        LANES;
    return l;
}

ptrdiff_t NAME(conv_scratch)(const conv_shape *s, ptrdiff_t n, int threads) {
    layout l = lay_out(s, n);
    return l.shared + threads * l.worker;
}

/* Rows of an image with zeros to the left and right; the image itself when there is no padding. */
static const real *pad_image(const real *image, ptrdiff_t height, ptrdiff_t row, ptrdiff_t left_pad,
                             ptrdiff_t line, real *padded) {
    if (line == row)
        return image;
    for (ptrdiff_t h = 0; h < height; h++) {
        real *to = padded + h * line;
        memset(to, 0, (size_t)left_pad * sizeof(real));
        memcpy(to + left_pad, image + h * row, (size_t)row * sizeof(real));
        memset(to + left_pad + row, 0, (size_t)(line - left_pad - row) * sizeof(real));
    }
    return padded;
}

static const real *pad_input(const conv_shape *s, const real *x, real *padded) {
    return pad_image(x, s->x.H, s->x.W * s->x.pixel, s->window.pad_left * s->x.pixel, padded_line(s), padded);
}

/* Filters [tap][c][f] of one group into panels of rows (tap, c) and columns f. */
static void pack_filters(const conv_shape *s, const real *w, ptrdiff_t group, real *panels) {
    ptrdiff_t F = s->z.C / s->groups, rows = weight_rows(s);
    for (ptrdiff_t panel = 0; panel < panels_of(F); panel++)
        pack_panel(rows, at_most(PANEL, F - panel * PANEL), w + group * F + panel * PANEL, s->z.pixel,
                   panels + panel * rows * PANEL);
}

/* Into panels of rows (flipped tap, f) and columns c. */
static void pack_flipped(const conv_shape *s, const real *w, ptrdiff_t group, real *panels) {
    ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups;
    ptrdiff_t taps = s->window.kernel_h * s->window.kernel_w;
    memset(panels, 0, (size_t)(panels_of(C) * taps * F * PANEL) * sizeof(real));
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t c = 0; c < C; c++) {
            const real *from = w + ((taps - 1 - tap) * C + c) * s->z.pixel + group * F;
            real *to = panels + (c / PANEL) * taps * F * PANEL + tap * F * PANEL + c % PANEL;
            for (ptrdiff_t f = 0; f < F; f++)
                to[f * PANEL] = from[f];
        }
}

/* Into panels of rows f and columns (tap, c). */
static void pack_transposed(const conv_shape *s, const real *w, ptrdiff_t group, real *panels) {
    ptrdiff_t F = s->z.C / s->groups, columns = weight_rows(s);
    memset(panels, 0, (size_t)(panels_of(columns) * F * PANEL) * sizeof(real));
    for (ptrdiff_t k = 0; k < columns; k++) {
        const real *from = w + k * s->z.pixel + group * F;
        real *to = panels + (k / PANEL) * F * PANEL + k % PANEL;
        for (ptrdiff_t f = 0; f < F; f++)
            to[f * PANEL] = from[f];
    }
}

static product forward_product(const conv_shape *s) {
    const window_shape *w = &s->window;
    ptrdiff_t C = s->x.C / s->groups;
    /* Taps side by side make one run where pixels have no padding or gap between them. */
    int merged = s->groups == 1 && w->dilation_w == 1 && C == s->x.pixel;
    return (product){.rows = s->z.H,
                     .columns = s->z.W,
                     .height = s->x.H,
                     .line = padded_line(s),
                     .depth = merged ? w->kernel_w * C : C,
                     .runs = merged ? 1 : w->kernel_w,
                     .run_offset = w->dilation_w * s->x.pixel,
                     .kernel_h = w->kernel_h,
                     .dilation = w->dilation_h,
                     .top = w->pad_top,
                     .row_stride = w->stride_h,
                     .step = w->stride_w * s->x.pixel,
                     .filters = s->z.C / s->groups,
                     .pixel = s->z.pixel,
                     .relu = s->relu};
}

static product flipped_product(const conv_shape *s) {
    const window_shape *w = &s->window;
    ptrdiff_t F = s->z.C / s->groups;
    int merged = s->groups == 1 && w->dilation_w == 1 && F == s->z.pixel;
    return (product){.rows = s->x.H,
                     .columns = s->x.W,
                     .height = s->z.H,
                     .line = gradient_line(s),
                     .depth = merged ? w->kernel_w * F : F,
                     .runs = merged ? 1 : w->kernel_w,
                     .run_offset = w->dilation_w * s->z.pixel,
                     .kernel_h = w->kernel_h,
                     .dilation = w->dilation_h,
                     .top = flipped_pad(w->kernel_h, w->dilation_h, w->pad_top),
                     .row_stride = 1,
                     .step = s->z.pixel,
                     .filters = s->x.C / s->groups,
                     .pixel = s->x.pixel};
}

typedef struct {
    const conv_shape *s;
    layout l;
    ptrdiff_t n;
    const real *dy, *x, *y;
    real *out, *dx, *dw, *db, *scratch;
    const tap_index *index_in;
    tap_index *index_out;
} conv_job;

static real *worker_scratch(const conv_job *job, int worker) {
    return job->scratch + job->l.shared + worker * job->l.worker;
}

/* No tile stores all of it, and an infinite tap leaves inf * 0 = NaN in what is stored. */
static void clear_padding(const image_shape *s, real *image) {
    for (ptrdiff_t i = 0; s->pixel > s->C && i < s->H * s->W; i++)
        memset(image + i * s->pixel + s->C, 0, (size_t)(s->pixel - s->C) * sizeof(real));
}

static void forward_image(const void *context, ptrdiff_t n, int worker) {
    const conv_job *job = context;
    const conv_shape *s = job->s;
    real *scratch = worker_scratch(job, worker);
    const real *image = pad_input(s, job->x + n * s->x.image, scratch + job->l.image);
    real *y = job->out + n * s->y.image, *z = s->pooled ? scratch + job->l.z : y;
    product p = forward_product(s);
    ptrdiff_t panels = panels_of(p.filters), F = p.filters;
    for (ptrdiff_t g = 0; g < s->groups; g++)
        run_product(&p, image + g * (s->x.C / s->groups),
                    job->scratch + job->l.filters + g * panels * weight_rows(s) * PANEL,
                    job->scratch + job->l.bias + g * panels * PANEL, s->groups == 1, z + g * F);
    clear_padding(&s->z, z);
    if (s->pooled)
        maxpool_image(&s->z, &s->y, &s->pool, z, y, job->index_out + n * s->y.image);
}

void NAME(conv_forward)(const conv_shape *s, int threads, ptrdiff_t n, const void *x, const void *w,
                        const void *b, void *y, tap_index *index, void *scratch) {
    conv_job job = {
        .s = s, .l = lay_out(s, n), .n = n, .x = x, .out = y, .index_out = index, .scratch = scratch};
    ptrdiff_t F = s->z.C / s->groups, panels = panels_of(F);
    for (ptrdiff_t g = 0; g < s->groups; g++) {
        pack_filters(s, w, g, job.scratch + job.l.filters + g * panels * weight_rows(s) * PANEL);
        real *bias = job.scratch + job.l.bias + g * panels * PANEL;
        memset(bias, 0, (size_t)(panels * PANEL) * sizeof(real));
        if (b)
            memcpy(bias, (const real *)b + g * F, (size_t)F * sizeof(real));
    }
    pool_run(threads, n, forward_image, &job);
}

/* Weight gradient of one image, added to dw: rows (tap, c), columns f, summed over pixels. */
INLINE void gradient_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const product *p, const real *image,
                          ptrdiff_t origin, ptrdiff_t first, ptrdiff_t end, const real *dz, real *dw,
                          ptrdiff_t dw_step) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            sums[i][v] = (vec){0};
    for (ptrdiff_t oh = first; oh < end; oh++)
        accumulate_tn(rows, vectors, sums, image + (origin + oh * p->row_stride * p->line), p->step,
                      p->columns, dz + oh * p->columns * p->pixel, p->pixel);
    UNROLLED (i, rows) {
        UNROLLED (v, vectors) {
            real *to = dw + i * dw_step + v * VLEN;
            store(to, load(to) + sums[i][v]);
        }
    }
}

static void add_weight_gradient(const product *p, const real *image, const real *dz, int whole, real *dw) {
    ptrdiff_t tiles = ceil_div(p->depth, TILE_ROWS);
    for (ptrdiff_t panel = 0; panel < panels_of(p->filters); panel++) {
        ptrdiff_t columns = at_most(PANEL, p->filters - panel * PANEL), vectors = ceil_div(columns, VLEN);
        int partial = !whole && columns < vectors * VLEN;
        for (ptrdiff_t kh = 0; kh < p->kernel_h; kh++) {
            /* Output rows whose tap kh lies inside the image. */
            ptrdiff_t above = p->top - kh * p->dilation, below = p->height - 1 + above;
            ptrdiff_t first = above > 0 ? ceil_div(above, p->row_stride) : 0;
            ptrdiff_t end = below < 0 ? 0 : at_most(p->rows, below / p->row_stride + 1);
            for (ptrdiff_t r = 0; r < p->runs; r++)
                for (ptrdiff_t tile = 0; tile < tiles; tile++) {
                    ptrdiff_t k = tile_start(p->depth, tiles, tile);
                    ptrdiff_t rows = tile_start(p->depth, tiles, tile + 1) - k;
                    ptrdiff_t origin = r * p->run_offset + k - above * p->line;
                    real *to = dw + ((kh * p->runs + r) * p->depth + k) * p->pixel + panel * PANEL;
                    real aside[TILE_ROWS * PANEL] = {0};
                    DISPATCH_TILE(rows, vectors, gradient_tile, p, image, origin, first, end,
                                  dz + panel * PANEL, partial ? aside : to, partial ? PANEL : p->pixel)
                    for (ptrdiff_t i = 0; partial && i < rows; i++)
                        for (ptrdiff_t f = 0; f < columns; f++)
                            to[i * p->pixel + f] += aside[i * PANEL + f];
                }
        }
    }
}

/* Any stride: one output row at a time, columns (tap, c) = dz filters^T, then added into dx. */
static void scatter_input_gradient(const conv_job *job, const real *dz, real *scratch, real *dx) {
    const conv_shape *s = job->s;
    const window_shape *w = &s->window;
    ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups, taps = w->kernel_h * w->kernel_w;
    ptrdiff_t width = panels_of(taps * C) * PANEL, line = padded_line(s);
    real *column = scratch + job->l.column, *padded = scratch + job->l.gradient;
    product p = {.rows = 1,
                 .columns = s->z.W,
                 .height = 1,
                 .depth = F,
                 .runs = 1,
                 .kernel_h = 1,
                 .dilation = 1,
                 .row_stride = 1,
                 .step = s->z.pixel,
                 .filters = taps * C,
                 .pixel = width};
    memset(padded, 0, (size_t)(s->x.H * line) * sizeof(real));
    for (ptrdiff_t g = 0; g < s->groups; g++)
        for (ptrdiff_t oh = 0; oh < s->z.H; oh++) {
            run_product(&p, dz + oh * s->z.W * s->z.pixel + g * F,
                        job->scratch + job->l.flipped + g * width * F, job->scratch + job->l.zeros, 1,
                        column);
            for (ptrdiff_t ow = 0; ow < s->z.W; ow++)
                for (ptrdiff_t kh = 0; kh < w->kernel_h; kh++) {
                    ptrdiff_t ih = oh * w->stride_h - w->pad_top + kh * w->dilation_h;
                    if (ih < 0 || ih >= s->x.H)
                        continue;
                    for (ptrdiff_t kw = 0; kw < w->kernel_w; kw++) {
                        ptrdiff_t iw = ow * w->stride_w + kw * w->dilation_w;
                        real *to = padded + ih * line + iw * s->x.pixel + g * C;
                        const real *from = column + ow * width + (kh * w->kernel_w + kw) * C;
                        for (ptrdiff_t c = 0; c < C; c++)
                            to[c] += from[c];
                    }
                }
        }
    ptrdiff_t row = s->x.W * s->x.pixel;
    for (ptrdiff_t h = 0; h < s->x.H; h++)
        memcpy(dx + h * row, padded + h * line + w->pad_left * s->x.pixel, (size_t)row * sizeof(real));
}

static void flipped_input_gradient(const conv_job *job, const real *dz, real *scratch, real *dx) {
    const conv_shape *s = job->s;
    const window_shape *w = &s->window;
    ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups, taps = w->kernel_h * w->kernel_w;
    ptrdiff_t left_pad = flipped_pad(w->kernel_w, w->dilation_w, w->pad_left) * s->z.pixel;
    const real *padded =
        pad_image(dz, s->z.H, s->z.W * s->z.pixel, left_pad, gradient_line(s), scratch + job->l.gradient);
    product p = flipped_product(s);
    /* Whole vectors may be stored where the pixel's padding takes them. */
    int whole = s->groups == 1 && s->x.pixel % LANES == 0;
    for (ptrdiff_t g = 0; g < s->groups; g++)
        run_product(&p, padded + g * F, job->scratch + job->l.flipped + g * panels_of(C) * taps * F * PANEL,
                    job->scratch + job->l.zeros, whole, dx + g * C);
    clear_padding(&s->x, dx);
}

/* The gradient before activation and pool; dy itself where there is neither. */
static const real *undo_sandwich(const conv_job *job, ptrdiff_t n, real *dz) {
    const conv_shape *s = job->s;
    const real *dy = job->dy + n * s->y.image, *y = job->y + n * s->y.image;
    ptrdiff_t size = s->y.H * s->y.W * s->y.pixel;
    if (s->pooled) {
        unpool_image(&s->z, &s->y, &s->pool, dy, s->relu ? y : NULL, job->index_in + n * s->y.image, dz);
        return dz;
    }
    if (s->relu) {
        relu_gradient_row(size, dy, y, dz);
        return dz;
    }
    if (s->groups > 1) { /* tiles read whole vectors, past the last group's channels */
        memcpy(dz, dy, (size_t)size * sizeof(real));
        return dz;
    }
    return dy;
}

static void backward_chunk(const void *context, ptrdiff_t chunk, int worker) {
    const conv_job *job = context;
    const conv_shape *s = job->s;
    real *scratch = worker_scratch(job, worker);
    ptrdiff_t weights = weight_count(s), pixels = s->z.H * s->z.W;
    real *dw = job->scratch + job->l.partial + chunk * (weights + s->z.pixel), *db = dw + weights;
    memset(dw, 0, (size_t)(weights + s->z.pixel) * sizeof(real));
    product p = forward_product(s);
    ptrdiff_t end = job->n * (chunk + 1) / job->l.chunks;
    for (ptrdiff_t n = job->n * chunk / job->l.chunks; n < end; n++) {
        const real *dz = undo_sandwich(job, n, scratch + job->l.dz);
        const real *image = pad_input(s, job->x + n * s->x.image, scratch + job->l.image);
        for (ptrdiff_t g = 0; g < s->groups; g++)
            add_weight_gradient(&p, image + g * (s->x.C / s->groups), dz + g * p.filters, s->groups == 1,
                                dw + g * p.filters);
        for (ptrdiff_t f = 0; f < s->z.pixel; f += VLEN) {
            vec sum = load(db + f);
            for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
                sum += load(dz + pixel * s->z.pixel + f);
            store(db + f, sum);
        }
        if (job->dx) {
            real *dx = job->dx + n * s->x.image;
            flips(s) ? flipped_input_gradient(job, dz, scratch, dx)
                     : scatter_input_gradient(job, dz, scratch, dx);
        }
    }
}

#define SUM_BLOCK 4096

/* Chunks are summed in order, whoever computed them. */
static void sum_chunks(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const conv_job *job = context;
    ptrdiff_t weights = weight_count(job->s), size = weights + job->s->z.pixel;
    const real *partial = job->scratch + job->l.partial;
    for (ptrdiff_t i = block * SUM_BLOCK; i < at_most(size, (block + 1) * SUM_BLOCK); i += VLEN) {
        vec sum = {0};
        for (ptrdiff_t chunk = 0; chunk < job->l.chunks; chunk++)
            sum += load(partial + chunk * size + i);
        store(i < weights ? job->dw + i : job->db + (i - weights), sum);
    }
}

void NAME(conv_backward)(const conv_shape *s, int threads, ptrdiff_t n, const void *dy, const void *x,
                         const void *w, const void *y, const tap_index *index, void *dx, void *dw, void *db,
                         void *scratch) {
    conv_job job = {.s = s,
                    .l = lay_out(s, n),
                    .n = n,
                    .dy = dy,
                    .x = x,
                    .y = y,
                    .index_in = index,
                    .dx = dx,
                    .dw = dw,
                    .db = db,
                    .scratch = scratch};
    if (dx) {
        ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups;
        ptrdiff_t taps = s->window.kernel_h * s->window.kernel_w;
        real *panels = job.scratch + job.l.flipped, *zeros = job.scratch + job.l.zeros;
        memset(zeros, 0, (size_t)(job.l.partial - job.l.zeros) * sizeof(real));
        for (ptrdiff_t g = 0; g < s->groups; g++) {
            if (flips(s))
                pack_flipped(s, w, g, panels + g * panels_of(C) * taps * F * PANEL);
            else
                pack_transposed(s, w, g, panels + g * panels_of(taps * C) * F * PANEL);
        }
    }
    pool_run(threads, job.l.chunks, backward_chunk, &job);
    pool_run(threads, ceil_div(weight_count(s) + s->z.pixel, SUM_BLOCK), sum_chunks, &job);
}
