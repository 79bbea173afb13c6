/* What the decoder's files share; nothing here is for users. */
#ifndef SWB_INTERNAL_H
#define SWB_INTERNAL_H

#include "swb.h"
#include "swb_bits.h"

enum { DENSE = 1, BITMASK, TWO_LEVEL, NM, BLOCK, ELLPACK, CSR, CSC, RUN_LENGTH, RELATIVE_INDEX,
       ELIAS_FANO, RICE, ENTROPY, SEGMENTS };

enum { FLOAT16 = 1, BFLOAT16, FLOAT32, FLOAT64, INT8, UINT8, INT4, UINT4 };

/* One chunk on its way into memory. */
typedef struct {
    const swb_tensor *t;
    uint8_t *out;
    uint64_t first, count; /* elements, in stored order */
    int alone;             /* the chunk goes to the buffer's start, as it is stored */
} swb_target;

/* Store the code of an element, counted from the start of the chunk; -1 where it cannot be. */
int swb_put(const swb_target *to, uint64_t element, uint64_t code);

/* Read a chunk's codes; -1 on anything unexpected. */
int swb_read_chunk(const swb_target *to, bit_reader *r);

#endif
