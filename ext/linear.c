/* Fully connected layers: y = relu(x w^T + b) with w as [out][in], in three orientations.
 *
 * Forward transposes the weights of a panel of outputs and multiplies the rows of x, as they
 * lie, by it; long rows are cut into parts, whose sums are added in order. Backward works on
 * strips of input columns: one pass packs a strip of x and of w and yields that strip of dx
 * and of dw, so that weights and their gradients pass through memory once. What is packed
 * next is prefetched while tiles are computed. Work is cut by shape alone, never by threads.
 */
#include "pool.h"
#include "transpose.h"

#define FEW 2       /* images that a panel would not pay for */
#define FEW_OUTS 16 /* outputs a task computes of so few */

#define PANEL_OUTS (2 * PAIRS) /* outputs of a transposed panel */
#define OUT_BLOCK 128          /* outputs a forward task computes; rows of w that backward packs */
#define DEPTH_BLOCK 384  /* reals of a row that forward multiplies at a time; panel and rows stay in cache */
#define MAX_PARTS 8      /* forward cuts rows of x into no more parts, */
#define FORWARD_TASKS 16 /* and not where blocks of outputs make that many tasks */
#define AHEAD_DEPTH 128  /* reals a forward tile goes on between prefetches: all at once would stall it */

#define STRIP (32 * LANES)    /* columns of a strip at most: 2 KiB, a run that processors prefetch well */
#define STRIP_REALS (1 << 17) /* of x and of a block of w: a second-level cache holds them */
#define STRIPS 8              /* tasks backward is cut into as long as strips stay half as wide */
#define AHEAD_STEPS 24        /* of a gradient's tile between prefetches */

#define SUM_ROWS 16    /* rows of y that a task finishes */
#define SUM_COLUMNS 64 /* columns of dz that a task computes and sums */

typedef struct {
    const linear_shape *s;
    ptrdiff_t n;
    ptrdiff_t blocks, parts, part_depth;                 /* of forward */
    ptrdiff_t strips, strip_rows, strip_columns, dz_row; /* of backward */
    const real *x, *w, *b, *y, *dy;
    real *out, *dx, *dw, *db, *scratch;
} linear_job;

static linear_job plan_job(const linear_shape *s, ptrdiff_t n, void *scratch) {
    ptrdiff_t blocks = ceil_div(s->out, OUT_BLOCK), tasks = n > FEW ? FORWARD_TASKS : 1;
    ptrdiff_t parts = at_most(at_most(MAX_PARTS, tasks / blocks), ceil_div(s->in, DEPTH_BLOCK));
    ptrdiff_t part_depth = round_up(ceil_div(s->in, at_least(1, parts)), LANES);
    ptrdiff_t panels = ceil_div(s->in, PANEL), strip_rows = n + at_most(OUT_BLOCK, s->out);
    ptrdiff_t strip_panels = at_most(STRIP, STRIP_REALS / strip_rows) / PANEL;
    ptrdiff_t strips = at_least(ceil_div(panels, at_least(1, strip_panels)),
                                at_most(at_most(STRIPS, panels), ceil_div(2 * s->in, STRIP)));
    return (linear_job){.s = s,
                        .n = n,
                        .blocks = blocks,
                        .parts = ceil_div(s->in, part_depth),
                        .part_depth = part_depth,
                        .strips = strips,
                        .strip_rows = strip_rows,
                        .strip_columns = ceil_div(panels, strips) * PANEL,
                        .dz_row = (s->y_row / LANES | 1) * LANES, /* odd: its rows spread over the cache */
                        .scratch = scratch};
}

/* Forward keeps the sums of all parts but the first, up to 7 times y, and a panel a worker, 48 KiB;
 * backward keeps dz and, a worker, a strip of x and of a block of w: STRIP_REALS or one panel of each.
 * What is enough for n images is enough for fewer. */
ptrdiff_t NAME(linear_scratch)(const linear_shape *s, ptrdiff_t n, int threads) {
    linear_job job = plan_job(s, at_least(n, FEW + 1), NULL);
    ptrdiff_t forward = (job.parts - 1) * job.n * s->y_row + threads * DEPTH_BLOCK / PAIR * PANEL;
    ptrdiff_t strip = at_most(STRIP_REALS, job.strip_rows * at_most(STRIP, round_up(s->in, PANEL)));
    ptrdiff_t backward = job.n * job.dz_row + threads * at_least(strip, job.strip_rows * PANEL);
    return at_least(forward, backward);
}

/* Ask for the line of array[index], which may lie outside the array: then in vain. */
INLINE void prefetch(const real *array, ptrdiff_t index) {
    __builtin_prefetch((const void *)((uintptr_t)array + (uintptr_t)index * sizeof(real)), 0, 2);
}

