/* Winograd's minimal filtering F(11 - k, k) along rows, for filters 5 or 7 wide over few channels.
 *
 * 10 products take the place of k (11 - k): y = A^T [(G w) . (B^T x)], with polynomials multiplied by way
 * of their values at 0, +-1/2, +-3/4, +-5/4, +-2 and infinity (Toom and Cook's method; Winograd 1980,
 * "Arithmetic Complexity of Computations"). Across rows the sum is the textbook's. An image is
 * transformed once, to planes [columns of tiles][rows][C] in which a tile's kernel_h rows of C lie end to
 * end: for each point, what remains is a product as direct.h has it, one kernel row high and kernel_h C
 * deep. In float32 errors reach 4e-6 of the largest output. Not threaded.
 */
#ifndef CNNCTL_ROW_WINOGRAD_H
#define CNNCTL_ROW_WINOGRAD_H

#include "direct.h"

#define ROW_PAIRS 4                    /* points +-p */
#define ROW_POINTS (2 * ROW_PAIRS + 2) /* 0, the pairs, infinity */
#define ROW_CHANNELS 8  /* of the image, at most: more would not leave its planes in the cache */
#define ROW_COLUMNS 12  /* of the output, at least: tiles are short otherwise */
#define GRADIENT_BAND 4 /* rows of the output whose gradients are transformed at a time */

static int uses_row_winograd(const conv_shape *s) {
    const window_shape *w = &s->window;
    return !s->exact && (w->kernel_w == 5 || w->kernel_w == 7) && w->stride_w == 1 && w->dilation_w == 1 &&
           w->dilation_h == 1 && s->groups == 1 && s->x.C > 1 && s->x.C <= ROW_CHANNELS && s->z.C >= LANES &&
           s->z.W >= ROW_COLUMNS;
}

/* Extents, and where the parts of a worker's scratch begin, in reals. */
typedef struct {
    ptrdiff_t outputs;             /* of a tile */
    ptrdiff_t tiles;               /* of an output row */
    ptrdiff_t columns, rows, line; /* of the padded image, and reals of one of its columns */
    ptrdiff_t plane;               /* of the transformed image, one a point */
    ptrdiff_t image, planes, sums, gradient, total;
} row_layout;

static row_layout lay_out_rows(const conv_shape *s) {
    row_layout l = {.outputs = ROW_POINTS + 1 - s->window.kernel_w};
    l.tiles = ceil_div(s->z.W, l.outputs);
    l.columns = (l.tiles - 1) * l.outputs + ROW_POINTS;
    l.rows = (s->z.H - 1) * s->window.stride_h + s->window.kernel_h;
    l.line = l.rows * s->x.C;
    l.plane = round_up(l.tiles * l.line + VLEN, LANES); /* whole vectors reach past the last column */
    l.planes = round_up(l.columns * l.line + VLEN, LANES);
    l.sums = l.planes + ROW_POINTS * l.plane;
    l.gradient = l.sums + ROW_POINTS * GRADIENT_BAND * l.tiles * s->z.pixel;
    l.total = l.gradient + ROW_POINTS * s->window.kernel_h * s->x.C * s->z.pixel;
    return l;
}

/* The product that one point comes to. */
static product row_product(const conv_shape *s) {
    row_layout l = lay_out_rows(s);
    return (product){.rows = s->z.H,
                     .columns = l.tiles,
                     .height = s->z.H,
                     .line = s->window.stride_h * s->x.C,
                     .taps = 1,
                     .depth = s->window.kernel_h * s->x.C,
                     .runs = 1,
                     .kernel_h = 1,
                     .dilation = 1,
                     .row_stride = 1,
                     .step = l.line,
                     .filters = s->z.C,
                     .fill = s->z.pixel,
                     .out_step = s->z.pixel,
                     .out_line = l.tiles * s->z.pixel};
}

static const double row_pairs[ROW_PAIRS] = {0.5, 0.75, 1.25, 2};

/* G: what tap `kw` counts at a point. */
static real filter_factor(ptrdiff_t point, ptrdiff_t kw, ptrdiff_t kernel_w) {
    if (point == ROW_POINTS - 1)
        return kw == kernel_w - 1;
    double at = point ? row_pairs[(point - 1) / 2] : 0, factor = 1;
    for (ptrdiff_t pair = 0; pair < ROW_PAIRS; pair++)
        if (point == 0 || pair != (point - 1) / 2)
            factor /= at * at - row_pairs[pair] * row_pairs[pair];
    if (point)
        factor /= 2 * at * at;
    for (ptrdiff_t i = 0; i < kw; i++)
        factor *= point % 2 ? at : -at;
    return (real)factor;
}

