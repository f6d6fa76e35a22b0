/* Winograd's minimal filtering F(4x4, 3x3) for convolutions of 3x3, stride 1, dilation 1, one group.
 *
 * A product is "image (*) filters", as forward and the flipped input gradient share it. Images lie as
 * kernels.h says, their pixels padded to LANES or not at all. In float32 errors reach 8e-6 of the largest
 * output, twenty times the direct kernels'. A NaN or infinity spreads over all 4x4 tiles of outputs that
 * depend on it, never to another image or into padding channels. An image's outputs do not depend on the
 * images it shares a call with. Nothing here is threaded: callers cut the batch by shape.
 */
#ifndef CNNCTL_WINOGRAD_H
#define CNNCTL_WINOGRAD_H

#include "tiles.h"

typedef struct {
    image_shape x, y;
    ptrdiff_t top, left; /* zeros above and to the left of x; beyond its other edges are zeros too */
    int relu;            /* y = max(y, 0); NaN stays */
    int accumulate;      /* add to what y holds (before the ReLU) instead of overwriting it */
} winograd_product;

/* Transformed filters, in reals, of a product from `depth` to `columns` channels. */
ptrdiff_t NAME(winograd_filters)(ptrdiff_t depth, ptrdiff_t columns);

/* Transform w [3][3][C][row], `row` >= F a multiple of LANES, for the product from C to F channels or,
 * flipped, for the input gradient's from F to C. A task below winograd_pack_tasks does its part of it. */
ptrdiff_t NAME(winograd_pack_tasks)(ptrdiff_t depth, ptrdiff_t columns);
void NAME(winograd_pack)(ptrdiff_t C, ptrdiff_t F, ptrdiff_t row, const real *w, int flipped, ptrdiff_t task,
                         real *filters);

/* Images that one call, forward or for the weight gradient, does well to take, and the scratch, in reals,
 * of any call. */
ptrdiff_t NAME(winograd_group)(const winograd_product *p, int gradient);
ptrdiff_t NAME(winograd_scratch)(const winograd_product *p);

/* y = x (*) filters + bias, with `bias` y.C reals or NULL. */
void NAME(winograd_forward)(const winograd_product *p, ptrdiff_t n, const real *x, const real *filters,
                            const real *bias, real *y, real *scratch);

/* dw [3][3][x.C][y.pixel] += the weight gradient of n images; dz lies as y does, padded to LANES. */
void NAME(winograd_gradient)(const winograd_product *p, ptrdiff_t n, const real *x, const real *dz, real *dw,
                             real *scratch);

#endif