/* Transpose rows of w by pairs into panel[depth / PAIR][PANEL]; the last row stands in for missing ones. */
static void pack_transposed(ptrdiff_t outs, ptrdiff_t depth, const real *w, ptrdiff_t step, real *panel) {
    for (ptrdiff_t o = 0; o < outs; o += PAIRS) {
        const real *from[PAIRS];
        UNROLLED (i, PAIRS)
            from[i] = w + at_most(o + i, outs - 1) * step;
        real *to = panel + o * PAIR;
        for (ptrdiff_t k = 0; k < depth; k += VLEN, to += PAIRS * PANEL) {
            pair_vec rows[PAIRS];
            UNROLLED (i, PAIRS)
                rows[i] = (pair_vec)load(from[i] + k);
            transpose_pairs(rows);
            UNROLLED (i, PAIRS)
                store(to + i * PANEL, (vec)rows[i]);
        }
    }
}

INLINE vec fill_pair(const real *from) {
    int64_t pair;
    memcpy(&pair, from, sizeof pair);
    return (vec)(pair - (pair_vec){0});
}

/* y[i][o] (+)= sum over k < depth of x[i][k] w[o][k], w's rows as the panel holds them. A lane sums
 * over every second k if pairs are floats. `ahead` and as many rows of w behind it are packed next. */
INLINE void forward_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const real *x, ptrdiff_t step,
                         ptrdiff_t depth, const real *panel, int add, real *y, ptrdiff_t y_row, const real *w,
                         ptrdiff_t ahead, ptrdiff_t ahead_rows) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    const real *bases[MAX_BASES];
    UNROLLED (i, rows)
        UNROLLED (v, TILE_VECTORS)
            sums[i][v] = (vec){0};
    set_bases(rows, bases, x, step);
    for (ptrdiff_t start = 0, end; start < depth; start = end) {
        end = at_most(depth, start + AHEAD_DEPTH);
        for (ptrdiff_t i = 0; i < ahead_rows; i++)
            for (ptrdiff_t k = start; k < end; k += LANES)
                prefetch(w, ahead + i * step + k);
        for (ptrdiff_t k = start; k < end; k += PAIR) {
            vec right[TILE_VECTORS];
            UNROLLED (v, vectors)
                right[v] = load(panel + v * VLEN);
            panel += PANEL;
            UNROLLED (i, rows) {
                vec broadcast = fill_pair(bases[i / 3] + i % 3 * step);
                UNROLLED (v, vectors)
                    sums[i][v] += broadcast * right[v];
            }
            UNROLLED (j, (rows + 2) / 3)
                bases[j] += PAIR;
        }
    }
    const ptrdiff_t results = ceil_div(vectors, PAIR);
    UNROLLED (i, rows) {
        add_pairs(sums[i]);
        UNROLLED (v, results) {
            real *to = y + i * y_row + v * VLEN;
            store(to, add ? load(to) + sums[i][v] : sums[i][v]);
        }
    }
}

/* Where a part's sums go. */
static real *part_sums(const linear_job *job, ptrdiff_t part) {
    return part ? job->scratch + (part - 1) * job->n * job->s->y_row : job->out;
}

/* One part of the sums of one block of outputs, for the whole batch. */
static void forward_block(const void *context, ptrdiff_t task, int worker) {
    const linear_job *job = context;
    const linear_shape *s = job->s;
    ptrdiff_t part = task % job->parts, first = task / job->parts * OUT_BLOCK;
    ptrdiff_t end = at_most(s->out, first + OUT_BLOCK);
    ptrdiff_t start = part * job->part_depth, length = at_most(job->part_depth, s->in - start);
    ptrdiff_t depth_block = round_up(ceil_div(length, ceil_div(length, DEPTH_BLOCK)), LANES);
    /* Rows a multiple of 4 KiB apart share one set of the first-level cache, which holds 8 to 12 lines. */
    int aliased = s->in * (ptrdiff_t)sizeof(real) % 4096 == 0;
    ptrdiff_t tiles = ceil_div(job->n, aliased ? at_most(TILE_ROWS, 10) : TILE_ROWS);
    real *panel = part_sums(job, job->parts) + worker * DEPTH_BLOCK / PAIR * PANEL;
    for (ptrdiff_t k = start; k < start + length; k += depth_block) {
        ptrdiff_t depth = at_most(depth_block, start + length - k);
        for (ptrdiff_t o = first; o < end; o += PANEL_OUTS) {
            ptrdiff_t outs = at_most(PANEL_OUTS, end - o), vectors = ceil_div(outs, PAIRS);
            ptrdiff_t next = o + outs < end ? (o + outs) * s->in + k : first * s->in + k + depth;
            pack_transposed(outs, depth, job->w + o * s->in + k, s->in, panel);
            for (ptrdiff_t tile = 0; tile < tiles; tile++) {
                ptrdiff_t n = tile_start(job->n, tiles, tile), rows = tile_start(job->n, tiles, tile + 1) - n;
                ptrdiff_t ahead = tile_start(outs, tiles, tile);
                DISPATCH_TILE(rows, vectors, forward_tile, job->x + n * s->in + k, s->in, depth, panel,
                              k > start, part_sums(job, part) + n * s->y_row + o, s->y_row, job->w,
                              next + ahead * s->in, tile_start(outs, tiles, tile + 1) - ahead)
            }
        }
    }
}

