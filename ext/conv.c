/* Convolution with all that is fused behind it: y = pool(activation(norm(conv(x, w) + b) + r)).
 *
 * Directly or by Winograd's algorithm; either way nothing depends on the number of threads:
 * forward works by groups of images, backward by chunks of the batch whose sums are added in
 * order. With batch norm the convolution's sums z are kept, forward sweeps over them a second
 * time to normalise, and backward sweeps twice: for the sums over the batch that the gradient
 * of norm needs, and for the gradients themselves.
 */
#include "direct.h"
#include "pool.h"
#include "row_winograd.h"
#include "sandwich.h"
#include "winograd.h"

#define WINOGRAD_CHANNELS 16

/* Where the parts of the scratch begin, in reals. Shared parts first, then each worker's. */
typedef struct {
    ptrdiff_t filters, folded, bias, scale, shift, from_z, from_one, moments, partial, du, shared;
    ptrdiff_t image, z, dz, sums, gradient, winograd, worker;
    ptrdiff_t chunks;                /* of the batch, backward */
    ptrdiff_t group, backward_group; /* images handled at a time */
} layout;

typedef struct {
    const conv_shape *s;
    const conv_arrays *a;
    const conv_gradients *g;
    layout l;
    ptrdiff_t n;
    int training;
    const real *filters, *bias; /* packed, for the direction that runs */
    const real *scale, *shift;  /* norm's, or NULL */
    real *scratch;
} conv_job;

/* Winograd: 3x3 at stride 1, with enough channels that its transforms pay, and more than half of
 * the outputs in its tiles of 4x4 wanted. */
static int uses_winograd(const conv_shape *s) {
    const window_shape *w = &s->window;
    return !s->exact && w->kernel_h == 3 && w->kernel_w == 3 && w->stride_h == 1 && w->stride_w == 1 &&
           w->dilation_h == 1 && w->dilation_w == 1 && s->groups == 1 && w->pad_top <= 2 &&
           w->pad_left <= 2 && s->x.C >= WINOGRAD_CHANNELS && s->z.C >= WINOGRAD_CHANNELS &&
           2 * s->z.H * s->z.W > round_up(s->z.H, 4) * round_up(s->z.W, 4);
}

static winograd_product winograd_of_forward(const conv_shape *s) {
    return (winograd_product){.x = s->x, .y = s->z, .top = s->window.pad_top, .left = s->window.pad_left};
}

static winograd_product winograd_of_gradient(const conv_shape *s, int accumulate) {
    return (winograd_product){.x = s->z,
                              .y = s->x,
                              .top = 2 - s->window.pad_top,
                              .left = 2 - s->window.pad_left,
                              .accumulate = accumulate};
}

/* The next part of `reals`, beginning on a cache line. */
static ptrdiff_t take(ptrdiff_t *end, ptrdiff_t reals) {
    ptrdiff_t start = *end;
    *end += round_up(reals, LANES);
    return start;
}

#define DOUBLES (ptrdiff_t)(sizeof(double) / sizeof(real))

/* Both sweeps of norm's gradient need du: computed once where that costs more than memory does. */
static int keeps_gradient(const conv_shape *s) {
    return s->norm && !s->residual && s->activation > ACTIVATION_LEAKY_RELU;
}