/* Columns of the pixel that the panels hold; behind them is only padding. */
static ptrdiff_t packed_columns(const product *p) { return at_most(p->fill, panels_of(p->filters) * PANEL); }

static ptrdiff_t row_filters_size(const conv_shape *s) {
    product p = row_product(s);
    return ROW_POINTS * filters_size(&p);
}

/* G w in panels, point by point. */
static void pack_row_filters(const conv_shape *s, const real *w, real *filters) {
    product p = row_product(s);
    ptrdiff_t C = s->x.C, kernel_w = s->window.kernel_w, row = s->z.pixel;
    memset(filters, 0, (size_t)row_filters_size(s) * sizeof(real));
    for (ptrdiff_t point = 0; point < ROW_POINTS; point++, filters += filters_size(&p))
        for (ptrdiff_t f = 0; f < packed_columns(&p); f += VLEN)
            for (ptrdiff_t k = 0; k < p.depth; k++) {
                const real *from = w + (k / C * kernel_w * C + k % C) * row + f;
                vec sum = {0};
                for (ptrdiff_t kw = 0; kw < kernel_w; kw++)
                    sum += filter_factor(point, kw, kernel_w) * load(from + kw * C * row);
                store(filters + f / PANEL * panel_size(&p) + k * PANEL + f % PANEL, sum);
            }
}

/* x[0] q(0) + x[2] q(2) + ..., q(i) what x^(i/2) counts in the product of (x - p^2) over all pairs p but
 * one, or with `but` ROW_PAIRS over all. */
INLINE vec row_polynomial(const ptrdiff_t but, const vec *x) {
    double factors[ROW_PAIRS + 1] = {1};
    ptrdiff_t degree = 0;
    UNROLLED (pair, ROW_PAIRS)
        if (pair != but) {
            double square = row_pairs[pair] * row_pairs[pair];
            degree++;
            factors[degree] = factors[degree - 1];
            for (ptrdiff_t i = degree - 1; i > 0; i--)
                factors[i] = factors[i - 1] - square * factors[i];
            factors[0] *= -square;
        }
    vec sum = x[2 * degree];
    UNROLLED (i, degree)
        sum += (real)factors[i] * x[2 * i];
    return sum;
}

/* B^T */
INLINE void row_input_line(const vec *x, vec *v) {
    v[0] = row_polynomial(ROW_PAIRS, x);
    UNROLLED (pair, ROW_PAIRS) {
        vec even = row_polynomial(pair, x + 2), odd = (real)row_pairs[pair] * row_polynomial(pair, x + 1);
        v[1 + 2 * pair] = even + odd;
        v[2 + 2 * pair] = even - odd;
    }
    v[ROW_POINTS - 1] = row_polynomial(ROW_PAIRS, x + 1);
}

/* A^T */
INLINE void row_output_line(const ptrdiff_t outputs, const vec *m, vec *y) {
    y[0] = m[0];
    UNROLLED (i, outputs - 1)
        y[i + 1] = (vec){0};
    UNROLLED (pair, ROW_PAIRS) {
        vec even = m[1 + 2 * pair] + m[2 + 2 * pair], odd = m[1 + 2 * pair] - m[2 + 2 * pair];
        double power = 1;
        UNROLLED (i, outputs) {
            y[i] += (real)power * (i % 2 ? odd : even);
            power *= row_pairs[pair];
        }
    }
    y[outputs - 1] += m[ROW_POINTS - 1];
}

/* A */
INLINE void row_gradient_line(const ptrdiff_t outputs, const vec *y, vec *z) {
    z[0] = y[0];
    UNROLLED (pair, ROW_PAIRS) {
        vec even = (vec){0}, odd = (vec){0};
        double power = 1;
        UNROLLED (i, outputs) {
            if (i % 2)
                odd += (real)power * y[i];
            else
                even += (real)power * y[i];
            power *= row_pairs[pair];
        }
        z[1 + 2 * pair] = even + odd;
        z[2 + 2 * pair] = even - odd;
    }
    z[ROW_POINTS - 1] = y[outputs - 1];
}

