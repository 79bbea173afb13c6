/* Numbers, and bit strings, least significant bit first; reading past the end of one gives zeros and is
 * remembered. */
#ifndef SWB_BITS_H
#define SWB_BITS_H

#include <stdint.h>

static inline uint32_t u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

typedef struct {
    const uint8_t *bytes;
    uint64_t place, end; /* bits */
    int overrun;
} bit_reader;

static inline uint64_t left_in(const bit_reader *r) { return r->end - r->place; }

/* The next count bits, 0 to 64. */
static inline uint64_t take(bit_reader *r, unsigned count) {
    uint64_t value = 0;
    unsigned got = 0;
    if (count > left_in(r)) {
        r->overrun = 1;
        return 0;
    }
    while (got < count) {
        unsigned shift = (unsigned)(r->place & 7), here = 8 - shift;
        if (here > count - got)
            here = count - got;
        value |= (uint64_t)((r->bytes[r->place >> 3] >> shift) & ((1u << here) - 1)) << got;
        got += here;
        r->place += here;
    }
    return value;
}

/* Skip count fields of width bits, if they are there; a reader of them is left in fields. */
static inline int split(bit_reader *r, bit_reader *fields, uint64_t count, unsigned width) {
    *fields = *r;
    if (width && count > left_in(r) / width)
        return -1;
    r->place += count * width;
    return 0;
}

/* Bits that tell so many values apart: ceil(log2(values)), 0 for none or one. */
static inline unsigned width_of(uint64_t values) {
    unsigned width = 0;
    if (values < 2)
        return 0;
    for (values--; values; values >>= 1)
        width++;
    return width;
}

#endif