/* Sums of some outputs for up to FEW images: plain dot products. */
static void forward_few(const void *context, ptrdiff_t task, int worker) {
    (void)worker;
    const linear_job *job = context;
    const linear_shape *s = job->s;
    for (ptrdiff_t o = task * FEW_OUTS; o < at_most(s->out, (task + 1) * FEW_OUTS); o++)
        for (ptrdiff_t n = 0; n < job->n; n++) {
            const real *x = job->x + n * s->in, *w = job->w + o * s->in;
            vec sums[4] = {{0}}; /* a single one would wait for itself */
            ptrdiff_t k = 0;
            for (; k + 4 * VLEN <= s->in; k += 4 * VLEN)
                UNROLLED (i, 4)
                    sums[i] += load(x + k + i * VLEN) * load(w + k + i * VLEN);
            for (; k < s->in; k += VLEN)
                sums[0] += load(x + k) * load(w + k);
            vec lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            real sum = 0;
            UNROLLED (lane, VLEN)
                sum += lanes[lane];
            job->out[n * s->y_row + o] = sum;
        }
}

/* Add up the parts and the bias of some rows of y. */
static void finish_rows(const void *context, ptrdiff_t task, int worker) {
    (void)worker;
    const linear_job *job = context;
    const linear_shape *s = job->s;
    for (ptrdiff_t o = 0; o < s->y_row; o += VLEN) {
        mask used = first_lanes(s->out - o);
        vec bias = job->b ? load(job->b + o) : (vec){0};
        for (ptrdiff_t n = task * SUM_ROWS; n < at_most(job->n, (task + 1) * SUM_ROWS); n++) {
            vec sum = bias;
            for (ptrdiff_t part = 0; part < job->parts; part++)
                sum += load(part_sums(job, part) + n * s->y_row + o);
            sum = s->relu ? relu_vector(sum) : sum;
            store(job->out + n * s->y_row + o, select_lanes(sum, used));
        }
    }
}

void NAME(linear_forward)(const linear_shape *s, int threads, ptrdiff_t n, const void *x, const void *w,
                          const void *b, void *y, void *scratch) {
    linear_job job = plan_job(s, n, scratch);
    job.x = x, job.w = w, job.b = b, job.out = y;
    if (n <= FEW)
        pool_run(threads, ceil_div(s->out, FEW_OUTS), forward_few, &job);
    else
        pool_run(threads, job.blocks * job.parts, forward_block, &job);
    pool_run(threads, ceil_div(n, SUM_ROWS), finish_rows, &job);
}

/* dz at one vector: what ReLU lets through. */
INLINE vec mask_vector(const linear_job *job, ptrdiff_t n, ptrdiff_t o) {
    vec dy = load(job->dy + n * job->s->y_row + o);
    vec dz = job->s->relu ? relu_gradient(dy, load(job->y + n * job->s->y_row + o)) : dy;
    store(job->scratch + n * job->dz_row + o, dz);
    return dz;
}

