/* A sparse matrix as the kernels read it, and the kernels for each instruction set. */
#ifndef ONNXPRUNE_SPARSE_H
#define ONNXPRUNE_SPARSE_H

#include <stddef.h>
#include <stdint.h>

enum { K_BLOCK = 256, PAD = 2, WIDEST = 64 };

/* Weights of rows outputs by columns inputs, in cells of K_BLOCK columns by row_block rows. Inside a cell rows stand
 * by falling count, each filled up to a multiple of PAD entries; an entry is the place of a column in its block and
 * a value. Cells of a block of rows follow each other. */
typedef struct {
    int64_t rows, columns;
    int row_block, row_blocks, column_blocks;
    size_t entries;
    uint8_t *places;  /* entries */
    float *values;    /* entries */
    uint16_t *row_of; /* column_blocks * rows: the rows of each cell by falling count, counted in their block */
    uint16_t *counts; /* the same: their entries */
    size_t *cells;    /* row_blocks * column_blocks + 1: first entry of each cell */
} sparse_matrix;

/* NULL where memory is short. Element (row, column) is weights[row * row_step + column * column_step]. */
sparse_matrix *sparse_pack(const float *weights, int64_t rows, int64_t columns, int64_t row_step,
                           int64_t column_step);
void sparse_free(sparse_matrix *matrix);

static inline int rows_in(const sparse_matrix *m, int block) {
    int64_t left = m->rows - (int64_t)block * m->row_block;
    return (int)(left < m->row_block ? left : m->row_block);
}

/* The kernels of one instruction set. Inputs are worked on in tiles of up to WIDEST of them side by side. */
typedef struct {
    const char *name;
    /* How wide a tile is best for so many inputs that are left, at so many entries a row of a cell. */
    int (*width)(int64_t inputs);
    /* Turn inputs, each of so many columns, into a tile: all inputs' first column, then their second, ... */
    void (*turn)(const float *inputs, int64_t columns, int count, int width, float *tile);
    /* One block of rows for a tile: count outputs each of the block's rows, step apart. work: row_block * width. */
    void (*multiply)(const sparse_matrix *, int block, int width, int count, const float *tile,
                     float *work, const float *bias, int relu, float *outputs, int64_t step);
    /* One block of rows for a single input. */
    void (*multiply_one)(const sparse_matrix *, int block, const float *input, const float *bias, int relu,
                         float *output);
} kernel_set;

extern const kernel_set kernels_128, kernels_avx2, kernels_avx512;

/* The best that this processor runs, or the one that ONNXPRUNE_KERNELS names (128, avx2, avx512) where it does. */
const kernel_set *choose_kernels(void);

#endif
