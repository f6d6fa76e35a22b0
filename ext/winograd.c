/* Winograd's minimal filtering F(4x4, 3x3), see winograd.h: a tile of 4x4 outputs costs 36 products in
 * place of 144. With . for products element by element, summed over channels (for dw over tiles),
 *
 *     y = A^T [(G w G^T) . (B^T x B)] A          dw = G^T [(A dy A^T) . (B^T x B)] G
 *
 * where x are 6x6 tiles that overlap by 2 (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
 * Networks"). Inputs and filters are polynomials, multiplied by way of their values at the points 0, +-1,
 * +-r and infinity. The paper has r = 2; r = 13/8 costs the same, its powers are exact too, and the
 * largest errors are 40 % smaller. With the points in the order 0, 1, r, infinity, -1, -r:
 *
 *           r^2   0  -1-r^2   0    1   0          1  1   1   0   1   1                  1/r^2 (1   0   0 )
 *            0  -r^2   -r^2   1    1   0          0  1   r   0  -1  -r             1/(2-2r^2) (1   1   1 )
 *     B^T =  0   -r     -1    r    1   0   A^T =  0  1  r^2  0   1  r^2   G = 1/(2r^4-2r^2) (1   r  r^2)
 *            0   r^2     0 -1-r^2  0   1          0  1  r^3  1  -1 -r^3                       (0   0   1 )
 *            0   r^2   -r^2  -1    1   0                                           1/(2-2r^2) (1  -1   1 )
 *            0    r     -1   -r    1   0                                       1/(2r^4-2r^2) (1  -r  r^2)
 *
 * What remains are 36 matrix products of tiles by channels, on the register tile of tiles.h.
 */
#include "winograd.h"

#define OUT 4                    /* outputs a tile, each way */
#define POINTS 6                 /* inputs a tile, each way, and points */
#define PLANES (POINTS * POINTS) /* points of both directions together */
#define UNIT_POINT (POINTS + 1)  /* (1, 1): what is added there is added to each output */

/* Tiles transformed at a time: as few as use filters and sums well, so that they stay in the cache. */
#define FORWARD_TILES (28 / TILE_ROWS * TILE_ROWS)
#define GRADIENT_TILES 56

/* Transformed tiles lie in blocks of PANEL channels, a block as [PLANES][tiles][PANEL], and filters in
 * panels of PANEL columns, a panel as [PLANES][depth][PANEL]. A cache line lies between planes, lest
 * they compete for the same sets; constant sizes make their addresses constant offsets. */
#define PLANE(rows) ((rows) * PANEL + LANES)
#define FORWARD_PLANE PLANE(FORWARD_TILES)
#define GRADIENT_PLANE PLANE(GRADIENT_TILES)
#define AHEAD (64 * LANES) /* filters are fetched a page ahead */

#define R 1.625
static const real r1 = (real)R, r2 = (real)(R * R), r3 = (real)(R * R * R);
static const real g0 = (real)(1 / (R * R)), g1 = (real)(1 / (2 - 2 * R * R)),
                  gr = (real)(1 / (2 * R * R * (R * R - 1)));

/* One row or column times one of the matrices. */
typedef void line_transform(const vec *from, vec *to);

INLINE void input_line(const vec *x, vec *v) { /* B^T */
    vec even1 = x[4] - r2 * x[2], odd1 = x[3] - r2 * x[1], even = x[4] - x[2], odd = x[3] - x[1];
    v[0] = r2 * x[0] + x[4] - (1 + r2) * x[2];
    v[1] = even1 + odd1;
    v[2] = even + r1 * odd;
    v[3] = r2 * x[1] + x[5] - (1 + r2) * x[3];
    v[4] = even1 - odd1;
    v[5] = even - r1 * odd;
}

INLINE void gradient_line(const vec *y, vec *z) { /* A */
    vec even1 = y[0] + y[2], odd1 = y[1] + y[3], even = y[0] + r2 * y[2], odd = y[1] + r2 * y[3];
    z[0] = y[0];
    z[1] = even1 + odd1;
    z[2] = even + r1 * odd;
    z[3] = y[3];
    z[4] = even1 - odd1;
    z[5] = even - r1 * odd;
}

