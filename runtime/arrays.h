/* Reading images and arrays from files, and writing arrays; see arrays.c. MAX_RANK comes from the command line. */
#ifndef GRAPHC_ARRAYS_H
#define GRAPHC_ARRAYS_H

#include <stddef.h>
#include <stdint.h>

enum { FAILED = 1, USAGE = 2 }; /* exit statuses */

/* An input or output of the network. A dim that is positive is fixed; -1 - i stands for the i-th symbol. */
typedef struct {
    const char *name, *type, *npy_type; /* npy_type: what .npy files call the elements, such as <f4 */
    size_t item;                        /* bytes of an element */
    int rank;
    int64_t dims[MAX_RANK ? MAX_RANK : 1];
} tensor_info;

/* Dims, and data in C order. An image has 4 dims, whatever the network takes. */
typedef struct {
    int rank;
    int64_t dims[MAX_RANK < 4 ? 4 : MAX_RANK];
    void *data;
} array_data;

/* Print a message, remove unfinished outputs, exit. */
void fail(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Memory that is there: fails otherwise. */
void *allocate(size_t bytes);

/* "1,3,224,224", if the separator is "," */
void print_dims(char *text, size_t room, const array_data *array, const char *separator);

/* The array in a .npy, PPM or PGM file; it fails if the file is anything else, or its elements are not the input's. */
array_data read_array(const char *path, const tensor_info *input);

/* Write an array as .npy into a file that does not exist yet. 0, or -1 with errno set. */
int write_array(int descriptor, const tensor_info *output, const array_data *array);

/* The bytes that an array's data takes. */
size_t array_bytes(const array_data *array, const tensor_info *tensor);

#endif
