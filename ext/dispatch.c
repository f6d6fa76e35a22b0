/* Chooses, while running, the kernels of the best instruction set this processor has. */
#include "kernels.h"

#if defined(__x86_64__)

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

instruction_set isa_best(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return ISA_V4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
        return ISA_V3;
    return ISA_BASELINE;
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
