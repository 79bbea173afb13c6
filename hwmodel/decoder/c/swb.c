#include "swb_internal.h"

/* ---- values ----------------------------------------------------------------------------------- */

static uint64_t book_entry(const swb_tensor *t, uint64_t number) {
    uint64_t value = 0;
    for (unsigned i = 0; i < t->value_bytes; i++)
        value |= (uint64_t)t->book.bytes[(number - 1) * t->value_bytes + i] << 8 * i;
    return value;
}

static int check_book(const swb_tensor *t) {
    uint64_t before = 0;
    if (!t->codebook)
        return t->book.size ? SWB_DAMAGED : SWB_OK;
    if (t->book.size % t->value_bytes)
        return SWB_DAMAGED;
    for (uint64_t i = 1; i <= t->book.size / t->value_bytes; i++) {
        uint64_t entry = book_entry(t, i);
        if (entry <= before || (t->value_bits == 4 && entry > 15))
            return SWB_DAMAGED;
        before = entry;
    }
    return SWB_OK;
}

int swb_put(const swb_target *to, uint64_t element, uint64_t code) {
    const swb_tensor *t = to->t;
    uint64_t place = element;
    if (element >= to->count)
        return -1;
    if (!to->alone) {
        place += to->first;
        if (t->by_columns)
            place = place % t->columns * t->rows + place / t->columns;
    }
    if (t->codebook && code) {
        if (code > t->book.size / t->value_bytes)
            return -1;
        code = book_entry(t, code);
    }
    code ^= (uint64_t)(int64_t)t->zero_point & (t->value_bits == 4 ? 15 : 255);
    if (t->dtype == INT4 && code & 8)
        code |= 0xF0;
    for (unsigned i = 0; i < t->value_bytes; i++)
        to->out[place * t->value_bytes + i] = (uint8_t)(code >> 8 * i);
    return 0;
}

/* ---- chunks ----------------------------------------------------------------------------------- */

static int fixed_bytes(const swb_tensor *t, uint64_t elements, uint64_t *bytes) {
    uint64_t bits = elements * t->code_bits;
    if (t->encoding == NM) {
        uint64_t slots = elements / t->columns * ceil_div(t->columns, (uint64_t)t->own[1]);
        if (t->header.size != 2 || t->header.bytes[0] >= t->own[1])
            return 0;
        bits = slots * (t->header.bytes[0] + 1u) * (t->code_bits + width_of((uint64_t)t->own[1]));
    } else if (t->encoding != DENSE) {
        return 0;
    }
    *bytes = ceil_div(bits, 8 * (uint64_t)t->align) * t->align;
    return 1;
}

/* First byte of a chunk, or the end of all; -1 where that is not plausible. */
static int chunk_start(const swb_tensor *t, uint64_t chunk, uint64_t *start) {
    unsigned width = t->chunks < 2 ? 0 : width_of(t->data.size / t->align + 1);
    uint64_t fixed;
    if (fixed_bytes(t, t->full, &fixed)) {
        uint64_t last = 0;
        fixed_bytes(t, t->elements - (t->chunks - 1) * t->full, &last);
        if (t->pointers.size || (t->chunks - 1) * fixed + last != t->data.size)
            return -1;
        *start = chunk == t->chunks ? t->data.size : chunk * fixed;
        return 0;
    }
    bit_reader r = {t->pointers.bytes, 0, t->pointers.size * 8, 0};
    if (t->pointers.size != (t->chunks < 2 ? 0 : ceil_div((t->chunks - 1) * width, 8)))
        return -1;
    *start = chunk ? t->data.size : 0;
    if (chunk && chunk < t->chunks) {
        r.place = (chunk - 1) * width;
        *start = take(&r, width) * t->align;
    } else if (chunk && chunk == t->chunks && width) {
        r.place = (chunk - 1) * width; /* the bits after the last pointer */
        if (take(&r, (unsigned)left_in(&r)))
            return -1;
    }
    return *start > t->data.size ? -1 : 0;
}

static int decode_one(const swb_tensor *t, uint64_t chunk, uint8_t *out, int alone) {
    swb_target to = {t, out, chunk * t->full, t->full, alone};
    bit_reader r = {t->data.bytes, 0, 0, 0};
    uint64_t start, end;
    if (chunk + 1 == t->chunks)
        to.count = t->elements - to.first;
    if (chunk_start(t, chunk, &start) || chunk_start(t, chunk + 1, &end) || end < start)
        return SWB_DAMAGED;
    for (uint64_t i = 0; i < to.count; i++)
        if (swb_put(&to, i, 0))
            return SWB_DAMAGED;
    r.place = start * 8;
    r.end = end * 8;
    if (swb_read_chunk(&to, &r) || r.overrun || left_in(&r) >= 8 * (uint64_t)t->align)
        return SWB_DAMAGED;
    while (left_in(&r))
        if (take(&r, 1))
            return SWB_DAMAGED;
    return SWB_OK;
}

static int check_segments(const swb_tensor *t) {
    if (check_book(t) || t->data.size % t->align || t->chunks > t->data.size)
        return SWB_DAMAGED;
    if (t->elements) /* those that have none are told apart by what they read of it */
        return (t->encoding == DENSE || t->encoding == BITMASK) && t->header.size ? SWB_DAMAGED
                                                                                  : SWB_OK;
    return t->header.size || t->pointers.size || t->data.size ? SWB_DAMAGED : SWB_OK;
}

int swb_decode(const swb_tensor *t, void *out, size_t out_size) {
    if (out_size / t->value_bytes < t->elements)
        return SWB_TOO_SMALL;
    if (check_segments(t))
        return SWB_DAMAGED;
    for (uint64_t chunk = 0; chunk < t->chunks; chunk++)
        if (decode_one(t, chunk, out, 0))
            return SWB_DAMAGED;
    return SWB_OK;
}

int swb_decode_chunk(const swb_tensor *t, uint64_t chunk, void *out, size_t out_size,
                     uint64_t *elements) {
    if (chunk >= t->chunks)
        return SWB_NO_SUCH;
    *elements = chunk + 1 == t->chunks ? t->elements - chunk * t->full : t->full;
    if (out_size / t->value_bytes < *elements)
        return SWB_TOO_SMALL;
    if (check_segments(t))
        return SWB_DAMAGED;
    return decode_one(t, chunk, out, 1);
}
