/* Transposition in registers, eight bytes as one element: a double, or two neighbouring floats.
 *
 * The network takes log2 steps and only moves bits; element types and NaN are no concern of it.
 */
#ifndef CNNCTL_TRANSPOSE_H
#define CNNCTL_TRANSPOSE_H

#include "tiles.h"

#define PAIR ((ptrdiff_t)(8 / sizeof(real))) /* reals in eight bytes */
#define PAIRS ((ptrdiff_t)(VECTOR_BYTES / 8))

typedef int64_t pair_vec __attribute__((vector_size(VECTOR_BYTES)));

/* Lanes of a and of b behind it, in the order of `list`, a constant in parentheses. */
#define UNWRAP(...) __VA_ARGS__
#ifdef __clang__
#define SHUFFLE(indices, a, b, list) __builtin_shufflevector(a, b, UNWRAP list)
#else
#define SHUFFLE(indices, a, b, list) __builtin_shuffle(a, b, (indices){UNWRAP list})
#endif

/* Swap the off-diagonal blocks of `size` in every block of twice that size. */
#define SWAP_BLOCKS(rows, size, low, high)                                                                   \
    UNROLLED (i, PAIRS)                                                                                      \
        if (!(i & (size))) {                                                                                 \
            pair_vec a = rows[i], b = rows[i + (size)];                                                      \
            rows[i] = SHUFFLE(pair_vec, a, b, low);                                                          \
            rows[i + (size)] = SHUFFLE(pair_vec, a, b, high);                                                \
        }

INLINE void transpose_pairs(pair_vec rows[PAIRS]){
#if VECTOR_BYTES == 64
    SWAP_BLOCKS(rows, 4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
        SWAP_BLOCKS(rows, 2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15))
            SWAP_BLOCKS(rows, 1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15))
#elif VECTOR_BYTES == 32
    SWAP_BLOCKS(rows, 2, (0, 1, 4, 5), (2, 3, 6, 7)) SWAP_BLOCKS(rows, 1, (0, 4, 2, 6), (1, 5, 3, 7))
#else
    SWAP_BLOCKS(rows, 1, (0, 2), (1, 3))
#endif
}

/* Leave in sums[0] the sum of each pair of sums[0], then of each pair of sums[1]; a double is its own. */
INLINE void add_pairs(vec sums[2]) {
#if REAL_BITS == 64
    (void)sums;
#else
    vec a = sums[0], b = sums[1];
#if VECTOR_BYTES == 64
    sums[0] = SHUFFLE(mask, a, b, (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)) +
              SHUFFLE(mask, a, b, (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
#elif VECTOR_BYTES == 32
    sums[0] =
        SHUFFLE(mask, a, b, (0, 2, 4, 6, 8, 10, 12, 14)) + SHUFFLE(mask, a, b, (1, 3, 5, 7, 9, 11, 13, 15));
#else
    sums[0] = SHUFFLE(mask, a, b, (0, 2, 4, 6)) + SHUFFLE(mask, a, b, (1, 3, 5, 7));
#endif
#endif
}

#endif