/* An image to its planes; `scratch` is the worker's. */
static void transform_image(const conv_shape *s, const row_layout *l, const real *x, real *scratch) {
    const window_shape *w = &s->window;
    ptrdiff_t C = s->x.C;
    real *turned = scratch + l->image, *planes = scratch + l->planes;
    memset(turned, 0, (size_t)(l->columns * l->line + VLEN) * sizeof(real));
    ptrdiff_t width = at_most(s->x.W, l->columns - w->pad_left);
    for (ptrdiff_t h = 0; h < at_most(s->x.H, l->rows - w->pad_top); h++) {
        const real *from = x + h * s->x.W * s->x.pixel;
        real *to = turned + w->pad_left * l->line + (h + w->pad_top) * C;
        for (ptrdiff_t column = 0; column < width; column++)
            for (ptrdiff_t c = 0; c < C; c++)
                to[column * l->line + c] = from[column * s->x.pixel + c];
    }
    for (ptrdiff_t tile = 0; tile < l->tiles; tile++)
        for (ptrdiff_t at = 0; at < l->line; at += VLEN) {
            vec pixels[ROW_POINTS], points[ROW_POINTS];
            UNROLLED (j, ROW_POINTS)
                pixels[j] = load(turned + (tile * l->outputs + j) * l->line + at);
            row_input_line(pixels, points);
            UNROLLED (j, ROW_POINTS)
                store(planes + j * l->plane + tile * l->line + at, points[j]);
        }
}

/* The sums of all points for one output row. */
static void multiply_row(const product *p, const row_layout *l, ptrdiff_t oh, const real *scratch,
                         const real *filters, real *sums) {
    for (ptrdiff_t point = 0; point < ROW_POINTS; point++, sums += p->out_line)
        for (ptrdiff_t f = 0; f < packed_columns(p); f += PANEL, filters += panel_size(p)) {
            ptrdiff_t vectors = at_most(TILE_VECTORS, (p->fill - f) / VLEN);
            ptrdiff_t tiles = ceil_div(l->tiles, TILE_PIXELS(1, vectors));
            product_tile t = {.image = scratch + l->planes + point * l->plane + oh * p->line,
                              .panel = filters,
                              .kernel_rows = 1,
                              .depth = p->depth,
                              .start = no_bias,
                              .out = sums + f,
                              .out_step = p->out_step};
            for (ptrdiff_t i = 0; i < tiles; i++) {
                ptrdiff_t pixels = tile_start(l->tiles, tiles, i + 1) - tile_start(l->tiles, tiles, i);
                product_tiles[0][vectors - 1][pixels - 1](p, &t);
                t.image += pixels * p->step;
                t.out += pixels * p->out_step;
            }
        }
}

/* One row of z from its points' sums. */
INLINE void store_row(const ptrdiff_t outputs, const conv_shape *s, const row_layout *l, const real *sums,
                      const real *bias, int relu, real *z) {
    ptrdiff_t pixel = s->z.pixel, point = l->tiles * pixel;
    for (ptrdiff_t tile = 0; tile < l->tiles; tile++)
        for (ptrdiff_t f = 0; f < pixel; f += VLEN) {
            vec points[ROW_POINTS], pixels[ROW_POINTS];
            UNROLLED (j, ROW_POINTS)
                points[j] = load(sums + j * point + tile * pixel + f);
            row_output_line(outputs, points, pixels);
            mask keep = first_lanes(s->z.C - f);
            UNROLLED (j, outputs)
                if (tile * outputs + j < s->z.W) {
                    vec value = pixels[j] + load(bias + f);
                    value = select_lanes(relu ? relu_vector(value) : value, keep);
                    store(z + (tile * outputs + j) * pixel + f, value);
                }
        }
}

/* z, or relu(z), of one image. */
static void run_row_winograd(const conv_shape *s, const real *x, const real *filters, const real *bias,
                             int relu, real *z, real *scratch) {
    row_layout l = lay_out_rows(s);
    product p = row_product(s);
    real *sums = scratch + l.sums;
    transform_image(s, &l, x, scratch);
    for (ptrdiff_t oh = 0; oh < s->z.H; oh++, z += s->z.W * s->z.pixel) {
        multiply_row(&p, &l, oh, scratch, filters, sums);
        if (l.outputs == 4)
            store_row(4, s, &l, sums, bias, relu, z);
        else
            store_row(6, s, &l, sums, bias, relu, z);
    }
}

