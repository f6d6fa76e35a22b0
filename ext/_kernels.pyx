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
from libc.stdint cimport int64_t


cdef extern from "kernels.h" nogil:
    ctypedef struct image_shape:
        ptrdiff_t H, W, C, pixel, image

    ctypedef struct window_shape:
        ptrdiff_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w
        ptrdiff_t pad_top, pad_left, pad_right

    ctypedef struct conv_shape:
        image_shape x, z, y
        window_shape window, pool
        ptrdiff_t groups
        int relu, pooled

    ctypedef struct linear_shape:
        ptrdiff_t in_ "in", out, y_row
        int relu

    ctypedef struct maxpool_shape:
        image_shape x, y
        window_shape window

    ctypedef struct sgd_settings:
        double lr, momentum, l2
        int nesterov

    ctypedef struct adam_settings:
        double lr, beta1, beta2, eps, l2
        int64_t step

    ctypedef unsigned short tap_index

    ctypedef struct kernel_table:
        ptrdiff_t (*conv_scratch)(const conv_shape *, ptrdiff_t, int) noexcept nogil
        ptrdiff_t (*linear_scratch)(const linear_shape *, ptrdiff_t, int) noexcept nogil
        void (*conv_forward)(
            const conv_shape *, int, ptrdiff_t, const void *, const void *, const void *, void
            *, tap_index *, void *
        ) noexcept nogil
        void (*conv_backward)(
            const conv_shape *, int, ptrdiff_t, const void *, const void *, const void *,
            const void *, const tap_index *, void *, void *, void *, void *
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
            const maxpool_shape *, int, ptrdiff_t, const void *, void *, tap_index *
        ) noexcept nogil
        void (*maxpool_backward)(
            const maxpool_shape *, int, ptrdiff_t, const void *, const tap_index *, void *
        ) noexcept nogil
        void (*relu_forward)(int, ptrdiff_t, const void *, void *) noexcept nogil
        void (*relu_backward)(int, ptrdiff_t, const void *, const void *, void *) noexcept nogil
        void (*import_images)(const image_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        void (*export_images)(const image_shape *, int, ptrdiff_t, const void *, void *) noexcept nogil
        double (*softmax_forward)(
            ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, const int64_t *, void *, ptrdiff_t
            *
        ) noexcept nogil
        void (*softmax_backward)(
            ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, const int64_t *, void *
        ) noexcept nogil
        double (*sgd_update)(
            const sgd_settings *, int, ptrdiff_t, void *, const void *, void *, double *
        ) noexcept nogil
        double (*adam_update)(
            const adam_settings *, int, ptrdiff_t, void *, const void *, void *, void *,
            double *
        ) noexcept nogil

    ctypedef enum instruction_set:
        pass

    int LINE_BYTES
    int update_block "UPDATE_BLOCK"
    const char *isa_name(instruction_set)
    instruction_set isa_best()
    const kernel_table *kernels_for(instruction_set, int)


LINE = LINE_BYTES
UPDATE_BLOCK = update_block


def instruction_sets():
    """The names of the instruction sets this processor can run, the best one last."""
    return [isa_name(<instruction_set>isa).decode() for isa in range(<int>isa_best() + 1)]


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

    def relu_forward(self, ptrdiff_t count, x, y):
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        with nogil:
            self.table.relu_forward(self.threads, count, from_, to)

    def relu_backward(self, ptrdiff_t count, dy, y, dx):
        cdef const void *from_ = source(dy)
        cdef const void *output = source(y)
        cdef void *to = target(dx)
        with nogil:
            self.table.relu_backward(self.threads, count, from_, output, to)

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

    def softmax_forward(self, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, scores, labels, p):
        """Returns (mean loss, correct); fills p. Labels are int64."""
        cdef const void *from_ = source(scores)
        cdef const int64_t *label = <const int64_t *>source(labels)
        cdef void *to = target(p)
        cdef ptrdiff_t correct
        cdef double loss
        with nogil:
            loss = self.table.softmax_forward(n, classes, row, from_, label, to, &correct)
        return loss, correct

    def softmax_backward(self, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t row, p, labels, dscores):
        cdef const void *from_ = source(p)
        cdef const int64_t *label = <const int64_t *>source(labels)
        cdef void *to = target(dscores)
        with nogil:
            self.table.softmax_backward(n, classes, row, from_, label, to)

    def sgd_update(self, ptrdiff_t count, w, dw, velocity, sums, *, lr, momentum, nesterov, l2):
        cdef sgd_settings settings = sgd_settings(lr, momentum, l2, nesterov)
        cdef void *weight = target(w)
        cdef const void *gradient = source(dw)
        cdef void *slot = target(velocity)
        cdef double *sum_ = <double *>target(sums)
        cdef double total
        with nogil:
            total = self.table.sgd_update(&settings, self.threads, count, weight, gradient, slot, sum_)
        return total

    def adam_update(self, ptrdiff_t count, w, dw, m, v, sums, *, step, lr, beta1, beta2, eps, l2):
        cdef adam_settings settings = adam_settings(lr, beta1, beta2, eps, l2, step)
        cdef void *weight = target(w)
        cdef const void *gradient = source(dw)
        cdef void *first = target(m)
        cdef void *second = target(v)
        cdef double *sum_ = <double *>target(sums)
        cdef double total
        with nogil:
            total = self.table.adam_update(
                &settings, self.threads, count, weight, gradient, first, second, sum_)
        return total


cdef class ConvKernel:
    """Convolution, ReLU and max pool for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef conv_shape shape

    def __init__(self, Kernels kernels, x, z, y, window, pool, int groups, bint relu):
        self.kernels = kernels
        self.shape.x, self.shape.z, self.shape.y = as_image(x), as_image(z), as_image(y)
        self.shape.window = as_window(window)
        self.shape.pooled = pool is not None
        if pool is not None:
            self.shape.pool = as_window(pool)
        self.shape.groups = groups
        self.shape.relu = relu

    def scratch(self, ptrdiff_t n):
        """Reals of scratch that a call for n images needs."""
        return self.kernels.table.conv_scratch(&self.shape, n, self.kernels.threads)

    def forward(self, ptrdiff_t n, x, w, b, y, index, scratch):
        cdef const void *from_ = source(x)
        cdef const void *weight = source(w)
        cdef const void *bias = source(b)
        cdef void *to = target(y)
        cdef tap_index *winners = <tap_index *>target(index)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.conv_forward(&self.shape, self.kernels.threads, n, from_, weight, bias, to,
                                            winners, work)

    def backward(self, ptrdiff_t n, dy, x, w, y, index, dx, dw, db, scratch):
        cdef const void *gradient = source(dy)
        cdef const void *from_ = source(x)
        cdef const void *weight = source(w)
        cdef const void *output = source(y)
        cdef const tap_index *winners = <const tap_index *>source(index)
        cdef void *to = target(dx)
        cdef void *weight_gradient = target(dw)
        cdef void *bias_gradient = target(db)
        cdef void *work = target(scratch)
        with nogil:
            self.kernels.table.conv_backward(&self.shape, self.kernels.threads, n, gradient, from_, weight,
                                             output, winners, to, weight_gradient, bias_gradient, work)


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


cdef class MaxPoolKernel:
    """Max pooling for fixed extents and any number of images."""

    cdef Kernels kernels
    cdef maxpool_shape shape

    def __init__(self, Kernels kernels, x, y, window):
        self.kernels = kernels
        self.shape.x, self.shape.y, self.shape.window = as_image(x), as_image(y), as_window(window)

    def forward(self, ptrdiff_t n, x, y, index):
        cdef const void *from_ = source(x)
        cdef void *to = target(y)
        cdef tap_index *winners = <tap_index *>target(index)
        with nogil:
            self.kernels.table.maxpool_forward(&self.shape, self.kernels.threads, n, from_, to, winners)

    def backward(self, ptrdiff_t n, dy, index, dx):
        cdef const void *gradient = source(dy)
        cdef const tap_index *winners = <const tap_index *>source(index)
        cdef void *to = target(dx)
        with nogil:
            self.kernels.table.maxpool_backward(&self.shape, self.kernels.threads, n, gradient, winners, to)
