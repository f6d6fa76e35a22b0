/* Pooling of one NHWC image: the maximum or the mean of each window, and the way back.
 *
 * Channels are padded to whole vectors, so a vector holds one tap of many channels, and only
 * taps inside the image count. The first maximum in row-major order wins, the first NaN wins
 * over every number; a mean is divided by the number of taps that count.
 */
#ifndef CNNCTL_POOLING_H
#define CNNCTL_POOLING_H

#include "activation.h"

#define AVERAGE_VECTORS 4

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

/* Zeros for what windows are going to add to or leave out; whether they have to add. */
static int clear_unpooled(const window_shape *w, const image_shape *x, const image_shape *y, real *dx) {
    int adds = !tiles_image(w, x, y);
    if (adds || y->H * w->kernel_h < x->H || y->W * w->kernel_w < x->W)
        memset(dx, 0, (size_t)(x->H * x->W * x->pixel) * sizeof(real));
    return adds;
}

INLINE ptrdiff_t tap_offset(const tap_range *t, const window_shape *w, const image_shape *x, ptrdiff_t kh,
                            ptrdiff_t kw) {
    return ((t->top + kh * w->dilation_h) * x->W + t->left + kw * w->dilation_w) * x->pixel;
}

/* All four taps of a 2x2 window, as constants: loops over them are written out. */
INLINE int is_whole_2x2(const window_shape *w, const tap_range *t) {
    return w->kernel_h == 2 && w->kernel_w == 2 && t->kh_end - t->kh == 2 && t->kw_end - t->kw == 2;
}
INLINE tap_range range_2x2(const tap_range *t) {
    return (tap_range){.top = t->top, .left = t->left, .kh = 0, .kh_end = 2, .kw = 0, .kw_end = 2};
}

typedef tap_index index_vec
    __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(tap_index)), aligned(1), may_alias));

INLINE mask fill_mask(ptrdiff_t value) { return (real_int)value - (mask){0}; }

/* One more tap in a running maximum: the first one wins; the first NaN wins over every number. */
INLINE void compare_tap(vec value, mask tap, vec *maximum, mask *winner) {
    mask wins = ~(mask)(value <= *maximum) & (mask)(*maximum == *maximum);
    *maximum = choose(wins, value, *maximum);
    *winner = (tap & wins) | (*winner & ~wins);
}

INLINE void store_index(tap_index *index, mask winner) {
    *(index_vec *)index = __builtin_convertvector(winner, index_vec);
}
INLINE mask load_index(const tap_index *index) {
    return __builtin_convertvector(*(const index_vec *)index, mask);
}

INLINE void max_window(const tap_range *t, const window_shape *w, const image_shape *x_shape, const real *x,
                       real *y, tap_index *index) {
    for (ptrdiff_t c = 0; c < x_shape->pixel; c += VLEN) {
        vec best = {0};
        mask winner = {0};
        for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
            for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
                vec value = load(x + tap_offset(t, w, x_shape, kh, kw) + c);
                mask tap = fill_mask(kh * w->kernel_w + kw);
                if (kh == t->kh && kw == t->kw) {
                    best = value;
                    winner = tap;
                } else
                    compare_tap(value, tap, &best, &winner);
            }
        store(y + c, best);
        store_index(index + c, winner);
    }
}

INLINE void maxpool_image(const image_shape *x_shape, const image_shape *y_shape, const window_shape *w,
                          const real *x, real *y, tap_index *index) {
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            tap_range t = range_taps(w, x_shape, oh, ow), usual = range_2x2(&t);
            ptrdiff_t at = (oh * y_shape->W + ow) * y_shape->pixel;
            if (is_whole_2x2(w, &t))
                max_window(&usual, w, x_shape, x, y + at, index + at);
            else
                max_window(&t, w, x_shape, x, y + at, index + at);
        }
}

/* dx: each dy goes to the tap that won, after the gradient of an activation whose outputs were pooled to
 * y; without one y may be NULL. */
