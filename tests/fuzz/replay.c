/* Runs a fuzz target over files, where there is no libFuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        static uint8_t room[1 << 20];
        FILE *f = fopen(argv[i], "rb");

        if (!f) {
            perror(argv[i]);
            return 2;
        }
        size_t size = fread(room, 1, sizeof room, f);
        /* at the end of its own memory, for AddressSanitizer to see a read past it */
        uint8_t *data = malloc(size + !size);

        for (size_t k = 0; k < size; k++)
            data[k] = room[k];
        fclose(f);
        LLVMFuzzerTestOneInput(data + !size, size);
        free(data);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