INLINE void output_line(const vec *m, vec *y) { /* A^T */
    vec even1 = m[1] + m[4], odd1 = m[1] - m[4], even = m[2] + m[5], odd = m[2] - m[5];
    y[0] = m[0] + even1 + even;
    y[1] = odd1 + r1 * odd;
    y[2] = even1 + r2 * even;
    y[3] = m[3] + odd1 + r3 * odd;
}

INLINE void filter_line(const vec *w, vec *u) { /* G */
    vec even1 = g1 * (w[0] + w[2]), odd1 = g1 * w[1];
    vec even = gr * (w[0] + r2 * w[2]), odd = (gr * r1) * w[1];
    u[0] = g0 * w[0];
    u[1] = even1 + odd1;
    u[2] = even + odd;
    u[3] = w[2];
    u[4] = even1 - odd1;
    u[5] = even - odd;
}

INLINE void weight_line(const vec *s, vec *w) { /* G^T */
    vec even1 = g1 * (s[1] + s[4]), odd1 = g1 * (s[1] - s[4]);
    vec even = gr * (s[2] + s[5]), odd = (gr * r1) * (s[2] - s[5]);
    w[0] = g0 * s[0] + even1 + even;
    w[1] = odd1 + odd;
    w[2] = s[3] + even1 + r2 * even;
}

/* Rows i, i + out/rows, ... of the transform of the `in` x `in` matrix at `from`, both ways. Rows that
 * share terms come together and few at a time, so that all stays in registers. */
INLINE void transform_rows(line_transform *line, const ptrdiff_t in, const ptrdiff_t out,
                           const ptrdiff_t rows, const ptrdiff_t i, const real *from, ptrdiff_t row,
                           ptrdiff_t column, vec result[][POINTS]) {
    vec half[3][POINTS];
    UNROLLED (k, in) {
        vec whole[POINTS], transformed[POINTS];
        UNROLLED (j, in)
            whole[j] = load(from + j * row + k * column);
        line(whole, transformed);
        UNROLLED (j, rows)
            half[j][k] = transformed[i + j * (out / rows)];
    }
    UNROLLED (j, rows)
        line(half[j], result[j]);
}

/* To all points, one plane each. */
INLINE void transform_to_points(line_transform *line, const ptrdiff_t in, const real *from, ptrdiff_t row,
                                ptrdiff_t column, real *planes, ptrdiff_t plane) {
    UNROLLED (i, POINTS / 2) {
        vec result[2][POINTS];
        transform_rows(line, in, POINTS, 2, i, from, row, column, result);
        UNROLLED (j, 2)
            UNROLLED (k, POINTS)
                store(planes + ((i + j * POINTS / 2) * POINTS + k) * plane, result[j][k]);
    }
}

static ptrdiff_t blocks_of(ptrdiff_t channels) { return ceil_div(channels, PANEL); }
/* Columns are stored up to the end of a pixel's padding. */
static ptrdiff_t panels_of(ptrdiff_t columns) { return blocks_of(round_up(columns, LANES)); }

/* Where a tile's outputs begin. */
typedef struct {
    ptrdiff_t n, h, w;
} corner;

static ptrdiff_t tiles_of(const winograd_product *p) { return ceil_div(p->y.H, OUT) * ceil_div(p->y.W, OUT); }

static corner find_tile(const winograd_product *p, ptrdiff_t tile) {
    ptrdiff_t columns = ceil_div(p->y.W, OUT), tiles = tiles_of(p);
    return (corner){tile / tiles, tile % tiles / columns * OUT, tile % columns * OUT};
}

static corner next_tile(const winograd_product *p, corner at) {
    at.w += OUT;
    if (at.w >= p->y.W) {
        at.w = 0;
        at.h += OUT;
    }
    if (at.h >= p->y.H) {
        at.h = 0;
        at.n++;
    }
    return at;
}

/* The first `lanes` of a vector in memory. */
INLINE vec load_some(const real *from, const ptrdiff_t lanes) {
    vec value = {0};
    memcpy(&value, from, (size_t)lanes * sizeof(real));
    return value;
}
INLINE void store_some(real *to, const ptrdiff_t lanes, vec value) {
    memcpy(to, &value, (size_t)lanes * sizeof(real));
}