static layout lay_out(const conv_shape *s, ptrdiff_t n) {
    product p = forward_product(s);
    ptrdiff_t weights = weight_count(s), products = count_products(s);
    ptrdiff_t filters = products * at_least(filters_size(&p), flipped_size(s)), winograd = 0;
    layout l = {.group = 1, .backward_group = 1};
    /* Fewer chunks for large filters: each needs a gradient of its own. */
    l.chunks = weights <= 1 << 16 ? 16 : weights <= 1 << 18 ? 8 : 4;
    if (uses_row_winograd(s))
        filters = at_least(filters, row_filters_size(s));
    if (uses_winograd(s)) {
        winograd_product ahead = winograd_of_forward(s), back = winograd_of_gradient(s, 0);
        filters = at_least(NAME(winograd_filters)(s->x.C, s->z.C), NAME(winograd_filters)(s->z.C, s->x.C));
        winograd = at_least(NAME(winograd_scratch)(&ahead), NAME(winograd_scratch)(&back));
        l.group = at_most(NAME(winograd_group)(&ahead, 0), n);
        l.backward_group = NAME(winograd_group)(&ahead, 1);
        /* And where a chunk would otherwise be less than such a group. */
        l.chunks = at_least(at_most(4, l.chunks), at_most(l.chunks, n / l.backward_group));
    }
    l.chunks = at_most(l.chunks, n);
    l.group = at_least(l.group, 1);
    l.backward_group = at_most(l.backward_group, ceil_div(n, at_least(l.chunks, 1)));
    ptrdiff_t end = 0;
    l.filters = take(&end, filters);
    l.folded = take(&end, s->norm ? weights : 0);
    l.bias = take(&end, products * bias_size(&p));
    l.scale = take(&end, s->z.pixel);
    l.shift = take(&end, s->z.pixel);
    l.from_z = take(&end, s->z.pixel);
    l.from_one = take(&end, s->z.pixel);
    l.moments = take(&end, s->norm ? 2 * n * s->z.pixel * DOUBLES : 0);
    l.partial = take(&end, l.chunks * (weights + s->z.pixel));
    l.du = take(&end, keeps_gradient(s) ? n * s->z.image : 0);
    l.shared = end;
    end = 0;
    l.image = take(&end, uses_winograd(s) || uses_row_winograd(s) ? 0 : s->x.H * padded_line(s));
    l.z = take(&end, s->pooling ? l.group * s->z.image : 0);
    l.dz = take(&end, l.backward_group * s->z.image);
    l.sums = take(&end, s->norm ? 2 * s->z.pixel : 0);
    l.gradient = take(&end, uses_winograd(s) ? 0 : s->z.H * gradient_line(s));
    l.winograd = take(&end, uses_row_winograd(s) ? lay_out_rows(s).total : winograd);
    l.worker = end + LANES; /* one line more, so that neighbours never write to one cache line */
    return l;
}

ptrdiff_t NAME(conv_scratch)(const conv_shape *s, ptrdiff_t n, int threads) {
    layout l = lay_out(s, n);
    return l.shared + threads * l.worker;
}

static real *worker_scratch(const conv_job *job, int worker) {
    return job->scratch + job->l.shared + worker * job->l.worker;
}

static sandwich_image view_image(const conv_job *job, ptrdiff_t n) {
    const conv_shape *s = job->s;
    return (sandwich_image){.s = s,
                            .scale = job->scale,
                            .shift = job->shift,
                            .z = job->a->z ? (const real *)job->a->z + n * s->z.image : NULL,
                            .r = s->residual ? (const real *)job->a->r + n * s->z.image : NULL,
                            .y = (const real *)job->a->y + n * s->y.image,
                            .alpha = (real)s->alpha};
}

static tap_index *view_index(const conv_job *job, ptrdiff_t n) {
    return job->a->index ? job->a->index + n * job->s->y.image : NULL;
}

/* Forward */

/* z, or relu(z), of a group of images. */
static void convolve(const conv_job *job, ptrdiff_t first, ptrdiff_t count, int relu, real *z,
                     real *scratch) {
    const conv_shape *s = job->s;
    const real *x = (const real *)job->a->x + first * s->x.image;
    if (uses_winograd(s)) {
        winograd_product p = winograd_of_forward(s);
        p.relu = relu;
        NAME(winograd_forward)(&p, count, x, job->filters, job->bias, z, scratch + job->l.winograd);
        return;
    }
    if (uses_row_winograd(s)) {
        for (ptrdiff_t n = 0; n < count; n++)
            run_row_winograd(s, x + n * s->x.image, job->filters, job->bias, relu, z + n * s->z.image,
                             scratch + job->l.winograd);
        return;
    }
    product p = forward_product(s);
    p.relu = relu;
    for (ptrdiff_t n = 0; n < count; n++) {
        const real *image = pad_input(s, x + n * s->x.image, scratch + job->l.image);
        for (ptrdiff_t g = 0; g < count_products(s); g++)
            run_product(&p, image + g * (s->x.C / s->groups), job->filters + g * filters_size(&p),
                        job->bias + g * bias_size(&p), z + n * s->z.image + g * p.filters);
        if (count_products(s) > 1)
            clear_padding(&s->z, z + n * s->z.image);
    }
}

#define CHAINS 4 /* sums side by side, so that none waits for the addition before */

