/* Winograd's minimal filtering F(4x4, 3x3), see winograd.h: a 4x4 tile of outputs costs 36 products
 * instead of 144. With . the product of elements, summed over channels or, for dw, over tiles,
 *
 *     y  = A^T [(G w G^T) . (B^T x B)] A        dw = G^T [(A dy A^T) . (B^T x B)] G
 *
 * for 6x6 tiles of x that overlap by 2 (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
 * Networks"). Filters and inputs are polynomials, multiplied by their values at the points 0, +-1,
 * +-r, infinity. Here r = 13/8 where the paper takes 2: the largest errors fall by 40 % at the same
 * cost, and powers of r are exact. For the points 0, 1, r, infinity, -1, -r in this order
 *
 *            r^2   0  -1-r^2  0    1  0             1  1   1  0   1   1             1/r^2 (1   0   0 )
 *             0  -r^2  -r^2   1    1  0             0  1   r  0  -1  -r      1/(2-2r^2) (1   1   1 )
 *     B^T =   0   -r    -1    r    1  0      A^T =  0  1  r^2 0   1  r^2  G = 1/(2r^4-2r^2) (1   r  r^2)
 *             0   r^2    0  -1-r^2 0  1             0  1  r^3 1  -1 -r^3                (0   0   1 )
 *             0   r^2  -r^2  -1    1  0                                    1/(2-2r^2) (1  -1   1 )
 *             0    r    -1   -r    1  0                                 1/(2r^4-2r^2) (1  -r  r^2)
 *
 * The products are 36 matrix products of tiles by channels, on the register tile of tiles.h.
 */
#include "winograd.h"

#define OUT 4                    /* outputs a tile, each way */
#define POINTS 6                 /* inputs a tile, each way, and points */
#define PLANES (POINTS * POINTS) /* points of both directions */
#define UNIT_POINT (POINTS + 1)  /* (1, 1): what is added there is added to all outputs */

/* Tiles transformed at a time: as few as reuse filters and sums well. */
#ifndef FT
#define FT 28
#endif
#define FORWARD_STRIPS (FT / TILE_ROWS)
#ifndef GRADIENT_TILES
#define GRADIENT_TILES 56
#endif
#ifndef AH
#define AH 64
#endif
#define AHEAD (AH * LANES) /* what is prefetched: a page ahead */

static const real r1 = (real)1.625, r2 = (real)(1.625 * 1.625), r3 = (real)(1.625 * 1.625 * 1.625);
static const real g0 = (real)(1 / (1.625 * 1.625)), g1 = (real)(0.5 / (1 - 1.625 * 1.625)),
                  gr = (real)(0.5 / (1.625 * 1.625 * (1.625 * 1.625 - 1)));

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

/* Transformed tiles lie in blocks of PANEL channels, a block as [PLANES][tiles][PANEL], with a cache
 * line between the planes lest they compete for the same sets. */
#define PLANE(tiles) ((tiles) * PANEL + LANES)
#define FORWARD_PLANE PLANE(FORWARD_STRIPS *TILE_ROWS)
#define GRADIENT_PLANE PLANE(GRADIENT_TILES)
static ptrdiff_t blocks_of(ptrdiff_t channels) { return ceil_div(channels, PANEL); }

/* Filters lie in panels of PANEL columns, a panel as [PLANES][depth][PANEL]. */
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

INLINE mask first_lanes(ptrdiff_t count) {
    mask lanes;
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        lanes[lane] = lane < count ? -1 : 0;
    return lanes;
}
INLINE vec select_lanes(vec value, mask keep) { return (vec)((mask)value & keep); }

/* Copy `size` x `size` pixels from (h, w) on, up to PANEL channels each; zeros beyond the edges. */
INLINE void copy_patch(const ptrdiff_t size, const image_shape *s, const real *image, ptrdiff_t h,
                       ptrdiff_t w, ptrdiff_t channels, real *patch) {
    int whole = s->pixel % VLEN == 0;
    for (ptrdiff_t i = 0; i < size; i++)
        for (ptrdiff_t j = 0; j < size; j++) {
            real *to = patch + (i * size + j) * PANEL;
            int inside = h + i >= 0 && h + i < s->H && w + j >= 0 && w + j < s->W;
            const real *from = inside ? image + ((h + i) * s->W + w + j) * s->pixel : NULL;
            for (ptrdiff_t c = 0; c < channels; c += VLEN)
                store(to + c, !inside ? (vec){0}
                              : whole ? load(from + c)
                                      : load_some(from + c, at_most(VLEN, channels - c)));
        }
}

