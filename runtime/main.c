/* The command-line program around a compiled network: reads images, runs it once, writes what comes out.
 *
 * `graphc.build(..., emit=["exe"])` compiles this file against NAME.h and links it with NAME.o. It needs C99, POSIX and
 * these macros (graphc/artefact/program.py):
 *
 *   NETWORK    the prefix of the network's functions
 *   HEADER     "NAME.h"
 *   TITLE      the network's name as a string
 *   SYMBOLS    its sizes, each as a string and a comma: "N", "H", "W",
 *   INPUTS     initialisers of `tensor`, see below
 *   OUTPUTS    the same
 *   MAX_RANK   the most dims that any of them has
 *   WEIGHTS    "NAME.weights", if the weights are not embedded
 *
 * Exit status: 0, 1 if it failed, 2 if it was called wrongly. No output file is touched before all are complete.
 * A file may hold anything: every number read from one is checked before it is used.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include HEADER

#define JOIN(prefix, suffix) prefix##_##suffix
#define EXPAND(prefix, suffix) JOIN(prefix, suffix)
#define NET(function) EXPAND(NETWORK, function)
#define STRING(text) #text
#define EXPAND_STRING(text) STRING(text)
#define PROGRAM EXPAND_STRING(NETWORK)
#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { FAILED = 1, USAGE = 2 };

/* An input or output. A dim that is positive is fixed; -1 - i stands for symbols[i]. */
typedef struct {
    const char *name, *type, *npy_type;
    size_t item; /* bytes of an element */
    int rank;
    int64_t dims[MAX_RANK ? MAX_RANK : 1];
} tensor;

static const tensor inputs[] = {INPUTS}, outputs[] = {OUTPUTS};
static const char *const symbols[] = {SYMBOLS NULL};
enum { INPUT_COUNT = COUNT(inputs), OUTPUT_COUNT = COUNT(outputs), SYMBOL_COUNT = COUNT(symbols) - 1 };

/* Outputs written so far, under the names that they have until all are complete */
static char *unfinished[OUTPUT_COUNT];

static void fail(int status, const char *format, ...)
{
    va_list arguments;
    int saved = errno;
    size_t i;

    for (i = 0; i < OUTPUT_COUNT; i++)
        if (unfinished[i])
            remove(unfinished[i]);
    errno = saved;
    fprintf(stderr, "%s: ", PROGRAM);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs(status == USAGE ? " (see " PROGRAM " --help)\n" : "\n", stderr);
    exit(status);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory)
        fail(FAILED, "out of memory: %zu bytes wanted", bytes);
    return memory;
}

/* ---- files in memory -------------------------------------------------------------------------------------------- */

/* A file's bytes; `at` is how far they have been read. */
typedef struct {
    const char *path;
    unsigned char *bytes;
    size_t size, at;
} file;

/* An array: its dims, and the data that lies in malloc'ed memory. */
typedef struct {
    int rank;
    int64_t dims[MAX_RANK + 4];
    void *data;
} array;

static file read_file(const char *path)
{
    file f = {path, NULL, 0, 0};
    size_t capacity = 1 << 16, got;
    FILE *stream = fopen(path, "rb");

    if (!stream)
        fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
    f.bytes = allocate(capacity);
    while ((got = fread(f.bytes + f.size, 1, capacity - f.size, stream)) > 0) {
        f.size += got;
        if (f.size == capacity) {
            unsigned char *larger = capacity > SIZE_MAX / 2 ? NULL : realloc(f.bytes, capacity *= 2);
            if (!larger)
                fail(FAILED, "%s: out of memory: more than %zu bytes", path, f.size);
            f.bytes = larger;
        }
    }
    if (ferror(stream))
        fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
    fclose(stream);
    return f;
}

static int peek(const file *f)
{
    return f->at < f->size ? f->bytes[f->at] : EOF;
}

/* A decimal number from 0 to `most`; `what` and `format` are for the error. */
static int64_t read_number(file *f, int64_t most, const char *format, const char *what)
{
    int64_t value = 0;

    if (peek(f) < '0' || peek(f) > '9')
        fail(FAILED, "%s: broken %s header: expected %s", f->path, format, what);
    for (; peek(f) >= '0' && peek(f) <= '9'; f->at++) {
        value = value * 10 + (peek(f) - '0');
        if (value > most)
            fail(FAILED, "%s: broken %s header: expected %s of at most %" PRId64, f->path, format, what, most);
    }
    return value;
}

