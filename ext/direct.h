/* Convolution of one NHWC image as matrix products, without column buffers.
 *
 * Neighbouring pixels lie side by side in memory, so convolution is a product whose left
 * matrix overlaps itself: its rows are output pixels, `step` apart. Images come padded left
 * and right; taps above and below the image are skipped. The input gradient is the same
 * product with flipped filters, once for every phase of the stride. Nothing here knows of
 * threads or batches, or of what follows a convolution but ReLU.
 */
#ifndef CNNCTL_DIRECT_H
#define CNNCTL_DIRECT_H

#include "tiles.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define REGISTERS 32
#define MAX_TAPS 7
#else
#define REGISTERS 16
#define MAX_TAPS 1 /* filters of more taps would leave too few registers for sums */
#endif
#define MAX_TILE 14 /* pixels, or channels of a weight gradient, of a tile */

/* One product "image (*) packed filters": what forward and the flipped input gradient share. */
typedef struct {
    ptrdiff_t rows, columns;                 /* output pixels */
    ptrdiff_t height, line;                  /* input rows, and reals a row of the padded image */
    ptrdiff_t taps, depth;                   /* neighbouring taps that are taken together, reals each */
    ptrdiff_t runs, run_offset;              /* such groups of taps a kernel row, reals between them */
    ptrdiff_t kernel_h, dilation;            /* kernel rows, image rows between them */
    ptrdiff_t top, row_stride;               /* image row of output row oh: oh*row_stride - top */
    ptrdiff_t step;                          /* reals between neighbouring output pixels' first taps */
    ptrdiff_t image_start;                   /* reals before the first output pixel's first tap */
    ptrdiff_t filters, fill;                 /* output channels of a group; those to write, the rest zeros */
    ptrdiff_t out_start, out_step, out_line; /* reals before the first output, between pixels, rows */
    ptrdiff_t pair;  /* kernel rows from one output row to the next where two share a vector, else 0 */
    int channelwise; /* every channel has a filter of its own */
    int relu;
    int accumulate; /* sums start from what the output holds, not from the bias */
} product;

/* Shapes */

static ptrdiff_t padded_line(const conv_shape *s) {
    return (s->x.W + s->window.pad_left + s->window.pad_right) * s->x.pixel;
}
static ptrdiff_t weight_rows(const conv_shape *s) {
    return s->window.kernel_h * s->window.kernel_w * (s->x.C / s->groups);
}
static ptrdiff_t weight_count(const conv_shape *s) { return weight_rows(s) * s->z.pixel; }

/* Depthwise: vectors hold channels of both images, so all groups are done at once. */
static int is_channelwise(const conv_shape *s) {
    return s->groups > 1 && s->groups == s->x.C && s->x.C == s->z.C && s->x.pixel == s->z.pixel;
}

/* How many products make up a convolution, side by side in a pixel. */
static ptrdiff_t count_products(const conv_shape *s) { return is_channelwise(s) ? 1 : s->groups; }

/* Taps to take together, in one kernel row: all where neighbouring pixels share them. */
static ptrdiff_t taps_together(ptrdiff_t kernel_w, int shared) {
    return shared && kernel_w <= MAX_TAPS && kernel_w % 2 ? kernel_w : 1;
}

/* The same product with two output rows a vector, where each leaves half of it empty otherwise. */
static product pair_rows(product p) {
    int narrow = 2 * p.filters <= VLEN && p.fill % LANES == 0 && !p.channelwise;
    if (narrow && p.row_stride % p.dilation == 0 && p.row_stride / p.dilation < p.kernel_h)
        p.pair = p.row_stride / p.dilation;
    return p;
}

static product forward_product(const conv_shape *s) {
    const window_shape *w = &s->window;
    ptrdiff_t products = count_products(s), C = s->x.C / products, F = s->z.C / products;
    ptrdiff_t taps = taps_together(w->kernel_w, w->stride_w == w->dilation_w);
    /* Taps side by side make one run where nothing lies between them. */
    int merged = taps == 1 && w->dilation_w == 1 && C == s->x.pixel && !is_channelwise(s);
    return pair_rows((product){.rows = s->z.H,
                               .columns = s->z.W,
                               .height = s->x.H,
                               .line = padded_line(s),
                               .taps = taps,
                               .depth = merged ? w->kernel_w * C : C,
                               .runs = merged ? 1 : w->kernel_w / taps,
                               .run_offset = taps * w->dilation_w * s->x.pixel,
                               .kernel_h = w->kernel_h,
                               .dilation = w->dilation_h,
                               .top = w->pad_top,
                               .row_stride = w->stride_h,
                               .step = w->stride_w * s->x.pixel,
                               .filters = F,
                               .fill = products == 1 && s->z.pixel % LANES == 0 ? s->z.pixel : F,
                               .out_step = s->z.pixel,
                               .out_line = s->z.W * s->z.pixel,
                               .channelwise = is_channelwise(s)});
}

/* One axis of the input positions `phase`, `phase` + stride, ...: the taps that reach them. */
typedef struct {
    ptrdiff_t first, between, count; /* taps first, first + between, ... */
    ptrdiff_t dilation;              /* output positions from the last of them to the last but one, ... */
    ptrdiff_t pad;                   /* output positions before output 0 that the first position meets */
    ptrdiff_t extent;                /* input positions */
} axis_phase;

static axis_phase find_phase(ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t pad,
                             ptrdiff_t extent, ptrdiff_t phase) {
    ptrdiff_t divisor = stride, rest = dilation; /* to be their greatest common divisor */
    while (rest) {
        ptrdiff_t next = divisor % rest;
        divisor = rest;
        rest = next;
    }
    axis_phase a = {.between = stride / divisor,
                    .dilation = dilation / divisor,
                    .extent = ceil_div(extent - phase, stride)};
    while (a.first < kernel && (phase + pad - a.first * dilation) % stride)
        a.first++;
    a.count = ceil_div(kernel - a.first, a.between);
    if (a.count)
        a.pad = (a.count - 1) * a.dilation - (phase + pad - a.first * dilation) / stride;
    return a;
}