/* Copy up to PANEL channels of `size` x `size` pixels from (h, w) on; zeros beyond the edges. */
INLINE void copy_patch(const ptrdiff_t size, const image_shape *s, const real *image, ptrdiff_t h,
                       ptrdiff_t w, ptrdiff_t channels, real *patch) {
    int whole = s->pixel % VLEN == 0;
    for (ptrdiff_t i = h; i < h + size; i++)
        for (ptrdiff_t j = w; j < w + size; j++, patch += PANEL) {
            int inside = i >= 0 && i < s->H && j >= 0 && j < s->W;
            for (ptrdiff_t c = 0; c < channels; c += VLEN) {
                const real *from = inside ? image + (i * s->W + j) * s->pixel + c : NULL;
                if (!inside)
                    store(patch + c, (vec){0});
                else if (whole)
                    store(patch + c, load(from));
                else
                    store(patch + c, load_some(from, at_most(VLEN, channels - c)));
            }
        }
}

/* Transform a block of channels of the `size` x `size` pixels that each of `count` tiles depends on. */
INLINE void transform_tiles(line_transform *line, const ptrdiff_t size, const winograd_product *p,
                            const image_shape *s, ptrdiff_t top, ptrdiff_t left_edge, ptrdiff_t block,
                            corner at, ptrdiff_t count, const real *images, real *to, const ptrdiff_t plane) {
    ptrdiff_t c = block * PANEL, channels = at_most(PANEL, s->C - c);
    for (ptrdiff_t tile = 0; tile < count; tile++, at = next_tile(p, at)) {
        const real *image = images + at.n * s->image + c;
        ptrdiff_t h = at.h - top, w = at.w - left_edge;
        real patch[POINTS * POINTS * PANEL];
        const real *from = patch;
        ptrdiff_t row = size * PANEL, column = PANEL;
        if (h >= 0 && h + size <= s->H && w >= 0 && w + size <= s->W && s->pixel % VLEN == 0) {
            from = image + (h * s->W + w) * s->pixel;
            row = s->W * s->pixel;
            column = s->pixel;
        } else
            copy_patch(size, s, image, h, w, channels, patch);
        for (ptrdiff_t v = 0; v < channels; v += VLEN)
            transform_to_points(line, size, from + v, row, column, to + tile * PANEL + v, plane);
    }
}

INLINE void transform_input(const winograd_product *p, corner at, ptrdiff_t count, const real *x, real *v,
                            const ptrdiff_t plane) {
    for (ptrdiff_t block = 0; block < blocks_of(p->x.C); block++)
        transform_tiles(input_line, POINTS, p, &p->x, p->top, p->left, block, at, count, x,
                        v + block * PLANES * plane, plane);
}

/* Memory that the transforms will need, a cache line at a time: products have time to wait for it. */
typedef struct {
    const real *next, *end, *then, *then_end;
} fetches;

/* The images lie as their tiles do, in order: this pass's part of y, and the next one's of x. */
static fetches plan_fetches(const winograd_product *p, ptrdiff_t first, ptrdiff_t count, const real *x,
                            const real *y) {
    ptrdiff_t tiles = tiles_of(p), of_x = p->x.image / tiles, of_y = p->y.image / tiles;
    return (fetches){y + of_y * first, y + of_y * (first + count), x + of_x * (first + count),
                     x + of_x * (first + 2 * count)};
}

/* Where to fetch the next `lines` from. The last ones again, once all are fetched. */
static const real *take_fetches(fetches *f, ptrdiff_t lines) {
    const real *from = f->next;
    f->next += lines * LANES;
    if (f->next >= f->end) {
        f->next = f->end == f->then_end ? from : f->then;
        f->end = f->then_end;
    }
    return from;
}

/* One point of `rows` tiles and one panel: m = v u, from the first `columns` of `bias` on, if given. It is
 * accumulate_nn, but fetches the filters ahead: they are too many to stay in the cache between passes. */
