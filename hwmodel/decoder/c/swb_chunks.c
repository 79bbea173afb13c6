/* Chunks in each encoding. All functions return 0, or -1 on anything unexpected. */
#include <string.h>

#include "swb_internal.h"

enum { LONGEST_CODE = 12 };

static int read_dense(const swb_target *to, bit_reader *r) {
    for (uint64_t i = 0; i < to->count && !r->overrun; i++)
        if (swb_put(to, i, take(r, to->t->code_bits)))
            return -1;
    return 0;
}

static int read_bitmask(const swb_target *to, bit_reader *r) {
    bit_reader mask;
    if (split(r, &mask, to->count, 1))
        return -1;
    for (uint64_t i = 0; i < to->count; i++)
        if (take(&mask, 1) && (swb_put(to, i, take(r, to->t->code_bits)) || r->overrun))
            return -1;
    return 0;
}

static int read_two_level(const swb_target *to, bit_reader *r) {
    bit_reader upper, lower, count;
    uint64_t block, blocks, used = 0;
    if (to->t->header.size != 1 || to->t->header.bytes[0] < 2 || to->t->header.bytes[0] > 8)
        return -1;
    block = (uint64_t)1 << to->t->header.bytes[0];
    blocks = ceil_div(to->count, block);
    if ((to->t->own[0] && block != (uint64_t)to->t->own[0]) || split(r, &upper, blocks, 1))
        return -1;
    count = upper;
    for (uint64_t b = 0; b < blocks; b++)
        used += take(&count, 1);
    if (split(r, &lower, used * block, 1))
        return -1;
    for (uint64_t b = 0; b < blocks; b++) {
        int any = 0;
        if (!take(&upper, 1))
            continue;
        for (uint64_t i = 0; i < block; i++) {
            if (!take(&lower, 1))
                continue;
            any = 1;
            if (swb_put(to, b * block + i, take(r, to->t->code_bits)) || r->overrun)
                return -1;
        }
        if (!any)
            return -1;
    }
    return 0;
}

/* Slots of a group: places of width bits rising, values; those without a value are last. */
static int read_slots(const swb_target *to, bit_reader *places, bit_reader *values, unsigned width,
                      uint64_t slots, uint64_t group, uint64_t size) {
    uint64_t cursor = 0;
    for (uint64_t i = 0; i < slots; i++) {
        uint64_t place = take(places, width), value = take(values, to->t->code_bits);
        if (!value) {
            if (place)
                return -1;
            cursor = size;
        } else {
            if (place < cursor || place >= size || swb_put(to, group + place, value))
                return -1;
            cursor = place + 1;
        }
    }
    return values->overrun ? -1 : 0;
}

static int read_nm(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t n, m, rows = to->count / t->columns, slots;
    bit_reader places;
    if (t->header.size != 2)
        return -1;
    n = (uint64_t)t->header.bytes[0] + 1, m = (uint64_t)t->header.bytes[1] + 1;
    if (m != (uint64_t)t->own[1] || n > m || (t->own[0] && n != (uint64_t)t->own[0]))
        return -1;
    slots = rows * ceil_div(t->columns, m);
    if (slots > UINT64_MAX / n || split(r, &places, slots * n, width_of(m)))
        return -1;
    for (uint64_t row = 0; row < rows; row++)
        for (uint64_t column = 0; column < t->columns; column += m) {
            uint64_t size = t->columns - column < m ? t->columns - column : m;
            if (read_slots(to, &places, r, width_of(m), n, row * t->columns + column, size))
                return -1;
        }
    return 0;
}

static int read_ellpack(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t rows = to->count / t->columns, slots;
    unsigned width = width_of(t->columns + 1);
    bit_reader places;
    if (t->header.size)
        return -1;
    slots = take(r, width ? width : 1);
    if (r->overrun || slots > t->columns || split(r, &places, rows * slots, width_of(t->columns)))
        return -1;
    for (uint64_t row = 0; row < rows; row++)
        if (read_slots(to, &places, r, width_of(t->columns), slots, row * t->columns, t->columns))
            return -1;
    return 0;
}

static int read_segments(const swb_target *to, bit_reader *r) {
    uint64_t width = (uint64_t)to->t->own[0], runs = ceil_div(to->count, width), slots;
    bit_reader places;
    if (to->t->header.size)
        return -1;
    slots = take(r, width_of(width + 1));
    if (r->overrun || slots > width || split(r, &places, runs * slots, width_of(width)))
        return -1;
    for (uint64_t run = 0; run < runs; run++) {
        uint64_t first = run * width, size = to->count - first < width ? to->count - first : width;
        if (read_slots(to, &places, r, width_of(width), slots, first, size))
            return -1;
    }
    return 0;
}

