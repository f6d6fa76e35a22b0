/* Elementary functions on vectors, a few units in the last place from the truth.
 *
 * Infinities give limits, NaN stays NaN, and what a real cannot tell from zero or one is
 * exactly that. No tables, no branches. Coefficients are minimax, one set an element type.
 */
#ifndef CNNCTL_ELEMENTARY_H
#define CNNCTL_ELEMENTARY_H

#include "tiles.h"

#if REAL_BITS == 64
#define SIGNIFICAND_BITS 52
#define EXPONENT_BIAS 1023
#define LN2_HIGH 6.93147180369123816490e-01 /* few enough bits that its multiples are exact */
#define LN2_LOW 1.90821492927058770002e-10
#define EXPONENTIAL_LIMIT 746.0 /* e^x is 0 or infinite beyond */
#define TANH_LIMIT 20.0         /* tanh is 1 beyond */
#define EXPM1_LIMIT 40.0        /* e^-x - 1 is -1 beyond */
#define NORMAL_LIMIT 39.0       /* the normal distribution's tail is 0 beyond */
#else
#define SIGNIFICAND_BITS 23
#define EXPONENT_BIAS 127
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXPONENTIAL_LIMIT 104.0f
#define TANH_LIMIT 10.0f
#define EXPM1_LIMIT 20.0f
#define NORMAL_LIMIT 15.0f
#endif
#define LOG2_E ((real)1.44269504088896340736)
#define EXPONENT_ONE ((real_int)1 << SIGNIFICAND_BITS)
#define SIGN_BIT ((real_int)((uint64_t)1 << (REAL_BITS - 1)))
/* The low half of a significand: squares of numbers without it are exact. */
#define LOW_BITS (((real_int)1 << (SIGNIFICAND_BITS / 2 + 1)) - 1)
/* Adding it leaves an integer in a real's last bits. */
#define INTEGER_SHIFT ((real)(3 * (EXPONENT_ONE / 2)))

/* Coefficients from the constant term up. */
#define POLYNOMIAL(x, ...)                                                                                   \
    evaluate_polynomial(x, (const real[]){__VA_ARGS__}, sizeof((const real[]){__VA_ARGS__}) / sizeof(real))

INLINE vec evaluate_polynomial(vec x, const real *coefficients, const ptrdiff_t count) {
    vec sum = fill(coefficients[count - 1]);
    UNROLLED (i, count - 1)
        sum = sum * x + coefficients[count - 2 - i];
    return sum;
}

INLINE real square_root(real x) {
#if REAL_BITS == 64
    return sqrt(x);
#else
    return sqrtf(x);
#endif
}

#if REAL_BITS == 64
typedef uint64_t unsigned_mask __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef uint32_t unsigned_mask __attribute__((vector_size(VECTOR_BYTES)));
#endif

INLINE vec magnitude(vec x) { return (vec)((mask)x & ~SIGN_BIT); }
INLINE vec limit_to(vec x, real highest) { return choose((mask)(x > highest), fill(highest), x); }
INLINE vec round_vector(vec x) { return (x + INTEGER_SHIFT) - INTEGER_SHIFT; }

/* 2^n for integers n; the result is normal. */
INLINE vec power_of_two(vec n) {
    return (vec)((mask)(n + (INTEGER_SHIFT + EXPONENT_BIAS)) << SIGNIFICAND_BITS);
}

/* e^x - 1 for |x| <= ln 2 / 2. */
INLINE vec expm1_near_zero(vec x) {
#if REAL_BITS == 64
    vec rest =
        POLYNOMIAL(x, 0.50000000000000039, 0.16666666666666684, 0.041666666666586697, 0.0083333333333158755,
                   0.0013888888929147554, 0.00019841269900510915, 2.4801507612788889e-5,
                   2.7557230014824612e-6, 2.7625253094054998e-7, 2.5113870438369826e-8);
#else
    vec rest = POLYNOMIAL(x, 0.500000006f, 0.16666543f, 0.041666282f, 0.00836658394f, 0.00139464523f);
#endif
    return x + x * x * rest;
}

/* e^(x + rest) for |x| <= EXPONENTIAL_LIMIT; x may be too short to hold the rest. */
INLINE vec bounded_exponential(vec x, vec rest) {
    vec n = round_vector((x + rest) * LOG2_E), half = round_vector(n * (real)0.5);
    vec result = 1 + expm1_near_zero(x - n * LN2_HIGH - n * LN2_LOW + rest);
    /* Two factors, since 2^n alone may be subnormal or infinite. */
    return result * power_of_two(half) * power_of_two(n - half);
}