/* Per channel of one image: the mean, and the squared distances from it. */
static void find_moments(const image_shape *s, const real *z, double *mean, double *squares) {
    ptrdiff_t pixels = s->H * s->W, whole = pixels / CHAINS * CHAINS;
    for (ptrdiff_t c = 0; c < s->pixel; c += VLEN) {
        vec origin = load(z + c); /* a value near the mean keeps digits */
        vec sum[CHAINS] = {0}, square[CHAINS] = {0};
        for (ptrdiff_t i = 0; i < whole; i += CHAINS)
            UNROLLED (j, CHAINS) {
                vec off = load(z + (i + j) * s->pixel + c) - origin;
                sum[j] += off;
                square[j] += off * off;
            }
        for (ptrdiff_t i = whole; i < pixels; i++) {
            vec off = load(z + i * s->pixel + c) - origin;
            sum[0] += off;
            square[0] += off * off;
        }
        vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        vec all_squares = (square[0] + square[1]) + (square[2] + square[3]);
        for (ptrdiff_t lane = 0; lane < VLEN; lane++) {
            double offset = (double)all[lane] / (double)pixels;
            mean[c + lane] = (double)origin[lane] + offset;
            squares[c + lane] = (double)all_squares[lane] - (double)pixels * offset * offset;
        }
    }
}

static void forward_group(const void *context, ptrdiff_t group, int worker) {
    const conv_job *job = context;
    const conv_shape *s = job->s;
    real *scratch = worker_scratch(job, worker);
    ptrdiff_t first = group * job->l.group, count = at_most(job->l.group, job->n - first);
    real *y = (real *)job->a->y + first * s->y.image;
    int norm = s->norm && job->training;
    int finish = s->pooling || s->residual || s->activation > ACTIVATION_RELU;
    real *z = job->training && job->a->z ? (real *)job->a->z + first * s->z.image
              : s->pooling               ? scratch + job->l.z
                                         : y;
    convolve(job, first, count, !norm && !finish && s->activation == ACTIVATION_RELU, z, scratch);
    for (ptrdiff_t i = 0; i < count; i++) {
        ptrdiff_t n = first + i;
        if (norm) {
            double *moments = (double *)(job->scratch + job->l.moments) + 2 * n * s->z.pixel;
            find_moments(&s->z, z + i * s->z.image, moments, moments + s->z.pixel);
        } else if (finish || z != y) {
            sandwich_image m = view_image(job, n);
            m.z = z + i * s->z.image;
            finish_image(&m, y + i * s->y.image, view_index(job, n));
        }
    }
}

static void normalise_image(const void *context, ptrdiff_t n, int worker) {
    (void)worker;
    const conv_job *job = context;
    const conv_shape *s = job->s;
    sandwich_image m = view_image(job, n);
    finish_image(&m, (real *)job->a->y + n * s->y.image, view_index(job, n));
}

/* The batch's mean and variance from its images'; equal numbers of pixels, so means of means. */
static void combine_moments(const conv_job *job, real *mean, real *var) {
    const conv_shape *s = job->s;
    const double *moments = (const double *)(job->scratch + job->l.moments);
    double pixels = (double)(s->z.H * s->z.W), all = pixels * (double)job->n;
    for (ptrdiff_t c = 0; c < s->z.C; c++) {
        double middle = 0, squares = 0;
        for (ptrdiff_t n = 0; n < job->n; n++)
            middle += moments[2 * n * s->z.pixel + c];
        middle /= (double)job->n;
        for (ptrdiff_t n = 0; n < job->n; n++) {
            double off = moments[2 * n * s->z.pixel + c] - middle;
            squares += moments[(2 * n + 1) * s->z.pixel + c] + pixels * off * off;
        }
        mean[c] = (real)middle;
        var[c] = (real)(squares > 0 ? squares / all : 0);
        real *running_mean = job->a->running_mean, *running_var = job->a->running_var;
        if (running_mean) {
            double unbiased = all > 1 ? squares / (all - 1) : squares;
            running_mean[c] += (real)(s->momentum * (middle - (double)running_mean[c]));
            running_var[c] += (real)(s->momentum * (unbiased - (double)running_var[c]));
        }
    }
}

/* norm(z) = scale z + shift */
static void find_scale(const conv_job *job, const real *mean, const real *var, real *scale, real *shift) {
    const conv_shape *s = job->s;
    memset(scale, 0, (size_t)s->z.pixel * sizeof(real));
    memset(shift, 0, (size_t)s->z.pixel * sizeof(real));
    for (ptrdiff_t c = 0; c < s->z.C; c++) {
        double factor = (double)((const real *)job->a->gamma)[c] / sqrt((double)var[c] + s->eps);
        scale[c] = (real)factor;
        shift[c] = (real)((double)((const real *)job->a->beta)[c] - factor * (double)mean[c]);
    }
}