static ptrdiff_t count_phases(ptrdiff_t stride, ptrdiff_t extent) { return at_most(stride, extent); }

static axis_phase find_column_phase(const conv_shape *s, ptrdiff_t phase) {
    const window_shape *w = &s->window;
    return find_phase(w->kernel_w, w->stride_w, w->dilation_w, w->pad_left, s->x.W, phase);
}

/* Pixels that the output gradient needs to the left and to the right for all phases. */
static void find_gradient_pads(const conv_shape *s, ptrdiff_t *left, ptrdiff_t *right) {
    *left = *right = 0;
    for (ptrdiff_t phase = 0; phase < count_phases(s->window.stride_w, s->x.W); phase++) {
        axis_phase a = find_column_phase(s, phase);
        if (a.count) {
            *left = at_least(*left, a.pad);
            *right = at_least(*right, a.extent - a.pad + (a.count - 1) * a.dilation - s->z.W);
        }
    }
}

static ptrdiff_t gradient_line(const conv_shape *s) {
    ptrdiff_t left, right;
    find_gradient_pads(s, &left, &right);
    return (left + s->z.W + right) * s->z.pixel;
}

/* dx at rows row_phase, row_phase + stride_h, ... and columns likewise, from the padded dz. */
static product flipped_product(const conv_shape *s, ptrdiff_t row_phase, ptrdiff_t column_phase) {
    const window_shape *w = &s->window;
    axis_phase h = find_phase(w->kernel_h, w->stride_h, w->dilation_h, w->pad_top, s->x.H, row_phase);
    axis_phase v = find_column_phase(s, column_phase);
    ptrdiff_t products = count_products(s), C = s->x.C / products, F = s->z.C / products, left, right;
    find_gradient_pads(s, &left, &right);
    ptrdiff_t taps = taps_together(v.count, v.dilation == 1);
    int merged = taps == 1 && v.dilation == 1 && F == s->z.pixel && !is_channelwise(s);
    return pair_rows((product){.rows = h.extent,
                               .columns = v.extent,
                               .height = s->z.H,
                               .line = (left + s->z.W + right) * s->z.pixel,
                               .taps = taps,
                               .depth = merged ? v.count * F : F,
                               .runs = merged ? 1 : v.count / taps,
                               .run_offset = taps * v.dilation * s->z.pixel,
                               .kernel_h = v.count ? h.count : 0,
                               .dilation = h.dilation,
                               .top = h.pad,
                               .row_stride = 1,
                               .step = s->z.pixel,
                               .image_start = (left - v.pad) * s->z.pixel,
                               .filters = C,
                               .fill = products == 1 && s->x.pixel % LANES == 0 ? s->x.pixel : C,
                               .out_start = (row_phase * s->x.W + column_phase) * s->x.pixel,
                               .out_step = w->stride_w * s->x.pixel,
                               .out_line = w->stride_h * s->x.W * s->x.pixel,
                               .channelwise = is_channelwise(s)});
}

/* Packing */

static ptrdiff_t panels_of(ptrdiff_t filters) { return ceil_div(filters, PANEL); }

/* Reals of one panel of a product's packed filters, and of all. */
static ptrdiff_t panel_size(const product *p) {
    return (p->kernel_h + p->pair) * p->runs * p->taps * (p->channelwise ? 1 : p->depth * PANEL);
}
static ptrdiff_t filters_size(const product *p) {
    return panel_size(p) * (p->channelwise ? p->fill : panels_of(p->filters));
}
static ptrdiff_t bias_size(const product *p) { return round_up(p->fill, PANEL); }

/* Reals of the filters of all phases of the flipped product. */
static ptrdiff_t flipped_size(const conv_shape *s) {
    ptrdiff_t size = 0;
    for (ptrdiff_t row = 0; row < count_phases(s->window.stride_h, s->x.H); row++)
        for (ptrdiff_t column = 0; column < count_phases(s->window.stride_w, s->x.W); column++) {
            product p = flipped_product(s, row, column);
            size += filters_size(&p);
        }
    return size;
}

/* The row of a panel that holds real k of `depth` of a tap: taps taken together lie side by side. */
static ptrdiff_t panel_row(const product *p, ptrdiff_t depth, ptrdiff_t tap, ptrdiff_t k) {
    return tap / p->taps * p->taps * depth + k * p->taps + tap % p->taps;
}

/* A pair's second row: the same filters, `pair` kernel rows on and half a vector behind. */
static void pack_pair(const product *p, real *panel) {
    ptrdiff_t shift = p->pair * p->runs * p->taps * p->depth;
    memset(panel + panel_size(p) - shift * PANEL, 0, (size_t)(shift * PANEL) * sizeof(real));
    for (real *to = panel + shift * PANEL; to < panel + panel_size(p); to += PANEL)
        memcpy(to + VLEN / 2, to - shift * PANEL, (size_t)p->filters * sizeof(real));
}

/* Filters [tap][c][f] of one group into panels of columns f; channelwise [tap][channel] as they are. */
static void pack_filters(const conv_shape *s, const real *w, ptrdiff_t group, real *panels) {
    product p = forward_product(s);
    if (p.channelwise) {
        memcpy(panels, w, (size_t)filters_size(&p) * sizeof(real));
        return;
    }
    ptrdiff_t C = s->x.C / s->groups, F = p.filters, taps = s->window.kernel_h * s->window.kernel_w;
    for (ptrdiff_t panel = 0; panel < panels_of(F); panel++)
        for (ptrdiff_t tap = 0; tap < taps; tap++)
            for (ptrdiff_t c = 0; c < C; c++)
                pack_panel(at_most(PANEL, F - panel * PANEL),
                           w + (tap * C + c) * s->z.pixel + group * F + panel * PANEL,
                           panels + panel * panel_size(&p) + panel_row(&p, C, tap, c) * PANEL);
    if (p.pair)
        pack_pair(&p, panels);
}