/* dims[0] * ... * item, which must not exceed `most` bytes. */
static size_t count_bytes(const file *f, const array *a, size_t item, size_t most)
{
    size_t total = item;
    int i;

    for (i = 0; i < a->rank; i++) {
        if (a->dims[i] && total > most / (size_t)a->dims[i])
            fail(FAILED, "%s: its header tells of more data than the %zu bytes that follow", f->path, most);
        total *= (size_t)a->dims[i];
    }
    return total;
}

/* ---- .npy (numpy.lib.format, versions 1 to 3) -------------------------------------------------------------------- */

static void skip_spaces(file *f)
{
    while (peek(f) == ' ' || peek(f) == '\n')
        f->at++;
}

/* Whether `text` comes next, after spaces; then it is read. */
static int accept(file *f, const char *text)
{
    size_t length = strlen(text);

    skip_spaces(f);
    if (f->size - f->at < length || memcmp(f->bytes + f->at, text, length))
        return 0;
    f->at += length;
    return 1;
}

static void expect(file *f, const char *text)
{
    if (!accept(f, text))
        fail(FAILED, "%s: broken .npy header: expected %s", f->path, text);
}

static void read_npy_shape(file *f, array *a)
{
    expect(f, "(");
    for (a->rank = 0; !accept(f, ")"); a->rank++) {
        if (a->rank == (int)COUNT(a->dims))
            fail(FAILED, "%s: expected at most %d dims, got more", f->path, (int)COUNT(a->dims));
        skip_spaces(f);
        a->dims[a->rank] = read_number(f, INT_MAX, ".npy", "a dim");
        if (!accept(f, ",")) {
            if (a->rank == 0) /* (5) is a number in Python, (5,) a tuple */
                fail(FAILED, "%s: broken .npy header: expected ,", f->path);
            a->rank++;
            expect(f, ")");
            return;
        }
    }
}

/* The header is a Python dict with three keys, in any order. */
static void read_npy_header(file *f, const tensor *t, array *a)
{
    int have_type = 0, have_order = 0, have_shape = 0;

    for (expect(f, "{"); !accept(f, "}");) {
        if (!have_type && accept(f, "'descr':")) {
            have_type = 1;
            skip_spaces(f);
            if (!accept(f, "'"))
                fail(FAILED, "%s: input '%s' expected elements of type '%s', got a record", f->path, t->name, t->npy_type);
            if (!accept(f, t->npy_type) || peek(f) != '\'') {
                const char *found = (const char *)f->bytes + f->at;
                size_t left = f->size - f->at, length = 0;
                while (length < left && length < 16 && found[length] > ' ' && found[length] < 127 && found[length] != '\'')
                    length++;
                fail(FAILED, "%s: input '%s' expected elements of type '%s', got '%.*s'", f->path, t->name, t->npy_type,
                     (int)length, found);
            }
            expect(f, "'");
        } else if (!have_order && accept(f, "'fortran_order':")) {
            have_order = 1;
            if (accept(f, "True"))
                fail(FAILED, "%s: input '%s' expected C order, got Fortran order", f->path, t->name);
            expect(f, "False");
        } else if (!have_shape && accept(f, "'shape':")) {
            have_shape = 1;
            read_npy_shape(f, a);
        } else {
            fail(FAILED, "%s: broken .npy header: expected the keys descr, fortran_order and shape", f->path);
        }
        if (!accept(f, ",")) {
            expect(f, "}");
            break;
        }
    }
    if (!have_type || !have_order || !have_shape)
        fail(FAILED, "%s: broken .npy header: expected the keys descr, fortran_order and shape", f->path);
}