/* Some columns of dz, and their sums db. */
static void mask_columns(const void *context, ptrdiff_t task, int worker) {
    (void)worker;
    const linear_job *job = context;
    ptrdiff_t end = at_most(job->s->y_row, (task + 1) * SUM_COLUMNS);
    for (ptrdiff_t o = task * SUM_COLUMNS; o < end; o += VLEN) {
        vec sums[4] = {{0}};
        ptrdiff_t n = 0;
        for (; n + 4 <= job->n; n += 4)
            UNROLLED (i, 4)
                sums[i] += mask_vector(job, n + i, o);
        for (; n < job->n; n++)
            sums[0] += mask_vector(job, n, o);
        store(job->db + o, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

/* out[i] (+)= a[i] panel, or the same of a transposed. `ahead` and as many rows of `next` behind it as
 * the tile has are packed next. */
INLINE void gradient_tile(const ptrdiff_t rows, const ptrdiff_t vectors, const int transposed, const real *a,
                          ptrdiff_t a_step, ptrdiff_t depth, const real *panel, int add, real *out,
                          ptrdiff_t step, const real *next, ptrdiff_t ahead) {
    vec sums[TILE_ROWS][TILE_VECTORS];
    UNROLLED (i, rows)
        UNROLLED (v, vectors)
            sums[i][v] = (vec){0};
    ptrdiff_t rounds = depth / AHEAD_STEPS; /* and the rest, which is too short to prefetch anything */
    for (ptrdiff_t round = 0; round <= rounds; round++) {
        ptrdiff_t k = round * AHEAD_STEPS, steps = at_most(AHEAD_STEPS, depth - k);
        if (round < rounds)
            for (ptrdiff_t i = round * rows / rounds; i < (round + 1) * rows / rounds; i++)
                for (ptrdiff_t column = 0; column < vectors * VLEN; column += LANES)
                    prefetch(next, ahead + i * step + column);
        if (transposed)
            accumulate_tn(rows, vectors, sums, a + k * a_step, a_step, steps, panel + k * PANEL, PANEL);
        else
            accumulate_nn(rows, vectors, sums, a + k, a_step, steps, panel + k * PANEL);
    }
    UNROLLED (i, rows)
        UNROLLED (v, vectors) {
            real *to = out + i * step + v * VLEN;
            store(to, add ? load(to) + sums[i][v] : sums[i][v]);
        }
}

/* Copy rows of a strip into panels that are `height` rows tall. */
static void pack_strip(ptrdiff_t rows, ptrdiff_t columns, const real *from, ptrdiff_t step, real *panels,
                       ptrdiff_t height) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const real *row = from + i * step, *end = row + columns;
        real *to = panels + i * PANEL;
        for (; row + PANEL <= end; row += PANEL, to += height * PANEL)
            UNROLLED (v, TILE_VECTORS)
                store(to + v * VLEN, load(row + v * VLEN));
        if (row < end)
            store(to, load(row));
    }
}

/* A strip of dw and dx. Panels are the inner loop, so that gradients are written in long runs. */
static void backward_strip(const void *context, ptrdiff_t task, int worker) {
    const linear_job *job = context;
    const linear_shape *s = job->s;
    ptrdiff_t panels = ceil_div(s->in, PANEL), first = tile_start(panels, job->strips, task) * PANEL;
    ptrdiff_t columns = at_most(s->in, tile_start(panels, job->strips, task + 1) * PANEL) - first;
    const real *dz = job->scratch;
    real *x = job->scratch + job->n * job->dz_row + worker * job->strip_rows * job->strip_columns;
    real *w = x + job->n * job->strip_columns;
    pack_strip(job->n, columns, job->x + first, s->in, x, job->n);
    for (ptrdiff_t block = 0; block < s->out; block += OUT_BLOCK) {
        ptrdiff_t outs = at_most(OUT_BLOCK, s->out - block);
        for (ptrdiff_t tiles = ceil_div(outs, TILE_ROWS), tile = 0; tile < tiles; tile++) {
            ptrdiff_t o = tile_start(outs, tiles, tile), rows = tile_start(outs, tiles, tile + 1) - o;
            ptrdiff_t row = (block + o) * s->in + first;
            ptrdiff_t next = block + o + rows < s->out ? row + rows * s->in : first + columns;
            if (job->dx)
                pack_strip(rows, columns, job->w + row, s->in, w + o * PANEL, outs);
            for (ptrdiff_t column = 0; column < columns; column += PANEL) {
                ptrdiff_t vectors = columns - column > VLEN ? 2 : 1;
                DISPATCH_TILE(rows, vectors, gradient_tile, 1, dz + block + o, job->dz_row, job->n,
                              x + column * job->n, 0, job->dw + row + column, s->in, job->w, next + column)
            }
        }
        for (ptrdiff_t tiles = job->dx ? ceil_div(job->n, TILE_ROWS) : 0, tile = 0; tile < tiles; tile++) {
            ptrdiff_t n = tile_start(job->n, tiles, tile), rows = tile_start(job->n, tiles, tile + 1) - n;
            ptrdiff_t row = n * s->in + first;
            for (ptrdiff_t column = 0; column < columns; column += PANEL) {
                ptrdiff_t vectors = columns - column > VLEN ? 2 : 1;
                DISPATCH_TILE(rows, vectors, gradient_tile, 0, dz + n * job->dz_row + block, job->dz_row,
                              outs, w + column * outs, block > 0, job->dx + row + column, s->in, job->x,
                              row + columns + column)
            }
        }
    }
}

void NAME(linear_backward)(const linear_shape *s, int threads, ptrdiff_t n, const void *dy, const void *x,
                           const void *w, const void *y, void *dx, void *dw, void *db, void *scratch) {
    linear_job job = plan_job(s, n, scratch);
    job.dy = dy, job.x = x, job.w = w, job.y = y, job.dx = dx, job.dw = dw, job.db = db;
    pool_run(threads, ceil_div(s->y_row, SUM_COLUMNS), mask_columns, &job);
    pool_run(threads, job.strips, backward_strip, &job);
}
