/* Decoder of weight blobs (.swb): C99, no allocation, no dependencies but the C library's memory
 * functions. docs/blob-format.md describes the format; this decoder and the Python package accept the
 * same blobs and refuse the same blobs, but for names, which this one does not look at.
 *
 *     swb_file file;
 *     swb_tensor tensor;
 *     if (swb_open(&file, bytes, size) == SWB_OK && swb_get(&file, 0, &tensor) == SWB_OK)
 *         swb_decode(&tensor, out, out_size);
 *
 * The bytes must stay where they are as long as the file and its tensors are used.
 */
#ifndef SWB_H
#define SWB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SWB_OK = 0,
    SWB_NOT_A_BLOB = -1, /* magic or version */
    SWB_DAMAGED = -2,    /* a checksum differs, or a field is not plausible */
    SWB_NO_SUCH = -3,    /* tensor or chunk beyond the last */
    SWB_TOO_SMALL = -4   /* the buffer given */
};

typedef struct {
    const uint8_t *bytes;
    size_t size;
    const uint8_t *index;
    uint32_t tensors;
} swb_file;

typedef struct {
    const uint8_t *bytes;
    uint64_t size;
    uint32_t crc32;
} swb_segment;

typedef struct {
    const char *name; /* between the bytes shared with both ends of the name before; see swb_name */
    uint64_t name_bytes, name_begins, name_ends;
    unsigned dtype, encoding, codebook, rank;
    int32_t zero_point;
    uint64_t chunk, shape[8];
    uint32_t align;
    int32_t own[3];
    int inside; /* the segments lie in the index, whose checksum is theirs */
    swb_segment header, book, pointers, data;
    /* what follows from these */
    unsigned value_bits, value_bytes; /* of a value in the array; 4-bit values take a byte there */
    unsigned code_bits, symbol_shift, symbol_bits;
    int by_columns;                   /* stored column after column */
    uint64_t elements, rows, columns; /* of the matrix as stored: its transpose where by_columns */
    uint64_t full, chunks;            /* elements of a whole chunk; how many chunks */
} swb_tensor;

/* Check a whole file but for the contents of its segments. */
int swb_open(swb_file *file, const void *bytes, size_t size);

/* The tensor of that number. */
int swb_get(const swb_file *file, uint32_t number, swb_tensor *tensor);

/* The name of the tensor of that number, ended by a zero. Writes names before it on the way, so the
 * buffer must hold the longest of them. */
int swb_name(const swb_file *file, uint32_t number, char *name, size_t size);

/* Check the checksums of a tensor's segments; swb_decode does not. */
int swb_check(const swb_tensor *tensor);

/* Decode to elements * value_bytes bytes in the order of the array. */
int swb_decode(const swb_tensor *tensor, void *out, size_t out_size);

/* Decode one chunk to its elements in stored order; returns how many in *elements. */
int swb_decode_chunk(const swb_tensor *tensor, uint64_t chunk, void *out, size_t out_size,
                     uint64_t *elements);

#ifdef __cplusplus
}
#endif
#endif
