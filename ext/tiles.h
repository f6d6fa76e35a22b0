/* Vectors and the three register tiles that carry convolution and fully connected layers.
 *
 * Everything here is inlined with constant extents into the kernels of one instruction
 * set and one element type (REAL_BITS); vector length and tile heights follow from the
 * compiler's predefined macros. No tile knows what an image is.
 */
#ifndef CNNCTL_TILES_H
#define CNNCTL_TILES_H

#include "kernels.h"

#include <math.h>
#include <string.h>

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(function) PASTE(function, VARIANT) /* conv_forward -> conv_forward_v4_f32 */

#define DECLARE(function) extern typeof(*((kernel_table *)0)->function) NAME(function);
FOR_EACH_KERNEL(DECLARE)
extern const kernel_table NAME(kernels);

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_ROWS 14 /* 14 x 2 accumulators of 32 registers */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define TILE_ROWS 12
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE_ROWS 6 /* 6 x 2 of 16 registers */
#else
#define VECTOR_BYTES 16
#define TILE_ROWS 6
#endif

#if REAL_BITS == 64
typedef double real;
typedef int64_t real_int;
#else
typedef float real;
typedef int32_t real_int;
#endif
#define VLEN ((ptrdiff_t)(VECTOR_BYTES / sizeof(real)))
#define LANES ((ptrdiff_t)(LINE_BYTES / sizeof(real)))
#define TILE_VECTORS 2
#define PANEL (TILE_VECTORS * VLEN) /* columns of a packed panel */

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
/* Comparisons yield it: all bits of a lane set or clear. Also counts taps lane by lane. */
typedef real_int mask __attribute__((vector_size(VECTOR_BYTES)));
/* A vec in memory: at any address. */
typedef real loose_vec __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
/* for (i = 0; i < n; i++), written out: n is a constant once inlined. */
#define UNROLLED(i, n) _Pragma("GCC unroll 32") for (ptrdiff_t i = 0; i < (n); i++)

INLINE vec load(const real *from) { return *(const loose_vec *)from; }
INLINE void store(real *to, vec value) { *(loose_vec *)to = value; }
INLINE vec fill(real value) { return value - (vec){0}; }

/* a where the mask is set, else b. */
INLINE vec choose(mask which, vec a, vec b) { return (vec)(((mask)a & which) | ((mask)b & ~which)); }

