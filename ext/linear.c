/* Fully connected layers: y = relu(x w^T + b) with w as [out][in], in three orientations.
 *
 * Forward multiplies rows by rows: tiles of dot products whose lanes are summed at the end.
 * Backward works on panels of input columns: one pass packs a panel of x and of w and
 * yields that panel of dx and of dw. Work is cut by shape alone, never by threads.
 */
#include "pool.h"
#include "tiles.h"

#define OUT_BLOCK (4 * DOT_ROWS)              /* outputs a forward task computes */
#define DOT_TILE (DOT_ROWS * DOT_ROWS * VLEN) /* reals of a tile's sums */
#define DEPTH_BLOCK 1024                      /* reals of a row kept in the first-level cache at a time */

typedef struct {
    const linear_shape *s;
    ptrdiff_t n;
    const real *dy, *dz, *x, *w, *b, *y;
    real *out, *dx, *dw, *db, *scratch;
} linear_job;

INLINE real sum_lanes(vec value) {
    real sum = 0;
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        sum += value[lane];
    return sum;
}

/* sums[i][j] += x[i] . w[j] over `depth` reals, lane by lane. */
INLINE void dot_tile(const ptrdiff_t rows, const ptrdiff_t columns, const real *x, const real *w,
                     ptrdiff_t step, ptrdiff_t depth, real *partial) {
    vec sums[DOT_ROWS][DOT_ROWS];
    UNROLLED (i, rows)
        UNROLLED (j, columns)
            sums[i][j] = load(partial + (i * DOT_ROWS + j) * VLEN);
    for (ptrdiff_t k = 0; k < depth; k += VLEN) {
        vec right[DOT_ROWS];
        UNROLLED (j, columns)
            right[j] = load(w + j * step + k);
        UNROLLED (i, rows) {
            vec value = load(x + i * step + k);
            UNROLLED (j, columns)
                sums[i][j] += value * right[j];
        }
    }
    UNROLLED (i, rows)
        UNROLLED (j, columns)
            store(partial + (i * DOT_ROWS + j) * VLEN, sums[i][j]);
}

static void dot_block(ptrdiff_t rows, ptrdiff_t columns, const real *x, const real *w, ptrdiff_t step,
                      ptrdiff_t depth, real *partial) {
    if (rows == DOT_ROWS && columns == DOT_ROWS) {
        dot_tile(DOT_ROWS, DOT_ROWS, x, w, step, depth, partial);
        return;
    }
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j++)
            dot_tile(1, 1, x + i * step, w + j * step, step, depth, partial + (i * DOT_ROWS + j) * VLEN);
}

/* Reals of one block's partial sums, a vector each. */
static ptrdiff_t partial_count(ptrdiff_t n) {
    return ceil_div(n, DOT_ROWS) * (OUT_BLOCK / DOT_ROWS) * DOT_TILE;
}

/* One block of outputs for the whole batch; partial sums wait in scratch between depth blocks. */
static void forward_block(const void *context, ptrdiff_t block, int worker) {
    const linear_job *job = context;
    const linear_shape *s = job->s;
    ptrdiff_t first = block * OUT_BLOCK, outs = at_most(OUT_BLOCK, s->out - first);
    real *partial = job->scratch + worker * partial_count(job->n);
    memset(partial, 0, (size_t)partial_count(job->n) * sizeof(real));
    for (ptrdiff_t k = 0; k < s->in; k += DEPTH_BLOCK) {
        real *tile = partial;
        for (ptrdiff_t n = 0; n < job->n; n += DOT_ROWS)
            for (ptrdiff_t o = 0; o < outs; o += DOT_ROWS, tile += DOT_TILE)
                dot_block(at_most(DOT_ROWS, job->n - n), at_most(DOT_ROWS, outs - o), job->x + n * s->in + k,
                          job->w + (first + o) * s->in + k, s->in, at_most(DEPTH_BLOCK, s->in - k), tile);
    }
    const real *tile = partial;
    for (ptrdiff_t n = 0; n < job->n; n += DOT_ROWS)
        for (ptrdiff_t o = 0; o < outs; o += DOT_ROWS, tile += DOT_TILE)
            for (ptrdiff_t i = 0; i < at_most(DOT_ROWS, job->n - n); i++)
                for (ptrdiff_t j = 0; j < at_most(DOT_ROWS, outs - o); j++) {
                    real sum = sum_lanes(load(tile + (i * DOT_ROWS + j) * VLEN)) +
                               (job->b ? job->b[first + o + j] : 0);
                    job->out[(n + i) * s->y_row + first + o + j] = s->relu && sum < 0 ? 0 : sum;
                }
}

