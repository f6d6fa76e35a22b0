/* What stands behind a convolution's sums z: y = pool(activation(scale z + shift + r)).
 *
 * scale and shift are batch norm's, or 1 and 0. One image at a time, forward in one pass
 * and backward to the gradient of scale z + shift + r; all vectors hold channels of one pixel.
 */
#ifndef CNNCTL_SANDWICH_H
#define CNNCTL_SANDWICH_H

#include "direct.h"
#include "pooling.h"
#include "transpose.h"

/* The usual pool: 2x2 windows side by side. */
static int pools_pairs(const conv_shape *s) {
    return s->pool.kernel_h == 2 && s->pool.kernel_w == 2 && tiles_image(&s->pool, &s->z, &s->y);
}

typedef struct {
    const conv_shape *s;
    const real *scale, *shift; /* NULL: 1 and 0 */
    const real *z, *r, *y;     /* of one image; r may be NULL */
    real alpha;                /* the activation's */
} sandwich_image;

/* scale z + shift + r, before the activation. */
INLINE vec before_activation(const sandwich_image *m, ptrdiff_t at, ptrdiff_t c) {
    vec u = load(m->z + at);
    if (m->scale)
        u = u * load(m->scale + c) + load(m->shift + c);
    return m->r ? u + load(m->r + at) : u;
}

INLINE void pool_max(const activation_kind kind, const sandwich_image *m, const tap_range *t, ptrdiff_t c,
                     vec *maximum, mask *winner) {
    const conv_shape *s = m->s;
    const window_shape *w = &s->pool;
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
            vec value =
                activate(kind, m->alpha, before_activation(m, tap_offset(t, w, &s->z, kh, kw) + c, c));
            mask tap = fill_mask(kh * w->kernel_w + kw);
            if (kh == t->kh && kw == t->kw) {
                *maximum = value;
                *winner = tap;
                continue;
            }
            compare_tap(value, tap, maximum, winner);
        }
}

INLINE vec pool_average(const activation_kind kind, const sandwich_image *m, const tap_range *t,
                        ptrdiff_t c) {
    const conv_shape *s = m->s;
    const window_shape *w = &s->pool;
    vec sum = {0};
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++)
            sum += activate(kind, m->alpha, before_activation(m, tap_offset(t, w, &s->z, kh, kw) + c, c));
    return sum / (real)((t->kh_end - t->kh) * (t->kw_end - t->kw));
}

/* Where the four taps of a 2x2 window begin, counted from the first. */
#define PAIR_TAPS 4
#define PAIR_OFFSETS(s) {0, (s)->z.pixel, (s)->z.W * (s)->z.pixel, ((s)->z.W + 1) * (s)->z.pixel}

/* Few channels leave the upper half of their vectors empty: two pixels then share one where an activation
 * costs more than bringing them together. */
#if VECTOR_BYTES == 64 && REAL_BITS == 32
#define LOWER_HALVES (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define UPPER_HALVES (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
INLINE vec join_halves(vec low, vec high) { return SHUFFLE(mask, low, high, LOWER_HALVES); }
INLINE vec upper_half(vec pixels) { return SHUFFLE(mask, pixels, (vec){0}, UPPER_HALVES); }
INLINE int shares_vectors(const activation_kind kind, const conv_shape *s) {
    return kind > ACTIVATION_LEAKY_RELU && s->pooling == POOL_AVERAGE && 2 * s->z.C <= VLEN &&
           s->z.pixel == VLEN;
}
#else
INLINE vec join_halves(vec low, vec high) { return low + high; }
INLINE vec upper_half(vec pixels) { return pixels; }
INLINE int shares_vectors(const activation_kind kind, const conv_shape *s) { return kind < 0 && s == NULL; }
#endif
INLINE vec lower_half(vec pixels) { return join_halves(pixels, (vec){0}); }