static array read_npy(file *f, const tensor *t)
{
    array a = {0, {0}, NULL};
    file header = *f;
    size_t start, length, size;

    if (f->size < 12 || f->bytes[6] < 1 || f->bytes[6] > 3)
        fail(FAILED, "%s: expected .npy of version 1, 2 or 3, got another or a broken one", f->path);
    start = f->bytes[6] == 1 ? 10 : 12;
    length = f->bytes[8] | (size_t)f->bytes[9] << 8;
    if (start == 12)
        length |= (size_t)f->bytes[10] << 16 | (size_t)f->bytes[11] << 24;
    if (length > f->size - start)
        fail(FAILED, "%s: broken .npy header: it has %zu bytes and the file %zu", f->path, length, f->size);
    header.at = start;
    header.size = start + length;
    read_npy_header(&header, t, &a);
    skip_spaces(&header);
    if (header.at != header.size)
        fail(FAILED, "%s: broken .npy header: expected its end after }", f->path);
    size = count_bytes(f, &a, t->item, f->size - header.size);
    if (size != f->size - header.size)
        fail(FAILED, "%s: expected %zu bytes of data, got %zu", f->path, size, f->size - header.size);
    a.data = memmove(f->bytes, f->bytes + header.size, size); /* to the start, which is aligned */
    return a;
}

/* ---- PGM and PPM (netpbm, binary) -------------------------------------------------------------------------------- */

static int is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int64_t read_pnm_number(file *f, int64_t most, const char *what)
{
    if (!is_space(peek(f)) && peek(f) != '#')
        fail(FAILED, "%s: broken PNM header: expected a space before %s", f->path, what);
    while (is_space(peek(f)) || peek(f) == '#') {
        if (peek(f) == '#')
            while (peek(f) != EOF && peek(f) != '\n' && peek(f) != '\r')
                f->at++;
        else
            f->at++;
    }
    return read_number(f, most, "PNM", what);
}

/* As floats from 0 to 1, channel by channel: [1, C, H, W]. */
static array read_pnm(file *f, const tensor *t)
{
    int channels = f->bytes[1] == '5' ? 1 : 3, c;
    array a = {4, {1, channels, 0, 0}, NULL};
    size_t pixels, bytes, left, i;
    int64_t most, sample_bytes;
    float *data;

    if (strcmp(t->npy_type, "<f4") || t->rank != 4)
        fail(FAILED, "%s: input '%s' is %s, expected .npy, got an image", f->path, t->name, t->type);
    if (t->dims[1] > 0 && t->dims[1] != channels)
        fail(FAILED, "%s: input '%s' expected %" PRId64 " channels, got %d (%s)", f->path, t->name, t->dims[1], channels,
             channels == 1 ? "PGM" : "PPM");
    f->at = 2;
    a.dims[3] = read_pnm_number(f, INT_MAX, "a width");
    a.dims[2] = read_pnm_number(f, INT_MAX, "a height");
    most = read_pnm_number(f, 65535, "a largest sample");
    if (!a.dims[3] || !a.dims[2] || !most)
        fail(FAILED, "%s: broken PNM header: expected a width, height and largest sample of at least 1", f->path);
    if (!is_space(peek(f)))
        fail(FAILED, "%s: broken PNM header: expected one space before the samples", f->path);
    f->at++;
    left = f->size - f->at;
    sample_bytes = most > 255 ? 2 : 1;
    bytes = count_bytes(f, &a, (size_t)sample_bytes, left);
    if (bytes != left)
        fail(FAILED, "%s: expected %zu bytes of samples, got %zu", f->path, bytes, left);
    pixels = bytes / (size_t)sample_bytes / (size_t)channels;
    if (bytes > SIZE_MAX / sizeof(float))
        fail(FAILED, "%s: the image is too large", f->path);
    a.data = data = allocate(bytes / (size_t)sample_bytes * sizeof(float));
    for (i = 0; i < pixels; i++)
        for (c = 0; c < channels; c++) {
            const unsigned char *p = f->bytes + f->at + (i * (size_t)channels + (size_t)c) * (size_t)sample_bytes;
            int sample = sample_bytes == 2 ? p[0] << 8 | p[1] : p[0];
            if (sample > most)
                fail(FAILED, "%s: expected samples of at most %" PRId64 ", got %d", f->path, most, sample);
            data[(size_t)c * pixels + i] = (float)sample / (float)most;
        }
    free(f->bytes);
    return a;
}

/* ---- the network ------------------------------------------------------------------------------------------------- */

static array read_input(const char *path, const tensor *t)
{
    file f = read_file(path);

    if (f.size >= 6 && !memcmp(f.bytes, "\x93NUMPY", 6))
        return read_npy(&f, t);
    if (f.size >= 2 && f.bytes[0] == 'P' && (f.bytes[1] == '5' || f.bytes[1] == '6'))
        return read_pnm(&f, t);
    fail(FAILED, "%s: expected .npy, binary PPM (P6) or binary PGM (P5), got something else", path);
    exit(FAILED);
}

