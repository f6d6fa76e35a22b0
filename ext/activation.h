/* Activations and their gradients, a vector at a time, for kernels of their own and for epilogues.
 *
 * `kind` is a constant once inlined, and `alpha` above 0 where it matters. Every activation of 0 is 0
 * but the sigmoid's, so padding channels stay zero except there: its callers clear them.
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

/* x where it is above 0, alpha x elsewhere. */
INLINE vec leaky_vector(real alpha, vec x) { return choose((mask)(x <= (vec){0}), alpha * x, x); }

/* alpha (e^x - 1) where x is below 0. */
INLINE vec elu_vector(real alpha, vec x) {
    vec bounded = -limit_to(-x, EXPM1_LIMIT), n = round_vector(bounded * LOG2_E);
    vec scale = power_of_two(n);
    vec expm1 = scale * expm1_near_zero(bounded - n * LN2_HIGH - n * LN2_LOW) + (scale - 1);
    return choose((mask)(x < (vec){0}), alpha * expm1, x);
}

/* s(a) and s(-a), s the logistic sigmoid, at a = |x|, limited to where s(-a) is 0. */
INLINE vec sigmoid_pair(vec x, vec *a, vec *other) {
    *a = limit_to(magnitude(x), EXPONENTIAL_LIMIT);
    vec e = bounded_exponential(-*a, (vec){0}), one = 1 / (1 + e);
    *other = e * one;
    return one;
}

/* x s(x); 0 at -infinity. */
INLINE vec silu_vector(vec x) {
    vec a, other, one = sigmoid_pair(x, &a, &other);
    return choose((mask)(x < (vec){0}), -a * other, x * one);
}

/* dy s(x) (1 + x s(-x)). */
INLINE vec silu_gradient(vec dy, vec x) {
    vec a, other, one = sigmoid_pair(x, &a, &other);
    return dy * choose((mask)(x < (vec){0}), other * (1 - a * one), one * (1 + a * other));
}

INLINE vec activate(const activation_kind kind, real alpha, vec x) {
    switch (kind) {
    case ACTIVATION_RELU:
        return relu_vector(x);
    case ACTIVATION_LEAKY_RELU:
        return leaky_vector(alpha, x);
    case ACTIVATION_TANH:
        return hyperbolic_tangent(x);
    case ACTIVATION_SIGMOID:
        return logistic_sigmoid(x);
    case ACTIVATION_ELU:
        return elu_vector(alpha, x);
    case ACTIVATION_GELU:
        return gelu_vector(x);
    case ACTIVATION_SILU:
        return silu_vector(x);
    default:
        return x;
    }
}

/* Whether the gradient is taken from the activation's input; for the others its output does. */
INLINE int needs_input(const activation_kind kind) { return kind >= ACTIVATION_GELU; }
/* dx from dy and x, or y where that does. */
INLINE vec activation_gradient(const activation_kind kind, real alpha, vec dy, vec x_or_y) {
    switch (kind) {
    case ACTIVATION_RELU:
        return relu_gradient(dy, x_or_y);
    case ACTIVATION_LEAKY_RELU:
        return choose((mask)(x_or_y <= (vec){0}), alpha * dy, dy);
    case ACTIVATION_TANH:
        return dy * ((1 - x_or_y) * (1 + x_or_y));
    case ACTIVATION_SIGMOID:
        return dy * (x_or_y * (1 - x_or_y));
    case ACTIVATION_ELU:
        return choose((mask)(x_or_y <= (vec){0}), dy * (x_or_y + alpha), dy);
    case ACTIVATION_GELU:
        return gelu_gradient(dy, x_or_y);
    case ACTIVATION_SILU:
        return silu_gradient(dy, x_or_y);
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
        ACTIVATION_CASE(ACTIVATION_LEAKY_RELU, __VA_ARGS__)                                                  \
        ACTIVATION_CASE(ACTIVATION_TANH, __VA_ARGS__)                                                        \
        ACTIVATION_CASE(ACTIVATION_SIGMOID, __VA_ARGS__)                                                     \
        ACTIVATION_CASE(ACTIVATION_ELU, __VA_ARGS__)                                                         \
        ACTIVATION_CASE(ACTIVATION_GELU, __VA_ARGS__)                                                        \
        ACTIVATION_CASE(ACTIVATION_SILU, __VA_ARGS__)                                                        \
    }

#endif