INLINE void finish_pairs(const activation_kind kind, const sandwich_image *m, real *y, tap_index *index) {
    const conv_shape *s = m->s;
    const ptrdiff_t offsets[PAIR_TAPS] = PAIR_OFFSETS(s);
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            ptrdiff_t from = (2 * oh * s->z.W + 2 * ow) * s->z.pixel, at = (oh * s->y.W + ow) * s->y.pixel;
            for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                vec taps[PAIR_TAPS];
                UNROLLED (t, PAIR_TAPS)
                    taps[t] = before_activation(m, from + offsets[t] + c, c);
                if (shares_vectors(kind, s)) {
                    vec sums = activate(kind, m->alpha, join_halves(taps[0], taps[1])) +
                               activate(kind, m->alpha, join_halves(taps[2], taps[3]));
                    store(y + at + c, lower_half((sums + upper_half(sums)) * (real)0.25));
                    continue;
                }
                int late =
                    kind == ACTIVATION_RELU && s->pooling == POOL_MAX; /* the larger stays the larger */
                UNROLLED (t, PAIR_TAPS)
                    taps[t] = late ? taps[t] : activate(kind, m->alpha, taps[t]);
                if (s->pooling == POOL_AVERAGE) {
                    store(y + at + c, (taps[0] + taps[1] + taps[2] + taps[3]) * (real)0.25);
                    continue;
                }
                mask winner = {0};
                UNROLLED (t, PAIR_TAPS - 1)
                    compare_tap(taps[t + 1], fill_mask(t + 1), &taps[0], &winner);
                if (late) {
                    winner &= ~(mask)(taps[0] <= (vec){0}); /* all are 0 then, and the first one wins */
                    taps[0] = relu_vector(taps[0]);
                }
                store(y + at + c, taps[0]);
                if (index)
                    store_index(index + at + c, winner);
            }
        }
}

INLINE void finish_kind(const activation_kind kind, const sandwich_image *m, real *y, tap_index *index) {
    const conv_shape *s = m->s;
    if (s->pooling == POOL_NONE) {
        for (ptrdiff_t pixel = 0; pixel < s->z.H * s->z.W; pixel++)
            for (ptrdiff_t c = 0; c < s->z.pixel; c += VLEN) {
                ptrdiff_t at = pixel * s->z.pixel + c;
                store(y + at, activate(kind, m->alpha, before_activation(m, at, c)));
            }
        return;
    }
    if (pools_pairs(s)) {
        finish_pairs(kind, m, y, index);
        return;
    }
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            tap_range t = range_taps(&s->pool, &s->z, oh, ow);
            for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                ptrdiff_t at = (oh * s->y.W + ow) * s->y.pixel + c;
                if (s->pooling == POOL_AVERAGE) {
                    store(y + at, pool_average(kind, m, &t, c));
                    continue;
                }
                vec maximum = {0};
                mask winner = {0};
                pool_max(kind, m, &t, c, &maximum, &winner);
                store(y + at, maximum);
                if (index)
                    store_index(index + at, winner);
            }
        }
}

static void finish_image(const sandwich_image *m, real *y, tap_index *index) {
    switch (m->s->activation) {
    case ACTIVATION_NONE:
        finish_kind(ACTIVATION_NONE, m, y, index);
        break;
    case ACTIVATION_RELU:
        finish_kind(ACTIVATION_RELU, m, y, index);
        break;
    case ACTIVATION_LEAKY_RELU:
        finish_kind(ACTIVATION_LEAKY_RELU, m, y, index);
        break;
    case ACTIVATION_TANH:
        finish_kind(ACTIVATION_TANH, m, y, index);
        break;
    case ACTIVATION_SIGMOID:
        finish_kind(ACTIVATION_SIGMOID, m, y, index);
        clear_padding(&m->s->y, y); /* where the sigmoid of 0 stands */
        break;
    case ACTIVATION_ELU:
        finish_kind(ACTIVATION_ELU, m, y, index);
        break;
    case ACTIVATION_GELU:
        finish_kind(ACTIVATION_GELU, m, y, index);
        break;
    case ACTIVATION_SILU:
        finish_kind(ACTIVATION_SILU, m, y, index);
        break;
    }
}

/* Whether the activation's derivative has to be taken from z, since y does not tell it. */
static int differentiates_z(const conv_shape *s) {
    return needs_input(s->activation) || (s->activation && s->pooling == POOL_AVERAGE) ||
           (s->activation && s->pooling == POOL_NONE && s->norm && !s->residual);
}

/* The gradient before the activation, given the one behind it and what the activation was of. */
INLINE vec undo_value(const activation_kind kind, real alpha, vec u, vec gradient) {
    return activation_gradient(kind, alpha, gradient, needs_input(kind) ? u : activate(kind, alpha, u));
}

