/* The command-line program around a compiled network: reads images, runs it once, writes what comes out.
 *
 * `graphc.build(..., emit=["exe"])` compiles this file and arrays.c and links them with NAME.o. They need C99, POSIX
 * and these macros (graphc/artefact/program.py):
 *
 *   NETWORK    the prefix of the network's functions
 *   HEADER     "NAME.h"
 *   TITLE      the network's name as a string
 *   SYMBOLS    its sizes, each as a string and a comma: "N", "H", "W",
 *   INPUTS     an initialiser of `tensor_info` (arrays.h) for each input
 *   OUTPUTS    and for each output
 *   MAX_RANK   the most dims that any of them has
 *   WEIGHTS    "NAME.weights", if the weights are not embedded
 *
 * Exit status: 0, 1 if it failed, 2 if it was called wrongly. No output appears before all are complete.
 */
#define _POSIX_C_SOURCE 200809L

#include "arrays.h"
#include HEADER

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN(prefix, suffix) prefix##_##suffix
#define JOIN_VALUES(prefix, suffix) JOIN(prefix, suffix)
#define NET(function) JOIN_VALUES(NETWORK, function)
#define STRING(text) #text
#define STRING_OF_VALUE(text) STRING(text)
#define PROGRAM STRING_OF_VALUE(NETWORK)
#define ERROR_CPU 10 /* NAME_ERROR_CPU of the header: macros cannot make capitals */
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const tensor_info inputs[] = {INPUTS}, outputs[] = {OUTPUTS};
static const char *const symbols[] = {SYMBOLS NULL};
enum { INPUT_COUNT = COUNT(inputs), OUTPUT_COUNT = COUNT(outputs), SYMBOL_COUNT = COUNT(symbols) - 1 };

/* Outputs under the names that they have until all are complete */
static char *unfinished[OUTPUT_COUNT];

void fail(int status, const char *format, ...)
{
    va_list arguments;
    int i;

    for (i = 0; i < OUTPUT_COUNT; i++)
        if (unfinished[i])
            remove(unfinished[i]);
    fprintf(stderr, "%s: ", PROGRAM);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs(status == USAGE ? " (see " PROGRAM " --help)\n" : "\n", stderr);
    exit(status);
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

/* " with N=1, H=224": the sizes that are known */
static const char *print_sizes(const int64_t *sizes)
{
    static char text[64 * (SYMBOL_COUNT + 1)];
    size_t used = 0;
    int i;

    for (i = 0, text[0] = 0; i < SYMBOL_COUNT; i++)
        if (sizes[i])
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s=%" PRId64, used ? ", " : " with ", symbols[i],
                                     sizes[i]);
    return text;
}

/* Fit an array to its input: dims of 1 may be missing in front, and symbols that are 0 get their values. */
static void bind_sizes(const char *path, const tensor_info *input, const array_data *array, int64_t *sizes)
{
    int missing = input->rank - array->rank, fits = missing >= 0, i;
    const char *known = print_sizes(sizes);
    char dims[24 * COUNT(array->dims) + 1];

    for (i = 0; fits && i < input->rank; i++) {
        int64_t dim = i < missing ? 1 : array->dims[i - missing];
        int64_t *size = input->dims[i] < 0 ? &sizes[-1 - input->dims[i]] : NULL;
        if (size && !*size)
            *size = dim;
        fits = dim > 0 && dim == (size ? *size : input->dims[i]);
        if (i < missing && i > 0) /* only the batch may be a symbol */
            fits = fits && !size;
    }
    if (!fits) {
        print_dims(dims, sizeof dims, array, ",");
        fail(FAILED, "%s: input '%s' expected %s%s, got [%s]", path, input->name, input->type, known, dims);
    }
}

static void check_code(int code, const int64_t *sizes)
{
    if (code)
        fail(FAILED, "%s%s", NET(strerror)(code), print_sizes(sizes));
}

/* The weights file: as given, or beside this program, or null for embedded weights. */
static const char *find_weights(const char *given)
{
#ifdef WEIGHTS
    static char path[PATH_MAX + sizeof WEIGHTS];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);

    if (given)
        return given;
    while (length > 0 && path[length - 1] != '/')
        length--;
    strcpy(path + (length > 0 ? length : 0), WEIGHTS);
    return path;
#else
    return given;
#endif
}

/* Write all outputs under temporary names, then give them their own: PATH.npy, PATH.1.npy, PATH.2.npy ... */
static void write_outputs(const char *path, const array_data *arrays)
{
    size_t stem = strlen(path) - strlen(".npy"), room = strlen(path) + 64;
    char *names[OUTPUT_COUNT];
    int i;

    for (i = 0; i < OUTPUT_COUNT; i++) {
        char *temporary = allocate(room);
        int descriptor;

        names[i] = allocate(room);
        if (i)
            snprintf(names[i], room, "%.*s.%d.npy", (int)stem, path, i);
        else
            strcpy(names[i], path);
        snprintf(temporary, room, "%s.%ld.tmp", names[i], (long)getpid());
        descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (descriptor >= 0)
            unfinished[i] = temporary;
        if (descriptor < 0 || write_array(descriptor, &outputs[i], &arrays[i]))
            fail(FAILED, "%s: cannot be written: %s", names[i], strerror(errno));
    }
    for (i = 0; i < OUTPUT_COUNT; i++) {
        if (rename(unfinished[i], names[i]))
            fail(FAILED, "%s: cannot be written: %s", names[i], strerror(errno));
        free(unfinished[i]);
        unfinished[i] = NULL;
        free(names[i]);
    }
}