/* The filters of one phase, flipped, into panels of columns c. */
static void pack_phase(const conv_shape *s, const real *w, ptrdiff_t group, ptrdiff_t row_phase,
                       ptrdiff_t column_phase, real *panels) {
    const window_shape *shape = &s->window;
    product p = flipped_product(s, row_phase, column_phase);
    axis_phase h =
        find_phase(shape->kernel_h, shape->stride_h, shape->dilation_h, shape->pad_top, s->x.H, row_phase);
    axis_phase v = find_column_phase(s, column_phase);
    ptrdiff_t C = s->x.C / s->groups, F = s->z.C / s->groups;
    memset(panels, 0, (size_t)filters_size(&p) * sizeof(real));
    for (ptrdiff_t tap = 0; tap < p.kernel_h * v.count; tap++) {
        ptrdiff_t kh = h.first + (h.count - 1 - tap / v.count) * h.between;
        ptrdiff_t kw = v.first + (v.count - 1 - tap % v.count) * v.between;
        const real *from = w + (kh * shape->kernel_w + kw) * C * s->z.pixel + group * F;
        if (p.channelwise) {
            memcpy(panels + tap * p.fill, from, (size_t)p.fill * sizeof(real));
            continue;
        }
        for (ptrdiff_t c = 0; c < C; c++) {
            real *to = panels + c / PANEL * panel_size(&p) + panel_row(&p, F, tap, 0) * PANEL + c % PANEL;
            for (ptrdiff_t f = 0; f < F; f++)
                to[f * p.taps * PANEL] = from[c * s->z.pixel + f];
        }
    }
    if (p.pair)
        pack_pair(&p, panels);
}

/* Of all phases, behind one another. */
static void pack_flipped(const conv_shape *s, const real *w, ptrdiff_t group, real *panels) {
    for (ptrdiff_t row = 0; row < count_phases(s->window.stride_h, s->x.H); row++)
        for (ptrdiff_t column = 0; column < count_phases(s->window.stride_w, s->x.W); column++) {
            pack_phase(s, w, group, row, column, panels);
            product p = flipped_product(s, row, column);
            panels += filters_size(&p);
        }
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

static const real *pad_gradient(const conv_shape *s, const real *dz, real *padded) {
    ptrdiff_t left, right;
    find_gradient_pads(s, &left, &right);
    return pad_image(dz, s->z.H, s->z.W * s->z.pixel, left * s->z.pixel, gradient_line(s), padded);
}

/* For products that fill less than a pixel: groups, and pixels of odd lengths. */
static void clear_padding(const image_shape *s, real *image) {
    for (ptrdiff_t i = 0; s->pixel > s->C && i < s->H * s->W; i++)
        memset(image + i * s->pixel + s->C, 0, (size_t)(s->pixel - s->C) * sizeof(real));
}

/* Forward, and the gradient of the input */

/* Pixels of a tile: a register for each and vector, beside those of the filters and one for the image. */
#define TILE_PIXELS(taps, vectors) at_most((REGISTERS - 1) / (vectors) - (taps), MAX_TILE)

/* What changes from one tile of a product to the next. */
typedef struct {
    const real *image, *panel; /* the first pixel's first tap, and its filters */
    ptrdiff_t kernel_rows;     /* those that lie inside the image */
    ptrdiff_t depth, advance;  /* elements to run along, reals between them */
    const real *start;
    ptrdiff_t start_step; /* reals from what one pixel's sums start from to the next's */
    real *out;
    ptrdiff_t out_step;
    const real_int *keep; /* the last vector's lanes that count; NULL: all */
} product_tile;

/* sums[i][v] += sum over t < taps of image[(i + t)*step] * panel[t*PANEL + v*VLEN ...]: neighbouring pixels
 * share taps, so an element of the image serves up to `taps` of them. Bases as from set_bases. */
INLINE void accumulate_taps(const ptrdiff_t taps, const ptrdiff_t pixels, const ptrdiff_t vectors,
                            vec sums[MAX_TILE][TILE_VECTORS], const real *const *bases, ptrdiff_t step,
                            const real *panel) {
    vec right[MAX_TAPS][TILE_VECTORS];
    UNROLLED (t, taps)
        UNROLLED (v, vectors)
            right[t][v] = load(panel + t * PANEL + v * VLEN);
    UNROLLED (j, pixels + taps - 1) {
        vec broadcast = fill(left(bases, j, step));
        UNROLLED (t, taps)
            if (j >= t && j - t < pixels)
                UNROLLED (v, vectors)
                    sums[j - t][v] += broadcast * right[t][v];
    }
}

#define RUN_ALONG(advance)                                                                                   \
    for (ptrdiff_t k = 0; k < depth; k++) {                                                                  \
        accumulate_taps(taps, pixels, vectors, sums, bases, step, panel + k * taps * PANEL);                 \
        UNROLLED (j, (pixels + taps + 1) / 3)                                                                \
            bases[j] += advance;                                                                             \
    }

INLINE void accumulate_run(const ptrdiff_t taps, const ptrdiff_t pixels, const ptrdiff_t vectors,
                           vec sums[MAX_TILE][TILE_VECTORS], const real *image, ptrdiff_t step,
                           ptrdiff_t depth, ptrdiff_t advance, const real *panel) {
    const real *bases[(MAX_TILE + MAX_TAPS + 1) / 3];
    set_bases(pixels + taps - 1, bases, image, step);
    if (taps > 1)
        RUN_ALONG(advance)
    else
        _Pragma("GCC unroll 4") RUN_ALONG(1)
}

/* VLEN lanes of which the first `count` have all bits set. */
static const real_int *stored_lanes(ptrdiff_t count) {
    static const real_int lanes[2 * VECTOR_BYTES / sizeof(real)] = {[0 ... VECTOR_BYTES / sizeof(real) - 1] =
                                                                        -1};
    return lanes + VLEN - count;
}

/* For the last of `vectors`, where `count` lanes in all are to stay. */
static const real_int *keep_of(ptrdiff_t count, ptrdiff_t vectors) {
    return count < vectors * VLEN ? stored_lanes(count - (vectors - 1) * VLEN) : NULL;
}

INLINE vec keep_lanes(vec value, const real_int *keep) {
    return (vec)((mask)value & (mask)load((const real *)keep));
}

/* Sums to where they belong. */
INLINE void store_sums(const ptrdiff_t pixels, const ptrdiff_t vectors, vec sums[MAX_TILE][TILE_VECTORS],
                       int relu, const real_int *keep, real *out, ptrdiff_t out_step) {
    if (relu) {
        UNROLLED (i, pixels)
            UNROLLED (v, vectors)
                sums[i][v] = relu_vector(sums[i][v]);
    }
    if (keep) { /* an infinite tap has made inf * 0 = NaN of the others */
        UNROLLED (i, pixels)
            sums[i][vectors - 1] = keep_lanes(sums[i][vectors - 1], keep);
    }
    UNROLLED (i, pixels)
        UNROLLED (v, vectors)
            store(out + i * out_step + v * VLEN, sums[i][v]);
}

INLINE void compute_product_tile(const ptrdiff_t taps, const ptrdiff_t pixels, const ptrdiff_t vectors,
                                 const product *p, const product_tile *t) {
    vec sums[MAX_TILE][TILE_VECTORS];
    UNROLLED (i, pixels)
        UNROLLED (v, vectors)
            sums[i][v] = load(t->start + i * t->start_step + v * VLEN);
    const real *image = t->image, *panel = t->panel;
    for (ptrdiff_t kh = 0; kh < t->kernel_rows; kh++) {
        for (ptrdiff_t r = 0; r < (taps > 1 ? 1 : p->runs); r++) {
            accumulate_run(taps, pixels, vectors, sums, image + r * p->run_offset, p->step, t->depth,
                           t->advance, panel);
            panel += taps * t->depth * PANEL;
        }
        image += p->dilation * p->line;
    }
    store_sums(pixels, vectors, sums, p->relu, t->keep, t->out, t->out_step);
}

/* Functions name_<taps>_<size>_<vectors> for every size of a tile, and a table of them; those too large
 * for the registers are empty. */
#define FOR_EACH_SIZE(DO, ...)                                                                               \
    DO(1, __VA_ARGS__)                                                                                       \
    DO(2, __VA_ARGS__)                                                                                       \
    DO(3, __VA_ARGS__)                                                                                       \
    DO(4, __VA_ARGS__)                                                                                       \
    DO(5, __VA_ARGS__)                                                                                       \
    DO(6, __VA_ARGS__)                                                                                       \
    DO(7, __VA_ARGS__)                                                                                       \
    DO(8, __VA_ARGS__)                                                                                       \
    DO(9, __VA_ARGS__)                                                                                       \
    DO(10, __VA_ARGS__) DO(11, __VA_ARGS__) DO(12, __VA_ARGS__) DO(13, __VA_ARGS__) DO(14, __VA_ARGS__)
#define DEFINE_TILE(size, name, limit, taps, vectors)                                                        \
    static void name##_##taps##_##size##_##vectors(const product *p, const name *t) {                        \
        if (size <= limit(taps, vectors))                                                                    \
            compute_##name(taps, size, vectors, p, t);                                                       \
    }