INLINE void product_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *v, ptrdiff_t depth,
                         const real *u, const real *bias, ptrdiff_t columns, const real *fetch, real *m) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (j, vectors) {
        ptrdiff_t lanes = at_least(0, at_most(VLEN, columns - j * VLEN));
        vec start = bias ? load_some(bias + j * VLEN, lanes) : (vec){0};
        UNROLLED (i, rows)
            sums[i][j] = start;
    }
    for (ptrdiff_t k = 0; k < depth; k += PANEL, v += PLANES * FORWARD_PLANE) {
#pragma GCC unroll 2
        for (ptrdiff_t c = 0; c < at_most(PANEL, depth - k); c++, u += PANEL, fetch += LANES) {
            vec right[TILE_VECTORS];
            __builtin_prefetch(fetch);
            UNROLLED (i, ceil_div(vectors * VLEN, LANES))
                __builtin_prefetch(u + AHEAD + i * LANES);
            UNROLLED (j, vectors)
                right[j] = load(u + j * VLEN);
            UNROLLED (i, rows) {
                vec broadcast = fill(v[i * PANEL + c]);
                UNROLLED (j, vectors)
                    sums[i][j] += broadcast * right[j];
            }
        }
    }
    UNROLLED (i, rows)
        UNROLLED (j, vectors)
            store(m + i * PANEL + j * VLEN, sums[i][j]);
}

/* All points of `count` tiles and one panel. */
static void multiply_panel(const winograd_product *p, ptrdiff_t panel, ptrdiff_t count, const real *v,
                           const real *filters, const real *bias, fetches *ahead, real *m) {
    ptrdiff_t C = p->x.C, f = panel * PANEL, strips = ceil_div(count, TILE_ROWS);
    ptrdiff_t vectors = at_most(TILE_VECTORS, ceil_div(p->y.pixel - f, VLEN));
    for (ptrdiff_t t = 0; t < PLANES; t++)
        for (ptrdiff_t strip = 0; strip < strips; strip++) {
            ptrdiff_t tile = tile_start(count, strips, strip),
                      rows = tile_start(count, strips, strip + 1) - tile;
            ptrdiff_t at = t * FORWARD_PLANE + tile * PANEL;
            DISPATCH_TILE(rows, vectors, product_tile, v + at, C, filters + (panel * PLANES + t) * PLANE(C),
                          bias && t == UNIT_POINT ? bias + f : NULL, p->y.C - f, take_fetches(ahead, C),
                          m + at)
        }
}

/* A^T m A of one tile and vector. Stores `lanes` of it, with zeros for those not to `keep`; `least` is
 * what a ReLU cuts off at. */
INLINE void output_tile(const ptrdiff_t height, const ptrdiff_t width, const ptrdiff_t lanes,
                        const int accumulate, const winograd_product *p, const real *m, mask keep, vec least,
                        real *y) {
    UNROLLED (i, OUT / 2) {
        vec result[2][POINTS];
        transform_rows(output_line, POINTS, OUT, 2, i, m, POINTS * FORWARD_PLANE, FORWARD_PLANE, result);
        UNROLLED (j, 2)
            UNROLLED (k, OUT) {
                ptrdiff_t h = i + j * OUT / 2;
                if (h < height && k < width) {
                    real *to = y + (h * p->y.W + k) * p->y.pixel;
                    vec value = accumulate ? result[j][k] + load_some(to, lanes) : result[j][k];
                    store_some(to, lanes, select_lanes(value, keep & ~(mask)(value < least)));
                }
            }
    }
}

static void transform_output(const winograd_product *p, ptrdiff_t panel, corner first, ptrdiff_t count,
                             const real *m, real *y) {
    vec least = fill(p->relu ? 0 : -(real)INFINITY);
    ptrdiff_t end = at_most(p->y.pixel, (panel + 1) * PANEL);
    for (ptrdiff_t f = panel * PANEL; f < end; f += VLEN, m += VLEN) {
        ptrdiff_t lanes = at_most(VLEN, end - f);
        mask keep = first_lanes(p->y.C - f);
        corner at = first;
        for (ptrdiff_t tile = 0; tile < count; tile++, at = next_tile(p, at)) {
            ptrdiff_t height = at_most(OUT, p->y.H - at.h), width = at_most(OUT, p->y.W - at.w);
            const real *from = m + tile * PANEL;
            real *to = y + at.n * p->y.image + (at.h * p->y.W + at.w) * p->y.pixel + f;
            if (height < OUT || width < OUT || lanes < VLEN)
                output_tile(height, width, lanes, p->accumulate, p, from, keep, least, to);
            else if (p->accumulate)
                output_tile(OUT, OUT, VLEN, 1, p, from, keep, least, to);
            else
                output_tile(OUT, OUT, VLEN, 0, p, from, keep, least, to);
        }
    }
}