INLINE void unpool_maxima(const activation_kind kind, real alpha, const image_shape *x_shape,
                          const image_shape *y_shape, const window_shape *w, const real *dy, const real *y,
                          const tap_index *index, real *dx) {
    int adds = clear_unpooled(w, x_shape, y_shape, dx);
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            tap_range t = range_taps(w, x_shape, oh, ow);
            for (ptrdiff_t c = 0; c < y_shape->pixel; c += VLEN) {
                ptrdiff_t at = (oh * y_shape->W + ow) * y_shape->pixel + c;
                vec gradient = load(dy + at);
                if (kind != ACTIVATION_NONE)
                    gradient = activation_gradient(kind, alpha, gradient, load(y + at));
                mask winner = load_index(index + at);
                for (ptrdiff_t kh = t.kh; kh < t.kh_end; kh++)
                    for (ptrdiff_t kw = t.kw; kw < t.kw_end; kw++) {
                        real *to = dx + tap_offset(&t, w, x_shape, kh, kw) + c;
                        mask won = (mask)(winner == fill_mask(kh * w->kernel_w + kw));
                        vec share = (vec)((mask)gradient & won);
                        store(to, adds ? load(to) + share : share);
                    }
            }
        }
}

/* Sums `vectors` of them at once, since each has to wait for itself. */
INLINE void average_vectors(const ptrdiff_t vectors, const tap_range *t, const window_shape *w,
                            const image_shape *x_shape, const real *x, real *y) {
    vec sums[AVERAGE_VECTORS];
    UNROLLED (v, vectors)
        sums[v] = (vec){0};
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
            ptrdiff_t at = tap_offset(t, w, x_shape, kh, kw);
            UNROLLED (v, vectors)
                sums[v] += load(x + at + v * VLEN);
        }
    UNROLLED (v, vectors)
        store(y + v * VLEN, sums[v] / (real)((t->kh_end - t->kh) * (t->kw_end - t->kw)));
}

INLINE void average_window(const tap_range *t, const window_shape *w, const image_shape *x_shape,
                           const real *x, real *y) {
    ptrdiff_t c = 0;
    for (; c + AVERAGE_VECTORS * VLEN <= x_shape->pixel; c += AVERAGE_VECTORS * VLEN)
        average_vectors(AVERAGE_VECTORS, t, w, x_shape, x + c, y + c);
    for (; c < x_shape->pixel; c += VLEN)
        average_vectors(1, t, w, x_shape, x + c, y + c);
}

INLINE void avgpool_image(const image_shape *x_shape, const image_shape *y_shape, const window_shape *w,
                          const real *x, real *y) {
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            tap_range t = range_taps(w, x_shape, oh, ow), usual = range_2x2(&t);
            ptrdiff_t at = (oh * y_shape->W + ow) * y_shape->pixel;
            if (is_whole_2x2(w, &t))
                average_window(&usual, w, x_shape, x, y + at);
            else
                average_window(&t, w, x_shape, x, y + at);
        }
}

INLINE void share_vectors(const ptrdiff_t vectors, const int adds, const tap_range *t, const window_shape *w,
                          const image_shape *x_shape, const real *dy, real *dx) {
    vec shares[AVERAGE_VECTORS];
    UNROLLED (v, vectors)
        shares[v] = load(dy + v * VLEN) / (real)((t->kh_end - t->kh) * (t->kw_end - t->kw));
    for (ptrdiff_t kh = t->kh; kh < t->kh_end; kh++)
        for (ptrdiff_t kw = t->kw; kw < t->kw_end; kw++) {
            real *to = dx + tap_offset(t, w, x_shape, kh, kw);
            UNROLLED (v, vectors)
                store(to + v * VLEN, adds ? load(to + v * VLEN) + shares[v] : shares[v]);
        }
}

INLINE void share_window(const int adds, const tap_range *t, const window_shape *w,
                         const image_shape *x_shape, const real *dy, real *dx) {
    ptrdiff_t c = 0;
    for (; c + AVERAGE_VECTORS * VLEN <= x_shape->pixel; c += AVERAGE_VECTORS * VLEN)
        share_vectors(AVERAGE_VECTORS, adds, t, w, x_shape, dy + c, dx + c);
    for (; c < x_shape->pixel; c += VLEN)
        share_vectors(1, adds, t, w, x_shape, dy + c, dx + c);
}

/* dx: each dy is shared among the taps of its window. */
INLINE void unpool_averages(const image_shape *x_shape, const image_shape *y_shape, const window_shape *w,
                            const real *dy, real *dx) {
    int adds = clear_unpooled(w, x_shape, y_shape, dx);
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            tap_range t = range_taps(w, x_shape, oh, ow);
            const real *from = dy + (oh * y_shape->W + ow) * y_shape->pixel;
            if (adds)
                share_window(1, &t, w, x_shape, from, dx);
            else
                share_window(0, &t, w, x_shape, from, dx);
        }
}

#endif
