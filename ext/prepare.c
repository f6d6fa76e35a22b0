/* From a data set's pixels to a network's input: gather, mirror, shift, normalise and cast in one pass.
 *
 * y[c][h][w] = scale[c] * pixel + shift[c][h][w], where what was moved in from outside is a
 * pixel of value 0. Pixels lie as data sets have them, NCHW, in bytes or floats.
 */
#include "pool.h"
#include "tiles.h"

typedef struct {
    const prepare_shape *s;
    const prepare_arrays *a;
    real *out;
} prepare_job;

/* One row of one channel, `count` pixels from `from` on, forwards or backwards. */
#define NORMALISE_ROW(type)                                                                                  \
    INLINE void normalise_##type(const type *from, ptrdiff_t backwards, ptrdiff_t count, real scale,         \
                                 const real *shift, real *to, ptrdiff_t step) {                              \
        if (backwards)                                                                                       \
            for (ptrdiff_t w = 0; w < count; w++)                                                            \
                to[w * step] = (real)from[-w] * scale + shift[w];                                            \
        else                                                                                                 \
            for (ptrdiff_t w = 0; w < count; w++)                                                            \
                to[w * step] = (real)from[w] * scale + shift[w];                                             \
    }
NORMALISE_ROW(uint8_t)
NORMALISE_ROW(float)

static void prepare_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const prepare_job *job = context;
    const image_shape *s = &job->s->image;
    const prepare_arrays *a = job->a;
    const real *scale = a->scale, *shift = a->shift;
    ptrdiff_t flip = a->moves ? a->moves[3 * n] : 0;
    ptrdiff_t down = a->moves ? a->moves[3 * n + 1] : 0, right = a->moves ? a->moves[3 * n + 2] : 0;
    ptrdiff_t start = a->chosen[n] * s->C * s->H * s->W;
    real *out = job->out + n * s->image;
    ptrdiff_t used = s->H * s->W * s->pixel;
    if (s->pixel > s->C)
        memset(out, 0, (size_t)used * sizeof(real));
    memset(out + used, 0, (size_t)(s->image - used) * sizeof(real));
    /* Output columns [first, end) show the image; output row h shows row h + down. */
    ptrdiff_t first = at_least(0, -right), end = at_most(s->W, s->W - right);
    for (ptrdiff_t c = 0; c < s->C; c++)
        for (ptrdiff_t h = 0; h < s->H; h++) {
            const real *offset = shift + (c * s->H + h) * s->W;
            real *to = out + h * s->W * s->pixel + c;
            ptrdiff_t row = h + down, inside = row >= 0 && row < s->H;
            ptrdiff_t from = inside ? first : s->W, until = inside ? end : s->W;
            for (ptrdiff_t w = 0; w < from; w++)
                to[w * s->pixel] = offset[w];
            for (ptrdiff_t w = until; w < s->W; w++)
                to[w * s->pixel] = offset[w];
            if (!inside)
                continue;
            ptrdiff_t column = flip ? s->W - 1 - (from + right) : from + right;
            ptrdiff_t at = start + (c * s->H + row) * s->W + column;
            to += from * s->pixel;
            if (job->s->bytes && s->pixel == 1)
                normalise_uint8_t((const uint8_t *)a->pixels + at, flip, end - from, scale[c], offset + from,
                                  to, 1);
            else if (job->s->bytes)
                normalise_uint8_t((const uint8_t *)a->pixels + at, flip, end - from, scale[c], offset + from,
                                  to, s->pixel);
            else
                normalise_float((const float *)a->pixels + at, flip, end - from, scale[c], offset + from, to,
                                s->pixel);
        }
}

void NAME(prepare_images)(const prepare_shape *s, int threads, ptrdiff_t n, const prepare_arrays *a,
                          void *out) {
    prepare_job job = {.s = s, .a = a, .out = out};
    pool_run(threads, n, prepare_image, &job);
}
