# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The C kernels as Python sees them: shapes in, arrays in, nothing computed here.

Arguments are contiguous buffers of the kernels' element type and of the sizes that
kernels.h asks for; `cnnctl.backends.fast` sees to that. The interpreter lock is released
while a kernel runs.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uint64_t


cdef extern from "kernels.h" nogil:
    ctypedef struct image_shape:
        ptrdiff_t H, W, C, pixel, image

    ctypedef struct window_shape:
        ptrdiff_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w
        ptrdiff_t pad_top, pad_left, pad_right

    ctypedef enum activation_kind:
        pass

    ctypedef enum pool_kind:
        pass

    ctypedef unsigned short tap_index

    ctypedef struct conv_shape:
        image_shape x, z, y
        window_shape window, pool
        ptrdiff_t groups
        activation_kind activation
        pool_kind pooling
        int norm, residual, exact
        double eps, momentum, alpha

    ctypedef struct conv_arrays:
        const void *x
        const void *w
        const void *b
        const void *gamma
        const void *beta
        const void *r
        void *running_mean
        void *running_var
        void *z
        void *mean
        void *var
        void *y
        tap_index *index
        void *scratch

    ctypedef struct conv_gradients:
        const void *dy
        void *dx
        void *dw
        void *db
        void *dgamma
        void *dbeta
        void *dr
        int accumulate

    ctypedef struct linear_shape:
        ptrdiff_t in_ "in", out, y_row
        int relu

    ctypedef struct pool_shape:
        image_shape x, y
        window_shape window

    ctypedef struct batchnorm_shape:
        image_shape x
        double eps, momentum

    ctypedef struct groupnorm_shape:
        image_shape x
        ptrdiff_t groups
        double eps

    ctypedef struct lrn_shape:
        image_shape x
        ptrdiff_t size
        double alpha, beta, k

    ctypedef struct prepare_shape:
        image_shape image
        int bytes, padding

    ctypedef struct prepare_arrays:
        const void *pixels
        const int64_t *chosen
        const int32_t *moves
        const double *tones
        const int32_t *holes
        const void *scale
        const void *shift

    ctypedef struct loss_settings:
        int kind
        double smoothing, margin
        const void *weights

    ctypedef enum update_kind:
        pass

    ctypedef struct update_settings:
        update_kind kind
        int nesterov
        int64_t step
        double lr, l2, weight_decay, momentum, dampening, beta1, beta2, eps

    ctypedef struct update_arrays:
        void *w
        const void *dw
        void *slots[3]
        double *sums

    ctypedef struct kernel_table:
        ptrdiff_t (*conv_scratch)(const conv_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*linear_scratch)(const linear_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*batchnorm_scratch)(const batchnorm_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*groupnorm_scratch)(const groupnorm_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*scale_scratch)(const image_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*lrn_scratch)(const lrn_shape *, int) noexcept nogil
        void (*conv_forward)(
            const conv_shape *, int, ptrdiff_t, int, const conv_arrays *
        ) noexcept nogil
        void (*conv_backward)(
            const conv_shape *, int, ptrdiff_t, const conv_arrays *, const conv_gradients *
        ) noexcept nogil
        void (*linear_forward)(
            const linear_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            void *, void *
        ) noexcept nogil
        void (*linear_backward)(
            const linear_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            const void *, void *, void *, void *, void *
        ) noexcept nogil
        void (*maxpool_forward)(
            const pool_shape *, int, ptrdiff_t, const void *, void *, tap_index *
        ) noexcept nogil
        void (*maxpool_backward)(
            const pool_shape *, int, ptrdiff_t, const void *, const tap_index *, void *
        ) noexcept nogil
        void (*avgpool_forward)(const pool_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        void (*avgpool_backward)(const pool_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        void (*activation_forward)(
            activation_kind, double, const image_shape *, int, ptrdiff_t, const void *, void *
        ) noexcept nogil
        void (*activation_backward)(
            activation_kind, double, const image_shape *, int, ptrdiff_t, const void *, const void *, void *
        ) noexcept nogil
        void (*batchnorm_forward)(
            const batchnorm_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            void *, void *, void *, void *, void *, void *
        ) noexcept nogil
        void (*batchnorm_inference)(
            const batchnorm_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            const void *, const void *, void *, void *
        ) noexcept nogil
        void (*batchnorm_backward)(
            const batchnorm_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            const void *, const void *, void *, void *, void *, void *
        ) noexcept nogil
        void (*groupnorm_forward)(
            const groupnorm_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            void *, void *, void *, void *
        ) noexcept nogil
        void (*groupnorm_backward)(
            const groupnorm_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            const void *, const void *, void *, void *, void *, void *
        ) noexcept nogil
        void (*scale_forward)(
            const image_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            void *, void *
        ) noexcept nogil
        void (*scale_backward)(
            const image_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            void *, void *, void *, void *
        ) noexcept nogil
        void (*lrn_forward)(const lrn_shape *, int, ptrdiff_t, const void *, void *, void *) noexcept nogil
        void (*lrn_backward)(
            const lrn_shape *, int, ptrdiff_t, const void *, const void *, void *, void *
        ) noexcept nogil
        void (*dropout)(
            const image_shape *, int, ptrdiff_t, double, int, uint64_t, const void *, void *
        ) noexcept nogil
        void (*prepare_images)(
            const prepare_shape *, int, ptrdiff_t, const prepare_arrays *, void *
        ) noexcept nogil
        void (*import_images)(const image_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        void (*export_images)(const image_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        double (*loss_forward)(
            const loss_settings *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, const int64_t *,
            void *, ptrdiff_t *
        ) noexcept nogil
        void (*loss_backward)(
            const loss_settings *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, const int64_t *,
            void *
        ) noexcept nogil
        double (*update)(
            const update_settings *, int, ptrdiff_t, const update_arrays *
        ) noexcept nogil
        double (*add_l1_gradient)(int, ptrdiff_t, double, const void *, void *, double *) noexcept nogil
        double (*fma_burst)(int, ptrdiff_t) noexcept nogil
        double (*read_burst)(int, ptrdiff_t, ptrdiff_t, const void *) noexcept nogil
        double (*copy_burst)(int, ptrdiff_t, ptrdiff_t, const void *, void *) noexcept nogil

    ctypedef enum instruction_set:
        pass

    int LINE_BYTES
    int update_block "UPDATE_BLOCK"
    const char *isa_name(instruction_set)
    instruction_set isa_best()
    const char *compiler_name()
    const kernel_table *kernels_for(instruction_set, int)


LINE = LINE_BYTES
UPDATE_BLOCK = update_block


def instruction_sets():
    """The names of the instruction sets this processor can run, the best one last."""
    return [isa_name(<instruction_set>isa).decode() for isa in range(<int>isa_best() + 1)]


def compiler():
    """What compiled the kernels, with its version."""
    return compiler_name().decode()


cdef void *address(object array, bint writable) except? NULL:
    """Where a contiguous buffer lies; its owner keeps it alive during the call."""
    cdef Py_buffer view
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
    cdef void *start = view.buf
    PyBuffer_Release(&view)
    return start


cdef inline const void *source(object array) except? NULL:
    return address(array, False)


cdef inline void *target(object array) except? NULL:
    return address(array, True)


cdef image_shape as_image(shape):
    cdef image_shape image
    image.H, image.W, image.C, image.pixel, image.image = shape
    return image


cdef window_shape as_window(window):
    cdef window_shape w
    w.kernel_h, w.kernel_w = window.kernel
    w.stride_h, w.stride_w = window.stride
    w.dilation_h, w.dilation_w = window.dilation
    w.pad_top = window.padding[0][0]
    w.pad_left, w.pad_right = window.padding[1]
    return w


cdef class Kernels:
    """The kernels of one instruction set (an index into `instruction_sets()`) and element type."""

    cdef const kernel_table *table
    cdef readonly int threads

    def __init__(self, int isa, bint is_double, int threads):
        self.table = kernels_for(<instruction_set>isa, is_double)
        self.threads = threads

    def activation_forward(self, int kind, double alpha, shape, ptrdiff_t n, x, y):
        cdef image_shape image = as_image(shape)
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        with nogil:
            self.table.activation_forward(<activation_kind>kind, alpha, &image, self.threads, n, from_, to)

    def activation_backward(self, int kind, double alpha, shape, ptrdiff_t n, dy, x_or_y, dx):
        cdef image_shape image = as_image(shape)
        cdef const void *gradient = source(dy)
        cdef const void *known = source(x_or_y)
        cdef void *to = target(dx)
        with nogil:
            self.table.activation_backward(
                <activation_kind>kind, alpha, &image, self.threads, n, gradient, known, to)

    def dropout(self, shape, ptrdiff_t n, double rate, bint spatial, uint64_t key, x, y):
        cdef image_shape image = as_image(shape)
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        with nogil:
            self.table.dropout(&image, self.threads, n, rate, spatial, key, from_, to)

    def prepare_images(self, shape, ptrdiff_t n, pixels, bint bytes, chosen, int padding, moves, tones,
                       holes, scale, shift, out):
        """Chosen images of a data set, changed and normalised, into rows of `out`."""
        cdef prepare_shape s
        cdef prepare_arrays a
        s.image, s.bytes, s.padding = as_image(shape), bytes, padding
        a.pixels = source(pixels)
        a.chosen = <const int64_t *>source(chosen)
        a.moves, a.holes = <const int32_t *>source(moves), <const int32_t *>source(holes)
        a.tones = <const double *>source(tones)
        a.scale, a.shift = source(scale), source(shift)
        cdef void *to = target(out)
        with nogil:
            self.table.prepare_images(&s, self.threads, n, &a, to)

    def import_images(self, shape, ptrdiff_t n, nchw, nhwc):
        cdef image_shape image = as_image(shape)
        cdef const void *from_ = source(nchw)
        cdef void *to = target(nhwc)
        with nogil:
            self.table.import_images(&image, self.threads, n, from_, to)

    def export_images(self, shape, ptrdiff_t n, nhwc, nchw):
        cdef image_shape image = as_image(shape)
        cdef const void *from_ = source(nhwc)
        cdef void *to = target(nchw)
        with nogil:
            self.table.export_images(&image, self.threads, n, from_, to)

    def loss_forward(
        self, int kind, double smoothing, double margin, weights,
        ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, scores, labels, p,
    ):
        """Returns (mean loss, correct); fills p for cross-entropy. Labels are int64."""
        cdef loss_settings settings = loss_settings(kind, smoothing, margin, source(weights))
        cdef const void *from_ = source(scores)
        cdef const int64_t *label = <const int64_t *>source(labels)
        cdef void *to = target(p)
        cdef ptrdiff_t correct
        cdef double loss
        with nogil:
            loss = self.table.loss_forward(
                &settings, self.threads, n, classes, row, from_, label, to, &correct)
        return loss, correct

    def loss_backward(
        self, int kind, double smoothing, double margin, weights,
        ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, p, labels, dscores,
    ):
        """Fills dscores, from p for cross-entropy and from the scores for other losses."""
        cdef loss_settings settings = loss_settings(kind, smoothing, margin, source(weights))
        cdef const void *from_ = source(p)
        cdef const int64_t *label = <const int64_t *>source(labels)
        cdef void *to = target(dscores)
        with nogil:
            self.table.loss_backward(&settings, self.threads, n, classes, row, from_, label, to)

    def update(
        self, int kind, ptrdiff_t count, w, dw, slots, sums, *, double lr=0, double l2=0,
        double weight_decay=0, double momentum=0, double dampening=0, double beta1=0, double beta2=0,
        double eps=0, bint nesterov=False, int64_t step=1
    ):
        """One step on `count` elements; returns the sum of w^2 before it, or NaN. A slot may be None."""
        cdef update_settings settings = update_settings(
            <update_kind>kind, nesterov, step, lr, l2, weight_decay, momentum, dampening, beta1, beta2, eps)
        cdef update_arrays a
        a.w, a.dw, a.sums = target(w), source(dw), <double *>target(sums)
        cdef int i
        for i in range(3):
            a.slots[i] = target(slots[i]) if i < len(slots) else NULL
        cdef double total
        with nogil:
            total = self.table.update(&settings, self.threads, count, &a)
        return total

    def add_l1_gradient(self, ptrdiff_t count, double l1, w, dw, sums):
        """dw + l1 sign(w); returns the sum of |w|."""
        cdef const void *weights = source(w)
        cdef void *gradient = target(dw)
        cdef double *parts = <double *>target(sums)
        cdef double total
        with nogil:
            total = self.table.add_l1_gradient(self.threads, count, l1, weights, gradient, parts)
        return total

    def fma_burst(self, ptrdiff_t rounds):
        """Returns the floating-point operations done."""
        cdef double done
        with nogil:
            done = self.table.fma_burst(self.threads, rounds)
        return done

    def read_burst(self, ptrdiff_t rounds, ptrdiff_t count, x):
        """Reads the first `count` elements of x so often; returns the bytes read."""
        cdef const void *from_ = source(x)
        cdef double done
        with nogil:
            done = self.table.read_burst(self.threads, rounds, count, from_)
        return done

    def copy_burst(self, ptrdiff_t rounds, ptrdiff_t count, x, y):
        """Copies the first `count` elements of x to y so often; returns the bytes read and written."""
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        cdef double done
        with nogil:
            done = self.table.copy_burst(self.threads, rounds, count, from_, to)
        return done


cdef class ConvKernel:
    """Convolution and what is fused behind it, for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef conv_shape shape

    def __init__(self, Kernels kernels, x, z, y, window, pool, *, int groups, int activation,
                 double alpha, int pooling, bint norm, bint residual, bint exact, double eps,
                 double momentum):
        self.kernels = kernels
        self.shape.x, self.shape.z, self.shape.y = as_image(x), as_image(z), as_image(y)
        self.shape.window = as_window(window)
        if pool is not None:
            self.shape.pool = as_window(pool)
        self.shape.groups = groups
        self.shape.activation = <activation_kind>activation
        self.shape.alpha = alpha
        self.shape.pooling = <pool_kind>pooling
        self.shape.norm, self.shape.residual, self.shape.exact = norm, residual, exact
        self.shape.eps, self.shape.momentum = eps, momentum

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n images needs."""
        return self.kernels.table.conv_scratch(&self.shape, n, self.kernels.threads)

    cdef conv_arrays gather(self, arrays) except *:
        """The members of conv_arrays by their names; what is missing becomes NULL."""
        cdef conv_arrays a
        a.x, a.w, a.b = source(arrays["x"]), source(arrays["w"]), source(arrays.get("b"))
        a.gamma, a.beta = source(arrays.get("gamma")), source(arrays.get("beta"))
        a.r = source(arrays.get("r"))
        a.running_mean, a.running_var = target(arrays.get("running_mean")), target(arrays.get("running_var"))
        a.z, a.mean, a.var = target(arrays.get("z")), target(arrays.get("mean")), target(arrays.get("var"))
        a.y = target(arrays["y"])
        a.index = <tap_index *>target(arrays.get("index"))
        a.scratch = target(arrays["scratch"])
        return a

    def forward(self, ptrdiff_t n, bint training, arrays):
        cdef conv_arrays a = self.gather(arrays)
        with nogil:
            self.kernels.table.conv_forward(&self.shape, self.kernels.threads, n, training, &a)

    def backward(self, ptrdiff_t n, arrays, gradients, bint accumulate):
        cdef conv_arrays a = self.gather(arrays)
        cdef conv_gradients g
        g.dy, g.dx, g.dw = source(gradients["dy"]), target(gradients.get("dx")), target(gradients["dw"])
        g.db = target(gradients.get("db"))
        g.dgamma, g.dbeta = target(gradients.get("dgamma")), target(gradients.get("dbeta"))
        g.dr, g.accumulate = target(gradients.get("dr")), accumulate
        with nogil:
            self.kernels.table.conv_backward(&self.shape, self.kernels.threads, n, &a, &g)


cdef class LinearKernel:
    """A fully connected layer and ReLU for fixed extents and any number of rows."""

    cdef Kernels kernels
    cdef linear_shape shape

    def __init__(self, Kernels kernels, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t row, bint relu):
        self.kernels = kernels
        self.shape.in_, self.shape.out, self.shape.y_row, self.shape.relu = inputs, outputs, row, relu

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n rows needs."""
        return self.kernels.table.linear_scratch(&self.shape, n, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, w, b, y, scratch):
        cdef const void *from_ = source(x)
        cdef const void *weight = source(w)
        cdef const void *bias = source(b)
        cdef void *to = target(y)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.linear_forward(&self.shape, self.kernels.threads, n, from_, weight, bias, to,
                                              work)

    def backward(self, ptrdiff_t n, dy, x, w, y, dx, dw, db, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef const void *weight = source(w)
        cdef const void *output = source(y)
        cdef void *to = target(dx)
        cdef void *weight_gradient = target(dw)
        cdef void *bias_gradient = target(db)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.linear_backward(&self.shape, self.kernels.threads, n, gradient, from_, weight,
                                               output, to, weight_gradient, bias_gradient, work)


cdef class PoolKernel:
    """Max and average pooling for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef pool_shape shape

    def __init__(self, Kernels kernels, x, y, window):
        self.kernels = kernels
        self.shape.x, self.shape.y, self.shape.window = as_image(x), as_image(y), as_window(window)

    def max_forward(self, ptrdiff_t n, x, y, index):
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        cdef tap_index *winners = <tap_index *>target(index)
        with nogil:
            self.kernels.table.maxpool_forward(&self.shape, self.kernels.threads, n, from_, to, winners)

    def max_backward(self, ptrdiff_t n, dy, index, dx):
        cdef const void *gradient = source(dy)
        cdef const tap_index *winners = <const tap_index *>source(index)
        cdef void *to = target(dx)
        with nogil:
            self.kernels.table.maxpool_backward(&self.shape, self.kernels.threads, n, gradient, winners, to)

    def average_forward(self, ptrdiff_t n, x, y):
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        with nogil:
            self.kernels.table.avgpool_forward(&self.shape, self.kernels.threads, n, from_, to)

    def average_backward(self, ptrdiff_t n, dy, dx):
        cdef const void *gradient = source(dy)
        cdef void *to = target(dx)
        with nogil:
            self.kernels.table.avgpool_backward(&self.shape, self.kernels.threads, n, gradient, to)


cdef class BatchNormKernel:
    """Batch normalisation for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef batchnorm_shape shape

    def __init__(self, Kernels kernels, x, double eps, double momentum):
        self.kernels = kernels
        self.shape.x, self.shape.eps, self.shape.momentum = as_image(x), eps, momentum

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n images needs."""
        return self.kernels.table.batchnorm_scratch(&self.shape, n, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, gamma, beta, y, mean, var, running_mean, running_var, scratch):
        """Fills y, mean and var; moves the running statistics."""
        cdef const void *from_ = source(x)
        cdef const void *scale = source(gamma)
        cdef const void *shift = source(beta)
        cdef void *to = target(y)
        cdef void *batch_mean = target(mean)
        cdef void *batch_var = target(var)
        cdef void *moved_mean = target(running_mean)
        cdef void *moved_var = target(running_var)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.batchnorm_forward(
                &self.shape, self.kernels.threads, n, from_, scale, shift, to, batch_mean, batch_var,
                moved_mean, moved_var, work)

    def inference(self, ptrdiff_t n, x, gamma, beta, mean, var, y, scratch):
        cdef const void *from_ = source(x)
        cdef const void *scale = source(gamma)
        cdef const void *shift = source(beta)
        cdef const void *fixed_mean = source(mean)
        cdef const void *fixed_var = source(var)
        cdef void *to = target(y)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.batchnorm_inference(
                &self.shape, self.kernels.threads, n, from_, scale, shift, fixed_mean, fixed_var, to, work)

    def backward(self, ptrdiff_t n, dy, x, gamma, mean, var, dx, dgamma, dbeta, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef const void *scale = source(gamma)
        cdef const void *batch_mean = source(mean)
        cdef const void *batch_var = source(var)
        cdef void *to = target(dx)
        cdef void *scale_gradient = target(dgamma)
        cdef void *shift_gradient = target(dbeta)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.batchnorm_backward(
                &self.shape, self.kernels.threads, n, gradient, from_, scale, batch_mean, batch_var, to,
                scale_gradient, shift_gradient, work)


cdef class GroupNormKernel:
    """Group normalisation for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef groupnorm_shape shape

    def __init__(self, Kernels kernels, x, ptrdiff_t groups, double eps):
        self.kernels = kernels
        self.shape.x, self.shape.groups, self.shape.eps = as_image(x), groups, eps

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n images needs."""
        return self.kernels.table.groupnorm_scratch(&self.shape, n, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, gamma, beta, y, mean, var, scratch):
        """Fills y, mean and var."""
        cdef const void *from_ = source(x)
        cdef const void *scale = source(gamma)
        cdef const void *shift = source(beta)
        cdef void *to = target(y)
        cdef void *image_mean = target(mean)
        cdef void *image_var = target(var)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.groupnorm_forward(
                &self.shape, self.kernels.threads, n, from_, scale, shift, to, image_mean, image_var, work)

    def backward(self, ptrdiff_t n, dy, x, gamma, mean, var, dx, dgamma, dbeta, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef const void *scale = source(gamma)
        cdef const void *image_mean = source(mean)
        cdef const void *image_var = source(var)
        cdef void *to = target(dx)
        cdef void *scale_gradient = target(dgamma)
        cdef void *shift_gradient = target(dbeta)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.groupnorm_backward(
                &self.shape, self.kernels.threads, n, gradient, from_, scale, image_mean, image_var, to,
                scale_gradient, shift_gradient, work)


cdef class ScaleKernel:
    """A factor and an offset for each channel, for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef image_shape shape

    def __init__(self, Kernels kernels, x):
        self.kernels, self.shape = kernels, as_image(x)

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n images needs."""
        return self.kernels.table.scale_scratch(&self.shape, n, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, w, b, y, scratch):
        cdef const void *from_ = source(x)
        cdef const void *factor = source(w)
        cdef const void *offset = source(b)
        cdef void *to = target(y)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.scale_forward(
                &self.shape, self.kernels.threads, n, from_, factor, offset, to, work)

    def backward(self, ptrdiff_t n, dy, x, w, dx, dw, db, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef const void *factor = source(w)
        cdef void *to = target(dx)
        cdef void *factor_gradient = target(dw)
        cdef void *offset_gradient = target(db)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.scale_backward(
                &self.shape, self.kernels.threads, n, gradient, from_, factor, to, factor_gradient,
                offset_gradient, work)


cdef class LrnKernel:
    """Local response normalisation for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef lrn_shape shape

    def __init__(self, Kernels kernels, x, ptrdiff_t size, double alpha, double beta, double k):
        self.kernels = kernels
        self.shape.x, self.shape.size = as_image(x), size
        self.shape.alpha, self.shape.beta, self.shape.k = alpha, beta, k

    def scratch(self):
        """Reals of scratch that a call needs."""
        return self.kernels.table.lrn_scratch(&self.shape, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, y, scratch):
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.lrn_forward(&self.shape, self.kernels.threads, n, from_, to, work)

    def backward(self, ptrdiff_t n, dy, x, dx, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef void *to = target(dx)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.lrn_backward(&self.shape, self.kernels.threads, n, gradient, from_, to, work)