/* Transform one block of channels of the `size` x `size` pixels that `count` tiles need. */
INLINE void transform_tiles(line_transform *line, const ptrdiff_t size, const winograd_product *p,
                            const image_shape *s, ptrdiff_t top, ptrdiff_t left_edge, ptrdiff_t block,
                            corner at, ptrdiff_t count, const real *images, real *to, const ptrdiff_t plane) {
    ptrdiff_t c = block * PANEL, channels = at_most(PANEL, s->C - c);
    for (ptrdiff_t tile = 0; tile < count; tile++, at = next_tile(p, at)) {
        const real *image = images + at.n * s->image + c;
        ptrdiff_t h = at.h - top, w = at.w - left_edge;
        int inside = h >= 0 && h + size <= s->H && w >= 0 && w + size <= s->W && s->pixel % VLEN == 0;
        real patch[POINTS * POINTS * PANEL];
        const real *from = patch;
        ptrdiff_t row = size * PANEL, column = PANEL;
        if (inside) {
            from = image + (h * s->W + w) * s->pixel;
            row = s->W * s->pixel;
            column = s->pixel;
        } else
            copy_patch(size, s, image, h, w, channels, patch);
        for (ptrdiff_t v = 0; v < channels; v += VLEN)
            transform_to_points(line, size, from + v, row, column, to + tile * PANEL + v, plane);
    }
}

/* B^T x B of all channels. */
INLINE void transform_input(const winograd_product *p, ptrdiff_t first, ptrdiff_t count, const real *x,
                            real *v, const ptrdiff_t plane) {
    for (ptrdiff_t block = 0; block < blocks_of(p->x.C); block++)
        transform_tiles(input_line, POINTS, p, &p->x, p->top, p->left, block, find_tile(p, first), count, x,
                        v + block * PLANES * plane, plane);
}

/* A dz A^T of one panel of channels. */
static void transform_gradient(const winograd_product *p, ptrdiff_t panel, ptrdiff_t first, ptrdiff_t count,
                               const real *dz, real *z) {
    transform_tiles(gradient_line, OUT, p, &p->y, 0, 0, panel, find_tile(p, first), count, dz, z,
                    GRADIENT_PLANE);
}

/* One point of `rows` tiles and one panel: m = v u, from `bias` (of `columns` reals) or zero on. */
INLINE void product_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *v, ptrdiff_t block,
                         ptrdiff_t depth, const real *u, const real *bias, ptrdiff_t columns, real *m) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (j, vectors) {
        vec start =
            bias ? load_some(bias + j * VLEN, at_least(0, at_most(VLEN, columns - j * VLEN))) : (vec){0};
        UNROLLED (i, rows)
            sums[i][j] = start;
    }
    for (ptrdiff_t k = 0; k < depth; k += PANEL, v += block)
        _Pragma("GCC unroll 2") for (ptrdiff_t c = 0; c < at_most(PANEL, depth - k); c++, u += PANEL) {
            vec right[TILE_VECTORS];
            UNROLLED (line, ceil_div(vectors * VLEN, LANES))
                __builtin_prefetch(u + AHEAD + line * LANES);
            UNROLLED (j, vectors)
                right[j] = load(u + j * VLEN);
            UNROLLED (i, rows) {
                vec broadcast = fill(v[i * PANEL + c]);
                UNROLLED (j, vectors)
                    sums[i][j] += broadcast * right[j];
            }
        }
    UNROLLED (i, rows)
        UNROLLED (j, vectors)
            store(m + i * PANEL + j * VLEN, sums[i][j]);
}

/* A^T m A of one tile and vector: `lanes` of it stored, those not to `keep` as zeros. */
INLINE void output_tile(const ptrdiff_t height, const ptrdiff_t width, const ptrdiff_t lanes,
                        const int accumulate, const winograd_product *p, const real *m, ptrdiff_t plane,
                        mask keep, vec floor, real *y) {
    UNROLLED (i, OUT / 2) {
        vec result[2][POINTS];
        transform_rows(output_line, POINTS, OUT, 2, i, m, POINTS * plane, plane, result);
        UNROLLED (j, 2)
            UNROLLED (k, OUT)
                if (i + j * OUT / 2 < height && k < width) {
                    real *to = y + ((i + j * OUT / 2) * p->y.W + k) * p->y.pixel;
                    vec value = accumulate ? result[j][k] + load_some(to, lanes) : result[j][k];
                    store_some(to, lanes, select_lanes(value, keep & ~(mask)(value < floor)));
                }
    }
}

