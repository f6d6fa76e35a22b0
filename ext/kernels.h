/* What the kernels compute, for callers that don't know which instruction set runs.
 *
 * Arrays are float or double, as the table was chosen for; `void *` stands for both.
 * Images are NHWC: pixel (h, w) of image n starts at n*image + (h*W + w)*pixel reals,
 * with `pixel` >= C reals a pixel. Outputs pad their channels to LANES with zeros, so
 * rows of a matrix are images of one pixel. Nothing here allocates or validates.
 */
#ifndef CNNCTL_KERNELS_H
#define CNNCTL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define LINE_BYTES 64 /* channels are padded to a cache line on every instruction set */

typedef uint16_t tap_index; /* a pool's winning tap: kh * KW + kw */

typedef struct {
    ptrdiff_t H, W, C;
    ptrdiff_t pixel; /* reals from one pixel to the next */
    ptrdiff_t image; /* reals from one image to the next */
} image_shape;

typedef struct {
    ptrdiff_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left, pad_right;
} window_shape;

/* The last two have to be differentiated at their input, the others' outputs tell the derivative. */
typedef enum {
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_LEAKY_RELU,
    ACTIVATION_TANH,
    ACTIVATION_SIGMOID,
    ACTIVATION_ELU,
    ACTIVATION_GELU,
    ACTIVATION_SILU
} activation_kind;

typedef enum { POOL_NONE, POOL_MAX, POOL_AVERAGE } pool_kind;

/* y = pool(activation(norm(z) + r)), z = conv(x, w) + b. Weights are [KH][KW][C/groups][z.pixel],
 * vectors [z.pixel]; r lies as z does. */
typedef struct {
    image_shape x, z, y; /* z equals y without a pool */
    window_shape window, pool;
    ptrdiff_t groups;
    activation_kind activation;
    pool_kind pooling;
    int norm;     /* batch norm behind the convolution */
    int residual; /* r is there */
    int exact;    /* no Winograd */
    double eps, momentum;
    double alpha; /* of a leaky ReLU or ELU, above 0 */
} conv_shape;

/* What may be missing is NULL. Without norm: gamma, beta, mean, var and the running ones; without
 * z kept: z; without max pool: index. */
typedef struct {
    const void *x, *w, *b, *gamma, *beta, *r;
    void *running_mean, *running_var;
    void *z, *mean, *var; /* what training leaves for backward; var is the biased one */
    void *y;
    tap_index *index;
    void *scratch;
} conv_arrays;

typedef struct {
    const void *dy;
    void *dx, *dw, *db, *dgamma, *dbeta, *dr;
    int accumulate; /* dx += */
} conv_gradients;

/* relu(x w^T + b): w is [out][in], rows of x `in` reals and of y `y_row` reals long. */
typedef struct {
    ptrdiff_t in, out, y_row;
    int relu;
} linear_shape;

typedef struct {
    image_shape x, y;
    window_shape window;
} pool_shape;

/* gamma, beta, mean, var and the running ones are [x.pixel], zero behind the channels. */
typedef struct {
    image_shape x;
    double eps, momentum;
} batchnorm_shape;

/* gamma and beta are [x.pixel], zero behind the channels; mean and var have `groups` reals an image. */
typedef struct {
    image_shape x;
    ptrdiff_t groups; /* of x.C / groups channels that follow one another */
    double eps;
} groupnorm_shape;

typedef struct {
    image_shape x;
    ptrdiff_t size;
    double alpha, beta, k;
} lrn_shape;

enum { PADDING_ZERO, PADDING_EDGE, PADDING_REFLECT };

typedef struct {
    image_shape image; /* as it is to lie; H, W, C are those of the pixels too */
    int bytes;         /* pixels are uint8_t, otherwise float */
    int padding;       /* one of those */
} prepare_shape;

typedef struct {
    const void *pixels; /* NCHW, of the whole data set */
    const int64_t *chosen;
    const int32_t *moves; /* flip, down, right of each chosen image; or NULL */
    const double *tones;  /* its gain and offset; or NULL */
    const int32_t *holes; /* its top, left, bottom, right; or NULL */
    const void *scale, *shift;
} prepare_arrays;

enum { LOSS_CROSS_ENTROPY, LOSS_HINGE, LOSS_SQUARED_ERROR };

typedef struct {
    int kind; /* one of those */
    double smoothing, margin;
    const void *weights; /* cross-entropy's, of the classes, padded as scores are; NULL means 1 each, but
                          * not with smoothing, which reads them */
} loss_settings;

