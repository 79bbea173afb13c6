#include <string.h>

#include "swb_internal.h"

enum { ALIGNMENT = 64, MAX_RANK = 8, MAX_EXPANSION = 65536 };
enum { FLOAT16 = 1, BFLOAT16, FLOAT32, FLOAT64, INT8, UINT8, INT4, UINT4 };
static const uint64_t LARGEST = (uint64_t)1 << 40; /* axis and chunk */

static uint64_t u64(const uint8_t *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

static uint32_t crc32(const uint8_t *p, uint64_t size, uint32_t crc) {
    crc = ~crc;
    while (size--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* ---- the container ---------------------------------------------------------------------------- */

static int check_own(const swb_tensor *t) {
    static const struct { int32_t low, high; } LIMITS[14][3] = {
        [NM] = {{0, 256}, {2, 256}}, [BLOCK] = {{1, 256}, {1, 256}}, [TWO_LEVEL] = {{0, 256}},
        [RUN_LENGTH] = {{0, 16}}, [RELATIVE_INDEX] = {{1, 16}}, [ELIAS_FANO] = {{-1, 32}},
        [RICE] = {{-1, 31}},
    };
    for (int i = 0; i < 3; i++)
        if (t->own[i] < LIMITS[t->encoding][i].low || t->own[i] > LIMITS[t->encoding][i].high)
            return 0;
    if (t->encoding == TWO_LEVEL && t->own[0] && (t->own[0] < 4 || t->own[0] & (t->own[0] - 1)))
        return 0;
    return t->encoding != NM || t->own[0] <= t->own[1];
}

static int check_dtype(swb_tensor *t) {
    static const struct { uint8_t bits, shift, symbol; int low, high; } TYPES[9] = {
        {0, 0, 0, 0, 0}, {16, 10, 5, 0, 0}, {16, 7, 8, 0, 0}, {32, 23, 8, 0, 0}, {64, 55, 8, 0, 0},
        {8, 0, 8, -128, 127}, {8, 0, 8, 0, 255}, {4, 0, 4, -8, 7}, {4, 0, 4, 0, 15},
    };
    if (t->dtype < FLOAT16 || t->dtype > UINT4)
        return 0;
    t->value_bits = t->code_bits = TYPES[t->dtype].bits;
    t->value_bytes = t->value_bits < 8 ? 1 : t->value_bits / 8;
    t->symbol_shift = TYPES[t->dtype].shift;
    t->symbol_bits = TYPES[t->dtype].symbol;
    if (t->codebook) { /* codes are 0 or numbers of the book's entries, counted from 1 */
        t->code_bits = width_of(t->book.size / t->value_bytes + 1);
        if (!t->code_bits)
            t->code_bits = 1;
        t->symbol_bits = t->code_bits < 8 ? t->code_bits : 8;
        t->symbol_shift = t->code_bits - t->symbol_bits;
    }
    return t->zero_point >= TYPES[t->dtype].low && t->zero_point <= TYPES[t->dtype].high;
}

/* Elements, and how they fall into chunks; limit is what the file may declare. */
static int check_shape(swb_tensor *t, uint64_t limit) {
    uint64_t rows = t->rank ? t->shape[0] : 1, columns = 1, step;
    int empty = 0;
    for (unsigned i = 0; i < MAX_RANK; i++) {
        if (t->shape[i] > LARGEST)
            return 0;
        empty |= i < t->rank && !t->shape[i];
    }
    t->by_columns = t->encoding == CSC || t->encoding == RELATIVE_INDEX;
    if (empty) {
        t->elements = t->rows = t->columns = t->chunks = 0;
        t->full = 1;
        return 1;
    }
    for (unsigned i = 1; i < t->rank; i++) {
        if (columns > UINT64_MAX / t->shape[i])
            return 0;
        columns *= t->shape[i];
    }
    if (rows > UINT64_MAX / 64 / columns || ceil_div(rows * columns * t->value_bits, 8) > limit)
        return 0;
    t->elements = rows * columns;
    t->rows = t->by_columns ? columns : rows;
    t->columns = t->by_columns ? rows : columns;
    step = t->chunk && t->chunk < t->elements ? t->chunk : t->elements;
    if (t->by_columns || (t->encoding >= NM && t->encoding <= CSR)) {
        uint64_t whole = t->columns;
        step = step < whole ? whole : step / whole * whole;
        if (t->encoding == BLOCK) {
            whole *= (uint64_t)t->own[0];
            step = step < whole ? whole : step / whole * whole;
        }
    }
    t->full = step;
    t->chunks = ceil_div(t->elements, step);
    return 1;
}

/* A place in the index. */
typedef struct {
    const uint8_t *place, *end;
    int wrong;
} cursor;

static const uint8_t *bytes_at(cursor *c, uint64_t count) {
    const uint8_t *here = c->place;
    if (count > (uint64_t)(c->end - c->place)) {
        c->wrong = 1;
        return NULL;
    }
    c->place += count;
    return here;
}

/* The next number: seven bits in a byte, lowest first, no byte more than needed. */
static uint64_t number(cursor *c) {
    uint64_t value = 0;
    for (unsigned i = 0; i < 10; i++) {
        const uint8_t *byte = bytes_at(c, 1);
        if (!byte)
            return 0;
        if (i == 9 && *byte > 1)
            break;
        value |= (uint64_t)(*byte & 127) << 7 * i;
        if (*byte < 128) {
            if (i && !*byte)
                break;
            return value;
        }
    }
    c->wrong = 1;
    return 0;
}

/* The next signed number, if it is a small one. */
static int32_t small(cursor *c) {
    uint64_t value = number(c);
    if (value > 0xFFFF)
        c->wrong = 1;
    return value & 1 ? -(int32_t)(value & 0xFFFF) / 2 - 1 : (int32_t)(value & 0xFFFF) / 2;
}

/* A segment at the next aligned place of the data. */
static int read_segment(const swb_file *file, swb_segment *segment, uint64_t *stored) {
    uint64_t end = (uint64_t)(file->index - file->bytes);
    uint64_t place = ceil_div(*stored, ALIGNMENT) * ALIGNMENT;
    if (!segment->size)
        return 0;
    if (place > end || segment->size > end - place)
        return -1;
    segment->bytes = file->bytes + place;
    *stored = place + segment->size;
    return 0;
}

/* The record at a cursor; *stored is where the segment before it ends, and then where its last does. */
static int read_record(const swb_file *file, cursor *c, swb_tensor *t, uint64_t *stored,
                       uint64_t limit) {
    static const uint8_t OWN[14] = {[TWO_LEVEL] = 1, [NM] = 2, [BLOCK] = 2, [RUN_LENGTH] = 1,
                                    [RELATIVE_INDEX] = 1, [ELIAS_FANO] = 1, [RICE] = 1};
    swb_segment *segments[3] = {&t->book, &t->pointers, &t->data};
    const uint8_t *p = bytes_at(c, 4);
    memset(t, 0, sizeof *t);
    if (!p || p[1] < DENSE || p[1] > ENTROPY || (p[2] & 15) > 1 || p[2] >> 4 > MAX_RANK || p[3] > 16)
        return SWB_DAMAGED;
    t->dtype = p[0], t->encoding = p[1], t->codebook = p[2] & 15, t->rank = p[2] >> 4;
    t->align = (uint32_t)1 << p[3];
    t->zero_point = small(c);
    for (int i = 0; i < OWN[t->encoding]; i++)
        t->own[i] = small(c);
    t->chunk = number(c);
    for (unsigned i = 0; i < t->rank; i++)
        t->shape[i] = number(c);
    t->name_shared = number(c);
    t->name_bytes = number(c);
    t->name = (const char *)bytes_at(c, t->name_bytes);
    t->header.size = number(c);
    t->header.bytes = bytes_at(c, t->header.size);
    for (int i = 0; i < 3; i++)
        segments[i]->size = number(c);
    for (int i = 0; i < 3; i++)
        if (segments[i]->size && !c->wrong && (p = bytes_at(c, 4)))
            segments[i]->crc32 = u32(p);
    if (c->wrong || t->chunk > LARGEST)
        return SWB_DAMAGED;
    for (int i = 0; i < 3; i++)
        if (read_segment(file, segments[i], stored))
            return SWB_DAMAGED;
    return check_own(t) && check_dtype(t) && check_shape(t, limit) ? SWB_OK : SWB_DAMAGED;
}

int swb_open(swb_file *file, const void *bytes, size_t size) {
    static const uint8_t MAGIC[12] = {0x89, 'S', 'W', 'B', '\r', '\n', 0x1A, '\n', 2, 0, 0, 0};
    const uint8_t *p = bytes;
    uint64_t offset, length, limit, stored = ALIGNMENT, named = 0;
    cursor c = {NULL, NULL, 0};
    if (size < ALIGNMENT || memcmp(p, MAGIC, sizeof MAGIC))
        return SWB_NOT_A_BLOB;
    offset = u64(p + 16);
    length = u64(p + 24);
    if (offset < ALIGNMENT || offset % ALIGNMENT || offset > size || length != size - offset)
        return SWB_DAMAGED;
    file->bytes = p;
    file->size = size;
    file->index = p + offset;
    file->tensors = u32(p + 32);
    if (crc32(file->index, length, crc32(p + 16, ALIGNMENT - 16, 0)) != u32(p + 12))
        return SWB_DAMAGED;
    c.place = file->index, c.end = p + size;
    limit = offset > UINT64_MAX / MAX_EXPANSION ? UINT64_MAX : offset * MAX_EXPANSION;
    for (uint32_t i = 0; i < file->tensors; i++) {
        swb_tensor t;
        if (read_record(file, &c, &t, &stored, limit) || t.name_shared > named)
            return SWB_DAMAGED;
        limit -= ceil_div(t.elements * t.value_bits, 8);
        named = t.name_shared + t.name_bytes;
    }
    return c.place == c.end ? SWB_OK : SWB_DAMAGED;
}

int swb_get(const swb_file *file, uint32_t wanted, swb_tensor *tensor) {
    uint64_t stored = ALIGNMENT;
    cursor c = {file->index, file->bytes + file->size, 0};
    if (wanted >= file->tensors)
        return SWB_NO_SUCH;
    for (uint32_t i = 0; i <= wanted; i++)
        if (read_record(file, &c, tensor, &stored, UINT64_MAX))
            return SWB_DAMAGED;
    return SWB_OK;
}

int swb_name(const swb_file *file, uint32_t wanted, char *name, size_t size) {
    uint64_t stored = ALIGNMENT;
    cursor c = {file->index, file->bytes + file->size, 0};
    swb_tensor t;
    if (wanted >= file->tensors)
        return SWB_NO_SUCH;
    for (uint32_t i = 0; i <= wanted; i++) {
        if (read_record(file, &c, &t, &stored, UINT64_MAX))
            return SWB_DAMAGED;
        if (t.name_shared >= size || t.name_bytes >= size - t.name_shared)
            return SWB_TOO_SMALL;
        if (t.name_bytes)
            memcpy(name + t.name_shared, t.name, (size_t)t.name_bytes);
    }
    name[t.name_shared + t.name_bytes] = 0;
    return SWB_OK;
}

int swb_check(const swb_tensor *t) {
    const swb_segment *segments[3] = {&t->book, &t->pointers, &t->data};
    for (int i = 0; i < 3; i++)
        if (crc32(segments[i]->bytes, segments[i]->size, 0) != segments[i]->crc32)
            return SWB_DAMAGED;
    return SWB_OK;
}

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
