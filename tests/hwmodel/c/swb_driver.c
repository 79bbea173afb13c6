/* Decodes blobs for tests: reads (u32 size, bytes) again and again from standard input, and writes for
 * each what the decoder said of it and all tensors, whole and chunk by chunk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "swb.h"

static void write_all(const void *bytes, size_t size) {
    if (size && fwrite(bytes, 1, size, stdout) != size)
        exit(3);
}

static void write_u64(uint64_t number) { write_all(&number, sizeof number); }

int main(void) {
    uint32_t size;
    while (fread(&size, sizeof size, 1, stdin) == 1) {
        uint8_t *bytes = malloc(size ? size : 1); /* its very size, so that no byte beyond is read */
        swb_file file;
        int status;
        if (!bytes || fread(bytes, 1, size, stdin) != size)
            return 2;
        status = swb_open(&file, bytes, size);
        write_u64((uint64_t)(int64_t)status);
        write_u64(status ? 0 : file.tensors);
        for (uint32_t i = 0; !status && i < file.tensors; i++) {
            swb_tensor t;
            if (swb_get(&file, i, &t))
                return 4; /* swb_open has looked at it */
            char name[4096];
            if (swb_name(&file, i, name, sizeof name))
                return 6;
            write_all(name, strlen(name));
            size_t length = (size_t)t.elements * t.value_bytes;
            uint8_t *out = malloc(length ? length : 1);
            int whole = swb_check(&t);
            if (!whole)
                whole = swb_decode(&t, out, length);
            write_u64((uint64_t)(int64_t)whole);
            write_u64(whole ? 0 : length);
            write_all(out, whole ? 0 : length);
            for (uint64_t chunk = 0; chunk < t.chunks && chunk < 64; chunk++) {
                uint64_t elements = 0;
                uint8_t *part = malloc((size_t)t.full * t.value_bytes);
                int one = swb_decode_chunk(&t, chunk, part, (size_t)t.full * t.value_bytes, &elements);
                if (!whole && one)
                    return 5; /* a whole that is well has chunks that are */
                if (!whole)
                    write_all(part, (size_t)elements * t.value_bytes);
                free(part);
            }
            free(out);
        }
        free(bytes);
    }
    return 0;
}