static void print_shape(char *text, size_t room, const array *a)
{
    size_t used = 0;
    int i;

    for (i = 0; i < a->rank && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, i ? "," : "", a->dims[i]);
}

/* Fit an array to its input: put dims of 1 in front where they are missing, and learn the sizes. */
static void bind(const char *path, const tensor *t, array *a, int64_t *sizes)
{
    char got[32 * (MAX_RANK + 4)] = "", known[64 * (SYMBOL_COUNT + 1)] = "";
    int missing = t->rank - a->rank, fits = missing >= 0, i;
    size_t s, used = 0;

    print_shape(got, sizeof got, a);
    for (s = 0; s < SYMBOL_COUNT; s++)
        if (sizes[s])
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s=%" PRId64, used ? ", " : " with ",
                                     symbols[s], sizes[s]);
    for (i = 0; fits && i < t->rank; i++) {
        int64_t dim = i < missing ? 1 : a->dims[i - missing];
        int64_t *size = t->dims[i] < 0 ? &sizes[-1 - t->dims[i]] : NULL;
        if (size && !*size)
            *size = dim;
        fits = dim > 0 && dim == (size ? *size : t->dims[i]) && (i >= missing || i == 0 || t->dims[i] == 1);
    }
    if (!fits)
        fail(FAILED, "%s: input '%s' expected %s%s, got [%s]", path, t->name, t->type, known, got);
}

