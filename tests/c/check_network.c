/* Uses a network as a C program would: the header, two image sizes, every error that a caller can cause.
 *
 *   check_network WEIGHTS|- {N H W INPUT EXPECTED}...
 *
 * NET and HEADER come from the command line, INPUT and EXPECTED hold raw floats. The network is one with an input
 * f32[N,3,H,W], an output f32[N,5,P,Q] and a requirement that an image of 1 x 1 does not meet. Prints what is wrong.
 */
#define _POSIX_C_SOURCE 200809L

#include HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN(prefix, suffix) prefix##_##suffix
#define JOIN_VALUES(prefix, suffix) JOIN(prefix, suffix)
#define F(function) JOIN_VALUES(NET, function)
#define CHECK(condition) ((condition) ? (void)0 : report(__LINE__, #condition))

enum { ERROR_ARGUMENT = 1, ERROR_SIZE = 2, ERROR_TOO_LARGE = 3, ERROR_WORKSPACE = 5, ERROR_FILE = 7, ERROR_WEIGHTS = 8, ERROR_OVERLAP = 11 };

static int faults;

static void report(int line, const char *condition)
{
    printf("line %d: %s\n", line, condition);
    faults++;
}

static float *read_floats(const char *path, size_t count)
{
    float *data = malloc((count + 1) * sizeof *data);
    FILE *file = fopen(path, "rb");
    size_t got = file && data ? fread(data, sizeof *data, count + 1, file) : 0;

    if (got != count) {
        printf("%s: expected %zu floats, got %zu\n", path, count, got);
        exit(2);
    }
    fclose(file);
    return data;
}

static void *aligned(size_t bytes)
{
    void *memory;

    if (posix_memalign(&memory, 64, bytes))
        exit(2);
    return memory;
}

static void check_run(NET *net, char **arguments)
{
    int64_t n = atoll(arguments[0]), h = atoll(arguments[1]), w = atoll(arguments[2]), shape[4], sizes[3], dims[4], need;
    float *image = read_floats(arguments[3], (size_t)(n * 3 * h * w)), *expected, *scores;
    const void *inputs[1];
    void *outputs[1], *workspace;
    size_t count;

    CHECK(F(output_shape)(n, h, w, shape) == 0);
    CHECK(shape[0] == n && shape[1] == 5);
    count = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]);
    expected = read_floats(arguments[4], count);
    scores = calloc(count, sizeof *scores);

    CHECK(F(run)(net, image, n, h, w, scores) == 0);
    CHECK(!memcmp(scores, expected, count * sizeof *scores));

    need = F(workspace_bytes)(n, h, w, 2);
    CHECK(need > 0);
    workspace = aligned((size_t)need + 64);
    memset(scores, 0, count * sizeof *scores);
    CHECK(F(run_in)(net, image, n, h, w, scores, workspace, need) == 0);
    CHECK(!memcmp(scores, expected, count * sizeof *scores));
    CHECK(F(run_in)(net, image, n, h, w, scores, workspace, need - 1) == ERROR_WORKSPACE);
    CHECK(F(run_in)(net, image, n, h, w, scores, (char *)workspace + 32, need) == ERROR_WORKSPACE);
    CHECK(F(run_in)(net, image, n, h, w, scores, NULL, 0) == 0);

    sizes[0] = n, sizes[1] = h, sizes[2] = w, inputs[0] = image, outputs[0] = scores;
    CHECK(F(workspace)(sizes) == need);
    CHECK(F(output_dims)(sizes, 0, dims) == 0 && !memcmp(dims, shape, sizeof dims));
    memset(scores, 0, count * sizeof *scores);
    CHECK(F(call)(net, inputs, sizes, outputs, workspace, need) == 0);
    CHECK(!memcmp(scores, expected, count * sizeof *scores));
    free(image), free(expected), free(scores), free(workspace);
}

/* Buffers that share bytes are refused, and those side by side are not. */
static void check_overlaps(NET *net)
{
    int64_t shape[4], need = F(workspace_bytes)(1, 16, 16, 2), inside = 3 * 16 * 16, out;
    float *room, *image, *scores;
    char *workspace = aligned((size_t)need);

    CHECK(F(output_shape)(1, 16, 16, shape) == 0);
    out = shape[1] * shape[2] * shape[3];
    room = aligned((size_t)(out + inside + out) * sizeof *room);
    memset(room, 0, (size_t)(out + inside + out) * sizeof *room);
    image = room + out;

    CHECK(F(run)(net, image, 1, 16, 16, image) == ERROR_OVERLAP);
    CHECK(F(run)(net, image, 1, 16, 16, room + 1) == ERROR_OVERLAP);
    CHECK(F(run)(net, image, 1, 16, 16, image + inside - 1) == ERROR_OVERLAP);
    CHECK(F(run)(net, image, 1, 16, 16, room) == 0);
    CHECK(F(run)(net, image, 1, 16, 16, image + inside) == 0);
    scores = (float *)(workspace + need) - 1;
    CHECK(F(run_in)(net, image, 1, 16, 16, scores, workspace, need) == ERROR_OVERLAP);
    CHECK(F(run_in)(net, (float *)workspace, 1, 16, 16, room, workspace, need) == ERROR_OVERLAP);
    CHECK(F(run_in)(net, image, 1, 16, 16, room, workspace, need) == 0);
    CHECK(strstr(F(strerror)(ERROR_OVERLAP), "overlaps"));
    free(room), free(workspace);
}