/* UPDATE_NONE changes nothing: it is for those who want the sum of dw^2. */
typedef enum {
    UPDATE_NONE,
    UPDATE_SGD,
    UPDATE_ADAM,
    UPDATE_ADAGRAD,
    UPDATE_RMSPROP, /* its alpha is beta2 */
    UPDATE_ADAMAX,
    UPDATE_LION,
    UPDATE_COUNT
} update_kind;

typedef struct {
    update_kind kind;
    int nesterov;
    int64_t step; /* from 1 */
    double lr, l2, weight_decay, momentum, dampening, beta1, beta2, eps;
} update_settings;

#define UPDATE_SLOTS 3

typedef struct {
    void *w;
    const void *dw;
    void *slots[UPDATE_SLOTS]; /* velocity; m, v; square; square, mean or NULL, velocity or NULL; m, u; m */
    double *sums;              /* a double a block of UPDATE_BLOCK */
} update_arrays;

typedef struct {
    /* Scratch, in reals, that a call needs for n images on that many threads. */
    ptrdiff_t (*conv_scratch)(const conv_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*linear_scratch)(const linear_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*batchnorm_scratch)(const batchnorm_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*groupnorm_scratch)(const groupnorm_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*scale_scratch)(const image_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*lrn_scratch)(const lrn_shape *, int threads);

    /* Training takes mean and variance from the batch and moves the running ones towards them;
     * otherwise the running ones are used, and nothing is left for backward. */
    void (*conv_forward)(const conv_shape *, int threads, ptrdiff_t n, int training, const conv_arrays *);
    void (*conv_backward)(const conv_shape *, int threads, ptrdiff_t n, const conv_arrays *,
                          const conv_gradients *);
    void (*linear_forward)(const linear_shape *, int threads, ptrdiff_t n, const void *x, const void *w,
                           const void *b, void *y, void *scratch);
    void (*linear_backward)(const linear_shape *, int threads, ptrdiff_t n, const void *dy, const void *x,
                            const void *w, const void *y, void *dx, void *dw, void *db, void *scratch);
    void (*maxpool_forward)(const pool_shape *, int threads, ptrdiff_t n, const void *x, void *y,
                            tap_index *index);
    void (*maxpool_backward)(const pool_shape *, int threads, ptrdiff_t n, const void *dy,
                             const tap_index *index, void *dx);
    void (*avgpool_forward)(const pool_shape *, int threads, ptrdiff_t n, const void *x, void *y);
    void (*avgpool_backward)(const pool_shape *, int threads, ptrdiff_t n, const void *dy, void *dx);
    void (*activation_forward)(activation_kind, double alpha, const image_shape *, int threads, ptrdiff_t n,
                               const void *x, void *y);
    /* x_or_y: the input for GELU and SiLU, the output for all others. */
    void (*activation_backward)(activation_kind, double alpha, const image_shape *, int threads, ptrdiff_t n,
                                const void *dy, const void *x_or_y, void *dx);

    /* Forward moves the running statistics by `momentum` towards the batch's, with its unbiased
     * variance; they may be NULL. mean and var are the batch's own, var the biased one. */
    void (*batchnorm_forward)(const batchnorm_shape *, int threads, ptrdiff_t n, const void *x,
                              const void *gamma, const void *beta, void *y, void *mean, void *var,
                              void *running_mean, void *running_var, void *scratch);
    void (*batchnorm_inference)(const batchnorm_shape *, int threads, ptrdiff_t n, const void *x,
                                const void *gamma, const void *beta, const void *mean, const void *var,
                                void *y, void *scratch);
    void (*batchnorm_backward)(const batchnorm_shape *, int threads, ptrdiff_t n, const void *dy,
                               const void *x, const void *gamma, const void *mean, const void *var, void *dx,
                               void *dgamma, void *dbeta, void *scratch);
    void (*groupnorm_forward)(const groupnorm_shape *, int threads, ptrdiff_t n, const void *x,
                              const void *gamma, const void *beta, void *y, void *mean, void *var,
                              void *scratch);
    void (*groupnorm_backward)(const groupnorm_shape *, int threads, ptrdiff_t n, const void *dy,
                               const void *x, const void *gamma, const void *mean, const void *var, void *dx,
                               void *dgamma, void *dbeta, void *scratch);
    /* y = w x + b, with w and b [pixel], zero behind the channels. */
    void (*scale_forward)(const image_shape *, int threads, ptrdiff_t n, const void *x, const void *w,
                          const void *b, void *y, void *scratch);
    void (*scale_backward)(const image_shape *, int threads, ptrdiff_t n, const void *dy, const void *x,
                           const void *w, void *dx, void *dw, void *db, void *scratch);
    void (*lrn_forward)(const lrn_shape *, int threads, ptrdiff_t n, const void *x, void *y, void *scratch);
    void (*lrn_backward)(const lrn_shape *, int threads, ptrdiff_t n, const void *dy, const void *x, void *dx,
                         void *scratch);
    /* Element i, counted over the channels proper, is kept where a hash of i keyed by `key` is at
     * least rate 2^32; with `spatial`, i counts channels of images, and a channel stays whole. */
    void (*dropout)(const image_shape *, int threads, ptrdiff_t n, double rate, int spatial, uint64_t key,
                    const void *x, void *y);

    void (*prepare_images)(const prepare_shape *, int threads, ptrdiff_t n, const prepare_arrays *,
                           void *out);

    /* NCHW outside, NHWC inside; unpadded reals between the images of NCHW: C*H*W. */
    void (*import_images)(const image_shape *, int threads, ptrdiff_t n, const void *nchw, void *nhwc);
    void (*export_images)(const image_shape *, int threads, ptrdiff_t n, const void *nhwc, void *nchw);

    /* Mean loss; counts the rows whose first maximum is the label. For cross-entropy p becomes the
     * probabilities, from which the gradient is taken; for the others it is taken from the scores. */
    double (*loss_forward)(const loss_settings *, int threads, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row,
                           const void *scores, const int64_t *labels, void *p, ptrdiff_t *correct);
    void (*loss_backward)(const loss_settings *, int threads, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row,
                          const void *from, const int64_t *labels, void *dscores);

    /* In place; returns the sum of w^2 before the step, NaN if w or a slot is not finite after it. */
    double (*update)(const update_settings *, int threads, ptrdiff_t count, const update_arrays *);
    /* dw + l1 sign(w); returns the sum of |w|. `sums` has room for a double per UPDATE_BLOCK elements. */
    double (*add_l1_gradient)(int threads, ptrdiff_t count, double l1, const void *w, void *dw, double *sums);
    /* Work to be timed, the same on each thread; return the operations done or the bytes moved. */
    double (*fma_burst)(int threads, ptrdiff_t rounds);
    double (*read_burst)(int threads, ptrdiff_t rounds, ptrdiff_t count, const void *from);
    double (*copy_burst)(int threads, ptrdiff_t rounds, ptrdiff_t count, const void *from, void *to);
} kernel_table;