#define LIST_TILE(size, name, taps, vectors) name##_##taps##_##size##_##vectors,
#define DEFINE_TILES(name, limit, taps)                                                                      \
    FOR_EACH_SIZE(DEFINE_TILE, name, limit, taps, 1) FOR_EACH_SIZE(DEFINE_TILE, name, limit, taps, 2)
#define LIST_TILES(name, taps)                                                                               \
    {                                                                                                        \
        {FOR_EACH_SIZE(LIST_TILE, name, taps, 1)}, { FOR_EACH_SIZE(LIST_TILE, name, taps, 2) }               \
    }
#if MAX_TAPS > 1
#define DEFINE_TILE_TABLE(name, limit)                                                                       \
    DEFINE_TILES(name, limit, 1)                                                                             \
    DEFINE_TILES(name, limit, 3)                                                                             \
    DEFINE_TILES(name, limit, 5)                                                                             \
    DEFINE_TILES(name, limit, 7)                                                                             \
    static void (*const name##s[][TILE_VECTORS][MAX_TILE])(const product *, const name *) = {                \
        LIST_TILES(name, 1), LIST_TILES(name, 3), LIST_TILES(name, 5), LIST_TILES(name, 7)};
#else
#define DEFINE_TILE_TABLE(name, limit)                                                                       \
    DEFINE_TILES(name, limit, 1)                                                                             \
    static void (*const name##s[][TILE_VECTORS][MAX_TILE])(const product *,                                  \
                                                           const name *) = {LIST_TILES(name, 1)};
#endif

DEFINE_TILE_TABLE(product_tile, TILE_PIXELS)

/* With one channel, the only thing to run along is the kernel's height. */
static int is_upright(const product *p) { return p->taps > 1 && p->depth == 1; }

/* First and last + 1 of the kernel rows that lie inside the image. */
static void valid_rows(const product *p, ptrdiff_t oh, ptrdiff_t *first, ptrdiff_t *end) {
    ptrdiff_t origin = oh * p->row_stride - p->top;
    *first = origin < 0 ? ceil_div(-origin, p->dilation) : 0;
    *end = origin >= p->height ? 0 : at_most(p->kernel_h, ceil_div(p->height - origin, p->dilation));
    *first = at_most(*first, *end);
}