/* Running sums at the head of a chunk: checks them, leaves a reader behind the first one. */
static int read_running(const swb_target *to, bit_reader *r, uint64_t rows, uint64_t most,
                        bit_reader *ends, uint64_t *total, unsigned *width) {
    bit_reader check;
    *total = 0;
    if (to->t->header.size != 1 || to->t->header.bytes[0] < 1 || to->t->header.bytes[0] > 40)
        return -1;
    *width = to->t->header.bytes[0];
    if (split(r, ends, rows + 1, *width) || take(ends, *width))
        return -1;
    check = *ends;
    for (uint64_t row = 0; row < rows; row++) {
        uint64_t end = take(&check, *width);
        if (end < *total || end - *total > most)
            return -1;
        *total = end;
    }
    return 0;
}

static int read_csr(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t rows = to->count / t->columns, total, done = 0;
    unsigned width, column_bits = width_of(t->columns);
    bit_reader ends, columns;
    if (read_running(to, r, rows, t->columns, &ends, &total, &width) ||
        split(r, &columns, total, column_bits))
        return -1;
    for (uint64_t row = 0; row < rows; row++) {
        uint64_t end = take(&ends, width), cursor = 0;
        for (; done < end; done++) {
            uint64_t column = take(&columns, column_bits), value = take(r, t->code_bits);
            if (column < cursor || column >= t->columns || r->overrun ||
                swb_put(to, row * t->columns + column, value))
                return -1;
            cursor = column + 1;
        }
    }
    return 0;
}

static int read_block(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t height = (uint64_t)t->own[0], wide = (uint64_t)t->own[1];
    uint64_t rows = to->count / t->columns, across = ceil_div(t->columns, wide), total, done = 0;
    unsigned width, column_bits = width_of(across);
    bit_reader ends, columns;
    if (read_running(to, r, ceil_div(rows, height), across, &ends, &total, &width) ||
        split(r, &columns, total, column_bits))
        return -1;
    for (uint64_t top = 0; top < rows; top += height) {
        uint64_t end = take(&ends, width), cursor = 0;
        for (; done < end; done++) {
            uint64_t left = take(&columns, column_bits);
            if (left < cursor || left >= across)
                return -1;
            cursor = left + 1;
            for (uint64_t i = 0; i < height * wide; i++) {
                uint64_t row = top + i / wide, column = left * wide + i % wide;
                uint64_t value = take(r, t->code_bits);
                if (r->overrun || (value && (row >= rows || column >= t->columns ||
                                             swb_put(to, row * t->columns + column, value))))
                    return -1;
            }
        }
    }
    return 0;
}

/* Entries of a gap and a value from one place on, within size elements. */
static int read_entries(const swb_target *to, bit_reader *gaps, bit_reader *values, unsigned bits,
                        uint64_t entries, uint64_t first, uint64_t size) {
    uint64_t cursor = 0;
    for (uint64_t i = 0; i < entries; i++) {
        cursor += take(gaps, bits) + 1;
        uint64_t value = take(values, to->t->code_bits);
        if (values->overrun || cursor > size || swb_put(to, first + cursor - 1, value))
            return -1;
    }
    return 0;
}

static int read_run_length(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    bit_reader gaps;
    uint64_t entries;
    unsigned bits;
    if (t->header.size != 1 || t->header.bytes[0] < 1 || t->header.bytes[0] > 16)
        return -1;
    bits = t->header.bytes[0];
    entries = take(r, width_of(t->full + 1));
    if (r->overrun || (t->own[0] && bits != (unsigned)t->own[0]) || entries > to->count ||
        split(r, &gaps, entries, bits))
        return -1;
    return read_entries(to, &gaps, r, bits, entries, 0, to->count);
}

static int read_relative_index(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t columns = to->count / t->columns, total, done = 0;
    unsigned width, bits = (unsigned)t->own[0];
    bit_reader ends, gaps;
    if (read_running(to, r, columns, t->columns, &ends, &total, &width) ||
        split(r, &gaps, total, bits))
        return -1;
    for (uint64_t i = 0; i < columns; i++) {
        uint64_t end = take(&ends, width);
        if (read_entries(to, &gaps, r, bits, end - done, i * t->columns, t->columns))
            return -1;
        done = end;
    }
    return 0;
}

static int read_elias_fano(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    uint64_t count, order = 0, cursor = 0, upper_bits;
    bit_reader low, upper;
    unsigned lower;
    if (t->header.size != 1 || t->header.bytes[0] > 32)
        return -1;
    lower = t->header.bytes[0];
    if (t->own[0] != -1 && (unsigned)t->own[0] != lower)
        return -1;
    count = take(r, width_of(t->full + 1));
    upper_bits = count + ((to->count - 1) >> lower);
    if (r->overrun || split(r, &low, count, lower) || split(r, &upper, upper_bits, 1))
        return -1;
    for (uint64_t i = 0; i < upper_bits; i++) {
        uint64_t place;
        if (!take(&upper, 1))
            continue;
        place = (i - order) << lower | take(&low, lower);
        if (order++ == count || place < cursor || swb_put(to, place, take(r, t->code_bits)) ||
            r->overrun)
            return -1;
        cursor = place + 1;
    }
    return order == count ? 0 : -1;
}

/* A canonical Huffman code: symbols in the order of their codes, and how many have each length. */
typedef struct {
    unsigned often[16];
    uint8_t symbols[256];
} huffman;