/* One panel of `count` tiles. */
static void transform_output(const winograd_product *p, ptrdiff_t panel, ptrdiff_t first, ptrdiff_t count,
                             const real *m, real *y) {
    vec floor = fill(p->relu ? 0 : -(real)INFINITY);
    ptrdiff_t end = at_most(p->y.pixel, (panel + 1) * PANEL);
    for (ptrdiff_t f = panel * PANEL; f < end; f += VLEN, m += VLEN) {
        ptrdiff_t lanes = at_most(VLEN, end - f);
        mask keep = first_lanes(p->y.C - f);
        corner at = find_tile(p, first);
        for (ptrdiff_t tile = 0; tile < count; tile++, at = next_tile(p, at)) {
            ptrdiff_t height = at_most(OUT, p->y.H - at.h), width = at_most(OUT, p->y.W - at.w);
            const real *from = m + tile * PANEL;
            real *to = y + at.n * p->y.image + (at.h * p->y.W + at.w) * p->y.pixel + f;
            if (height < OUT || width < OUT || lanes < VLEN)
                output_tile(height, width, lanes, p->accumulate, p, from, FORWARD_PLANE, keep, floor, to);
            else if (p->accumulate)
                output_tile(OUT, OUT, VLEN, 1, p, from, FORWARD_PLANE, keep, floor, to);
            else
                output_tile(OUT, OUT, VLEN, 0, p, from, FORWARD_PLANE, keep, floor, to);
        }
    }
}

void NAME(winograd_forward)(const winograd_product *p, ptrdiff_t n, const real *x, const real *filters,
                            const real *bias, real *y, real *scratch) {
    ptrdiff_t C = p->x.C, tiles = n * tiles_of(p), strips = ceil_div(tiles, TILE_ROWS);
    const ptrdiff_t plane = FORWARD_PLANE;
    real *v = scratch, *m = v + blocks_of(C) * PLANES * plane;
    for (ptrdiff_t strip = 0; strip < strips; strip += FORWARD_STRIPS) {
        ptrdiff_t end = at_most(strips, strip + FORWARD_STRIPS), first = tile_start(tiles, strips, strip);
        ptrdiff_t count = tile_start(tiles, strips, end) - first;
        transform_input(p, first, count, x, v, plane);
        for (ptrdiff_t panel = 0; panel < panels_of(p->y.C); panel++) {
            ptrdiff_t f = panel * PANEL, vectors = at_most(TILE_VECTORS, ceil_div(p->y.pixel - f, VLEN));
            for (ptrdiff_t t = 0; t < PLANES; t++)
                for (ptrdiff_t s = strip; s < end; s++) {
                    ptrdiff_t start = tile_start(tiles, strips, s),
                              rows = tile_start(tiles, strips, s + 1) - start;
                    ptrdiff_t at = t * plane + (start - first) * PANEL;
                    DISPATCH_TILE(rows, vectors, product_tile, v + at, PLANES * plane, C,
                                  filters + (panel * PLANES + t) * PLANE(C),
                                  bias && t == UNIT_POINT ? bias + f : NULL, p->y.C - f, m + at)
                }
            transform_output(p, panel, first, count, m, y);
        }
    }
}

/* One point of `rows` channels of x and one panel: sums = v^T z over `depth` tiles. */
INLINE void gradient_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *v, const real *z,
                          ptrdiff_t depth, const real *ahead, real *sums_out) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (j, vectors)
            sums[i][j] = (vec){0};
    for (ptrdiff_t tile = 0; tile < depth; tile++, v += PANEL, z += PANEL, ahead += PANEL) {
        vec right[TILE_VECTORS];
        UNROLLED (line, ceil_div(vectors * VLEN, LANES))
            __builtin_prefetch(ahead + line * LANES);
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
            store(sums_out + i * PANEL + j * VLEN, sums[i][j]);
}

