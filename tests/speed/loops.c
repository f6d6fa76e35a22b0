/* A convolution as one writes it down in C: the textbook's order, and the same loops in a better one.
 *
 * Stride 1; x is padded with zeros already. Compiled by steps.py to the compiler's best for this machine,
 * but without -ffast-math, as the kernels are. Neither loop is tuned: they are what kernels begin from.
 */
#include <stdint.h>

typedef struct {
    int64_t N, C, H, W, F, KH, KW, OH, OW; /* H and W with the padding */
} extents;

/* x [N][C][H][W], w [F][C][KH][KW], y [N][F][OH][OW]. */
void convolve_textbook(const extents *e, const float *restrict x, const float *restrict w,
                       const float *restrict b, float *restrict y) {
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t f = 0; f < e->F; f++)
            for (int64_t oh = 0; oh < e->OH; oh++)
                for (int64_t ow = 0; ow < e->OW; ow++) {
                    float sum = b[f];
                    for (int64_t c = 0; c < e->C; c++)
                        for (int64_t kh = 0; kh < e->KH; kh++)
                            for (int64_t kw = 0; kw < e->KW; kw++)
                                sum += w[((f * e->C + c) * e->KH + kh) * e->KW + kw] *
                                       x[((n * e->C + c) * e->H + oh + kh) * e->W + ow + kw];
                    y[((n * e->F + f) * e->OH + oh) * e->OW + ow] = sum;
                }
}

/* x [N][H][W][C], w [KH][KW][C][F], y [N][OH][OW][F]. */
void convolve_channels_last(const extents *e, const float *restrict x, const float *restrict w,
                            const float *restrict b, float *restrict y) {
    for (int64_t n = 0; n < e->N; n++)
        for (int64_t oh = 0; oh < e->OH; oh++)
            for (int64_t ow = 0; ow < e->OW; ow++) {
                float *sums = y + ((n * e->OH + oh) * e->OW + ow) * e->F;
                for (int64_t f = 0; f < e->F; f++)
                    sums[f] = b[f];
                for (int64_t kh = 0; kh < e->KH; kh++)
                    for (int64_t kw = 0; kw < e->KW; kw++)
                        for (int64_t c = 0; c < e->C; c++) {
                            float value = x[((n * e->H + oh + kh) * e->W + ow + kw) * e->C + c];
                            const float *filters = w + ((kh * e->KW + kw) * e->C + c) * e->F;
                            for (int64_t f = 0; f < e->F; f++)
                                sums[f] += value * filters[f];
                        }
            }
}