static int read_table(const swb_tensor *t, uint64_t *divisor, huffman *code) {
    const uint8_t *p = t->header.bytes;
    uint8_t lengths[256] = {0};
    unsigned first, last, used = 0, space = 0, next = 0;
    memset(code, 0, sizeof *code);
    if (t->header.size < 6)
        return -1;
    *divisor = u32(p);
    first = p[4], last = p[5];
    if (last >= 1u << t->symbol_bits)
        return -1;
    if (first == 1 && last == 0)
        return t->header.size == 6 ? 0 : -1;
    if (first > last || t->header.size != 6 + ceil_div((uint64_t)(last - first) + 1, 2))
        return -1;
    for (unsigned i = 0; i <= last - first; i++)
        lengths[first + i] = p[6 + i / 2] >> (i % 2 * 4) & 15;
    if ((last - first) % 2 == 0 && p[6 + (last - first) / 2] >> 4)
        return -1;
    if (!lengths[first] || !lengths[last])
        return -1;
    for (unsigned length = 1; length < 16; length++)
        for (unsigned symbol = first; symbol <= last; symbol++)
            if (lengths[symbol] == length) {
                if (length > LONGEST_CODE)
                    return -1;
                code->symbols[next++] = (uint8_t)symbol;
                code->often[length]++;
                space += 1u << (LONGEST_CODE - length);
                used++;
            }
    if (space == 1u << LONGEST_CODE)
        return 0;
    return used == 1 && lengths[first] == 1 ? 0 : -1;
}

static int take_symbol(bit_reader *r, const huffman *code, uint64_t *symbol) {
    unsigned word = 0, first = 0, index = 0;
    for (unsigned length = 1; length <= LONGEST_CODE; length++) {
        word |= (unsigned)take(r, 1);
        if (r->overrun)
            return -1;
        if (word - first < code->often[length]) {
            *symbol = code->symbols[index + word - first];
            return 0;
        }
        index += code->often[length];
        first = (first + code->often[length]) << 1;
        word <<= 1;
    }
    return -1;
}

/* A gap in Golomb's code; most is the largest allowed. */
static int take_gap(bit_reader *r, uint64_t divisor, uint64_t most, uint64_t *gap) {
    unsigned bits = width_of(divisor);
    uint64_t quotient = 0, rest = 0, spare = ((uint64_t)1 << bits) - divisor;
    while (!take(r, 1)) {
        if (r->overrun || ++quotient > most / divisor)
            return -1;
    }
    if (!spare)
        rest = take(r, bits);
    else if ((rest = take(r, bits - 1)) >= spare)
        rest = 2 * rest + take(r, 1) - spare;
    *gap = quotient * divisor + rest;
    return r->overrun || *gap > most ? -1 : 0;
}

/* A code: its symbol's word, then the bits below the symbol, then those above; or as it is. */
static int take_code(const swb_tensor *t, bit_reader *r, const huffman *code, uint64_t *value) {
    uint64_t symbol;
    if (!code) {
        *value = take(r, t->code_bits);
        return r->overrun ? -1 : 0;
    }
    if (take_symbol(r, code, &symbol))
        return -1;
    *value = take(r, t->symbol_shift) | symbol << t->symbol_shift;
    *value |= take(r, t->code_bits - t->symbol_bits - t->symbol_shift)
              << (t->symbol_shift + t->symbol_bits) % 64;
    return r->overrun ? -1 : 0;
}

/* Gaps and codes; with divisor 0 codes alone, one for each element. */
static int read_gaps(const swb_target *to, bit_reader *r, uint64_t divisor, const huffman *code) {
    uint64_t cursor = 0, gap, value;
    while (cursor < to->count) {
        if (divisor) {
            if (take_gap(r, divisor, to->count - cursor, &gap))
                return -1;
            cursor += gap;
            if (cursor == to->count)
                break;
        }
        if (take_code(to->t, r, code, &value) || swb_put(to, cursor++, value))
            return -1;
    }
    return 0;
}

static int read_rice(const swb_target *to, bit_reader *r) {
    const swb_tensor *t = to->t;
    if (t->header.size != 1 || t->header.bytes[0] > 31 ||
        (t->own[0] != -1 && (unsigned)t->own[0] != t->header.bytes[0]))
        return -1;
    return read_gaps(to, r, (uint64_t)1 << t->header.bytes[0], NULL);
}

static int read_entropy(const swb_target *to, bit_reader *r) {
    uint64_t divisor;
    huffman code;
    return read_table(to->t, &divisor, &code) || read_gaps(to, r, divisor, &code);
}

int swb_read_chunk(const swb_target *to, bit_reader *r) {
    static int (*const READ[15])(const swb_target *, bit_reader *) = {
        NULL, read_dense, read_bitmask, read_two_level, read_nm, read_block, read_ellpack, read_csr,
        read_csr, read_run_length, read_relative_index, read_elias_fano, read_rice, read_entropy,
        read_segments,
    };
    return READ[to->t->encoding](to, r);
}
