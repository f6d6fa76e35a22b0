/* The function table of one instruction set and element type. */
#include "tiles.h"

#define ENTRY(name) .name = NAME(name),

const kernel_table NAME(kernels) = {FOR_EACH_KERNEL(ENTRY)};