/* G^T s G of one block and panel, added to dw. */
static void add_weights(const winograd_product *p, ptrdiff_t rows, ptrdiff_t columns, const real *sums,
                        real *dw) {
    for (ptrdiff_t f = 0; f < columns; f += VLEN) {
        mask keep = first_lanes(columns - f);
        for (ptrdiff_t c = 0; c < rows; c++) {
            vec result[3][POINTS];
            transform_rows(weight_line, POINTS, 3, 3, 0, sums + c * PANEL + f, POINTS * PANEL * PANEL,
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
    ptrdiff_t C = p->x.C, F = p->y.C, tiles = n * tiles_of(p);
    ptrdiff_t passes = ceil_div(tiles, GRADIENT_TILES);
    const ptrdiff_t plane = GRADIENT_PLANE;
    real *v = scratch, *z = v + blocks_of(C) * PLANES * plane, *sums = z + PLANES * plane;
    for (ptrdiff_t pass = 0; pass < passes; pass++) {
        ptrdiff_t first = tile_start(tiles, passes, pass),
                  count = tile_start(tiles, passes, pass + 1) - first;
        transform_input(p, first, count, x, v, plane);
        for (ptrdiff_t panel = 0; panel < blocks_of(F); panel++) {
            ptrdiff_t columns = at_most(PANEL, F - panel * PANEL), vectors = ceil_div(columns, VLEN);
            transform_gradient(p, panel, first, count, dz, z);
            for (ptrdiff_t block = 0; block < blocks_of(C); block++) {
                const real *vb = v + block * PLANES * plane;
                ptrdiff_t rows = at_most(PANEL, C - block * PANEL), parts = ceil_div(rows, TILE_ROWS);
                for (ptrdiff_t t = 0; t < PLANES; t++)
                    for (ptrdiff_t part = 0; part < parts; part++) {
                        ptrdiff_t c = tile_start(rows, parts, part),
                                  height = tile_start(rows, parts, part + 1) - c;
                        /* The first part fetches the next plane of v, the second that of z. */
                        DISPATCH_TILE(height, vectors, gradient_tile, vb + t * plane + c, z + t * plane,
                                      count, (part % 2 ? z : vb) + (t + 1) * plane,
                                      sums + (t * PANEL + c) * PANEL)
                    }
                add_weights(p, rows, columns, sums, dw + block * PANEL * p->y.pixel + panel * PANEL);
            }
        }
    }
}

ptrdiff_t NAME(winograd_scratch)(const winograd_product *p) {
    ptrdiff_t blocks = blocks_of(p->x.C);
    ptrdiff_t forward = (blocks + 1) * PLANES * FORWARD_PLANE;
    ptrdiff_t gradient = (blocks + 1) * PLANES * GRADIENT_PLANE + PLANES * PANEL * PANEL;
    return at_least(forward, gradient);
}

ptrdiff_t NAME(winograd_group)(const winograd_product *p) {
    ptrdiff_t most = FORWARD_STRIPS * TILE_ROWS, tiles = tiles_of(p);
    return at_least(1, (most + tiles / 2) / at_least(1, tiles));
}

ptrdiff_t NAME(winograd_filters)(ptrdiff_t depth, ptrdiff_t columns) {
    return panels_of(columns) * PLANES * PLANE(depth);
}

/* A task packs LANES rows of a panel: as many as a cache line of flipped filters holds. */
ptrdiff_t NAME(winograd_pack_tasks)(ptrdiff_t depth, ptrdiff_t columns) {
    return panels_of(columns) * ceil_div(depth, LANES);
}

void NAME(winograd_pack)(ptrdiff_t C, ptrdiff_t F, ptrdiff_t row, const real *w, int flipped, ptrdiff_t task,
                         real *filters) {
    ptrdiff_t depth = flipped ? F : C, all_columns = flipped ? C : F, parts = ceil_div(depth, LANES);
    ptrdiff_t column = task / parts * PANEL, k = task % parts * LANES;
    ptrdiff_t columns = at_least(0, at_most(PANEL, all_columns - column)), rows = at_most(LANES, depth - k);
    real taps[9 * LANES * PANEL];
    memset(taps, 0, sizeof taps);
    for (ptrdiff_t tap = 0; tap < 9; tap++) {
        real *to = taps + tap * LANES * PANEL;
        if (flipped)
            for (ptrdiff_t j = 0; j < columns; j++)
                for (ptrdiff_t i = 0; i < rows; i++)
                    to[i * PANEL + j] = w[((8 - tap) * C + column + j) * row + k + i];
        else
            for (ptrdiff_t i = 0; i < rows; i++)
                memcpy(to + i * PANEL, w + (tap * C + k + i) * row + column, (size_t)columns * sizeof(real));
    }
    real *planes = filters + column / PANEL * PLANES * PLANE(depth) + k * PANEL;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < PANEL; j += VLEN)
            transform_to_points(filter_line, 3, taps + i * PANEL + j, 3 * LANES * PANEL, LANES * PANEL,
                                planes + i * PANEL + j, PLANE(depth));
}