/* The beginning of output row oh, from kernel rows [first, end). */
static product_tile start_row(const product *p, const real *image, const real *filters, ptrdiff_t oh,
                              ptrdiff_t first, ptrdiff_t end) {
    product_tile t = {.image = image + (oh * p->row_stride - p->top + first * p->dilation) * p->line,
                      .panel = filters + first * p->runs * p->taps * p->depth * PANEL,
                      .kernel_rows = end - first,
                      .depth = p->depth,
                      .advance = 1};
    if (is_upright(p)) {
        t.kernel_rows = 1;
        t.depth = end - first;
        t.advance = p->dilation * p->line;
    }
    return t;
}

/* Whether each row of the product goes on where the one before it ends, so that they make up one. */
static int rows_continue(const product *p) {
    return p->kernel_h == 1 && p->top == 0 && (p->rows - 1) * p->row_stride < p->height &&
           p->row_stride * p->line == p->columns * p->step && p->out_line == p->columns * p->out_step;
}

static const real no_bias[TILE_VECTORS * VECTOR_BYTES / sizeof(real)];

#define CHANNELWISE_PIXELS 8

INLINE void compute_channelwise(const ptrdiff_t pixels, const product *p, const real *image,
                                ptrdiff_t kernel_rows, const real *filters, const real *start,
                                ptrdiff_t start_step, const real_int *keep, real *out) {
    vec sums[MAX_TILE][TILE_VECTORS];
    UNROLLED (i, pixels)
        sums[i][0] = load(start + i * start_step);
    for (ptrdiff_t kh = 0; kh < kernel_rows; kh++)
        for (ptrdiff_t kw = 0; kw < p->runs * p->taps; kw++) {
            const real *tap = image + kh * p->dilation * p->line + kw * (p->run_offset / p->taps);
            vec filter = load(filters);
            UNROLLED (i, pixels)
                sums[i][0] += load(tap + i * p->step) * filter;
            filters += p->fill;
        }
    store_sums(pixels, 1, sums, p->relu, keep, out, p->out_step);
}

static void run_channelwise(const product *p, const real *image, const real *filters, const real *bias,
                            real *out) {
    for (ptrdiff_t oh = 0; oh < p->rows; oh++) {
        ptrdiff_t first, end;
        valid_rows(p, oh, &first, &end);
        const real *line = image + (oh * p->row_stride - p->top + first * p->dilation) * p->line;
        for (ptrdiff_t c = 0; c < p->fill; c += VLEN) {
            const real *column = filters + first * p->runs * p->taps * p->fill + c;
            const real_int *keep = stored_lanes(at_most(VLEN, at_least(p->filters - c, 0)));
            for (ptrdiff_t ow = 0; ow < p->columns;) {
                const real *from = line + ow * p->step + c;
                real *to = out + oh * p->out_line + ow * p->out_step + c;
                const real *start = p->accumulate ? to : bias ? bias + c : no_bias;
                ptrdiff_t start_step = p->accumulate ? p->out_step : 0;
                if (ow + CHANNELWISE_PIXELS <= p->columns) {
                    compute_channelwise(CHANNELWISE_PIXELS, p, from, end - first, column, start, start_step,
                                        keep, to);
                    ow += CHANNELWISE_PIXELS;
                } else {
                    compute_channelwise(1, p, from, end - first, column, start, start_step, keep, to);
                    ow++;
                }
            }
        }
    }
}

/* Half a vec in memory: one pixel of a pair of rows. */
typedef real loose_half __attribute__((vector_size(VECTOR_BYTES / 2), aligned(1), may_alias));

INLINE void copy_half(real *to, const real *from) { *(loose_half *)to = *(const loose_half *)from; }

/* Rows oh and oh + 1, those of [lower, upper) that are wanted, from kernel rows [first, end) of a pair. */
static void run_pair(const product *p, const real *image, const real *filters, const real *bias, ptrdiff_t oh,
                     ptrdiff_t first, ptrdiff_t end, ptrdiff_t lower, ptrdiff_t upper, real *out) {
    real start[VLEN], sums[MAX_TILE * PANEL];
    real_int keep[VLEN];
    for (ptrdiff_t lane = 0; lane < VLEN; lane++) {
        start[lane] = bias ? bias[lane % (VLEN / 2)] : 0;
        keep[lane] = lane % (VLEN / 2) < p->filters ? -1 : 0;
    }
    product_tile t = start_row(p, image, filters, oh, first, end);
    t.start = p->accumulate ? sums : start;
    t.start_step = p->accumulate ? PANEL : 0;
    t.out = sums;
    t.out_step = PANEL;
    t.keep = keep;
    ptrdiff_t tiles = ceil_div(p->columns, TILE_PIXELS(p->taps, 1));
    for (ptrdiff_t i = 0; i < tiles; i++) {
        ptrdiff_t ow = tile_start(p->columns, tiles, i), pixels = tile_start(p->columns, tiles, i + 1) - ow;
        for (ptrdiff_t row = lower; p->accumulate && row < upper; row++)
            for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
                copy_half(sums + pixel * PANEL + row * VLEN / 2,
                          out + row * p->out_line + (ow + pixel) * p->out_step);
        product_tiles[p->taps / 2][0][pixels - 1](p, &t);
        t.image += pixels * p->step;
        for (ptrdiff_t row = lower; row < upper; row++)
            for (ptrdiff_t pixel = 0; pixel < pixels; pixel++) {
                real *to = out + row * p->out_line + (ow + pixel) * p->out_step;
                copy_half(to, sums + pixel * PANEL + row * VLEN / 2);
                for (ptrdiff_t f = VLEN / 2; f < p->fill; f += VLEN / 2)
                    copy_half(to + f, no_bias);
            }
    }
}