/* One row of dz to its points. */
INLINE void load_row(const ptrdiff_t outputs, const conv_shape *s, const row_layout *l, const real *dz,
                     ptrdiff_t point, real *points) {
    ptrdiff_t pixel = s->z.pixel;
    for (ptrdiff_t tile = 0; tile < l->tiles; tile++)
        for (ptrdiff_t f = 0; f < pixel; f += VLEN) {
            vec pixels[ROW_POINTS], transformed[ROW_POINTS];
            UNROLLED (j, outputs)
                pixels[j] =
                    tile * outputs + j < s->z.W ? load(dz + (tile * outputs + j) * pixel + f) : (vec){0};
            row_gradient_line(outputs, pixels, transformed);
            UNROLLED (j, ROW_POINTS)
                store(points + j * point + tile * pixel + f, transformed[j]);
        }
}

/* Add to the gradient at the points what a band of output rows from oh on contributes. */
static void multiply_band(const product *p, const row_layout *l, ptrdiff_t oh, ptrdiff_t rows,
                          real *scratch) {
    ptrdiff_t band = GRADIENT_BAND * p->out_line;
    for (ptrdiff_t point = 0; point < ROW_POINTS; point++)
        for (ptrdiff_t f = 0; f < packed_columns(p); f += PANEL) {
            ptrdiff_t vectors = at_most(TILE_VECTORS, (p->fill - f) / VLEN);
            ptrdiff_t tiles = ceil_div(p->depth, TILE_CHANNELS(1, vectors));
            for (ptrdiff_t i = 0; i < tiles; i++) {
                ptrdiff_t k = tile_start(p->depth, tiles, i), end = tile_start(p->depth, tiles, i + 1);
                gradient_tile t = {.image = scratch + l->planes + point * l->plane + oh * p->line + k,
                                   .dz = scratch + l->sums + point * band + f,
                                   .rows = rows,
                                   .dw = scratch + l->gradient + (point * p->depth + k) * p->out_step + f,
                                   .channel_step = p->out_step};
                gradient_tiles[0][vectors - 1][end - k - 1](p, &t);
            }
        }
}

/* Add one image's weight gradient, at the points, to the worker's sum in its scratch. */
static void add_row_gradient(const conv_shape *s, const real *x, const real *dz, real *scratch) {
    row_layout l = lay_out_rows(s);
    product p = row_product(s);
    real *sums = scratch + l.sums;
    transform_image(s, &l, x, scratch);
    for (ptrdiff_t oh = 0; oh < s->z.H; oh += GRADIENT_BAND) {
        ptrdiff_t rows = at_most(GRADIENT_BAND, s->z.H - oh);
        for (ptrdiff_t i = 0; i < rows; i++) {
            const real *from = dz + (oh + i) * s->z.W * s->z.pixel;
            if (l.outputs == 4)
                load_row(4, s, &l, from, GRADIENT_BAND * p.out_line, sums + i * p.out_line);
            else
                load_row(6, s, &l, from, GRADIENT_BAND * p.out_line, sums + i * p.out_line);
        }
        multiply_band(&p, &l, oh, rows, scratch);
    }
}

/* To be called before the first image of a worker. */
static void clear_row_gradient(const conv_shape *s, real *scratch) {
    row_layout l = lay_out_rows(s);
    memset(scratch + l.gradient, 0, (size_t)(l.total - l.gradient) * sizeof(real));
}

/* Add the worker's sum to dw, after its last image. */
static void finish_row_gradient(const conv_shape *s, const real *scratch, real *dw) {
    product p = row_product(s);
    ptrdiff_t C = s->x.C, kernel_w = s->window.kernel_w, row = s->z.pixel;
    const real *points = scratch + lay_out_rows(s).gradient;
    for (ptrdiff_t k = 0; k < p.depth; k++)
        for (ptrdiff_t kw = 0; kw < kernel_w; kw++)
            for (ptrdiff_t f = 0; f < row; f += VLEN) {
                real *to = dw + ((k / C * kernel_w + kw) * C + k % C) * row + f;
                vec sum = load(to);
                for (ptrdiff_t point = 0; point < ROW_POINTS; point++)
                    sum +=
                        filter_factor(point, kw, kernel_w) * load(points + (point * p.depth + k) * row + f);
                store(to, sum);
            }
}

#endif
