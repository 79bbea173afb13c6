#include <string.h>

#include "swb_internal.h"

enum { ALIGNMENT = 64, RECORD = 200, MAX_RANK = 8, MAX_EXPANSION = 65536 };
enum { FLOAT16 = 1, BFLOAT16, FLOAT32, FLOAT64, INT8, UINT8, INT4, UINT4 };
static const uint64_t LARGEST = (uint64_t)1 << 40; /* axis and chunk */

static uint64_t u64(const uint8_t *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

static int32_t i32(const uint8_t *p) {
    uint32_t raw = u32(p);
    return raw < 0x80000000u ? (int32_t)raw : (int32_t)(raw - 0x80000000u) + (-0x7FFFFFFF - 1);
}

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
        if (t->shape[i] > LARGEST || (i >= t->rank && t->shape[i]))
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

/* One record; *stored is where the segment before it ends, and then where its last one does. */
static int read_record(const swb_file *file, uint32_t number, swb_tensor *t, uint64_t *stored,
                       uint64_t limit) {
    const uint8_t *p = file->index + (size_t)RECORD * number;
    uint64_t end = (uint64_t)(file->index - file->bytes);
    uint64_t index_bytes = file->size - end;
    swb_segment *segments[4] = {&t->header, &t->book, &t->pointers, &t->data};
    uint32_t name = u32(p);
    memset(t, 0, sizeof *t);
    t->name_bytes = u32(p + 4);
    if (name > index_bytes || t->name_bytes > index_bytes - name)
        return SWB_DAMAGED;
    t->name = (const char *)file->index + name;
    t->dtype = p[8], t->encoding = p[9], t->codebook = p[10], t->rank = p[11];
    t->zero_point = i32(p + 12);
    t->chunk = u64(p + 16);
    t->align = u32(p + 24);
    for (int i = 0; i < 3; i++)
        t->own[i] = i32(p + 28 + 4 * i);
    for (int i = 0; i < MAX_RANK; i++)
        t->shape[i] = u64(p + 40 + 8 * i);
    for (int i = 0; i < 4; i++) {
        const uint8_t *place = p + 104 + 24 * i;
        uint64_t offset = u64(place);
        segments[i]->size = u64(place + 8);
        segments[i]->crc32 = u32(place + 16);
        if (u32(place + 20) || (!segments[i]->size && (offset || segments[i]->crc32)))
            return SWB_DAMAGED;
        if (!segments[i]->size)
            continue;
        if (offset < *stored || offset % ALIGNMENT || offset > end ||
            segments[i]->size > end - offset)
            return SWB_DAMAGED;
        segments[i]->bytes = file->bytes + offset;
        *stored = offset + segments[i]->size;
    }
    if (t->encoding < DENSE || t->encoding > ENTROPY || t->codebook > 1 || t->rank > MAX_RANK ||
        t->chunk > LARGEST || !t->align || t->align > 65536 || t->align & (t->align - 1))
        return SWB_DAMAGED;
    return check_own(t) && check_dtype(t) && check_shape(t, limit) ? SWB_OK : SWB_DAMAGED;
}

int swb_open(swb_file *file, const void *bytes, size_t size) {
    static const uint8_t MAGIC[12] = {0x89, 'S', 'W', 'B', '\r', '\n', 0x1A, '\n', 2, 0, 0, 0};
    const uint8_t *p = bytes;
    uint64_t offset, length, limit, stored = ALIGNMENT, named;
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
    if (crc32(file->index, length, crc32(p + 16, ALIGNMENT - 16, 0)) != u32(p + 12) ||
        file->tensors > length / RECORD)
        return SWB_DAMAGED;
    limit = offset > UINT64_MAX / MAX_EXPANSION ? UINT64_MAX : offset * MAX_EXPANSION;
    named = (uint64_t)RECORD * file->tensors;
    for (uint32_t i = 0; i < file->tensors; i++) {
        swb_tensor t;
        if (read_record(file, i, &t, &stored, limit) ||
            u32(file->index + (size_t)RECORD * i) != named)
            return SWB_DAMAGED;
        limit -= ceil_div(t.elements * t.value_bits, 8);
        named += t.name_bytes;
    }
    return named == length ? SWB_OK : SWB_DAMAGED;
}

int swb_get(const swb_file *file, uint32_t number, swb_tensor *tensor) {
    uint64_t stored = ALIGNMENT;
    if (number >= file->tensors)
        return SWB_NO_SUCH;
    return read_record(file, number, tensor, &stored, UINT64_MAX);
}

int swb_check(const swb_tensor *t) {
    const swb_segment *segments[4] = {&t->header, &t->book, &t->pointers, &t->data};
    for (int i = 0; i < 4; i++)
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