/* Whether none of the reals is infinite or NaN. */
static int all_finite(const real *from, ptrdiff_t count) {
    vec sum = {0};
    real rest = 0;
    ptrdiff_t i = 0;
    for (; i + VLEN <= count; i += VLEN)
        sum += load(from + i) * (real)0;
    for (; i < count; i++)
        rest += from[i] * (real)0;
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        rest += sum[lane];
    return rest == 0;
}

/* Rows in pairs. Each meets kernel rows that only the other has and whose filters are 0 for it: where that
 * would make inf * 0 = NaN, the two are computed one after the other. */
static void run_pairs(const product *p, const real *image, const real *filters, const real *bias, real *out) {
    product both = *p;
    both.kernel_h += p->pair;
    ptrdiff_t top = at_least(-p->top, 0);
    ptrdiff_t bottom =
        at_most((p->rows - 1) * p->row_stride - p->top + both.kernel_h * p->dilation, p->height);
    int together = all_finite(image - p->image_start + top * p->line, (bottom - top) * p->line);
    for (ptrdiff_t oh = 0; oh < p->rows; oh += 2) {
        real *to = out + oh * p->out_line;
        ptrdiff_t first, end, rows = at_most(2, p->rows - oh);
        valid_rows(together ? &both : p, oh, &first, &end);
        run_pair(p, image, filters, bias, oh, first, end, 0, together ? rows : 1, to);
        if (together || rows == 1)
            continue;
        valid_rows(p, oh + 1, &first, &end);
        run_pair(p, image, filters, bias, oh, first + p->pair, end + p->pair, 1, 2, to);
    }
}

/* One image and one group, from packed filters and a bias that zeros fill up to bias_size; `out` is where
 * the channels of the group go. */
static void run_product(const product *p, const real *image, const real *filters, const real *bias,
                        real *out) {
    image += p->image_start;
    out += p->out_start;
    if (p->channelwise) {
        run_channelwise(p, image, filters, bias, out);
        return;
    }
    if (p->pair) {
        run_pairs(p, image, filters, bias, out);
        return;
    }
    ptrdiff_t rows = p->rows, columns = p->columns;
    if (rows_continue(p) && rows > 1) {
        columns *= rows;
        rows = 1;
    }
    for (ptrdiff_t panel = 0; panel < panels_of(p->filters); panel++) {
        ptrdiff_t count = at_most(PANEL, p->filters - panel * PANEL), vectors = ceil_div(count, VLEN);
        ptrdiff_t fill = panel + 1 < panels_of(p->filters) ? count : p->fill - panel * PANEL;
        ptrdiff_t tiles = ceil_div(columns, TILE_PIXELS(p->taps, vectors));
        int direct = vectors * VLEN <= fill; /* otherwise a neighbour's channels follow */
        for (ptrdiff_t oh = 0; oh < rows; oh++) {
            ptrdiff_t first, end;
            valid_rows(p, oh, &first, &end);
            product_tile t = start_row(p, image, filters + panel * panel_size(p), oh, first, end);
            t.keep = keep_of(count, vectors);
            real *to = out + oh * p->out_line + panel * PANEL;
            for (ptrdiff_t i = 0; i < tiles; i++) {
                ptrdiff_t pixels = tile_start(columns, tiles, i + 1) - tile_start(columns, tiles, i);
                real aside[MAX_TILE * PANEL];
                t.out = direct ? to : aside;
                t.out_step = direct ? p->out_step : PANEL;
                t.start = p->accumulate ? t.out : bias ? bias + panel * PANEL : no_bias;
                t.start_step = p->accumulate ? t.out_step : 0;
                for (ptrdiff_t pixel = 0; !direct && p->accumulate && pixel < pixels; pixel++)
                    memcpy(aside + pixel * PANEL, to + pixel * p->out_step, (size_t)count * sizeof(real));
                product_tiles[p->taps / 2][vectors - 1][pixels - 1](p, &t);
                for (ptrdiff_t pixel = 0; !direct && pixel < pixels; pixel++)
                    memcpy(to + pixel * p->out_step, aside + pixel * PANEL, (size_t)count * sizeof(real));
                for (ptrdiff_t f = vectors * VLEN; f < fill; f += VLEN)
                    for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
                        store(to + pixel * p->out_step + f, (vec){0});
                t.image += pixels * p->step;
                to += pixels * p->out_step;
            }
        }
    }
}

/* The input gradient of one image and one group, from dz as pad_gradient gives it. */
static void run_flipped(const conv_shape *s, const real *dz, const real *filters, int accumulate, real *dx) {
    for (ptrdiff_t row = 0; row < count_phases(s->window.stride_h, s->x.H); row++)
        for (ptrdiff_t column = 0; column < count_phases(s->window.stride_w, s->x.W); column++) {
            product p = flipped_product(s, row, column);
            p.accumulate = accumulate;
            run_product(&p, dz, filters, NULL, dx);
            filters += filters_size(&p);
        }
}

/* Gradient of the weights and the bias */

/* Channels of a tile: a register for each, tap and vector, beside those of a window of `taps` output
 * gradients and one for the image. */
#define TILE_CHANNELS(taps, vectors) at_most((REGISTERS - 1) / ((taps) * (vectors)) - 1, MAX_TILE)
#define MAX_SUMS (REGISTERS - 1)

/* What changes from one tile of a weight gradient to the next. */
typedef struct {
    const real *image, *dz;
    ptrdiff_t rows; /* output rows whose kernel row lies inside the image */
    real *dw;
    ptrdiff_t tap_step, channel_step; /* reals of dw from a tap to the next, from a channel */
    const real_int *keep;             /* the last vector's lanes that count; NULL: all */
} gradient_tile;

INLINE void load_vectors(const ptrdiff_t vectors, vec to[TILE_VECTORS], const real *from) {
    UNROLLED (v, vectors)
        to[v] = load(from + v * VLEN);
}

/* sums[t*channels + c][v] += image[c*spread] * window[slot - t][v] for taps t in [first, end): slots make a
 * ring. */
