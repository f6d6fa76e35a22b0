/* Activations and their gradients, a vector at a time, for kernels of their own and for epilogues.
 *
 * `kind` is a constant once inlined. Every activation of 0 is 0 but the sigmoid's, so padding
 * channels stay zero except there: its callers clear them.
 */
#ifndef CNNCTL_ACTIVATION_H
#define CNNCTL_ACTIVATION_H

#include "elementary.h"

/* x Phi(x), Phi the normal distribution function; 0 at -infinity. */
INLINE vec gelu_vector(vec x) {
    vec a = magnitude(x), density;
    vec bounded = limit_to(a, NORMAL_LIMIT), tail = normal_tail(bounded, &density);
    return choose((mask)(x < (vec){0}), -bounded * tail, x * (1 - tail));
}

/* dy (Phi(x) + x phi(x)), phi the normal density. */
INLINE vec gelu_gradient(vec dy, vec x) {
    vec bounded = limit_to(magnitude(x), NORMAL_LIMIT), density, tail = normal_tail(bounded, &density);
    vec excess = bounded * density * (real)0.39894228040143267794 - tail; /* 1 / sqrt(2 pi) */
    return dy * choose((mask)(x < (vec){0}), -excess, 1 + excess);
}

INLINE vec activate(const activation_kind kind, vec x) {
    switch (kind) {
    case ACTIVATION_RELU:
        return relu_vector(x);
    case ACTIVATION_TANH:
        return hyperbolic_tangent(x);
    case ACTIVATION_SIGMOID:
        return logistic_sigmoid(x);
    case ACTIVATION_GELU:
        return gelu_vector(x);
    default:
        return x;
    }
}

/* dx from dy and, for GELU, the activation's input x; for the others its output y. */
INLINE vec activation_gradient(const activation_kind kind, vec dy, vec x_or_y) {
    switch (kind) {
    case ACTIVATION_RELU:
        return relu_gradient(dy, x_or_y);
    case ACTIVATION_TANH:
        return dy * ((1 - x_or_y) * (1 + x_or_y));
    case ACTIVATION_SIGMOID:
        return dy * (x_or_y * (1 - x_or_y));
    case ACTIVATION_GELU:
        return gelu_gradient(dy, x_or_y);
    default:
        return dy;
    }
}

/* Call function(kind, ...) with a constant kind. */
#define ACTIVATION_CASE(kind, function, ...)                                                                 \
    case kind:                                                                                               \
        function(kind, __VA_ARGS__);                                                                         \
        break;
#define DISPATCH_ACTIVATION(kind, ...)                                                                       \
    switch (kind) {                                                                                          \
        ACTIVATION_CASE(ACTIVATION_NONE, __VA_ARGS__)                                                        \
        ACTIVATION_CASE(ACTIVATION_RELU, __VA_ARGS__)                                                        \
        ACTIVATION_CASE(ACTIVATION_TANH, __VA_ARGS__)                                                        \
        ACTIVATION_CASE(ACTIVATION_SIGMOID, __VA_ARGS__)                                                     \
        ACTIVATION_CASE(ACTIVATION_GELU, __VA_ARGS__)                                                        \
    }

#endif