ptrdiff_t NAME(linear_scratch)(const linear_shape *s, ptrdiff_t n, int threads) {
    ptrdiff_t forward = threads * partial_count(n);
    ptrdiff_t backward = n * s->y_row + threads * (n + s->out) * PANEL;
    return at_least(forward, backward);
}

void NAME(linear_forward)(const linear_shape *s, int threads, ptrdiff_t n, const void *x, const void *w,
                          const void *b, void *y, void *scratch) {
    linear_job job = {.s = s, .n = n, .x = x, .w = w, .b = b, .out = y, .scratch = scratch};
    for (ptrdiff_t i = 0; i < n; i++)
        memset(job.out + i * s->y_row + s->out, 0, (size_t)(s->y_row - s->out) * sizeof(real));
    pool_run(threads, ceil_div(s->out, OUT_BLOCK), forward_block, &job);
}

INLINE void dx_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *dz, ptrdiff_t step,
                    ptrdiff_t depth, const real *panel, real *dx, ptrdiff_t dx_step) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            sums[i][v] = (vec){0};
    accumulate_nn(rows, vectors, sums, dz, step, depth, panel);
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            store(dx + i * dx_step + v * VLEN, sums[i][v]);
}

INLINE void dw_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *dz, ptrdiff_t step,
                    ptrdiff_t depth, const real *panel, real *dw, ptrdiff_t dw_step) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            sums[i][v] = (vec){0};
    accumulate_tn(rows, vectors, sums, dz, step, depth, panel, PANEL);
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            store(dw + i * dw_step + v * VLEN, sums[i][v]);
}

static void backward_panel(const void *context, ptrdiff_t task, int worker) {
    const linear_job *job = context;
    const linear_shape *s = job->s;
    ptrdiff_t column = task * PANEL, columns = at_most(PANEL, s->in - column);
    ptrdiff_t vectors = ceil_div(columns, VLEN);
    real *panel = job->scratch + job->n * s->y_row + worker * (job->n + s->out) * PANEL;
    pack_panel(job->n, columns, job->x + column, s->in, panel);
    for (ptrdiff_t tiles = ceil_div(s->out, TILE_ROWS), tile = 0; tile < tiles; tile++) {
        ptrdiff_t o = tile_start(s->out, tiles, tile), rows = tile_start(s->out, tiles, tile + 1) - o;
        DISPATCH_TILE(rows, vectors, dw_tile, job->dz + o, s->y_row, job->n, panel,
                      job->dw + o * s->in + column, s->in)
    }
    if (!job->dx)
        return;
    panel += job->n * PANEL;
    pack_panel(s->out, columns, job->w + column, s->in, panel);
    for (ptrdiff_t tiles = ceil_div(job->n, TILE_ROWS), tile = 0; tile < tiles; tile++) {
        ptrdiff_t n = tile_start(job->n, tiles, tile), rows = tile_start(job->n, tiles, tile + 1) - n;
        DISPATCH_TILE(rows, vectors, dx_tile, job->dz + n * s->y_row, s->y_row, s->out, panel,
                      job->dx + n * s->in + column, s->in)
    }
}

void NAME(linear_backward)(const linear_shape *s, int threads, ptrdiff_t n, const void *dy, const void *x,
                           const void *w, const void *y, void *dx, void *dw, void *db, void *scratch) {
    linear_job job = {
        .s = s, .n = n, .dz = dy, .x = x, .w = w, .dx = dx, .dw = dw, .db = db, .scratch = scratch};
    if (s->relu) {
        relu_gradient_row(n * s->y_row, dy, y, scratch);
        job.dz = scratch;
    }
    for (ptrdiff_t o = 0; o < s->y_row; o += VLEN) {
        vec sum = {0};
        for (ptrdiff_t i = 0; i < n; i++)
            sum += load(job.dz + i * s->y_row + o);
        store(job.db + o, sum);
    }
    pool_run(threads, ceil_div(s->in, PANEL), backward_panel, &job);
}