INLINE void accumulate_pixel(const ptrdiff_t taps, const ptrdiff_t first, const ptrdiff_t end,
                             const ptrdiff_t channels, const ptrdiff_t vectors,
                             vec sums[MAX_SUMS][TILE_VECTORS], const real *image, ptrdiff_t spread,
                             vec window[MAX_TAPS][TILE_VECTORS], const ptrdiff_t slot) {
    UNROLLED (c, channels) {
        vec broadcast = fill(image[c * spread]);
        UNROLLED (t, taps)
            if (first <= t && t < end)
                UNROLLED (v, vectors)
                    sums[t * channels + c][v] += broadcast * window[(slot - t + taps) % taps][v];
    }
}

/* sums[t*channels + c][v] += sum over m < columns of image[(m + t)*step + c*spread] * dz[m*dz_step + v*VLEN
 * ...], columns >= taps: a pixel of the image serves as tap t of output pixel m - t. */
INLINE void accumulate_row(const ptrdiff_t taps, const ptrdiff_t channels, const ptrdiff_t vectors,
                           vec sums[MAX_SUMS][TILE_VECTORS], const real *image, ptrdiff_t step,
                           ptrdiff_t spread, ptrdiff_t columns, const real *dz, ptrdiff_t dz_step) {
    vec window[MAX_TAPS][TILE_VECTORS];
    UNROLLED (u, taps - 1) {
        load_vectors(vectors, window[u], dz + u * dz_step);
        accumulate_pixel(taps, 0, u + 1, channels, vectors, sums, image, spread, window, u);
        image += step;
    }
    ptrdiff_t m = taps - 1;
    const ptrdiff_t block = taps > 1 ? taps : 4; /* a full turn of the ring */
    for (; m + block <= columns; m += block)
        UNROLLED (u, block) {
            load_vectors(vectors, window[(taps - 1 + u) % taps], dz + (m + u) * dz_step);
            accumulate_pixel(taps, 0, taps, channels, vectors, sums, image, spread, window,
                             (taps - 1 + u) % taps);
            image += step;
        }
    for (; m < columns; m++) {
        UNROLLED (t, taps)
            load_vectors(vectors, window[taps - 1 - t], dz + (m - t) * dz_step);
        accumulate_pixel(taps, 0, taps, channels, vectors, sums, image, spread, window, taps - 1);
        image += step;
    }
    UNROLLED (t, taps - 1)
        load_vectors(vectors, window[taps - 1 - t], dz + (columns - 1 - t) * dz_step);
    UNROLLED (u, taps - 1) {
        accumulate_pixel(taps, u + 1, taps, channels, vectors, sums, image, spread, window, u);
        image += step;
    }
}

INLINE void compute_gradient_tile(const ptrdiff_t taps, const ptrdiff_t channels, const ptrdiff_t vectors,
                                  const product *p, const gradient_tile *g) {
    vec sums[MAX_SUMS][TILE_VECTORS];
    UNROLLED (i, taps * channels)
        UNROLLED (v, vectors)
            sums[i][v] = (vec){0};
    const real *image = g->image, *dz = g->dz;
    for (ptrdiff_t oh = 0; oh < g->rows; oh++) {
        if (taps > 1 && is_upright(p))
            accumulate_row(taps, channels, vectors, sums, image, p->step, p->dilation * p->line, p->columns,
                           dz, p->out_step);
        else
            accumulate_row(taps, channels, vectors, sums, image, p->step, 1, p->columns, dz, p->out_step);
        image += p->row_stride * p->line;
        dz += p->out_line;
    }
    if (g->keep) {
        UNROLLED (i, taps * channels)
            sums[i][vectors - 1] = keep_lanes(sums[i][vectors - 1], g->keep);
    }
    UNROLLED (i, taps * channels) {
        real *to = g->dw + i / channels * g->tap_step + i % channels * g->channel_step;
        UNROLLED (v, vectors)
            store(to + v * VLEN, load(to + v * VLEN) + sums[i][v]);
    }
}

DEFINE_TILE_TABLE(gradient_tile, TILE_CHANNELS)

/* First and last + 1 of the output rows whose kernel row kh lies inside the image. */
static void find_output_rows(const product *p, ptrdiff_t kh, ptrdiff_t *first, ptrdiff_t *end) {
    ptrdiff_t above = p->top - kh * p->dilation, below = p->height - 1 + above;
    *first = above > 0 ? ceil_div(above, p->row_stride) : 0;
    *end = below < 0 ? 0 : at_most(p->rows, below / p->row_stride + 1);
    *end = at_least(*first, *end);
}