static void run_network(char **paths, const char *output, int threads, const char *weights)
{
    array_data in[INPUT_COUNT], out[OUTPUT_COUNT];
    const void *sources[INPUT_COUNT];
    void *targets[OUTPUT_COUNT];
    int64_t sizes[SYMBOL_COUNT + 1] = {0};
    NETWORK *net;
    int code, i;

    for (i = 0; i < INPUT_COUNT; i++) {
        in[i] = read_array(paths[i], &inputs[i]);
        bind_sizes(paths[i], &inputs[i], &in[i], sizes);
        sources[i] = in[i].data;
    }
    for (i = 0; i < OUTPUT_COUNT; i++) {
        out[i].rank = outputs[i].rank;
        check_code(NET(output_dims)(sizes, i, out[i].dims), sizes);
        targets[i] = out[i].data = allocate(array_bytes(&out[i], &outputs[i])); /* the network refuses what overflows */
    }
    code = NET(create)(&net, threads, weights);
    if (code)
        fail(FAILED, "%s%s%s", weights ? weights : "", weights ? ": " : "", NET(strerror)(code));
    check_code(NET(call)(net, sources, sizes, targets, NULL, 0), sizes);
    NET(destroy)(net);
    write_outputs(output, out);
    for (i = 0; i < INPUT_COUNT; i++)
        free(in[i].data);
    for (i = 0; i < OUTPUT_COUNT; i++)
        free(out[i].data);
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int print_help(void)
{
    int i;

    printf("usage: %s [--threads N] [--weights FILE]", PROGRAM);
    for (i = 0; i < INPUT_COUNT; i++)
        INPUT_COUNT > 1 ? printf(" INPUT%d", i + 1) : printf(" INPUT");
    printf(" OUTPUT.npy\n\nRun the neural network '%s'.\n\n", TITLE);
    for (i = 0; i < INPUT_COUNT; i++)
        printf("  input '%s': %s\n", inputs[i].name, inputs[i].type);
    for (i = 0; i < OUTPUT_COUNT; i++)
        i ? printf("  output '%s': %s, written to OUTPUT.%d.npy\n", outputs[i].name, outputs[i].type, i)
          : printf("  output '%s': %s, written to OUTPUT.npy\n", outputs[i].name, outputs[i].type);
    printf("\nAn input is a .npy file of its type in C order, whose leading dims may be missing where they are 1; or a binary\n"
           "PPM or PGM image, whose samples become 0 to 1. Outputs appear only when all of them are complete.\n\n"
           "  --threads N     threads of the run, 1 to 1024; by default one for each CPU\n"
           "  --weights FILE  the file with the weights; by default %s\n"
           "  --help          print this\n"
           "  --version       print the version of the interface\n",
#ifdef WEIGHTS
           WEIGHTS " beside the program"
#else
           "they are in the program"
#endif
    );
    return fflush(stdout) ? FAILED : 0;
}

/* The value of an option, in "--name=value" or in the next argument; null if this is another option. */
static const char *option_value(char **arguments, int *i, const char *name)
{
    size_t length = strlen(name);
    const char *found = arguments[*i];

    if (strncmp(found, name, length) || (found[length] && found[length] != '='))
        return NULL;
    if (found[length])
        return found + length + 1;
    if (!arguments[*i + 1])
        fail(USAGE, "%s: expected a value", name);
    return arguments[++*i];
}

static int parse_threads(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*end || end == text || value < 1 || value > 1024)
        fail(USAGE, "--threads: expected 1 to 1024, got '%s'", text);
    return (int)value;
}

int main(int argc, char **argv)
{
    const char *weights = NULL, *output, *value;
    int threads = 0, operands = 0, options = 1, i;

    for (i = 1; i < argc; i++) {
        if (!options || argv[i][0] != '-' || !argv[i][1]) {
            argv[operands++] = argv[i]; /* operands gather at the front */
        } else if (!strcmp(argv[i], "--")) {
            options = 0;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            return print_help();
        } else if (!strcmp(argv[i], "--version")) {
            printf("%s, interface %d of graphc\n", PROGRAM, NET(abi_version)());
            return fflush(stdout) ? FAILED : 0;
        } else if ((value = option_value(argv, &i, "--threads"))) {
            threads = parse_threads(value);
        } else if ((value = option_value(argv, &i, "--weights"))) {
            weights = value;
        } else {
            fail(USAGE, "unknown option '%s'", argv[i]);
        }
    }
    if (operands != INPUT_COUNT + 1)
        fail(USAGE, "expected %d files, got %d", INPUT_COUNT + 1, operands);
    output = argv[INPUT_COUNT];
    if (strlen(output) < 5 || strcmp(output + strlen(output) - 4, ".npy"))
        fail(USAGE, "OUTPUT: expected a name that ends in .npy, got '%s'", output);
    if (!NET(cpu)())
        fail(FAILED, "%s", NET(strerror)(ERROR_CPU));
    run_network(argv, output, threads, find_weights(weights));
    return 0;
}
