/* Faults under a network: every allocation and every start of a thread fails in turn; many networks come and go; many
 * threads run one network and their own. Compiled with -DNET and -DHEADER, and -rdynamic: the library's calls come here.
 * Prints "NAME tried N survived N" for each kind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include HEADER

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define F(name) JOIN(NET, name)
#define SIDE 16
#define OUT (5 * 7 * 7) /* what make_small makes of it */

static int left = -1; /* calls until one fails; negative: none does */
static int failed;

static int fails(void)
{
    if (left < 0 || left-- > 0) return 0;
    failed = 1;
    return 1;
}

void *calloc(size_t count, size_t size)
{
    extern void *__libc_calloc(size_t, size_t);
    return fails() ? NULL : __libc_calloc(count, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    extern void *__libc_memalign(size_t, size_t);
    return fails() ? NULL : __libc_memalign(alignment, size);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return fails() ? EAGAIN : real(thread, attributes, start, argument);
}

static float image[3 * SIDE * SIDE], expected[OUT];

static int agrees(NET *net)
{
    float scores[OUT];
    memset(scores, 0xFF, sizeof scores);
    return F(run)(net, image, 1, SIDE, SIDE, scores) == 0 && !memcmp(scores, expected, sizeof scores);
}

static void tell(const char *what, int tried, int survived)
{
    printf("%s tried %d survived %d\n", what, tried, survived);
}

static void fail_create(int threads)
{
    int tried = 0, survived = 0;
    for (int n = 0;; n++) {
        NET *net = (NET *)1;
        failed = 0, left = n;
        int code = F(create)(&net, threads, NULL);
        left = -1;
        if (!failed) {
            F(destroy)(net);
            break;
        }
        tried++;
        int refused = (code == 4 || code == 6) && net == NULL;
        survived += refused && F(create)(&net, threads, NULL) == 0 && agrees(net);
        F(destroy)(net);
    }
    tell("create", tried, survived);
}

static void fail_run(void)
{
    int tried = 0, survived = 0;
    for (int n = 0;; n++) {
        NET *net;
        float scores[OUT];
        if (F(create)(&net, 2, NULL)) exit(1);
        failed = 0, left = n;
        int code = F(run)(net, image, 1, SIDE, SIDE, scores);
        left = -1;
        if (!failed) {
            F(destroy)(net);
            break;
        }
        tried++;
        survived += code == 4 && agrees(net); /* the same network goes on when there is memory */
        F(destroy)(net);
    }
    tell("run", tried, survived);
}

static void fail_queries(void)
{
    int64_t shape[4];
    left = 0;
    int survived = F(workspace_bytes)(1, SIDE, SIDE, 1) == -4;
    left = 0;
    survived += F(output_shape)(1, SIDE, SIDE, shape) == 4;
    left = -1;
    tell("query", 2, survived);
}

static long resident(void)
{
    long size, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &pages) != 2) exit(1);
    fclose(file);
    return pages;
}

static void come_and_go(int count)
{
    int survived = 0;
    long before = 0;
    for (int i = 0; i < count; i++) {
        NET *net;
        if (i == count / 10) before = resident();
        survived += F(create)(&net, 1, NULL) == 0 && (i % 64 || agrees(net));
        F(destroy)(net);
    }
    tell("come_and_go", count, survived);
    tell("flat_memory", 1, resident() - before < 64); /* pages: 256 KiB, what an allocator may keep */
}

#define RUNNERS 8
static NET *shared;

static void *runner(void *argument)
{
    int *good = argument;
    for (int i = 0; i < 100; i++) {
        NET *own;
        *good += agrees(shared);
        if (F(create)(&own, 1 + i % 2, NULL)) continue;
        *good += agrees(own);
        F(destroy)(own);
    }
    return NULL;
}

static void run_together(void)
{
    pthread_t threads[RUNNERS];
    int good[RUNNERS] = {0}, survived = 0;
    if (F(create)(&shared, 3, NULL)) exit(1);
    for (int i = 0; i < RUNNERS; i++)
        if (pthread_create(&threads[i], NULL, runner, &good[i])) exit(1);
    for (int i = 0; i < RUNNERS; i++) {
        pthread_join(threads[i], NULL);
        survived += good[i];
    }
    F(destroy)(shared);
    tell("run_together", RUNNERS * 200, survived);
}

static void *use_little_stack(void *good)
{
    float scores[OUT];
    int64_t shape[4];
    *(int *)good = F(workspace_bytes)(1, SIDE, SIDE, 1) > 0 && F(output_shape)(1, SIDE, SIDE, shape) == 0
        && F(run)(shared, image, 1, SIDE, SIDE, scores) == 0 && !memcmp(scores, expected, sizeof scores);
    return NULL;
}

/* Everything but creating, in threads of this stack. */
static void run_on_a_small_stack(size_t bytes)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int good = 0;
    if (F(create)(&shared, 1, NULL) || pthread_attr_init(&attributes)) exit(1);
    if (pthread_attr_setstacksize(&attributes, bytes)) exit(1);
    if (pthread_create(&thread, &attributes, use_little_stack, &good)) exit(1);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    F(destroy)(shared);
    tell("small_stack", 1, good);
}

int main(int argc, char **argv)
{
    NET *net;
    for (int i = 0; i < 3 * SIDE * SIDE; i++) image[i] = (float)(i % 17) - 8;
    if (F(create)(&net, 1, NULL) || F(run)(net, image, 1, SIDE, SIDE, expected)) return 1;
    F(destroy)(net);
    fail_create(1);
    fail_create(4);
    fail_run();
    fail_queries();
    come_and_go(argc > 1 ? atoi(argv[1]) : 1000);
    run_together();
    run_on_a_small_stack(64 << 10);
    return 0;
}
