#define BITS 128
#define KERNELS kernels_128
#define NAME "128"
#include "multiply.inc"