/* The gradient at one pixel before the activation, given that behind it. */
INLINE vec undo_pixel(const activation_kind kind, const sandwich_image *m, ptrdiff_t at, ptrdiff_t c,
                      vec gradient) {
    if (kind == ACTIVATION_NONE)
        return gradient;
    return undo_value(kind, m->alpha, before_activation(m, at, c), gradient);
}

/* What becomes of du, pixel by pixel, while it is at hand. */
typedef enum {
    UNDO_STORE, /* stored */
    UNDO_SUM,   /* added to norm's sums over du and du (z - mean), and stored if that is wanted */
    UNDO_APPLY  /* dz = scale du + (from_z z + from_one), stored */
} undo_mode;

typedef struct {
    real *to;                             /* where to store; NULL: nowhere */
    real *sums, *products;                /* of UNDO_SUM, a pixel each */
    const real *mean, *from_z, *from_one; /* what UNDO_SUM and UNDO_APPLY take */
} undo_sink;

INLINE void add_to(real *sum, vec value) { store(sum, load(sum) + value); }

/* What UNDO_SUM has found at some pixels. */
typedef struct {
    vec sum, product;
} undo_totals;

INLINE void add_gradient(undo_totals *totals, vec du, vec z, vec mean) {
    totals->sum += du;
    totals->product += du * (z - mean);
}

INLINE void add_totals(const undo_mode mode, const undo_sink *sink, ptrdiff_t c, const undo_totals *totals) {
    if (mode == UNDO_SUM) {
        add_to(sink->sums + c, totals->sum);
        add_to(sink->products + c, totals->product);
    }
}

INLINE void emit(const undo_mode mode, const sandwich_image *m, const undo_sink *sink, ptrdiff_t at,
                 ptrdiff_t c, vec du, undo_totals *totals) {
    if (mode == UNDO_STORE)
        store(sink->to + at, du);
    if (mode == UNDO_SUM) {
        if (sink->to)
            store(sink->to + at, du);
        add_gradient(totals, du, load(m->z + at), load(sink->mean + c));
    }
    if (mode == UNDO_APPLY)
        store(sink->to + at, du * load(m->scale + c) +
                                 (load(m->z + at) * load(sink->from_z + c) + load(sink->from_one + c)));
}

INLINE void undo_pairs(const activation_kind kind, const undo_mode mode, const sandwich_image *m,
                       const real *dy, const tap_index *index, const undo_sink *sink) {
    const conv_shape *s = m->s;
    const ptrdiff_t offsets[PAIR_TAPS] = PAIR_OFFSETS(s);
    int from_z = differentiates_z(s);
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            ptrdiff_t to = (2 * oh * s->z.W + 2 * ow) * s->z.pixel, at = (oh * s->y.W + ow) * s->y.pixel;
            for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                vec gradient = load(dy + at + c);
                undo_totals totals = {0};
                mask winner = {0};
                if (s->pooling == POOL_AVERAGE)
                    gradient *= (real)0.25;
                else
                    winner = load_index(index + at + c);
                if (shares_vectors(kind, s)) {
                    vec both = join_halves(gradient, gradient);
                    UNROLLED (t, PAIR_TAPS / 2) {
                        ptrdiff_t first = to + offsets[2 * t] + c, second = to + offsets[2 * t + 1] + c;
                        vec u = join_halves(before_activation(m, first, c), before_activation(m, second, c));
                        vec du = undo_value(kind, m->alpha, u, both);
                        emit(mode, m, sink, first, c, lower_half(du), &totals);
                        emit(mode, m, sink, second, c, upper_half(du), &totals);
                    }
                    add_totals(mode, sink, c, &totals);
                    continue;
                }
                if (!from_z)
                    gradient = activation_gradient(kind, m->alpha, gradient, load(m->y + at + c));
                if (mode == UNDO_SUM && !from_z && s->pooling == POOL_MAX && !sink->to) {
                    vec z = load(m->z + to + c); /* the winner's: no other pixel has a gradient */
                    UNROLLED (t, PAIR_TAPS - 1)
                        z = choose(winner == fill_mask(t + 1), load(m->z + to + offsets[t + 1] + c), z);
                    add_gradient(&totals, gradient, z, load(sink->mean + c));
                    add_totals(mode, sink, c, &totals);
                    continue;
                }
                UNROLLED (t, PAIR_TAPS) {
                    vec share = gradient;
                    if (s->pooling == POOL_MAX)
                        share = (vec)((mask)gradient & (mask)(winner == fill_mask(t)));
                    if (from_z)
                        share = undo_pixel(kind, m, to + offsets[t] + c, c, share);
                    emit(mode, m, sink, to + offsets[t] + c, c, share, &totals);
                }
                add_totals(mode, sink, c, &totals);
            }
        }
}