/* Where the batch does not settle mean and variance, norm is part of the filters and the bias. */
static void fold_norm(conv_job *job, const real *scale, const real *shift, real *w, real *b) {
    const conv_shape *s = job->s;
    const real *from = job->a->w, *bias = job->a->b;
    for (ptrdiff_t k = 0; k < weight_rows(s); k++)
        for (ptrdiff_t f = 0; f < s->z.pixel; f++)
            w[k * s->z.pixel + f] = from[k * s->z.pixel + f] * scale[f];
    for (ptrdiff_t f = 0; f < s->z.pixel; f++)
        b[f] = shift[f] + (bias ? bias[f] * scale[f] : 0);
}

typedef struct {
    const conv_shape *s;
    const real *w;
    real *filters;
    int flipped;
} pack_job;

static void pack_task(const void *context, ptrdiff_t task, int worker) {
    (void)worker;
    const pack_job *job = context;
    NAME(winograd_pack)(job->s->x.C, job->s->z.C, job->s->z.pixel, job->w, job->flipped, task, job->filters);
}

static void pack_forward(const conv_job *job, int threads, const real *w, const real *b, real *filters,
                         real *bias) {
    const conv_shape *s = job->s;
    product p = forward_product(s);
    if (uses_winograd(s)) {
        pack_job pack = {.s = s, .w = w, .filters = filters};
        pool_run(threads, NAME(winograd_pack_tasks)(s->x.C, s->z.C), pack_task, &pack);
    }
    if (uses_row_winograd(s))
        pack_row_filters(s, w, filters);
    for (ptrdiff_t g = 0; g < count_products(s); g++) {
        if (!uses_winograd(s) && !uses_row_winograd(s))
            pack_filters(s, w, g, filters + g * filters_size(&p));
        real *to = bias + g * bias_size(&p);
        memset(to, 0, (size_t)bias_size(&p) * sizeof(real));
        if (b)
            memcpy(to, b + g * p.filters, (size_t)p.filters * sizeof(real));
    }
}

void NAME(conv_forward)(const conv_shape *s, int threads, ptrdiff_t n, int training, const conv_arrays *a) {
    conv_job job = {.s = s, .a = a, .l = lay_out(s, n), .n = n, .training = training, .scratch = a->scratch};
    real *scratch = a->scratch, *scale = scratch + job.l.scale, *shift = scratch + job.l.shift;
    const real *w = a->w, *b = a->b;
    if (s->norm && !training) {
        find_scale(&job, a->running_mean, a->running_var, scale, shift);
        /* The folded bias takes the room of what only backward needs. */
        fold_norm(&job, scale, shift, scratch + job.l.folded, scratch + job.l.from_one);
        w = scratch + job.l.folded;
        b = scratch + job.l.from_one;
    }
    job.filters = scratch + job.l.filters;
    job.bias = scratch + job.l.bias;
    pack_forward(&job, threads, w, b, scratch + job.l.filters, scratch + job.l.bias);
    pool_run(threads, ceil_div(n, job.l.group), forward_group, &job);
    if (s->norm && training) {
        memset(a->mean, 0, (size_t)s->z.pixel * sizeof(real));
        memset(a->var, 0, (size_t)s->z.pixel * sizeof(real));
        if (n)
            combine_moments(&job, a->mean, a->var);
        find_scale(&job, a->mean, a->var, scale, shift);
        job.scale = scale;
        job.shift = shift;
        pool_run(threads, n, normalise_image, &job);
    }
}

/* Backward */

static void find_input_gradient(const conv_job *job, const real *dz, real *scratch, real *dx) {
    const conv_shape *s = job->s;
    ptrdiff_t products = count_products(s), C = s->x.C / products, F = s->z.C / products;
    const real *padded = pad_gradient(s, dz, scratch + job->l.gradient);
    for (ptrdiff_t g = 0; g < products; g++)
        run_flipped(s, padded + g * F, job->filters + g * flipped_size(s), job->g->accumulate, dx + g * C);
    if (products > 1 || s->x.pixel % LANES)
        clear_padding(&s->x, dx);
}

/* Where a chunk's images begin, and those of the one before it end. */
static ptrdiff_t chunk_start(const conv_job *job, ptrdiff_t chunk) { return job->n * chunk / job->l.chunks; }

static const real *view_dy(const conv_job *job, ptrdiff_t n) {
    return (const real *)job->g->dy + n * job->s->y.image;
}

