/* From a dense array to a sparse matrix. */
#include <stdlib.h>
#include <string.h>

#include "sparse.h"

static size_t padded(size_t count) { return (count + PAD - 1) / PAD * PAD; }

static void *aligned(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

/* How many rows make a block: few enough that several threads have work. */
static int block_of(int64_t rows) {
    int block = 256;
    while (block > 128 && (rows + block - 1) / block < 8)
        block /= 2;
    return block;
}

void sparse_free(sparse_matrix *m) {
    if (!m)
        return;
    free(m->places);
    free(m->values);
    free(m->row_of);
    free(m->counts);
    free(m->cells);
    free(m);
}

/* Nonzero weights of each row of a cell; the inner loop runs along memory. */
static void count_cell(const float *w, int rows, int columns, int64_t row_step, int64_t column_step,
                       uint16_t *counts) {
    memset(counts, 0, (size_t)rows * sizeof *counts);
    if (column_step <= row_step) {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                counts[r] += w[r * row_step + c * column_step] != 0;
    } else {
        for (int c = 0; c < columns; c++)
            for (int r = 0; r < rows; r++)
                counts[r] += w[r * row_step + c * column_step] != 0;
    }
}

/* Rows by falling padded count; rows of one count keep their order. */
static void sort_rows(const uint16_t *counts, int rows, uint16_t *row_of) {
    int starts[K_BLOCK / PAD + 2] = {0};
    const int most = K_BLOCK / PAD;
    for (int r = 0; r < rows; r++)
        starts[most - (int)(padded(counts[r]) / PAD) + 1]++;
    for (int i = 0; i < most + 1; i++)
        starts[i + 1] += starts[i];
    for (int r = 0; r < rows; r++)
        row_of[starts[most - (int)(padded(counts[r]) / PAD)]++] = (uint16_t)r;
}

/* Write a cell's entries; next holds where each row's next entry goes. */
static void fill_cell(sparse_matrix *m, const float *w, int rows, int columns, int64_t row_step,
                      int64_t column_step, size_t *next) {
    const int by_row = column_step <= row_step;
    const int outer = by_row ? rows : columns, inner = by_row ? columns : rows;
    for (int o = 0; o < outer; o++)
        for (int i = 0; i < inner; i++) {
            const int r = by_row ? o : i, c = by_row ? i : o;
            const float value = w[r * row_step + c * column_step];
            if (value != 0) {
                m->places[next[r]] = (uint8_t)c;
                m->values[next[r]++] = value;
            }
        }
}

static const float *cell_of(const sparse_matrix *m, const float *weights, int block, int k,
                            int64_t row_step, int64_t column_step) {
    return weights + (int64_t)block * m->row_block * row_step + (int64_t)k * K_BLOCK * column_step;
}

static int columns_in(const sparse_matrix *m, int k) {
    int64_t left = m->columns - (int64_t)k * K_BLOCK;
    return (int)(left < K_BLOCK ? left : K_BLOCK);
}

/* Counts and order of all cells' rows, and where each cell's entries begin. */
static void plan(sparse_matrix *m, const float *weights, int64_t row_step, int64_t column_step) {
    size_t entries = 0;
    uint16_t counts[256];
    for (int block = 0; block < m->row_blocks; block++)
        for (int k = 0; k < m->column_blocks; k++) {
            const int rows = rows_in(m, block);
            const size_t at = (size_t)k * m->rows + (size_t)block * m->row_block;
            m->cells[(size_t)block * m->column_blocks + k] = entries;
            count_cell(cell_of(m, weights, block, k, row_step, column_step), rows, columns_in(m, k),
                       row_step, column_step, counts);
            sort_rows(counts, rows, m->row_of + at);
            for (int i = 0; i < rows; i++) {
                m->counts[at + i] = (uint16_t)padded(counts[m->row_of[at + i]]);
                entries += m->counts[at + i];
            }
        }
    m->cells[(size_t)m->row_blocks * m->column_blocks] = m->entries = entries;
}

static void fill(sparse_matrix *m, const float *weights, int64_t row_step, int64_t column_step) {
    size_t next[256];
    memset(m->places, 0, m->entries);
    memset(m->values, 0, m->entries * sizeof *m->values);
    for (int block = 0; block < m->row_blocks; block++)
        for (int k = 0; k < m->column_blocks; k++) {
            const int rows = rows_in(m, block);
            const size_t at = (size_t)k * m->rows + (size_t)block * m->row_block;
            size_t entry = m->cells[(size_t)block * m->column_blocks + k];
            for (int i = 0; i < rows; i++) {
                next[m->row_of[at + i]] = entry;
                entry += m->counts[at + i];
            }
            fill_cell(m, cell_of(m, weights, block, k, row_step, column_step), rows, columns_in(m, k),
                      row_step, column_step, next);
        }
}

sparse_matrix *sparse_pack(const float *weights, int64_t rows, int64_t columns, int64_t row_step,
                           int64_t column_step) {
    sparse_matrix *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->rows = rows;
    m->columns = columns;
    m->row_block = block_of(rows);
    m->row_blocks = (int)((rows + m->row_block - 1) / m->row_block);
    /* One block at least, so that outputs are written where there is nothing to sum. */
    m->column_blocks = columns ? (int)((columns + K_BLOCK - 1) / K_BLOCK) : 1;
    const size_t lines = (size_t)m->column_blocks * (size_t)rows;
    m->row_of = aligned(lines * sizeof *m->row_of);
    m->counts = aligned(lines * sizeof *m->counts);
    m->cells = aligned(((size_t)m->row_blocks * m->column_blocks + 1) * sizeof *m->cells);
    if (!m->row_of || !m->counts || !m->cells) {
        sparse_free(m);
        return NULL;
    }
    plan(m, weights, row_step, column_step);
    m->places = aligned(m->entries);
    m->values = aligned(m->entries * sizeof *m->values);
    if (!m->places || !m->values) {
        sparse_free(m);
        return NULL;
    }
    fill(m, weights, row_step, column_step);
    return m;
}
