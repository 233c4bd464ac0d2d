/* Arrays in files: .npy (numpy.lib.format, versions 1 to 3), and the binary images of netpbm, PGM (P5) and PPM (P6).
 *
 * A file may hold anything. It is read whole, so no size that it claims is ever allocated; every number in it is
 * checked before it is used; and what follows the header must have exactly the size that the header tells.
 */
#define _POSIX_C_SOURCE 200809L

#include "arrays.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A file's bytes; `at` is how far they have been read, `format` is for errors. */
typedef struct {
    const char *path, *format;
    unsigned char *bytes;
    size_t size, at;
} reader;

void *allocate(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);

    if (!memory)
        fail(FAILED, "out of memory: %zu bytes wanted", bytes);
    return memory;
}

void print_dims(char *text, size_t room, const array_data *array, const char *separator)
{
    size_t used = 0;
    int i;

    text[0] = 0;
    for (i = 0; i < array->rank && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, i ? separator : "", array->dims[i]);
}

size_t array_bytes(const array_data *array, const tensor_info *tensor)
{
    size_t bytes = tensor->item;
    int i;

    for (i = 0; i < array->rank; i++)
        bytes *= (size_t)array->dims[i];
    return bytes;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static reader read_file(const char *path)
{
    reader f = {path, "", NULL, 0, 0};
    size_t capacity = 1 << 16, got;
    FILE *stream = fopen(path, "rb");

    if (!stream)
        fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
    f.bytes = allocate(capacity);
    while ((got = fread(f.bytes + f.size, 1, capacity - f.size, stream)) > 0) {
        f.size += got;
        if (f.size == capacity) {
            f.bytes = capacity > SIZE_MAX / 2 ? NULL : realloc(f.bytes, capacity *= 2);
            if (!f.bytes)
                fail(FAILED, "%s: out of memory: more than %zu bytes", path, f.size);
        }
    }
    if (ferror(stream))
        fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
    fclose(stream);
    return f;
}

static int peek(const reader *f)
{
    return f->at < f->size ? f->bytes[f->at] : EOF;
}

/* A decimal number from 0 to `most`. */
static int64_t read_number(reader *f, int64_t most, const char *what)
{
    int64_t value = 0;

    if (peek(f) < '0' || peek(f) > '9')
        fail(FAILED, "%s: broken %s header: expected %s", f->path, f->format, what);
    for (; peek(f) >= '0' && peek(f) <= '9'; f->at++) {
        value = value * 10 + (peek(f) - '0');
        if (value > most)
            fail(FAILED, "%s: broken %s header: expected %s of at most %" PRId64, f->path, f->format, what, most);
    }
    return value;
}

/* Fails unless exactly the array's elements, of `item` bytes each, remain in the file. */
static void check_size(const reader *f, const array_data *array, size_t item)
{
    size_t left = f->size - f->at, bytes = item;
    int i;

    for (i = 0; i < array->rank; i++) {
        size_t dim = (size_t)array->dims[i];
        bytes = dim && bytes > SIZE_MAX / dim ? SIZE_MAX : bytes * dim; /* SIZE_MAX: more than any file has */
    }
    if (bytes != left)
        fail(FAILED, "%s: expected %zu bytes of data, got %zu", f->path, bytes, left);
}

/* ---- .npy -------------------------------------------------------------------------------------------------------- */

static void skip_spaces(reader *f)
{
    while (peek(f) == ' ' || peek(f) == '\n')
        f->at++;
}

/* Whether `text` comes next, after spaces; then it has been read. */
static int accept_text(reader *f, const char *text)
{
    size_t length = strlen(text);

    skip_spaces(f);
    if (f->size - f->at < length || memcmp(f->bytes + f->at, text, length))
        return 0;
    f->at += length;
    return 1;
}

static void expect_text(reader *f, const char *text)
{
    if (!accept_text(f, text))
        fail(FAILED, "%s: broken .npy header: expected %s", f->path, text);
}

static void read_npy_type(reader *f, const tensor_info *input)
{
    size_t start, length;

    if (!accept_text(f, "'"))
        fail(FAILED, "%s: input '%s' expected elements of type %s, got records", f->path, input->name, input->npy_type);
    for (start = f->at; peek(f) > ' ' && peek(f) < 127 && peek(f) != '\''; f->at++)
        ;
    length = f->at - start;
    expect_text(f, "'");
    if (length != strlen(input->npy_type) || memcmp(f->bytes + start, input->npy_type, length))
        fail(FAILED, "%s: input '%s' expected elements of type %s, got %.*s", f->path, input->name, input->npy_type,
             length > 16 ? 16 : (int)length, (const char *)f->bytes + start);
}

static void read_npy_dims(reader *f, array_data *array)
{
    expect_text(f, "(");
    for (array->rank = 0; !accept_text(f, ")"); array->rank++) {
        if (array->rank == (int)COUNT(array->dims))
            fail(FAILED, "%s: expected at most %d dims, got more", f->path, array->rank);
        skip_spaces(f);
        array->dims[array->rank] = read_number(f, INT_MAX, "a dim");
        if (array->rank == 0 || !accept_text(f, ")")) { /* (5) is a number in Python, (5,) a tuple */
            expect_text(f, ",");
            continue;
        }
        array->rank++;
        return;
    }
}

/* A Python dict with three keys, in any order. */
static void read_npy_header(reader *f, const tensor_info *input, array_data *array)
{
    int type = 0, order = 0, shape = 0, more = 1;

    expect_text(f, "{");
    while (more && !accept_text(f, "}")) {
        if (accept_text(f, "'descr':")) {
            read_npy_type(f, input);
            type++;
        } else if (accept_text(f, "'fortran_order':")) {
            if (accept_text(f, "True"))
                fail(FAILED, "%s: input '%s' expected C order, got Fortran order", f->path, input->name);
            expect_text(f, "False");
            order++;
        } else if (accept_text(f, "'shape':")) {
            read_npy_dims(f, array);
            shape++;
        } else {
            break;
        }
        more = accept_text(f, ",");
        if (!more)
            expect_text(f, "}");
    }
    skip_spaces(f);
    if (type != 1 || order != 1 || shape != 1 || f->at != f->size)
        fail(FAILED, "%s: broken .npy header: expected descr, fortran_order and shape, once each", f->path);
}

static array_data read_npy(reader *f, const tensor_info *input)
{
    array_data array = {0, {0}, NULL};
    reader header = *f;
    size_t length, size;

    if (f->size < 12 || f->bytes[6] < 1 || f->bytes[6] > 3)
        fail(FAILED, "%s: expected .npy of version 1, 2 or 3, got another version or a part of a file", f->path);
    header.at = f->bytes[6] == 1 ? 10 : 12;
    length = f->bytes[8] | (size_t)f->bytes[9] << 8;
    if (f->bytes[6] > 1)
        length |= (size_t)f->bytes[10] << 16 | (size_t)f->bytes[11] << 24;
    if (length > f->size - header.at)
        fail(FAILED, "%s: broken .npy header: expected %zu bytes of header, got %zu", f->path, length, f->size - header.at);
    header.size = f->at = header.at + length;
    read_npy_header(&header, input, &array);
    check_size(f, &array, input->item);
    size = f->size - f->at;
    array.data = memmove(f->bytes, f->bytes + f->at, size); /* to the start of the memory, which is aligned */
    return array;
}

/* ---- PGM and PPM ------------------------------------------------------------------------------------------------- */

static int is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A number after spaces and comments, which go from # to the end of the line. */
static int64_t read_pnm_number(reader *f, int64_t most, const char *what)
{
    int comment = 0, c;
    int64_t value;

    if (!is_space(peek(f)) && peek(f) != '#')
        fail(FAILED, "%s: broken PNM header: expected a space before %s", f->path, what);
    for (; (c = peek(f)) != EOF && (comment || is_space(c) || c == '#'); f->at++)
        comment = (comment || c == '#') && c != '\n' && c != '\r';
    value = read_number(f, most, what);
    if (value == 0)
        fail(FAILED, "%s: broken PNM header: expected %s of at least 1", f->path, what);
    return value;
}

/* As floats from 0 to 1, channel by channel: [1, C, H, W]. */
static array_data read_pnm(reader *f, const tensor_info *input)
{
    int gray = f->bytes[1] == '5';
    size_t channels = gray ? 1 : 3, pixels, item, i, c;
    array_data array = {4, {1, gray ? 1 : 3, 0, 0}, NULL};
    int64_t most;
    float *data;

    if (strcmp(input->npy_type, "<f4") || input->rank != 4)
        fail(FAILED, "%s: input '%s' expected a .npy file of %s, got an image", f->path, input->name, input->type);
    if (input->dims[1] > 0 && input->dims[1] != array.dims[1])
        fail(FAILED, "%s: input '%s' expected %" PRId64 " channels, got %s with %d", f->path, input->name,
             input->dims[1], gray ? "a PGM image" : "a PPM image", gray ? 1 : 3);
    f->at = 2;
    array.dims[3] = read_pnm_number(f, INT_MAX, "a width");
    array.dims[2] = read_pnm_number(f, INT_MAX, "a height");
    most = read_pnm_number(f, 65535, "a largest sample");
    if (!is_space(peek(f)))
        fail(FAILED, "%s: broken PNM header: expected one space before the samples", f->path);
    f->at++;
    item = most > 255 ? 2 : 1;
    check_size(f, &array, item);
    pixels = (f->size - f->at) / item / channels;
    if (pixels > SIZE_MAX / channels / sizeof *data)
        fail(FAILED, "%s: the image is too large", f->path);
    array.data = data = allocate(pixels * channels * sizeof *data);
    for (i = 0; i < pixels; i++)
        for (c = 0; c < channels; c++) {
            const unsigned char *p = f->bytes + f->at + (i * channels + c) * item;
            int sample = item == 2 ? p[0] << 8 | p[1] : p[0];
            if (sample > most)
                fail(FAILED, "%s: expected samples of at most %" PRId64 ", got %d", f->path, most, sample);
            data[c * pixels + i] = (float)sample / (float)most;
        }
    free(f->bytes);
    return array;
}

array_data read_array(const char *path, const tensor_info *input)
{
    reader f = read_file(path);

    if (f.size >= 6 && !memcmp(f.bytes, "\x93NUMPY", 6)) {
        f.format = ".npy";
        return read_npy(&f, input);
    }
    if (f.size < 2 || f.bytes[0] != 'P' || (f.bytes[1] != '5' && f.bytes[1] != '6'))
        fail(FAILED, "%s: expected .npy, binary PPM (P6) or binary PGM (P5), got something else", path);
    f.format = "PNM";
    return read_pnm(&f, input);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

int write_array(int descriptor, const tensor_info *output, const array_data *array)
{
    char dims[24 * COUNT(array->dims) + 1], header[sizeof dims + 128];
    size_t bytes = array_bytes(array, output), length;
    FILE *stream = fdopen(descriptor, "wb");
    int saved;

    if (!stream)
        return -1;
    print_dims(dims, sizeof dims, array, ", ");
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", output->npy_type, dims,
             array->rank == 1 ? "," : "");
    length = (10 + strlen(header) + 1 + 63) / 64 * 64 - 10; /* so that the data begins at a multiple of 64 */
    if (fprintf(stream, "\x93NUMPY%c%c%c%c%-*s\n", 1, 0, (int)(length & 255), (int)(length >> 8), (int)length - 1, header) > 0
        && fwrite(array->data, 1, bytes, stream) == bytes)
        return fclose(stream);
    saved = errno;
    fclose(stream);
    errno = saved;
    return -1;
}
