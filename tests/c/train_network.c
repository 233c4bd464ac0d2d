/* Steps of training in C, over memory of its own: train_network STEPS N STEP_INPUT FILE, built with -DNET=name and
 * -DHEADER="name.h".
 *
 * FILE holds, as 64-bit integers, how many inputs and outputs there are, the bytes of each input, for each output its
 * bytes and the number of the input that it updates in place, or -1; and then the bytes of the inputs. STEP_INPUT is the
 * number of the input that counts the steps. At the end the inputs are written to stdout, as they are then. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include HEADER

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define F(name) JOIN(NET, name)
#define MOST 64

static int64_t read_word(FILE *file)
{
    int64_t word;
    if (fread(&word, sizeof word, 1, file) != 1) exit(3);
    return word;
}

int main(int argc, char **argv)
{
    static void *inputs[MOST], *outputs[MOST];
    static int64_t in_bytes[MOST], out_bytes[MOST], updates[MOST];
    if (argc != 5) return 2;
    const int64_t steps = atoll(argv[1]), sizes[] = {atoll(argv[2])}, counter = atoll(argv[3]);
    FILE *file = fopen(argv[4], "rb");
    if (!file) return 2;
    const int64_t ins = read_word(file), outs = read_word(file);
    if (ins > MOST || outs > MOST) return 2;
    for (int64_t i = 0; i < ins; i++) in_bytes[i] = read_word(file);
    for (int64_t i = 0; i < outs; i++) {
        out_bytes[i] = read_word(file);
        updates[i] = read_word(file);
    }
    for (int64_t i = 0; i < ins; i++) {
        inputs[i] = malloc(in_bytes[i]);
        if (fread(inputs[i], 1, in_bytes[i], file) != (size_t)in_bytes[i]) return 3;
    }
    for (int64_t i = 0; i < outs; i++) outputs[i] = updates[i] < 0 ? malloc(out_bytes[i]) : inputs[updates[i]];
    fclose(file);

    NET *net;
    int code = F(_create)(&net, 2, NULL);
    for (int64_t step = 0; code == 0 && step < steps; step++) {
        *(int64_t *)inputs[counter] = step;
        code = F(_call)(net, (const void *const *)inputs, sizes, outputs, NULL, 0);
    }
    if (code) fprintf(stderr, "%s\n", F(_strerror)(code));
    F(_destroy)(net);
    for (int64_t i = 0; i < ins; i++) {
        fwrite(inputs[i], 1, in_bytes[i], stdout);
        free(inputs[i]);
    }
    for (int64_t i = 0; i < outs; i++)
        if (updates[i] < 0) free(outputs[i]);
    return code;
}