/* Where the first sweep leaves du for the second, if anywhere. */
static real *kept_gradient(const conv_job *job, ptrdiff_t n) {
    if (job->g->dr)
        return (real *)job->g->dr + n * job->s->z.image;
    return keeps_gradient(job->s) ? job->scratch + job->l.du + n * job->s->z.image : NULL;
}

static void sum_chunk(const void *context, ptrdiff_t chunk, int worker) {
    const conv_job *job = context;
    const conv_shape *s = job->s;
    real *scratch = worker_scratch(job, worker), *sums = scratch + job->l.sums;
    double *totals = (double *)(job->scratch + job->l.moments) + 2 * chunk * s->z.pixel;
    memset(totals, 0, (size_t)(2 * s->z.pixel) * sizeof(double));
    for (ptrdiff_t n = chunk_start(job, chunk); n < chunk_start(job, chunk + 1); n++) {
        memset(sums, 0, (size_t)(2 * s->z.pixel) * sizeof(real));
        sandwich_image m = view_image(job, n);
        undo_sink sink = {kept_gradient(job, n), sums, sums + s->z.pixel, .mean = job->a->mean};
        sum_gradients(&m, view_dy(job, n), view_index(job, n), &sink, scratch + job->l.dz);
        for (ptrdiff_t i = 0; i < 2 * s->z.pixel; i++)
            totals[i] += (double)sums[i];
    }
}

/* dz = scale du + from_z z + from_one, what norm's gradient comes to once the sums are known. */
static void find_norm_gradient(const conv_job *job, real *from_z, real *from_one) {
    const conv_shape *s = job->s;
    const double *sums = (const double *)(job->scratch + job->l.moments);
    const real *mean = job->a->mean, *var = job->a->var;
    real *dgamma = job->g->dgamma, *dbeta = job->g->dbeta;
    double count = (double)(job->n * s->z.H * s->z.W);
    for (ptrdiff_t c = 0; c < s->z.pixel; c++) {
        double sum = 0, product = 0;
        for (ptrdiff_t chunk = 0; chunk < job->l.chunks; chunk++) {
            sum += sums[2 * chunk * s->z.pixel + c];
            product += sums[(2 * chunk + 1) * s->z.pixel + c];
        }
        double inverse = 1 / sqrt((double)var[c] + s->eps);
        double slope = count > 0 ? (double)job->scale[c] * product * inverse * inverse / count : 0;
        dbeta[c] = (real)sum;
        dgamma[c] = (real)(product * inverse);
        from_z[c] = (real)-slope;
        from_one[c] = (real)(slope * (double)mean[c] - (count > 0 ? (double)job->scale[c] * sum / count : 0));
    }
}

/* dz of one image; dy itself where nothing stands behind the convolution. */
static const real *find_dz(const conv_job *job, ptrdiff_t n, real *dz) {
    const conv_shape *s = job->s;
    size_t bytes = (size_t)s->z.image * sizeof(real);
    const real *dy = view_dy(job, n);
    sandwich_image m = view_image(job, n);
    if (s->norm) {
        undo_sink sink = {
            .to = dz, .from_z = job->scratch + job->l.from_z, .from_one = job->scratch + job->l.from_one};
        const real *kept = kept_gradient(job, n);
        if (kept)
            apply_kept_gradient(&m, kept, &sink);
        else
            apply_gradient(&m, dy, view_index(job, n), &sink, dz);
        return dz;
    }
    int bare = s->activation == ACTIVATION_NONE && s->pooling == POOL_NONE;
    if (!bare)
        store_gradient(&m, dy, view_index(job, n), dz);
    else if (s->groups > 1) /* tiles read whole vectors, past the last group's channels */
        memcpy(dz, dy, bytes);
    else
        dz = NULL;
    const real *du = dz ? dz : dy;
    if (job->g->dr)
        memcpy((real *)job->g->dr + n * s->z.image, du, bytes);
    return du;
}

static void backward_direct(const conv_job *job, ptrdiff_t n, const real *dz, real *dw, real *scratch) {
    const conv_shape *s = job->s;
    const real *x = (const real *)job->a->x + n * s->x.image;
    if (uses_row_winograd(s)) {
        add_row_gradient(s, x, dz, scratch + job->l.winograd);
    } else {
        const real *image = pad_input(s, x, scratch + job->l.image);
        product p = forward_product(s);
        for (ptrdiff_t g = 0; g < count_products(s); g++)
            add_weight_gradient(&p, image + g * (s->x.C / s->groups), dz + g * p.filters, dw + g * p.filters);
    }
    if (job->g->dx)
        find_input_gradient(job, dz, scratch, (real *)job->g->dx + n * s->x.image);
}

