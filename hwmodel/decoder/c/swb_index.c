#include <string.h>

#include "swb_internal.h"

enum { ALIGNMENT = 64, MAX_RANK = 8, MAX_EXPANSION = 65536, MAX_NAMES = 256 };
enum { CODEBOOK = 16, INSIDE = 32, SAME = 64, SHARED = 128 }; /* beside the number of axes */
enum { ALIGN = 31, ZERO_POINT = 32, CHUNK = 64 };             /* of the byte settings begin with */
static const uint64_t LARGEST = (uint64_t)1 << 40;            /* axis and chunk */

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

/* ---- what a record must keep ------------------------------------------------------------------ */

static int check_own(const swb_tensor *t) {
    static const struct { int32_t low, high; } LIMITS[15][3] = {
        [NM] = {{0, 256}, {2, 256}}, [BLOCK] = {{1, 256}, {1, 256}}, [TWO_LEVEL] = {{0, 256}},
        [RUN_LENGTH] = {{0, 16}}, [RELATIVE_INDEX] = {{1, 16}}, [ELIAS_FANO] = {{-1, 32}},
        [RICE] = {{-1, 31}}, [SEGMENTS] = {{2, 65536}},
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

/* ---- records ---------------------------------------------------------------------------------- */

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

/* A walk through the records: where it stands, and what the next record may share. */
typedef struct {
    const swb_file *file;
    cursor at;
    uint64_t stored, limit; /* where the last segment before ends; bytes that may yet be declared */
    uint64_t named;         /* length of the name before */
    swb_tensor before;      /* encoding 0 at the start */
    swb_segment headers[15];
    uint8_t has_header[15];
} walk;

static walk start(const swb_file *file) {
    walk w;
    uint64_t data = (uint64_t)(file->index - file->bytes);
    memset(&w, 0, sizeof w);
    w.file = file;
    w.at.place = file->index;
    w.at.end = file->bytes + file->size;
    w.stored = ALIGNMENT;
    w.limit = data > UINT64_MAX / MAX_EXPANSION ? UINT64_MAX : data * MAX_EXPANSION;
    return w;
}

/* A segment at the next aligned place of the data. */
static int place_segment(walk *w, swb_segment *segment) {
    uint64_t end = (uint64_t)(w->file->index - w->file->bytes);
    uint64_t place = ceil_div(w->stored, ALIGNMENT) * ALIGNMENT;
    if (!segment->size)
        return 0;
    if (place > end || segment->size > end - place)
        return -1;
    segment->bytes = w->file->bytes + place;
    w->stored = place + segment->size;
    return 0;
}

/* Alignment, zero point, the encoding's own fields and chunk; those of the record before if same. */
static void read_settings(walk *w, swb_tensor *t, int same) {
    static const uint8_t OWN[15] = {[TWO_LEVEL] = 1, [NM] = 2, [BLOCK] = 2, [RUN_LENGTH] = 1,
                                    [RELATIVE_INDEX] = 1, [ELIAS_FANO] = 1, [RICE] = 1,
                                    [SEGMENTS] = 1};
    const swb_tensor *b = &w->before;
    const uint8_t *first;
    if (same) {
        w->at.wrong |= b->encoding != t->encoding;
        t->align = b->align, t->zero_point = b->zero_point, t->chunk = b->chunk;
        memcpy(t->own, b->own, sizeof t->own);
        return;
    }
    first = bytes_at(&w->at, 1);
    if (!first)
        return;
    t->zero_point = *first & ZERO_POINT ? small(&w->at) : 0;
    for (int i = 0; i < OWN[t->encoding]; i++)
        t->own[i] = small(&w->at);
    t->chunk = *first & CHUNK ? number(&w->at) : 0;
    w->at.wrong |= *first > 127 || (*first & ALIGN) > 16 || (*first & ZERO_POINT && !t->zero_point) ||
                   (*first & CHUNK && !t->chunk);
    t->align = (uint32_t)1 << (*first & ALIGN);
}

/* A name, as how many bytes it shares with the start and the end of the one before. */
static void read_name(walk *w, swb_tensor *t) {
    t->name_begins = w->before.encoding ? number(&w->at) : 0;
    t->name_ends = w->before.encoding ? number(&w->at) : 0;
    if (t->name_begins > w->named || t->name_ends > w->named - t->name_begins)
        w->at.wrong = 1;
    t->name_bytes = number(&w->at);
    t->name = (const char *)bytes_at(&w->at, t->name_bytes);
    w->named = t->name_begins + t->name_bytes + t->name_ends;
}

static void read_header(walk *w, swb_tensor *t, int shared) {
    if (shared) {
        w->at.wrong |= !w->has_header[t->encoding];
        t->header = w->headers[t->encoding];
    } else {
        t->header.size = number(&w->at);
        t->header.bytes = bytes_at(&w->at, t->header.size);
    }
    w->headers[t->encoding] = t->header;
    w->has_header[t->encoding] = 1;
}

static int read_segments(walk *w, swb_tensor *t, int flags) {
    swb_segment *segments[3] = {&t->book, &t->pointers, &t->data};
    const uint8_t *p;
    t->book.size = flags & CODEBOOK ? number(&w->at) : 0;
    t->pointers.size = t->chunk || t->encoding == BLOCK ? number(&w->at) : 0;
    t->data.size = number(&w->at);
    t->inside = (flags & INSIDE) != 0;
    for (int i = 0; i < 3; i++) {
        if (t->inside)
            segments[i]->bytes = bytes_at(&w->at, segments[i]->size);
        else if (segments[i]->size && !w->at.wrong && (p = bytes_at(&w->at, 4)))
            segments[i]->crc32 = u32(p);
    }
    for (int i = 0; i < 3 && !w->at.wrong && !t->inside; i++)
        if (place_segment(w, segments[i]))
            return -1;
    return 0;
}

/* The next record. */
static int read_record(walk *w, swb_tensor *t) {
    const uint8_t *p = bytes_at(&w->at, 2);
    memset(t, 0, sizeof *t);
    if (!p || p[0] >> 4 < DENSE || p[0] >> 4 > SEGMENTS || (p[1] & 15) > MAX_RANK)
        return SWB_DAMAGED;
    t->dtype = p[0] & 15, t->encoding = p[0] >> 4;
    t->rank = p[1] & 15, t->codebook = (p[1] & CODEBOOK) != 0;
    read_settings(w, t, p[1] & SAME);
    for (unsigned i = 0; i < t->rank; i++)
        t->shape[i] = number(&w->at);
    read_name(w, t);
    read_header(w, t, p[1] & SHARED);
    if (read_segments(w, t, p[1]) || w->at.wrong || t->chunk > LARGEST)
        return SWB_DAMAGED;
    if (!check_own(t) || !check_dtype(t) || !check_shape(t, w->limit))
        return SWB_DAMAGED;
    w->limit -= ceil_div(t->elements * t->value_bits, 8);
    w->before = *t;
    return SWB_OK;
}

/* ---- what users call --------------------------------------------------------------------------- */

int swb_open(swb_file *file, const void *bytes, size_t size) {
    static const uint8_t MAGIC[12] = {0x89, 'S', 'W', 'B', '\r', '\n', 0x1A, '\n', 3, 0, 0, 0};
    const uint8_t *p = bytes;
    uint64_t offset, length, names = 0;
    walk w;
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
    w = start(file);
    for (uint32_t i = 0; i < file->tensors; i++) {
        swb_tensor t;
        if (read_record(&w, &t))
            return SWB_DAMAGED;
        names += w.named;
        if (names / MAX_NAMES > length)
            return SWB_DAMAGED;
    }
    return w.at.place == w.at.end ? SWB_OK : SWB_DAMAGED;
}

int swb_get(const swb_file *file, uint32_t wanted, swb_tensor *tensor) {
    walk w = start(file);
    if (wanted >= file->tensors)
        return SWB_NO_SUCH;
    for (uint32_t i = 0; i <= wanted; i++)
        if (read_record(&w, tensor))
            return SWB_DAMAGED;
    return SWB_OK;
}

int swb_name(const swb_file *file, uint32_t wanted, char *name, size_t size) {
    walk w = start(file);
    uint64_t length = 0; /* of the name before, which stands in the buffer */
    if (wanted >= file->tensors)
        return SWB_NO_SUCH;
    for (uint32_t i = 0; i <= wanted; i++) {
        swb_tensor t;
        if (read_record(&w, &t))
            return SWB_DAMAGED;
        if (w.named >= size)
            return SWB_TOO_SMALL;
        memmove(name + t.name_begins + t.name_bytes, name + length - t.name_ends, (size_t)t.name_ends);
        if (t.name_bytes)
            memcpy(name + t.name_begins, t.name, (size_t)t.name_bytes);
        length = w.named;
    }
    name[length] = 0;
    return SWB_OK;
}

int swb_check(const swb_tensor *t) {
    const swb_segment *segments[3] = {&t->book, &t->pointers, &t->data};
    for (int i = 0; i < 3 && !t->inside; i++)
        if (crc32(segments[i]->bytes, segments[i]->size, 0) != segments[i]->crc32)
            return SWB_DAMAGED;
    return SWB_OK;
}