/* Undoes the pool into `spread` where that takes a sweep of its own. */
INLINE void undo_kind(const activation_kind kind, const undo_mode mode, const sandwich_image *m,
                      const real *dy, const tap_index *index, const undo_sink *sink, real *spread) {
    const conv_shape *s = m->s;
    int from_z = differentiates_z(s), undone = kind == ACTIVATION_NONE;
    if (s->pooling && pools_pairs(s) && 2 * s->y.H == s->z.H && 2 * s->y.W == s->z.W) {
        undo_pairs(kind, mode, m, dy, index, sink);
        return;
    }
    if (s->pooling == POOL_MAX) {
        unpool_maxima(from_z ? ACTIVATION_NONE : kind, m->alpha, &s->z, &s->y, &s->pool, dy, m->y, index,
                      spread);
        undone |= !from_z;
    }
    if (s->pooling == POOL_AVERAGE)
        unpool_averages(&s->z, &s->y, &s->pool, dy, spread);
    if (s->pooling)
        dy = spread;
    if (mode == UNDO_STORE && undone && dy == sink->to)
        return;
    for (ptrdiff_t pixel = 0; pixel < s->z.H * s->z.W; pixel++)
        for (ptrdiff_t c = 0; c < s->z.pixel; c += VLEN) {
            ptrdiff_t at = pixel * s->z.pixel + c;
            vec du = load(dy + at);
            if (!undone)
                du = from_z ? undo_pixel(kind, m, at, c, du)
                            : activation_gradient(kind, m->alpha, du, load(m->y + at));
            undo_totals totals = {0};
            emit(mode, m, sink, at, c, du, &totals);
            add_totals(mode, sink, c, &totals);
        }
}

INLINE void undo_image(const undo_mode mode, const sandwich_image *m, const real *dy, const tap_index *index,
                       const undo_sink *sink, real *spread) {
    switch (m->s->activation) {
    case ACTIVATION_NONE:
        undo_kind(ACTIVATION_NONE, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_RELU:
        undo_kind(ACTIVATION_RELU, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_LEAKY_RELU:
        undo_kind(ACTIVATION_LEAKY_RELU, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_TANH:
        undo_kind(ACTIVATION_TANH, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_SIGMOID:
        undo_kind(ACTIVATION_SIGMOID, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_ELU:
        undo_kind(ACTIVATION_ELU, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_GELU:
        undo_kind(ACTIVATION_GELU, mode, m, dy, index, sink, spread);
        break;
    case ACTIVATION_SILU:
        undo_kind(ACTIVATION_SILU, mode, m, dy, index, sink, spread);
        break;
    }
}

/* Store one image's gradient du = dL/d(scale z + shift + r), given dy. */
static void store_gradient(const sandwich_image *m, const real *dy, const tap_index *index, real *du) {
    undo_image(UNDO_STORE, m, dy, index, &(undo_sink){.to = du}, du);
}

/* Sum du over the pixels, and store it on the way if sink->to is given. */
static void sum_gradients(const sandwich_image *m, const real *dy, const tap_index *index,
                          const undo_sink *sink, real *spread) {
    undo_image(UNDO_SUM, m, dy, index, sink, spread);
}

/* Take a stored du on to dz. */
static void apply_kept_gradient(const sandwich_image *m, const real *du, const undo_sink *sink) {
    for (ptrdiff_t pixel = 0; pixel < m->s->z.H * m->s->z.W; pixel++)
        for (ptrdiff_t c = 0; c < m->s->z.pixel; c += VLEN) {
            ptrdiff_t at = pixel * m->s->z.pixel + c;
            emit(UNDO_APPLY, m, sink, at, c, load(du + at), NULL);
        }
}

/* Take dy on to dz in one go. `spread` has room for an image of z. */
static void apply_gradient(const sandwich_image *m, const real *dy, const tap_index *index,
                           const undo_sink *sink, real *spread) {
    undo_image(UNDO_APPLY, m, dy, index, sink, spread);
}

#endif