static void backward_winograd(const conv_job *job, ptrdiff_t first, ptrdiff_t count, const real *dz, real *dw,
                              real *scratch) {
    const conv_shape *s = job->s;
    winograd_product ahead = winograd_of_forward(s), back = winograd_of_gradient(s, job->g->accumulate);
    NAME(winograd_gradient)(&ahead, count, (const real *)job->a->x + first * s->x.image, dz, dw,
                            scratch + job->l.winograd);
    if (job->g->dx)
        NAME(winograd_forward)(&back, count, dz, job->filters, NULL, (real *)job->g->dx + first * s->x.image,
                               scratch + job->l.winograd);
}

static void backward_chunk(const void *context, ptrdiff_t chunk, int worker) {
    const conv_job *job = context;
    const conv_shape *s = job->s;
    const layout *l = &job->l;
    real *scratch = worker_scratch(job, worker);
    ptrdiff_t weights = weight_count(s), size = weights + s->z.pixel;
    real *dw = job->scratch + l->partial + chunk * size, *db = dw + weights;
    memset(dw, 0, (size_t)size * sizeof(real));
    if (uses_row_winograd(s))
        clear_row_gradient(s, scratch + l->winograd);
    ptrdiff_t end = chunk_start(job, chunk + 1);
    for (ptrdiff_t first = chunk_start(job, chunk); first < end; first += l->backward_group) {
        ptrdiff_t count = at_most(l->backward_group, end - first);
        const real *dz = NULL;
        for (ptrdiff_t i = 0; i < count; i++) {
            const real *of_image = find_dz(job, first + i, scratch + l->dz + i * s->z.image);
            if (job->g->db)
                add_bias_gradient(&s->z, of_image, db);
            dz = i ? dz : of_image;
        }
        if (uses_winograd(s))
            backward_winograd(job, first, count, dz, dw, scratch);
        else
            backward_direct(job, first, dz, dw, scratch);
    }
    if (uses_row_winograd(s))
        finish_row_gradient(s, scratch + l->winograd, dw);
}

#define SUM_BLOCK 4096

/* Chunks are summed in order, whoever computed them. */
static void sum_chunks(const void *context, ptrdiff_t block, int worker) {
    (void)worker;
    const conv_job *job = context;
    ptrdiff_t weights = weight_count(job->s), size = weights + job->s->z.pixel;
    const real *partial = job->scratch + job->l.partial;
    for (ptrdiff_t i = block * SUM_BLOCK; i < at_most(size, (block + 1) * SUM_BLOCK); i += VLEN) {
        vec sum = {0};
        for (ptrdiff_t chunk = 0; chunk < job->l.chunks; chunk++)
            sum += load(partial + chunk * size + i);
        if (i < weights)
            store((real *)job->g->dw + i, sum);
        else if (job->g->db)
            store((real *)job->g->db + (i - weights), sum);
    }
}

static void pack_backward(const conv_job *job, int threads, real *filters) {
    const conv_shape *s = job->s;
    if (uses_winograd(s)) {
        pack_job pack = {.s = s, .w = job->a->w, .filters = filters, .flipped = 1};
        pool_run(threads, NAME(winograd_pack_tasks)(s->z.C, s->x.C), pack_task, &pack);
        return;
    }
    for (ptrdiff_t g = 0; g < count_products(s); g++)
        pack_flipped(s, job->a->w, g, filters + g * flipped_size(s));
}

void NAME(conv_backward)(const conv_shape *s, int threads, ptrdiff_t n, const conv_arrays *a,
                         const conv_gradients *g) {
    conv_job job = {.s = s, .a = a, .g = g, .l = lay_out(s, n), .n = n, .training = 1, .scratch = a->scratch};
    real *scratch = a->scratch;
    job.filters = scratch + job.l.filters;
    if (s->norm) {
        find_scale(&job, a->mean, a->var, scratch + job.l.scale, scratch + job.l.shift);
        job.scale = scratch + job.l.scale;
        job.shift = scratch + job.l.shift;
        pool_run(threads, job.l.chunks, sum_chunk, &job);
        find_norm_gradient(&job, scratch + job.l.from_z, scratch + job.l.from_one);
    }
    if (g->dx)
        pack_backward(&job, threads, scratch + job.l.filters);
    pool_run(threads, job.l.chunks, backward_chunk, &job);
    pool_run(threads, ceil_div(weight_count(s) + s->z.pixel, SUM_BLOCK), sum_chunks, &job);
}