/* The address of the weights file: as given, or beside the program; null for embedded weights. */
static const char *find_weights(const char *given)
{
#ifdef WEIGHTS
    static char path[PATH_MAX + sizeof WEIGHTS];
    ssize_t length = given ? 0 : readlink("/proc/self/exe", path, PATH_MAX);

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

static void check(int code, const int64_t *sizes)
{
    char text[64 * (SYMBOL_COUNT + 1)] = "";
    size_t s, used = 0;

    for (s = 0; s < SYMBOL_COUNT; s++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s=%" PRId64, used ? ", " : " (got ", symbols[s],
                                 sizes[s]);
    if (code)
        fail(FAILED, "%s%s%s", NET(strerror)(code), text, used ? ")" : "");
}

/* The path of an output: PATH.npy, PATH.1.npy, PATH.2.npy and so on. */
static char *output_path(const char *path, int i)
{
    size_t stem = strlen(path) - strlen(".npy"), room = strlen(path) + 32;
    char *result = allocate(room);

    if (i == 0)
        strcpy(result, path);
    else
        snprintf(result, room, "%.*s.%d.npy", (int)stem, path, i);
    return result;
}

/* Write an array under a temporary name, which goes to `unfinished`. */
static void write_npy(const char *path, const tensor *t, const array *a, size_t bytes, int i)
{
    char shape[32 * (MAX_RANK + 4)] = "", header[sizeof shape + 256];
    size_t room = strlen(path) + 64, length;
    char *temporary = allocate(room);
    FILE *stream;
    int descriptor;

    print_shape(shape, sizeof shape, a);
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", t->npy_type, shape,
             a->rank == 1 ? "," : "");
    length = (10 + strlen(header) + 1 + 63) / 64 * 64 - 10; /* the data begins at a multiple of 64 */
    snprintf(temporary, room, "%s.%ld.tmp", path, (long)getpid());
    descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (descriptor < 0)
        fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    unfinished[i] = temporary;
    stream = fdopen(descriptor, "wb");
    if (!stream || fprintf(stream, "\x93NUMPY%c%c%c%c%-*s\n", 1, 0, (int)(length & 255), (int)(length >> 8),
                           (int)length - 1, header) < 0
        || fwrite(a->data, 1, bytes, stream) != bytes || fclose(stream))
        fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
}

static void run(char **paths, const char *output, int threads, const char *weights)
{
    static array in[INPUT_COUNT], out[OUTPUT_COUNT];
    static const void *sources[INPUT_COUNT];
    static void *targets[OUTPUT_COUNT];
    static char *names[OUTPUT_COUNT];
    int64_t sizes[SYMBOL_COUNT + 1] = {0};
    size_t bytes[OUTPUT_COUNT];
    NETWORK *net;
    int code, i, axis;

    for (i = 0; i < INPUT_COUNT; i++) {
        in[i] = read_input(paths[i], &inputs[i]);
        bind(paths[i], &inputs[i], &in[i], sizes);
        sources[i] = in[i].data;
    }
    for (i = 0; i < OUTPUT_COUNT; i++) {
        out[i].rank = outputs[i].rank;
        check(NET(output_dims)(sizes, i, out[i].dims), sizes);
        bytes[i] = outputs[i].item;
        for (axis = 0; axis < out[i].rank; axis++)
            bytes[i] *= (size_t)out[i].dims[axis]; /* fits: the network has checked it */
        targets[i] = out[i].data = allocate(bytes[i]);
    }
    code = NET(create)(&net, threads, weights);
    if (code)
        fail(FAILED, "%s%s%s", weights ? weights : "", weights ? ": " : "", NET(strerror)(code));
    check(NET(call)(net, sources, sizes, targets, NULL, 0), sizes);
    NET(destroy)(net);
    for (i = 0; i < OUTPUT_COUNT; i++) {
        names[i] = output_path(output, i);
        write_npy(names[i], &outputs[i], &out[i], bytes[i], i);
    }
    for (i = 0; i < OUTPUT_COUNT; i++) {
        if (rename(unfinished[i], names[i]))
            fail(FAILED, "%s: cannot be written: %s", names[i], strerror(errno));
        unfinished[i] = NULL;
    }
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void print_help(void)
{
    int i;

    printf("usage: %s [--threads N] [--weights FILE]", PROGRAM);
    for (i = 0; i < INPUT_COUNT; i++)
        printf(INPUT_COUNT > 1 ? " INPUT%d" : " INPUT", i + 1);
    printf(" OUTPUT.npy\n\nRun the neural network '%s'.\n\n", TITLE);
    for (i = 0; i < INPUT_COUNT; i++)
        printf("  input '%s': %s\n", inputs[i].name, inputs[i].type);
    for (i = 0; i < OUTPUT_COUNT; i++)
        printf(i ? "  output '%s': %s, written to OUTPUT.%d.npy\n" : "  output '%s': %s, written to OUTPUT.npy\n",
               outputs[i].name, outputs[i].type, i);
    printf("\nINPUT is a .npy file of this type in C order, where leading dims of 1 may be missing; or a binary PPM or PGM\n"
           "image, whose samples become 0 to 1. Nothing is written unless all goes well.\n\n"
           "  --threads N     threads of the run, 1 to 1024; by default one for each CPU\n"
           "  --weights FILE  the file with the weights; by default %s\n"
           "  --help          print this\n"
           "  --version       print the version of the interface\n",
#ifdef WEIGHTS
           WEIGHTS " beside the program");
#else
           "they are in the program");
#endif
}

/* Where the value of an option is: in "--name=value", or in the next argument. Null if it is another option. */
static const char *option_value(char **arguments, int *i, const char *name)
{
    size_t length = strlen(name);

    if (strncmp(arguments[*i], name, length) || (arguments[*i][length] && arguments[*i][length] != '='))
        return NULL;
    if (arguments[*i][length])
        return arguments[*i] + length + 1;
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
    const char *weights = NULL, *value;
    int threads = 0, operands = 0, options = 1, i;

    for (i = 1; i < argc; i++) {
        if (!options || argv[i][0] != '-' || !argv[i][1])
            argv[operands++] = argv[i]; /* operands gather at the front */
        else if (!strcmp(argv[i], "--"))
            options = 0;
        else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return print_help(), fflush(stdout) ? FAILED : 0;
        else if (!strcmp(argv[i], "--version"))
            return printf("%s, interface %d of graphc\n", PROGRAM, NET(abi_version)()), fflush(stdout) ? FAILED : 0;
        else if ((value = option_value(argv, &i, "--threads")))
            threads = parse_threads(value);
        else if ((value = option_value(argv, &i, "--weights")))
            weights = value;
        else
            fail(USAGE, "unknown option '%s'", argv[i]);
    }
    if (operands != INPUT_COUNT + 1)
        fail(USAGE, "expected %d files, got %d", INPUT_COUNT + 1, operands);
    value = argv[INPUT_COUNT];
    if (strlen(value) < 5 || strcmp(value + strlen(value) - 4, ".npy"))
        fail(USAGE, "OUTPUT: expected a name that ends in .npy, got '%s'", value);
    run(argv, value, threads, find_weights(weights));
    return 0;
}
