/* Chooses, while running, the kernels of the best instruction set this processor has. */
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

extern const kernel_table kernels_baseline_f32, kernels_baseline_f64, kernels_v3_f32, kernels_v3_f64,
    kernels_v4_f32, kernels_v4_f64;

static const kernel_table *const tables[ISA_COUNT][2] = {
    [ISA_BASELINE] = {&kernels_baseline_f32, &kernels_baseline_f64},
    [ISA_V3] = {&kernels_v3_f32, &kernels_v3_f64},
    [ISA_V4] = {&kernels_v4_f32, &kernels_v4_f64},
};

const char *isa_name(instruction_set isa) {
    static const char *const names[ISA_COUNT] = {"x86-64", "x86-64-v3", "x86-64-v4"};
    return names[isa];
}

/* The part of x86-64-v3 that not every compiler's __builtin_cpu_supports knows by name. */
static int has_rest_of_v3(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_MOVBE) && (c & bit_F16C) &&
           __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT);
}

instruction_set isa_best(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt") || !has_rest_of_v3())
        return ISA_BASELINE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return ISA_V3;
    return ISA_V4;
}

#else /* one build, for whatever the compiler targets */

extern const kernel_table kernels_baseline_f32, kernels_baseline_f64;

static const kernel_table *const tables[1][2] = {{&kernels_baseline_f32, &kernels_baseline_f64}};

const char *isa_name(instruction_set isa) {
    (void)isa;
#if defined(__aarch64__)
    return "aarch64";
#else
    return "generic";
#endif
}

instruction_set isa_best(void) { return ISA_BASELINE; }

#endif

#if defined(__clang__)
const char *compiler_name(void) { return "Clang " __clang_version__; }
#else
const char *compiler_name(void) { return "GCC " __VERSION__; }
#endif

const kernel_table *kernels_for(instruction_set isa, int is_double) { return tables[isa][is_double != 0]; }
