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

typedef struct {
    ptrdiff_t H, W, C;
    ptrdiff_t pixel; /* reals from one pixel to the next */
    ptrdiff_t image; /* reals from one image to the next */
} image_shape;

typedef struct {
    ptrdiff_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left, pad_right;
} window_shape;

/* pool(relu(conv(x, w) + b)): w is [KH][KW][C/groups][y-channels padded], b [padded]. */
typedef struct {
    image_shape x, z, y; /* z: before the pool; equal to y without one */
    window_shape window, pool;
    ptrdiff_t groups;
    int relu, pooled;
} conv_shape;

/* relu(x w^T + b): w is [out][in], rows of x `in` reals and of y `y_row` reals long. */
typedef struct {
    ptrdiff_t in, out, y_row;
    int relu;
} linear_shape;

typedef struct {
    image_shape x, y;
    window_shape window;
} maxpool_shape;

typedef struct {
    double lr, momentum, l2;
    int nesterov;
} sgd_settings;

typedef struct {
    double lr, beta1, beta2, eps, l2;
    int64_t step;
} adam_settings;

typedef uint16_t tap_index; /* a pool's winning tap: kh * KW + kw */

typedef struct {
    /* Scratch, in reals, that a call needs for n images on that many threads. */
    ptrdiff_t (*conv_scratch)(const conv_shape *, ptrdiff_t n, int threads);
    ptrdiff_t (*linear_scratch)(const linear_shape *, ptrdiff_t n, int threads);

    void (*conv_forward)(const conv_shape *, int threads, ptrdiff_t n, const void *x, const void *w,
                         const void *b, void *y, tap_index *index, void *scratch);
    void (*conv_backward)(const conv_shape *, int threads, ptrdiff_t n, const void *dy, const void *x,
                          const void *w, const void *y, const tap_index *index, void *dx, void *dw, void *db,
                          void *scratch);
    void (*linear_forward)(const linear_shape *, int threads, ptrdiff_t n, const void *x, const void *w,
                           const void *b, void *y, void *scratch);
    void (*linear_backward)(const linear_shape *, int threads, ptrdiff_t n, const void *dy, const void *x,
                            const void *w, const void *y, void *dx, void *dw, void *db, void *scratch);
    void (*maxpool_forward)(const maxpool_shape *, int threads, ptrdiff_t n, const void *x, void *y,
                            tap_index *index);
    void (*maxpool_backward)(const maxpool_shape *, int threads, ptrdiff_t n, const void *dy,
                             const tap_index *index, void *dx);
    void (*relu_forward)(int threads, ptrdiff_t count, const void *x, void *y);
    void (*relu_backward)(int threads, ptrdiff_t count, const void *dy, const void *y, void *dx);

    /* NCHW outside, NHWC inside; unpadded reals between the images of NCHW: C*H*W. */
    void (*import_images)(const image_shape *, int threads, ptrdiff_t n, const void *nchw, void *nhwc);
    void (*export_images)(const image_shape *, int threads, ptrdiff_t n, const void *nhwc, void *nchw);

    /* Mean loss in nats; p becomes the probabilities; counts the rows whose first maximum is the label. */
    double (*softmax_forward)(ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, const void *scores,
                              const int64_t *labels, void *p, ptrdiff_t *correct);
    void (*softmax_backward)(ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, const void *p,
                             const int64_t *labels, void *dscores);

    /* In place; return the sum of w^2 before the step. `sums` holds a double a block of UPDATE_BLOCK. */
    double (*sgd_update)(const sgd_settings *, int threads, ptrdiff_t count, void *w, const void *dw,
                         void *velocity, double *sums);
    double (*adam_update)(const adam_settings *, int threads, ptrdiff_t count, void *w, const void *dw,
                          void *m, void *v, double *sums);
} kernel_table;

#define UPDATE_BLOCK 16384 /* elements an update treats as one task */

/* The members of the table, for those who declare or fill it. */
#define FOR_EACH_KERNEL(DO)                                                                                  \
    DO(conv_scratch)                                                                                         \
    DO(linear_scratch)                                                                                       \
    DO(conv_forward)                                                                                         \
    DO(conv_backward)                                                                                        \
    DO(linear_forward)                                                                                       \
    DO(linear_backward)                                                                                      \
    DO(maxpool_forward)                                                                                      \
    DO(maxpool_backward)                                                                                     \
    DO(relu_forward)                                                                                         \
    DO(relu_backward)                                                                                        \
    DO(import_images)                                                                                        \
    DO(export_images)                                                                                        \
    DO(softmax_forward)                                                                                      \
    DO(softmax_backward)                                                                                     \
    DO(sgd_update)                                                                                           \
    DO(adam_update)

/* Instruction sets in ascending order; a machine runs all up to its best. */
typedef enum { ISA_BASELINE, ISA_V3, ISA_V4, ISA_COUNT } instruction_set;

const char *isa_name(instruction_set isa);
instruction_set isa_best(void);
const kernel_table *kernels_for(instruction_set isa, int is_double);

#endif
