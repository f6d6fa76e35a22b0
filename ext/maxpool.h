/* Max pooling of one NHWC image, for the kernel of its own and for convolution's epilogue.
 *
 * Channels are padded to whole vectors, so a vector holds one tap of many channels. The
 * first maximum in row-major order wins, the first NaN wins over every number, and only
 * taps inside the image compete.
 */
#ifndef CNNCTL_MAXPOOL_H
#define CNNCTL_MAXPOOL_H

#include "tiles.h"

/* First tap and last + 1 that fall inside [0, extent), for the window starting at `start`. */
INLINE void valid_taps(ptrdiff_t start, ptrdiff_t kernel, ptrdiff_t dilation, ptrdiff_t extent,
                       ptrdiff_t *first, ptrdiff_t *end) {
    *first = start < 0 ? ceil_div(-start, dilation) : 0;
    *end = at_most(kernel, ceil_div(extent - start, dilation));
}

INLINE void maxpool_image(const image_shape *x_shape, const image_shape *y_shape, const window_shape *w,
                          const real *x, real *y, tap_index *index) {
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            ptrdiff_t top = oh * w->stride_h - w->pad_top, left_edge = ow * w->stride_w - w->pad_left;
            ptrdiff_t kh_first, kh_end, kw_first, kw_end;
            valid_taps(top, w->kernel_h, w->dilation_h, x_shape->H, &kh_first, &kh_end);
            valid_taps(left_edge, w->kernel_w, w->dilation_w, x_shape->W, &kw_first, &kw_end);
            for (ptrdiff_t c = 0; c < y_shape->pixel; c += VLEN) {
                vec best = {0};
                mask winner = {0}, tap = {0};
                int started = 0;
                for (ptrdiff_t kh = kh_first; kh < kh_end; kh++)
                    for (ptrdiff_t kw = kw_first; kw < kw_end; kw++) {
                        ptrdiff_t ih = top + kh * w->dilation_h, iw = left_edge + kw * w->dilation_w;
                        vec value = load(x + (ih * x_shape->W + iw) * x_shape->pixel + c);
                        tap = (real_int)(kh * w->kernel_w + kw) - (mask){0};
                        if (!started) {
                            best = value;
                            winner = tap;
                            started = 1;
                            continue;
                        }
                        mask wins = (mask)(value > best) | ((mask)(value != value) & (mask)(best == best));
                        best = (vec)(((mask)value & wins) | ((mask)best & ~wins));
                        winner = (tap & wins) | (winner & ~wins);
                    }
                ptrdiff_t at = (oh * y_shape->W + ow) * y_shape->pixel + c;
                store(y + at, best);
                for (ptrdiff_t lane = 0; lane < VLEN; lane++)
                    index[at + lane] = (tap_index)winner[lane];
            }
        }
}

/* dx: each dy goes to the tap that won; where `y` is given, only if ReLU let it through. */
INLINE void unpool_image(const image_shape *x_shape, const image_shape *y_shape, const window_shape *w,
                         const real *dy, const real *y, const tap_index *index, real *dx) {
    memset(dx, 0, (size_t)(x_shape->H * x_shape->W * x_shape->pixel) * sizeof(real));
    for (ptrdiff_t oh = 0; oh < y_shape->H; oh++)
        for (ptrdiff_t ow = 0; ow < y_shape->W; ow++) {
            ptrdiff_t top = oh * w->stride_h - w->pad_top, left_edge = ow * w->stride_w - w->pad_left;
            ptrdiff_t kh_first, kh_end, kw_first, kw_end;
            valid_taps(top, w->kernel_h, w->dilation_h, x_shape->H, &kh_first, &kh_end);
            valid_taps(left_edge, w->kernel_w, w->dilation_w, x_shape->W, &kw_first, &kw_end);
            for (ptrdiff_t c = 0; c < y_shape->pixel; c += VLEN) {
                ptrdiff_t at = (oh * y_shape->W + ow) * y_shape->pixel + c;
                vec gradient = load(dy + at);
                if (y)
                    gradient = relu_gradient(gradient, load(y + at));
                mask winner;
                for (ptrdiff_t lane = 0; lane < VLEN; lane++)
                    winner[lane] = index[at + lane];
                for (ptrdiff_t kh = kh_first; kh < kh_end; kh++)
                    for (ptrdiff_t kw = kw_first; kw < kw_end; kw++) {
                        ptrdiff_t ih = top + kh * w->dilation_h, iw = left_edge + kw * w->dilation_w;
                        real *to = dx + (ih * x_shape->W + iw) * x_shape->pixel + c;
                        mask won = (mask)(winner == (real_int)(kh * w->kernel_w + kw) - (mask){0});
                        store(to, load(to) + (vec)((mask)gradient & won));
                    }
            }
        }
}

#endif