#define UPDATE_BLOCK 16384 /* elements an update treats as one task */

/* The members of the table, for those who declare or fill it. */
#define FOR_EACH_KERNEL(DO)                                                                                  \
    DO(conv_scratch)                                                                                         \
    DO(linear_scratch)                                                                                       \
    DO(batchnorm_scratch)                                                                                    \
    DO(groupnorm_scratch)                                                                                    \
    DO(scale_scratch)                                                                                        \
    DO(lrn_scratch)                                                                                          \
    DO(conv_forward)                                                                                         \
    DO(conv_backward)                                                                                        \
    DO(linear_forward)                                                                                       \
    DO(linear_backward)                                                                                      \
    DO(maxpool_forward)                                                                                      \
    DO(maxpool_backward)                                                                                     \
    DO(avgpool_forward)                                                                                      \
    DO(avgpool_backward)                                                                                     \
    DO(activation_forward)                                                                                   \
    DO(activation_backward)                                                                                  \
    DO(batchnorm_forward)                                                                                    \
    DO(batchnorm_inference)                                                                                  \
    DO(batchnorm_backward)                                                                                   \
    DO(groupnorm_forward)                                                                                    \
    DO(groupnorm_backward)                                                                                   \
    DO(scale_forward)                                                                                        \
    DO(scale_backward)                                                                                       \
    DO(lrn_forward)                                                                                          \
    DO(lrn_backward)                                                                                         \
    DO(dropout)                                                                                              \
    DO(prepare_images)                                                                                       \
    DO(import_images)                                                                                        \
    DO(export_images)                                                                                        \
    DO(loss_forward)                                                                                         \
    DO(loss_backward)                                                                                        \
    DO(update)                                                                                               \
    DO(add_l1_gradient)                                                                                      \
    DO(fma_burst)                                                                                            \
    DO(read_burst)                                                                                           \
    DO(copy_burst)

/* Instruction sets in ascending order; a machine runs all up to its best. */
typedef enum { ISA_BASELINE, ISA_V3, ISA_V4, ISA_COUNT } instruction_set;

const char *isa_name(instruction_set isa);
instruction_set isa_best(void);
const char *compiler_name(void); /* as "GCC 12.2.0" */
const kernel_table *kernels_for(instruction_set isa, int is_double);

#endif
