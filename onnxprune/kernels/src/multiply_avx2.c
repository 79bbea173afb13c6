#define BITS 256
#define KERNELS kernels_avx2
#define NAME "avx2"
#include "multiply.inc"
