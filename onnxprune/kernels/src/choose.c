/* Which kernels to run. */
#include <stdlib.h>
#include <string.h>

#include "sparse.h"

const kernel_set *choose_kernels(void) {
#if defined(__x86_64__)
    const char *asked = getenv("ONNXPRUNE_KERNELS");
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (asked && !strcmp(asked, "128"))
        return &kernels_128;
    if (avx2 && asked && !strcmp(asked, "avx2"))
        return &kernels_avx2;
    return avx512 ? &kernels_avx512 : avx2 ? &kernels_avx2 : &kernels_128;
#else
    return &kernels_128;
#endif
}
