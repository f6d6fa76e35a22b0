/* What stands behind a convolution's sums z: y = pool(activation(scale z + shift + r)).
 *
 * scale and shift are batch norm's, or 1 and 0. One image at a time, forward in one pass
 * and backward to the gradient of scale z + shift + r; all vectors hold channels of one pixel.
 */
#ifndef CNNCTL_SANDWICH_H
#define CNNCTL_SANDWICH_H

#include "activation.h"
#include "direct.h"

/* First tap and last + 1 that fall inside [0, extent), for the window starting at `start`. */
INLINE void find_taps(ptrdiff_t start, ptrdiff_t kernel, ptrdiff_t dilation, ptrdiff_t extent,
                      ptrdiff_t *first, ptrdiff_t *end) {
    *first = start < 0 ? ceil_div(-start, dilation) : 0;
    *end = at_most(kernel, ceil_div(extent - start, dilation));
}

/* The taps of one window that lie inside the image: rows [kh, kh_end), columns [kw, kw_end). */
typedef struct {
    ptrdiff_t top, left, kh, kh_end, kw, kw_end;
} tap_range;

INLINE tap_range range_taps(const window_shape *w, const image_shape *x, ptrdiff_t oh, ptrdiff_t ow) {
    tap_range t = {.top = oh * w->stride_h - w->pad_top, .left = ow * w->stride_w - w->pad_left};
    find_taps(t.top, w->kernel_h, w->dilation_h, x->H, &t.kh, &t.kh_end);
    find_taps(t.left, w->kernel_w, w->dilation_w, x->W, &t.kw, &t.kw_end);
    return t;
}

/* Windows that do not meet, all of them whole: each pixel has one at most. */
static int tiles_image(const window_shape *w, const image_shape *x, const image_shape *y) {
    return w->pad_top == 0 && w->pad_left == 0 && w->dilation_h == 1 && w->dilation_w == 1 &&
           w->stride_h == w->kernel_h && w->stride_w == w->kernel_w && y->H * w->kernel_h <= x->H &&
           y->W * w->kernel_w <= x->W;
}

typedef struct {
    const conv_shape *s;
    const real *scale, *shift; /* NULL: 1 and 0 */
    const real *z, *r, *y;     /* of one image; r may be NULL */
} sandwich_image;

/* scale z + shift + r, before the activation. */
INLINE vec before_activation(const sandwich_image *m, ptrdiff_t at, ptrdiff_t c) {
    vec u = load(m->z + at);
    if (m->scale)
        u = u * load(m->scale + c) + load(m->shift + c);
    return m->r ? u + load(m->r + at) : u;
}

INLINE mask fill_mask(ptrdiff_t value) { return (real_int)value - (mask){0}; }

typedef tap_index index_vec
    __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(tap_index)), aligned(1), may_alias));

INLINE void pool_max(const activation_kind kind, const sandwich_image *m, const tap_range *t, ptrdiff_t c,
                     vec *maximum, mask *winner) {
    const conv_shape *s = m->s;
    const window_shape *w = &s->pool;
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
            ptrdiff_t ih = t->top + kh * w->dilation_h, iw = t->left + kw * w->dilation_w;
            vec value = activate(kind, before_activation(m, (ih * s->z.W + iw) * s->z.pixel + c, c));
            mask tap = fill_mask(kh * w->kernel_w + kw);
            if (kh == t->kh && kw == t->kw) {
                *maximum = value;
                *winner = tap;
                continue;
            }
            /* The first maximum wins; the first NaN wins over every number. */
            mask wins = (mask)(value > *maximum) | ((mask)(value != value) & (mask)(*maximum == *maximum));
            *maximum = choose(wins, value, *maximum);
            *winner = (tap & wins) | (*winner & ~wins);
        }
}

INLINE vec pool_average(const activation_kind kind, const sandwich_image *m, const tap_range *t,
                        ptrdiff_t c) {
    const conv_shape *s = m->s;
    const window_shape *w = &s->pool;
    vec sum = {0};
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
            ptrdiff_t ih = t->top + kh * w->dilation_h, iw = t->left + kw * w->dilation_w;
            sum += activate(kind, before_activation(m, (ih * s->z.W + iw) * s->z.pixel + c, c));
        }
    return sum / (real)((t->kh_end - t->kh) * (t->kw_end - t->kw));
}

INLINE void finish_kind(const activation_kind kind, const sandwich_image *m, real *y, tap_index *index) {
    const conv_shape *s = m->s;
    if (s->pooling == POOL_NONE) {
        for (ptrdiff_t pixel = 0; pixel < s->z.H * s->z.W; pixel++)
            for (ptrdiff_t c = 0; c < s->z.pixel; c += VLEN) {
                ptrdiff_t at = pixel * s->z.pixel + c;
                store(y + at, activate(kind, before_activation(m, at, c)));
            }
        return;
    }
    int pairs = s->pool.kernel_h == 2 && s->pool.kernel_w == 2;
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            tap_range t = range_taps(&s->pool, &s->z, oh, ow);
            int whole = pairs && t.kh == 0 && t.kh_end == 2 && t.kw == 0 && t.kw_end == 2;
            /* The same range with constant ends, so that the loops over it are written out. */
            tap_range constant = {.top = t.top, .left = t.left, .kh = 0, .kh_end = 2, .kw = 0, .kw_end = 2};
            for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                ptrdiff_t at = (oh * s->y.W + ow) * s->y.pixel + c;
                if (s->pooling == POOL_AVERAGE) {
                    store(y + at, pool_average(kind, m, &t, c));
                    continue;
                }
                vec maximum = {0};
                mask winner = {0};
                if (whole)
                    pool_max(kind, m, &constant, c, &maximum, &winner);
                else
                    pool_max(kind, m, &t, c, &maximum, &winner);
                store(y + at, maximum);
                if (index)
                    *(index_vec *)(index + at) = __builtin_convertvector(winner, index_vec);
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
    case ACTIVATION_TANH:
        finish_kind(ACTIVATION_TANH, m, y, index);
        break;
    case ACTIVATION_SIGMOID:
        finish_kind(ACTIVATION_SIGMOID, m, y, index);
        clear_padding(&m->s->y, y); /* where the sigmoid of 0 stands */
        break;
    case ACTIVATION_GELU:
        finish_kind(ACTIVATION_GELU, m, y, index);
        break;
    }
}