INLINE ptrdiff_t at_most(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t at_least(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
INLINE ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
INLINE ptrdiff_t round_up(ptrdiff_t a, ptrdiff_t b) { return ceil_div(a, b) * b; }

/* All bits of the first `count` lanes, which may be none or all of them. */
INLINE mask first_lanes(ptrdiff_t count) {
    mask lane;
    UNROLLED (i, VLEN)
        lane[i] = (real_int)i;
    return lane < (real_int)at_least(0, at_most(VLEN, count));
}
INLINE vec select_lanes(vec value, mask keep) { return (vec)((mask)value & keep); }

/* max(x, 0); the comparison is false for NaN, so NaN stays. */
INLINE vec relu_vector(vec x) {
    mask negative = (mask)(x < (vec){0});
    return (vec)((mask)x & ~negative);
}

/* dy where y > 0 or y is NaN, else 0. */
INLINE vec relu_gradient(vec dy, vec y) {
    mask off = (mask)(y <= (vec){0});
    return (vec)((mask)dy & ~off);
}

/* Call tile(rows, vectors, ...) with constants, for rows 1..TILE_ROWS and vectors 1..2. */
#define TILE_CASE(rows, vectors, tile, ...)                                                                  \
    case (rows) * TILE_VECTORS + (vectors) - 1:                                                              \
        tile(rows, vectors, __VA_ARGS__);                                                                    \
        break;
#define TILE_CASES(rows, ...) TILE_CASE(rows, 1, __VA_ARGS__) TILE_CASE(rows, 2, __VA_ARGS__)
#if TILE_ROWS > 12
#define TILE_CASES_OVER_12(...) TILE_CASES(13, __VA_ARGS__) TILE_CASES(14, __VA_ARGS__)
#else
#define TILE_CASES_OVER_12(...)
#endif
#if TILE_ROWS > 6
#define TILE_CASES_OVER_6(...)                                                                               \
    TILE_CASES(7, __VA_ARGS__)                                                                               \
    TILE_CASES(8, __VA_ARGS__)                                                                               \
    TILE_CASES(9, __VA_ARGS__)                                                                               \
    TILE_CASES(10, __VA_ARGS__)                                                                              \
    TILE_CASES(11, __VA_ARGS__)                                                                              \
    TILE_CASES(12, __VA_ARGS__) TILE_CASES_OVER_12(__VA_ARGS__)
#else
#define TILE_CASES_OVER_6(...)
#endif
#define DISPATCH_TILE(rows, vectors, ...)                                                                    \
    switch ((rows) * TILE_VECTORS + (vectors) - 1) {                                                         \
        TILE_CASES(1, __VA_ARGS__)                                                                           \
        TILE_CASES(2, __VA_ARGS__)                                                                           \
        TILE_CASES(3, __VA_ARGS__)                                                                           \
        TILE_CASES(4, __VA_ARGS__)                                                                           \
        TILE_CASES(5, __VA_ARGS__)                                                                           \
        TILE_CASES(6, __VA_ARGS__)                                                                           \
        TILE_CASES_OVER_6(__VA_ARGS__)                                                                       \
    }

/* `total` rows in tiles of nearly equal height, none above TILE_ROWS. */
INLINE ptrdiff_t tile_start(ptrdiff_t total, ptrdiff_t tiles, ptrdiff_t tile) { return total * tile / tiles; }

/* Left matrices are addressed as a[row*step + ...]; rows 3j, 3j+1, 3j+2 share a base, since
 * x86 scales an index by 1 and 2 but has too few registers for a pointer a row. */
#define MAX_BASES ((TILE_ROWS + 2) / 3)
INLINE void set_bases(const ptrdiff_t rows, const real *bases[MAX_BASES], const real *a, ptrdiff_t step) {
    UNROLLED (j, (rows + 2) / 3)
        bases[j] = a + 3 * j * step;
}
INLINE real left(const real *const bases[MAX_BASES], ptrdiff_t row, ptrdiff_t step) {
    return row % 3 == 0 ? bases[row / 3][0] : row % 3 == 1 ? bases[row / 3][step] : bases[row / 3][2 * step];
}

/* NN: sums[i][v] += sum over k < depth of a[i*step + k] * b[k*PANEL + v*VLEN ...]. */
INLINE void accumulate_nn(const ptrdiff_t rows, const ptrdiff_t vectors, vec sums[TILE_ROWS][TILE_VECTORS],
                          const real *a, ptrdiff_t step, ptrdiff_t depth, const real *b) {
    const real *bases[MAX_BASES];
    set_bases(rows, bases, a, step);
    for (ptrdiff_t k = 0; k < depth; k++) {
        vec right[TILE_VECTORS];
        UNROLLED (v, vectors)
            right[v] = load(b + k * PANEL + v * VLEN);
        UNROLLED (i, rows) {
            vec broadcast = fill(left(bases, i, step));
            UNROLLED (v, vectors)
                sums[i][v] += broadcast * right[v];
        }
        UNROLLED (j, (rows + 2) / 3)
            bases[j]++;
    }
}

/* TN: sums[i][v] += sum over m < depth of a[m*a_step + i] * b[m*b_step + v*VLEN ...]. */
INLINE void accumulate_tn(const ptrdiff_t rows, const ptrdiff_t vectors, vec sums[TILE_ROWS][TILE_VECTORS],
                          const real *a, ptrdiff_t a_step, ptrdiff_t depth, const real *b, ptrdiff_t b_step) {
    for (ptrdiff_t m = 0; m < depth; m++) {
        vec right[TILE_VECTORS];
        UNROLLED (v, vectors)
            right[v] = load(b + m * b_step + v * VLEN);
        UNROLLED (i, rows) {
            vec broadcast = fill(a[m * a_step + i]);
            UNROLLED (v, vectors)
                sums[i][v] += broadcast * right[v];
        }
    }
}

/* A row of PANEL: `columns` of b, zeros behind them. */
INLINE void pack_panel(ptrdiff_t columns, const real *b, real *panel) {
    memcpy(panel, b, (size_t)columns * sizeof(real));
    memset(panel + columns, 0, (size_t)(PANEL - columns) * sizeof(real));
}

#endif