static void add_channelwise_gradient(const product *p, const real *image, const real *dz, real *dw) {
    for (ptrdiff_t kh = 0; kh < p->kernel_h; kh++) {
        ptrdiff_t first, end;
        find_output_rows(p, kh, &first, &end);
        for (ptrdiff_t kw = 0; kw < p->runs * p->taps; kw++)
            for (ptrdiff_t c = 0; c < p->fill; c += VLEN) {
                vec sums[4] = {{0}}; /* several, since one would wait for itself */
                for (ptrdiff_t oh = first; oh < end; oh++) {
                    const real *a = image + (oh * p->row_stride - p->top + kh * p->dilation) * p->line +
                                    kw * (p->run_offset / p->taps) + c;
                    const real *b = dz + oh * p->out_line + c;
                    ptrdiff_t ow = 0;
                    for (; ow + 4 <= p->columns; ow += 4)
                        UNROLLED (u, 4)
                            sums[u] += load(a + (ow + u) * p->step) * load(b + (ow + u) * p->out_step);
                    for (; ow < p->columns; ow++)
                        sums[0] += load(a + ow * p->step) * load(b + ow * p->out_step);
                }
                real *to = dw + (kh * p->runs * p->taps + kw) * p->fill + c;
                store(to, load(to) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
            }
    }
}

/* The same product, every tap by itself or, where nothing lies between them, as one long tap. */
static product split_taps(product p) {
    if (p.depth == p.step) {
        p.depth *= p.taps;
    } else {
        p.runs *= p.taps;
        p.run_offset /= p.taps;
    }
    p.taps = 1;
    return p;
}

/* One tile over output rows [first, end): `channels` of them from c on in run (kh, r) or, upright, kernel
 * rows from kh on. */
static void add_gradient_tile(const product *p, const real *image, const real *dz, ptrdiff_t panel,
                              ptrdiff_t kh, ptrdiff_t r, ptrdiff_t c, ptrdiff_t channels, ptrdiff_t first,
                              ptrdiff_t end, real *dw) {
    if (first >= end)
        return;
    ptrdiff_t count = at_most(PANEL, p->filters - panel * PANEL), vectors = ceil_div(count, VLEN);
    ptrdiff_t channel_rows = is_upright(p) ? p->taps : 1; /* of dw */
    int direct = panel * PANEL + vectors * VLEN <= p->fill;
    real *to = dw + ((kh * p->runs + r) * p->taps * p->depth + c) * p->out_step + panel * PANEL;
    real aside[MAX_SUMS * PANEL];
    if (!direct)
        memset(aside, 0, sizeof aside);
    ptrdiff_t row = first * p->row_stride - p->top + kh * p->dilation;
    gradient_tile t = {.image = image + row * p->line + r * p->run_offset + c,
                       .dz = dz + first * p->out_line + panel * PANEL,
                       .rows = end - first,
                       .dw = direct ? to : aside,
                       .tap_step = direct ? p->depth * p->out_step : channels * PANEL,
                       .channel_step = direct ? channel_rows * p->out_step : PANEL,
                       .keep = keep_of(count, vectors)};
    gradient_tiles[p->taps / 2][vectors - 1][channels - 1](p, &t);
    for (ptrdiff_t i = 0; !direct && i < p->taps * channels; i++)
        for (ptrdiff_t f = 0; f < count; f++)
            to[(i / channels * p->depth + i % channels * channel_rows) * p->out_step + f] +=
                aside[i * PANEL + f];
}

/* Kernel rows kh ... kh + count - 1 together where all of them meet the image, then each for itself. */
static void add_upright_gradient(const product *p, const real *image, const real *dz, ptrdiff_t panel,
                                 ptrdiff_t kh, ptrdiff_t count, real *dw) {
    ptrdiff_t first = 0, end = p->rows, own_first, own_end;
    for (ptrdiff_t i = kh; i < kh + count; i++) {
        find_output_rows(p, i, &own_first, &own_end);
        first = at_least(first, own_first);
        end = at_most(end, own_end);
    }
    end = at_least(first, end);
    add_gradient_tile(p, image, dz, panel, kh, 0, 0, count, first, end, dw);
    for (ptrdiff_t i = kh; i < kh + count; i++) {
        find_output_rows(p, i, &own_first, &own_end);
        add_gradient_tile(p, image, dz, panel, i, 0, 0, 1, own_first, at_most(first, own_end), dw);
        add_gradient_tile(p, image, dz, panel, i, 0, 0, 1, at_least(end, own_first), own_end, dw);
    }
}

/* Weight gradient of one image and one group, added to dw: rows (tap, c), columns f, summed over pixels.
 * Reads whole vectors of dz, perhaps past the group's channels. */
static void add_weight_gradient(const product *together, const real *image, const real *dz, real *dw) {
    if (together->channelwise) {
        add_channelwise_gradient(together, image, dz, dw);
        return;
    }
    for (ptrdiff_t panel = 0; panel < panels_of(together->filters); panel++) {
        ptrdiff_t vectors = ceil_div(at_most(PANEL, together->filters - panel * PANEL), VLEN);
        /* The ends of a row cost more with taps together; on a short one more than that saves. */
        int slides = together->columns >= (vectors > 1 ? 4 : 2) * together->taps;
        product p = slides ? *together : split_taps(*together);
        if (rows_continue(&p)) {
            p.columns *= p.rows;
            p.rows = 1;
        }
        ptrdiff_t most = TILE_CHANNELS(p.taps, vectors), extent = is_upright(&p) ? p.kernel_h : p.depth;
        ptrdiff_t tiles = ceil_div(extent, most);
        for (ptrdiff_t i = 0; is_upright(&p) && i < tiles; i++) {
            ptrdiff_t kh = tile_start(extent, tiles, i);
            add_upright_gradient(&p, image, dz, panel, kh, tile_start(extent, tiles, i + 1) - kh, dw);
        }
        for (ptrdiff_t run = 0; !is_upright(&p) && run < p.kernel_h * p.runs; run++) {
            ptrdiff_t first, end;
            find_output_rows(&p, run / p.runs, &first, &end);
            for (ptrdiff_t i = 0; i < tiles; i++) {
                ptrdiff_t c = tile_start(extent, tiles, i);
                add_gradient_tile(&p, image, dz, panel, run / p.runs, run % p.runs, c,
                                  tile_start(extent, tiles, i + 1) - c, first, end, dw);
            }
        }
    }
}

/* Bias gradient of one image, added to db: a whole number of vectors. */
static void add_bias_gradient(const image_shape *s, const real *dz, real *db) {
    ptrdiff_t pixels = s->H * s->W;
    for (ptrdiff_t f = 0; f < s->pixel; f += VLEN) {
        vec sums[4] = {load(db + f)}; /* several, since one would wait for itself */
        ptrdiff_t i = 0;
        for (; i + 4 <= pixels; i += 4)
            UNROLLED (u, 4)
                sums[u] += load(dz + (i + u) * s->pixel + f);
        for (; i < pixels; i++)
            sums[0] += load(dz + i * s->pixel + f);
        store(db + f, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

#endif