void NAME(winograd_forward)(const winograd_product *p, ptrdiff_t n, const real *x, const real *filters,
                            const real *bias, real *y, real *scratch) {
    ptrdiff_t tiles = n * tiles_of(p), passes = ceil_div(tiles, FORWARD_TILES);
    real *v = scratch, *m = v + blocks_of(p->x.C) * PLANES * FORWARD_PLANE;
    for (ptrdiff_t pass = 0; pass < passes; pass++) {
        ptrdiff_t first = tile_start(tiles, passes, pass),
                  count = tile_start(tiles, passes, pass + 1) - first;
        corner at = find_tile(p, first);
        fetches ahead = plan_fetches(p, first, count, x, y);
        transform_input(p, at, count, x, v, FORWARD_PLANE);
        for (ptrdiff_t panel = 0; panel < panels_of(p->y.C); panel++) {
            multiply_panel(p, panel, count, v, filters, bias, &ahead, m);
            transform_output(p, panel, at, count, m, y);
        }
    }
}

/* One point of `rows` channels of x and one panel: s = v^T z, summed over `count` tiles. `ahead` is as
 * long as v and z: what the next point will read. */
INLINE void gradient_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *v, const real *z,
                          ptrdiff_t count, const real *ahead, real *s) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (j, vectors)
            sums[i][j] = (vec){0};
    for (ptrdiff_t tile = 0; tile < count; tile++, v += PANEL, z += PANEL, ahead += PANEL) {
        vec right[TILE_VECTORS];
        UNROLLED (i, ceil_div(vectors * VLEN, LANES))
            __builtin_prefetch(ahead + i * LANES);
        UNROLLED (j, vectors)
            right[j] = load(z + j * VLEN);
        UNROLLED (i, rows) {
            vec broadcast = fill(v[i]);
            UNROLLED (j, vectors)
                sums[i][j] += broadcast * right[j];
        }
    }
    UNROLLED (i, rows)
        UNROLLED (j, vectors)
            store(s + i * PANEL + j * VLEN, sums[i][j]);
}

/* All points of a block of channels of x and one panel. */
static void multiply_block(ptrdiff_t channels, ptrdiff_t columns, ptrdiff_t count, const real *v,
                           const real *z, real *s) {
    ptrdiff_t parts = ceil_div(channels, TILE_ROWS), vectors = ceil_div(columns, VLEN);
    for (ptrdiff_t t = 0; t < PLANES; t++, v += GRADIENT_PLANE, z += GRADIENT_PLANE)
        for (ptrdiff_t part = 0; part < parts; part++) {
            ptrdiff_t c = tile_start(channels, parts, part), rows = tile_start(channels, parts, part + 1) - c;
            const real *ahead = (part % 2 ? z : v) + GRADIENT_PLANE; /* one part fetches v, the next z */
            DISPATCH_TILE(rows, vectors, gradient_tile, v + c, z, count, ahead, s + (t * PANEL + c) * PANEL)
        }
}

/* dw += G^T s G for a block of channels and one panel. */
static void add_weights(const winograd_product *p, ptrdiff_t channels, ptrdiff_t columns, const real *s,
                        real *dw) {
    for (ptrdiff_t f = 0; f < columns; f += VLEN) {
        mask keep = first_lanes(columns - f);
        for (ptrdiff_t c = 0; c < channels; c++) {
            vec result[3][POINTS];
            transform_rows(weight_line, POINTS, 3, 3, 0, s + c * PANEL + f, POINTS * PANEL * PANEL,
                           PANEL * PANEL, result);
            UNROLLED (i, 3)
                UNROLLED (j, 3) {
                    real *to = dw + ((i * 3 + j) * p->x.C + c) * p->y.pixel + f;
                    store(to, load(to) + select_lanes(result[i][j], keep));
                }
        }
    }
}