/* Whether the activation's derivative has to be taken from z, since y does not tell it. */
static int differentiates_z(const conv_shape *s) {
    return s->activation == ACTIVATION_GELU || (s->activation && s->pooling == POOL_AVERAGE) ||
           (s->activation && s->pooling == POOL_NONE && s->norm && !s->residual);
}

/* dy of pooled pixels spread over the pixels they came from. */
INLINE void spread_max(const activation_kind kind, const sandwich_image *m, const real *dy,
                       const tap_index *index, real *du) {
    const conv_shape *s = m->s;
    const window_shape *w = &s->pool;
    int alone = tiles_image(w, &s->z, &s->y);
    if (!alone || s->y.H * w->kernel_h < s->z.H || s->y.W * w->kernel_w < s->z.W)
        memset(du, 0, (size_t)(s->z.H * s->z.W * s->z.pixel) * sizeof(real));
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            tap_range t = range_taps(w, &s->z, oh, ow);
            for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                ptrdiff_t at = (oh * s->y.W + ow) * s->y.pixel + c;
                vec gradient = activation_gradient(kind, load(dy + at), load(m->y + at));
                mask winner = __builtin_convertvector(*(const index_vec *)(index + at), mask);
                for (ptrdiff_t kh = t.kh; kh < t.kh_end; kh++)
                    for (ptrdiff_t kw = t.kw; kw < t.kw_end; kw++) {
                        ptrdiff_t ih = t.top + kh * w->dilation_h, iw = t.left + kw * w->dilation_w;
                        real *to = du + (ih * s->z.W + iw) * s->z.pixel + c;
                        vec won = (vec)((mask)gradient & (mask)(winner == fill_mask(kh * w->kernel_w + kw)));
                        store(to, alone ? won : load(to) + won);
                    }
            }
        }
}

static void spread_average(const conv_shape *s, const real *dy, real *du) {
    const window_shape *w = &s->pool;
    memset(du, 0, (size_t)(s->z.H * s->z.W * s->z.pixel) * sizeof(real));
    for (ptrdiff_t oh = 0; oh < s->y.H; oh++)
        for (ptrdiff_t ow = 0; ow < s->y.W; ow++) {
            tap_range t = range_taps(w, &s->z, oh, ow);
            real share = 1 / (real)((t.kh_end - t.kh) * (t.kw_end - t.kw));
            for (ptrdiff_t kh = t.kh; kh < t.kh_end; kh++)
                for (ptrdiff_t kw = t.kw; kw < t.kw_end; kw++) {
                    ptrdiff_t ih = t.top + kh * w->dilation_h, iw = t.left + kw * w->dilation_w;
                    for (ptrdiff_t c = 0; c < s->y.pixel; c += VLEN) {
                        real *to = du + (ih * s->z.W + iw) * s->z.pixel + c;
                        store(to, load(to) + share * load(dy + (oh * s->y.W + ow) * s->y.pixel + c));
                    }
                }
        }
}

INLINE void undo_kind(const activation_kind kind, const sandwich_image *m, const real *dy,
                      const tap_index *index, real *du) {
    const conv_shape *s = m->s;
    int from_z = differentiates_z(s);
    if (s->pooling == POOL_MAX) {
        if (from_z)
            spread_max(ACTIVATION_NONE, m, dy, index, du);
        else
            spread_max(kind, m, dy, index, du);
        dy = du;
    }
    if (s->pooling == POOL_AVERAGE) {
        spread_average(s, dy, du);
        dy = du;
    }
    if (kind == ACTIVATION_NONE || (s->pooling == POOL_MAX && !from_z))
        return;
    for (ptrdiff_t pixel = 0; pixel < s->z.H * s->z.W; pixel++)
        for (ptrdiff_t c = 0; c < s->z.pixel; c += VLEN) {
            ptrdiff_t at = pixel * s->z.pixel + c;
            vec y = from_z ? before_activation(m, at, c) : load(m->y + at);
            if (from_z && kind != ACTIVATION_GELU)
                y = activate(kind, y);
            store(du + at, activation_gradient(kind, load(dy + at), y));
        }
}

/* du = dL/d(scale z + shift + r), given dy; returns dy itself where it is that already. */
static const real *undo_image(const sandwich_image *m, const real *dy, const tap_index *index, real *du) {
    const conv_shape *s = m->s;
    switch (s->activation) {
    case ACTIVATION_NONE:
        if (s->pooling == POOL_NONE)
            return dy;
        undo_kind(ACTIVATION_NONE, m, dy, index, du);
        break;
    case ACTIVATION_RELU:
        undo_kind(ACTIVATION_RELU, m, dy, index, du);
        break;
    case ACTIVATION_TANH:
        undo_kind(ACTIVATION_TANH, m, dy, index, du);
        break;
    case ACTIVATION_SIGMOID:
        undo_kind(ACTIVATION_SIGMOID, m, dy, index, du);
        break;
    case ACTIVATION_GELU:
        undo_kind(ACTIVATION_GELU, m, dy, index, du);
        break;
    }
    return du;
}

#endif