INLINE vec exponential(vec x) {
    x = -limit_to(-limit_to(x, EXPONENTIAL_LIMIT), EXPONENTIAL_LIMIT);
    return bounded_exponential(x, (vec){0});
}

/* x^-1/4 for normal x > 0: a guess in the exponent, wrong by a thirtieth, and two steps of fourth order. */
INLINE vec inverse_fourth_root(vec x) {
    const real_int guess = REAL_BITS == 64 ? (real_int)0x4feb0c0c00000000 : (real_int)0x4f586060;
    vec root = (vec)(guess - (mask)((unsigned_mask)x >> 2));
    UNROLLED (step, 2) {
        vec square = root * root, rest = 1 - x * square * square;
        root += root * rest * POLYNOMIAL(rest, 0.25f, 0.15625f, 0.1171875f);
    }
    return choose((mask)(x == (real)HUGE_VAL), (vec){0}, root);
}

/* ln x for normal x > 0; infinity stays. */
INLINE vec logarithm(vec x) {
    /* x = 2^n (1 + f), with 1 + f from sqrt(1/2) to sqrt(2); ln(1 + f) = 2 artanh(s). */
    const real_int root = REAL_BITS == 64 ? (real_int)0x3fe6a09e667f3bcd : (real_int)0x3f3504f3;
    mask exponent = ((mask)x - root) & -EXPONENT_ONE;
    vec n = __builtin_convertvector(exponent, vec) / (real)EXPONENT_ONE;
    vec f = (vec)((mask)x - exponent) - 1, s = f / (2 + f), square = s * s;
#if REAL_BITS == 64
    vec rest = POLYNOMIAL(square, 0.66666666666666697, 0.39999999999898447, 0.28571428626398656,
                          0.22222211072894534, 0.18182893216800716, 0.1533159698024087, 0.14617872803129472);
#else
    vec rest = POLYNOMIAL(square, 0.666666853f, 0.399887166f, 0.295821509f);
#endif
    vec result = n * LN2_HIGH + (f - s * (f - square * rest) + n * LN2_LOW);
    return choose((mask)(x < (real)HUGE_VAL), result, x);
}

INLINE vec hyperbolic_tangent(vec x) {
    vec twice = 2 * limit_to(magnitude(x), TANH_LIMIT), n = round_vector(twice * LOG2_E);
    vec scale = power_of_two(n);
    /* (e^2x - 1) / (e^2x + 1), with e^2x - 1 exact near zero too. */
    vec expm1 = scale * expm1_near_zero(twice - n * LN2_HIGH - n * LN2_LOW) + (scale - 1);
    return (vec)((mask)(expm1 / (expm1 + 2)) | ((mask)x & SIGN_BIT));
}

INLINE vec logistic_sigmoid(vec x) {
    vec e = bounded_exponential(-limit_to(magnitude(x), EXPONENTIAL_LIMIT), (vec){0});
    return choose((mask)(x < (vec){0}), e, fill(1)) / (1 + e);
}

/* The tail and the density of the normal distribution, sqrt(2 pi) times too dense, at a >= 0:
 * tail = e^(-a^2/2) r(a), r smooth and about 1/a for large a. Source of the form: Shepherd, Laframboise 1981.
 */
INLINE vec normal_tail(vec a, vec *density) {
    vec high = (vec)((mask)a & ~LOW_BITS);
    *density = bounded_exponential((real)-0.5 * high * high, (real)-0.5 * (a - high) * (a + high));
    vec u = 5 / (5 + a);
#if REAL_BITS == 64
    vec ratio = POLYNOMIAL(
        1 - 2 * u, 0.15383860995001259, -0.13307650057801132, 0.0990611231939954, -0.062706631334263147,
        0.033004073234072313, -0.013823727741190385, 0.0041590133600484419, -0.00059867535513932646,
        -0.00015957388029580991, 0.0001089798211745508, -1.1875142256866349e-5, -9.9526020506585536e-6,
        3.3362289671117743e-6, 7.9629825400576879e-7, -5.5381103801810241e-7, -6.7548633847069104e-8,
        8.6537277619183082e-8, 8.7224729985827553e-9, -1.3063956921463928e-8, -2.0421787411716694e-9,
        1.4363902285872726e-9, 4.0278195212993632e-10);
#else
    vec ratio =
        POLYNOMIAL(1 - 2 * u, 0.153838608f, -0.133076499f, 0.0990612875f, -0.0627067136f, 0.0330013153f,
                   -0.0138238406f, 0.00417482166f, -0.000590824992f, -0.000191960855f, 8.19548918e-5f);
#endif
    return *density * (u * ratio);
}

#endif