void NAME(winograd_gradient)(const winograd_product *p, ptrdiff_t n, const real *x, const real *dz, real *dw,
                             real *scratch) {
    ptrdiff_t C = p->x.C, F = p->y.C, tiles = n * tiles_of(p), passes = ceil_div(tiles, GRADIENT_TILES);
    real *v = scratch, *z = v + blocks_of(C) * PLANES * GRADIENT_PLANE, *s = z + PLANES * GRADIENT_PLANE;
    for (ptrdiff_t pass = 0; pass < passes; pass++) {
        ptrdiff_t first = tile_start(tiles, passes, pass),
                  count = tile_start(tiles, passes, pass + 1) - first;
        corner at = find_tile(p, first);
        transform_input(p, at, count, x, v, GRADIENT_PLANE);
        for (ptrdiff_t panel = 0; panel < blocks_of(F); panel++) {
            transform_tiles(gradient_line, OUT, p, &p->y, 0, 0, panel, at, count, dz, z, GRADIENT_PLANE);
            for (ptrdiff_t block = 0; block < blocks_of(C); block++) {
                ptrdiff_t c = block * PANEL, f = panel * PANEL;
                ptrdiff_t channels = at_most(PANEL, C - c), columns = at_most(PANEL, F - f);
                multiply_block(channels, columns, count, v + block * PLANES * GRADIENT_PLANE, z, s);
                add_weights(p, channels, columns, s, dw + c * p->y.pixel + f);
            }
        }
    }
}

ptrdiff_t NAME(winograd_scratch)(const winograd_product *p) {
    ptrdiff_t blocks = blocks_of(p->x.C) + 1; /* and one of products, or of the output gradient */
    return at_least(blocks * PLANES * FORWARD_PLANE,
                    blocks * PLANES * GRADIENT_PLANE + PLANES * PANEL * PANEL);
}

ptrdiff_t NAME(winograd_group)(const winograd_product *p, int gradient) {
    ptrdiff_t tiles = tiles_of(p), most = gradient ? GRADIENT_TILES : FORWARD_TILES;
    return at_least(1, (most + tiles / 2) / tiles);
}

ptrdiff_t NAME(winograd_filters)(ptrdiff_t depth, ptrdiff_t columns) {
    return panels_of(columns) * PLANES * PLANE(depth);
}

/* A task packs LANES rows of a panel: as many as a cache line of w holds when flipped. */
ptrdiff_t NAME(winograd_pack_tasks)(ptrdiff_t depth, ptrdiff_t columns) {
    return panels_of(columns) * ceil_div(depth, LANES);
}

void NAME(winograd_pack)(ptrdiff_t C, ptrdiff_t F, ptrdiff_t row, const real *w, int flipped, ptrdiff_t task,
                         real *filters) {
    ptrdiff_t depth = flipped ? F : C, parts = ceil_div(depth, LANES), panel = task / parts;
    ptrdiff_t k = task % parts * LANES, rows = at_most(LANES, depth - k), column = panel * PANEL;
    ptrdiff_t columns = at_most(PANEL, (flipped ? round_up(C, LANES) : row) - column);
    real turned[9 * LANES * PANEL], *to = filters + panel * PLANES * PLANE(depth) + k * PANEL;
    const real *from = w + k * row + column;
    ptrdiff_t from_row = row, tap_size = C * row;
    if (flipped) {
        from = turned;
        from_row = PANEL;
        tap_size = LANES * PANEL;
        memset(turned, 0, sizeof turned);
        for (ptrdiff_t tap = 0; tap < 9; tap++)
            for (ptrdiff_t c = column; c < at_most(C, column + PANEL); c++)
                for (ptrdiff_t i = 0; i < rows; i++)
                    turned[tap * tap_size + i * PANEL + c - column] = w[((8 - tap) * C + c) * row + k + i];
    }
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j += VLEN)
            transform_to_points(filter_line, 3, from + i * from_row + j, 3 * tap_size, tap_size,
                                to + i * PANEL + j, PLANE(depth));
}