static void check_errors(NET *net)
{
    static float image[3 * 16 * 16 + 1], scores[5 * 16 * 16 + 1];
    int64_t sizes[3] = {1, 16, 16}, shape[4];
    const void *inputs[1] = {image}, *no_inputs[1] = {NULL};
    void *outputs[1] = {scores};
    int code;

    CHECK(F(run)(NULL, image, 1, 16, 16, scores) == ERROR_ARGUMENT);
    CHECK(F(run)(net, NULL, 1, 16, 16, scores) == ERROR_ARGUMENT);
    CHECK(F(run)(net, image, 1, 16, 16, NULL) == ERROR_ARGUMENT);
    CHECK(F(run)(net, (float *)((char *)image + 2), 1, 16, 16, scores) == ERROR_ARGUMENT);
    CHECK(F(run)(net, image, 1, 16, 16, (float *)((char *)scores + 1)) == ERROR_ARGUMENT);
    CHECK(F(run)(net, image, 0, 16, 16, scores) == ERROR_SIZE);
    CHECK(F(run)(net, image, 1, -16, 16, scores) == ERROR_SIZE);
    CHECK(F(run)(net, image, 1, 16, INT64_MAX, scores) == ERROR_SIZE);
    CHECK(F(run)(net, image, 2147483647, 2147483647, 2147483647, scores) == ERROR_TOO_LARGE);
    code = F(run)(net, image, 1, 1, 1, scores);
    CHECK(code >= 100);
    CHECK(strstr(F(strerror)(code), "conv2d") && strstr(F(strerror)(code), "must be at least 1"));
    CHECK(F(run)(net, image, 1, 16, 16, scores) == 0); /* an error leaves the network as it was */

    CHECK(F(workspace_bytes)(1, 1, 1, 1) == -code);
    CHECK(F(workspace_bytes)(1, 16, 16, -1) == -ERROR_ARGUMENT);
    CHECK(F(workspace_bytes)(1, 0, 16, 1) == -ERROR_SIZE);
    CHECK(F(workspace)(NULL) == -ERROR_ARGUMENT);
    CHECK(F(output_shape)(1, 1, 1, shape) == code);
    CHECK(F(output_shape)(1, 16, 16, NULL) == ERROR_ARGUMENT);
    CHECK(F(output_dims)(NULL, 0, shape) == ERROR_ARGUMENT);
    CHECK(F(output_dims)(sizes, 0, NULL) == ERROR_ARGUMENT);
    CHECK(F(output_dims)(sizes, 1, shape) == ERROR_ARGUMENT);
    CHECK(F(output_dims)(sizes, -1, shape) == ERROR_ARGUMENT);
    CHECK(F(call)(net, NULL, sizes, outputs, NULL, 0) == ERROR_ARGUMENT);
    CHECK(F(call)(net, no_inputs, sizes, outputs, NULL, 0) == ERROR_ARGUMENT);
    CHECK(F(call)(net, inputs, NULL, outputs, NULL, 0) == ERROR_ARGUMENT);
    CHECK(F(call)(net, inputs, sizes, NULL, NULL, 0) == ERROR_ARGUMENT);
    CHECK(!strcmp(F(strerror)(0), "ok"));
    CHECK(!strcmp(F(strerror)(-1), "unknown error code") && !strcmp(F(strerror)(99), "unknown error code"));
    CHECK(!strcmp(F(strerror)(1000000), "unknown error code"));
    CHECK(strstr(F(metadata)(), "\"inputs\""));
}

static void check_create(const char *weights)
{
    NET *net = (NET *)&net;
    int i;

    CHECK(F(create)(NULL, 1, weights) == ERROR_ARGUMENT);
    CHECK(F(create)(&net, -1, weights) == ERROR_ARGUMENT && net == NULL);
    CHECK(F(create)(&net, 1025, weights) == ERROR_ARGUMENT && net == NULL);
    CHECK(F(create)(&net, 1, "/nowhere/net.weights") == ERROR_FILE && net == NULL);
    CHECK(F(create)(&net, 1, "/dev/null") == ERROR_WEIGHTS && net == NULL);
    CHECK(F(create_from_memory)(&net, 1, &net, 1) == ERROR_WEIGHTS && net == NULL);
    CHECK(F(create_from_memory)(&net, 1, (char *)&net + 4, 1) == ERROR_ARGUMENT && net == NULL);
    if (weights)
        CHECK(F(create)(&net, 1, NULL) == ERROR_WEIGHTS && net == NULL);
    for (i = 0; i < 50; i++) {
        CHECK(F(create)(&net, i % 4, weights) == 0 && net);
        F(destroy)(net);
    }
    F(destroy)(NULL);
}

int main(int argc, char **argv)
{
    const char *weights = argc > 1 && strcmp(argv[1], "-") ? argv[1] : NULL;
    NET *net;
    int i;

    check_create(weights);
    CHECK(F(abi_version)() == 4);
    CHECK(F(cpu)() && *F(cpu)());
    if (F(create)(&net, 2, weights))
        return 2;
    for (i = 2; i + 4 < argc; i += 5)
        check_run(net, argv + i);
    check_overlaps(net);
    check_errors(net);
    F(destroy)(net);
    return faults != 0;
}
