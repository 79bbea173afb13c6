#define BITS 512
#define KERNELS kernels_avx512
#define NAME "avx512"
#include "multiply.inc"
