/* From a data set's pixels to a network's input: gather, mirror, shift, tone, normalise and cast in one pass.
 *
 * y[c][h][w] = scale[c] * (gain * pixel + offset) + shift[c][h][w], and 0 in an image's hole. Pixels
 * lie as data sets have them, NCHW, in bytes or floats.
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
                                 real base, const real *shift, real *to, ptrdiff_t step) {                   \
        if (backwards)                                                                                       \
            for (ptrdiff_t w = 0; w < count; w++)                                                            \
                to[w * step] = (real)from[-w] * scale + (base + shift[w]);                                   \
        else                                                                                                 \
            for (ptrdiff_t w = 0; w < count; w++)                                                            \
                to[w * step] = (real)from[w] * scale + (base + shift[w]);                                    \
    }
NORMALISE_ROW(uint8_t)
NORMALISE_ROW(float)

/* Where a row or column is found; -1 if it is outside and nothing stands for it. */
INLINE ptrdiff_t find_inside(ptrdiff_t at, ptrdiff_t extent, int padding) {
    if (at >= 0 && at < extent)
        return at;
    if (padding == PADDING_EDGE)
        return at < 0 ? 0 : extent - 1;
    if (padding == PADDING_REFLECT)
        return at < 0 ? -at : 2 * (extent - 1) - at;
    return -1;
}

INLINE real get_pixel(const prepare_job *job, ptrdiff_t at) {
    return job->s->bytes ? (real)((const uint8_t *)job->a->pixels)[at]
                         : (real)((const float *)job->a->pixels)[at];
}

/* Where one row of one channel comes from, and how its pixels become numbers. */
typedef struct {
    ptrdiff_t start; /* of the row among all pixels; below 0: there is none */
    ptrdiff_t flip, right;
    real scale, base;
    const real *shift;
} row_source;

/* Columns [first, end), which lie outside of the image. */
static void prepare_outside(const prepare_job *job, const row_source *r, ptrdiff_t first, ptrdiff_t end,
                            real *to) {
    const image_shape *s = &job->s->image;
    for (ptrdiff_t w = first; w < end; w++) {
        ptrdiff_t column = r->start < 0 ? -1 : find_inside(w + r->right, s->W, job->s->padding);
        real pixel = column < 0 ? 0 : get_pixel(job, r->start + (r->flip ? s->W - 1 - column : column));
        to[w * s->pixel] = pixel * r->scale + (r->base + r->shift[w]);
    }
}

static void prepare_row(const prepare_job *job, const row_source *r, real *to) {
    const image_shape *s = &job->s->image;
    ptrdiff_t first = r->start < 0 ? s->W : at_most(at_least(0, -r->right), s->W);
    ptrdiff_t end = at_least(first, at_most(s->W, s->W - r->right)), step = s->pixel;
    prepare_outside(job, r, 0, first, to);
    prepare_outside(job, r, end, s->W, to);
    if (first >= end)
        return;
    ptrdiff_t at = r->start + (r->flip ? s->W - 1 - (first + r->right) : first + r->right);
    const uint8_t *bytes = (const uint8_t *)job->a->pixels + at;
    const float *floats = (const float *)job->a->pixels + at;
    const real *shift = r->shift + first;
    to += first * step;
    if (job->s->bytes && step == 1)
        normalise_uint8_t(bytes, r->flip, end - first, r->scale, r->base, shift, to, 1);
    else if (job->s->bytes)
        normalise_uint8_t(bytes, r->flip, end - first, r->scale, r->base, shift, to, step);
    else
        normalise_float(floats, r->flip, end - first, r->scale, r->base, shift, to, step);
}

static void prepare_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const prepare_job *job = context;
    const image_shape *s = &job->s->image;
    const prepare_arrays *a = job->a;
    const int32_t *moves = a->moves ? a->moves + 3 * n : NULL, *hole = a->holes ? a->holes + 4 * n : NULL;
    const double *tone = a->tones ? a->tones + 2 * n : NULL;
    real *out = job->out + n * s->image;
    ptrdiff_t used = s->H * s->W * s->pixel;
    if (s->pixel > s->C)
        memset(out, 0, (size_t)used * sizeof(real));
    memset(out + used, 0, (size_t)(s->image - used) * sizeof(real));
    for (ptrdiff_t c = 0; c < s->C; c++)
        for (ptrdiff_t h = 0; h < s->H; h++) {
            ptrdiff_t row = find_inside(h + (moves ? moves[1] : 0), s->H, job->s->padding);
            double scale = (double)((const real *)a->scale)[c];
            row_source source = {.start = row < 0 ? -1 : ((a->chosen[n] * s->C + c) * s->H + row) * s->W,
                                 .flip = moves ? moves[0] : 0,
                                 .right = moves ? moves[2] : 0,
                                 .scale = (real)(tone ? scale * tone[0] : scale),
                                 .base = (real)(tone ? scale * tone[1] : 0),
                                 .shift = (const real *)a->shift + (c * s->H + h) * s->W};
            prepare_row(job, &source, out + h * s->W * s->pixel + c);
        }
    for (ptrdiff_t h = hole ? hole[0] : 0; hole && h < hole[2]; h++)
        memset(out + (h * s->W + hole[1]) * s->pixel, 0,
               (size_t)((hole[3] - hole[1]) * s->pixel) * sizeof(real));
}

void NAME(prepare_images)(const prepare_shape *s, int threads, ptrdiff_t n, const prepare_arrays *a,
                          void *out) {
    prepare_job job = {.s = s, .a = a, .out = out};
    pool_run(threads, n, prepare_image, &job);
}
