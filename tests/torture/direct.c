/* The truth that kernels are held against: every operation as its definition says, one product at a
 * time, in double precision.
 *
 * Shares nothing with what it checks: no layout, no tap ranges, no vectors. Every output comes with the
 * sum of its terms' magnitudes where a pointer for it is given, which is what a bound on rounding needs
 * (Higham 2002, section 3.1). Compiled by truth.py when the harness starts.
 */
#include <math.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef struct {
    int64_t N, C, H, W, F, KH, KW, OH, OW, stride_h, stride_w, top, left, dilation_h, dilation_w, groups;
} extents;

/* Index into x of a tap, or -1 outside the image. */
static int64_t find_tap(const extents *e, int64_t n, int64_t c, int64_t oh, int64_t ow, int64_t kh,
                        int64_t kw) {
    int64_t ih = oh * e->stride_h - e->top + kh * e->dilation_h;
    int64_t iw = ow * e->stride_w - e->left + kw * e->dilation_w;
    if (ih < 0 || ih >= e->H || iw < 0 || iw >= e->W)
        return -1;
    return ((n * e->C + c) * e->H + ih) * e->W + iw;
}

/* y = b + sum of w x; given dy, also dx, dw and db of L = sum of y dy. y or dy may be NULL. */
void convolve(const extents *e, const double *x, const double *w, const double *b, const double *dy, double *y,
              double *dx, double *dw, double *db) {
    int64_t channels = e->C / e->groups, filters = e->F / e->groups, out = 0;
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t f = 0; f < e->F; f++)
            for (int64_t oh = 0; oh < e->OH; oh++)
                for (int64_t ow = 0; ow < e->OW; ow++, out++) {
                    double sum = b[f];
                    if (dy)
                        db[f] += dy[out];
                    for (int64_t c = 0; c < channels; c++)
                        for (int64_t kh = 0; kh < e->KH; kh++)
                            for (int64_t kw = 0; kw < e->KW; kw++) {
                                int64_t tap =
                                    find_tap(e, n, f / filters * channels + c, oh, ow, kh, kw);
                                int64_t weight = ((f * channels + c) * e->KH + kh) * e->KW + kw;
                                if (tap < 0)
                                    continue;
                                sum += w[weight] * x[tap];
                                if (dy) {
                                    dx[tap] += w[weight] * dy[out];
                                    dw[weight] += x[tap] * dy[out];
                                }
                            }
                    if (y)
                        y[out] = sum;
                }
}

/* The first maximum in row-major order, the first NaN before any number; F, groups are not read. */
void find_maxima(const extents *e, const double *x, double *y, int32_t *index) {
    int64_t out = 0;
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t c = 0; c < e->C; c++)
            for (int64_t oh = 0; oh < e->OH; oh++)
                for (int64_t ow = 0; ow < e->OW; ow++, out++) {
                    index[out] = -1;
                    for (int64_t kh = 0; kh < e->KH; kh++)
                        for (int64_t kw = 0; kw < e->KW; kw++) {
                            int64_t tap = find_tap(e, n, c, oh, ow, kh, kw);
                            if (tap < 0)
                                continue;
                            if (index[out] < 0 || x[tap] > y[out] || (isnan(x[tap]) && !isnan(y[out]))) {
                                y[out] = x[tap];
                                index[out] = (int32_t)(kh * e->KW + kw);
                            }
                        }
                }
}

/* dx of the winners in `index`. */
void return_maxima(const extents *e, const double *dy, const int32_t *index, double *dx) {
    int64_t out = 0;
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t c = 0; c < e->C; c++)
            for (int64_t oh = 0; oh < e->OH; oh++)
                for (int64_t ow = 0; ow < e->OW; ow++, out++)
                    dx[find_tap(e, n, c, oh, ow, index[out] / e->KW, index[out] % e->KW)] += dy[out];
}

/* Means over the pixels inside the image, and dx of L = sum of y dy. */
void average(const extents *e, const double *x, const double *dy, double *y, double *dx) {
    int64_t out = 0;
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t c = 0; c < e->C; c++)
            for (int64_t oh = 0; oh < e->OH; oh++)
                for (int64_t ow = 0; ow < e->OW; ow++, out++) {
                    int64_t count = 0;
                    double sum = 0;
                    for (int64_t tap = 0; tap < e->KH * e->KW; tap++) {
                        int64_t pixel = find_tap(e, n, c, oh, ow, tap / e->KW, tap % e->KW);
                        if (pixel >= 0) {
                            count++;
                            sum += x[pixel];
                        }
                    }
                    y[out] = sum / (double)count;
                    for (int64_t tap = 0; tap < e->KH * e->KW; tap++) {
                        int64_t pixel = find_tap(e, n, c, oh, ow, tap / e->KW, tap % e->KW);
                        if (pixel >= 0)
                            dx[pixel] += dy[out] / (double)count;
                    }
                }
}

/* How the processor rounds and what it does with subnormals: MXCSR or FPCR, exception flags left out. */
uint64_t read_float_mode(void) {
#if defined(__x86_64__)
    return _mm_getcsr() & ~UINT64_C(0x3f);
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}
