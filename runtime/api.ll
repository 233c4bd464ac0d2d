; The C interface of a compiled network, the same code in process and in an artefact. The compiler replaces `NAME` by the
; network's name and defines, beside this text, everything that differs between networks:
;
;   @graphc_levels, @graphc_level_count            the code for each CPU level (runtime/levels.ll says what a level is)
;   @graphc_symbols, @graphc_inputs, @graphc_outputs, @graphc_weight_bytes   (i64) how many
;   @graphc_frame_words                            5 + inputs + outputs
;   @graphc_alignments ([n x i64])                 size of an element minus 1, for each input, then each output
;   @graphc_weights (ptr)                          the embedded weights, or null
;   @graphc_weights_header ([64 x i8])             what a weights file begins with
;   @graphc_metadata                               JSON, zero-terminated
;   @graphc_e10                                    the error of a CPU that no level was compiled for, zero-terminated
;   @graphc_messages ([n x ptr]), @graphc_message_count (i32)   the errors from code 100 on
;   @graphc_updates ([outputs + 2 x i64])          for each output, the input whose address it may have, or -1; then -1
;
; Codes: 0 to 11 below in @graphc_errors; 100 + i is the i-th requirement on the sizes that does not hold.
;
; A network is %graphc.net, then the table, then the sizes that the table was made for, then a run's frame:
;   0 pool   1 weights   2 workspace, grown on demand   3 its bytes   4 mapped weights file or null   5 its bytes
;   6 its own block: packed weights, then scratch   7 pthread_mutex_t (at most 48 bytes, see pool.ll): one run at a time,
;   others wait
%graphc.net = type { ptr, ptr, ptr, i64, ptr, i64, ptr, [64 x i8] }

@graphc_e0 = internal constant [3 x i8] c"ok\00"
@graphc_e1 = internal constant [59 x i8] c"an argument is null, not aligned, negative or out of range\00"
@graphc_e2 = internal constant [46 x i8] c"a size is less than 1 or more than 2147483647\00"
@graphc_e3 = internal constant [53 x i8] c"the sizes are too large: a tensor exceeds 2^62 bytes\00"
@graphc_e4 = internal constant [14 x i8] c"out of memory\00"
@graphc_e5 = internal constant [70 x i8] c"the workspace is too small or not aligned to 64 (see workspace_bytes)\00"
@graphc_e6 = internal constant [30 x i8] c"a thread could not be started\00"
@graphc_e7 = internal constant [35 x i8] c"the weights file could not be read\00"
@graphc_e8 = internal constant [53 x i8] c"the weights are missing or not those of this network\00"
@graphc_e9 = internal constant [72 x i8] c"the batch, height or width differs from the one the network is fixed to\00"
@graphc_e11 = internal constant [82 x i8] c"an output or the workspace overlaps an input, the weights or another one of these\00"
@graphc_unknown = internal constant [19 x i8] c"unknown error code\00"
@graphc_errors = internal constant [12 x ptr] [
  ptr @graphc_e0, ptr @graphc_e1, ptr @graphc_e2, ptr @graphc_e3, ptr @graphc_e4,
  ptr @graphc_e5, ptr @graphc_e6, ptr @graphc_e7, ptr @graphc_e8, ptr @graphc_e9,
  ptr @graphc_e10, ptr @graphc_e11 ]

declare ptr @calloc(i64, i64)
declare i32 @memcmp(ptr, ptr, i64)
declare i32 @open(ptr, i32, ...)
declare i64 @lseek(i32, i64, i32)
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @close(i32)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define i32 @NAME_abi_version() {
  ret i32 4
}

; const char *NAME_cpu(void): the name of the level that runs, or null
define ptr @NAME_cpu() {
  %level = call ptr @graphc_level()
  %none = icmp eq ptr %level, null
  br i1 %none, label %unfit, label %fit
unfit:
  ret ptr null
fit:
  %p = getelementptr %graphc.level, ptr %level, i32 0, i32 7
  %name = load ptr, ptr %p
  ret ptr %name
}

define ptr @NAME_metadata() {
  ret ptr @graphc_metadata
}

; const char *NAME_strerror(int code)
define ptr @NAME_strerror(i32 %code) {
  %general = icmp ult i32 %code, 12
  br i1 %general, label %is_general, label %not_general
is_general:
  %p = getelementptr ptr, ptr @graphc_errors, i32 %code
  %m = load ptr, ptr %p
  ret ptr %m
not_general:
  %count = load i32, ptr @graphc_message_count
  %i = sub i32 %code, 100
  %known = icmp ult i32 %i, %count
  br i1 %known, label %is_known, label %is_unknown
is_known:
  %q = getelementptr ptr, ptr @graphc_messages, i32 %i
  %n = load ptr, ptr %q
  ret ptr %n
is_unknown:
  ret ptr @graphc_unknown
}

; int NAME_create(NAME **net, int threads, const char *weights_file): null for the embedded weights
define i32 @NAME_create(ptr %out, i32 %threads, ptr %path) {
  %no_file = icmp eq ptr %path, null
  br i1 %no_file, label %embedded, label %check
embedded:
  %e = call i32 @NAME_create_from_memory(ptr %out, i32 %threads, ptr null, i64 0)
  ret i32 %e
check:
  %no_out = icmp eq ptr %out, null
  br i1 %no_out, label %bad_argument, label %file
bad_argument:
  ret i32 1
file:
  store ptr null, ptr %out
  %fd = call i32 (ptr, i32, ...) @open(ptr %path, i32 0)                     ; O_RDONLY
  %closed = icmp slt i32 %fd, 0
  br i1 %closed, label %unreadable, label %size
unreadable:
  ret i32 7
size:
  %bytes = call i64 @lseek(i32 %fd, i64 0, i32 2)                            ; SEEK_END
  %weight_bytes = load i64, ptr @graphc_weight_bytes
  %wanted = add i64 %weight_bytes, 64
  %right = icmp eq i64 %bytes, %wanted
  br i1 %right, label %map, label %wrong
wrong:
  call i32 @close(i32 %fd)
  ret i32 8
map:
  %m = call ptr @mmap(ptr null, i64 %bytes, i32 1, i32 2, i32 %fd, i64 0)    ; PROT_READ, MAP_PRIVATE
  call i32 @close(i32 %fd)
  %failed = icmp eq ptr %m, inttoptr (i64 -1 to ptr)                         ; MAP_FAILED
  br i1 %failed, label %unreadable, label %header
header:
  %differs = call i32 @memcmp(ptr %m, ptr @graphc_weights_header, i64 64)
  %same = icmp eq i32 %differs, 0
  br i1 %same, label %create, label %unmap_wrong
unmap_wrong:
  call i32 @munmap(ptr %m, i64 %bytes)
  ret i32 8
create:
  %weights = getelementptr i8, ptr %m, i64 64
  %code = call i32 @graphc_create(ptr %out, i32 %threads, ptr %weights, i64 %weight_bytes, ptr @graphc_release)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %keep, label %unmap
unmap:
  call i32 @munmap(ptr %m, i64 %bytes)
  ret i32 %code
keep:
  %net = load ptr, ptr %out
  %p4 = getelementptr %graphc.net, ptr %net, i32 0, i32 4
  store ptr %m, ptr %p4
  %p5 = getelementptr %graphc.net, ptr %net, i32 0, i32 5
  store i64 %bytes, ptr %p5
  ret i32 0
}

; int NAME_create_from_memory(NAME **net, int threads, const void *weights, int64_t bytes): the caller keeps the weights
; alive for as long as the network; null for the embedded ones
define i32 @NAME_create_from_memory(ptr %out, i32 %threads, ptr %given, i64 %bytes) {
  %own = icmp eq ptr %given, null
  br i1 %own, label %ask, label %create
ask:
  %free = call i1 @graphc_may_release()
  br label %create
create:
  %release = phi i1 [ 0, %0 ], [ %free, %ask ]
  %visit = select i1 %release, ptr @graphc_release, ptr null
  %code = call i32 @graphc_create(ptr %out, i32 %threads, ptr %given, i64 %bytes, ptr %visit)
  ret i32 %code
}

; Creates a network, and tells `visit`, if it is not null, of the weights that are being packed (@graphc_visit)
define internal i32 @graphc_create(ptr %out, i32 %threads, ptr %given, i64 %bytes, ptr %visit) {
  %no_out = icmp eq ptr %out, null
  br i1 %no_out, label %bad_argument, label %check
bad_argument:
  ret i32 1
check:
  store ptr null, ptr %out
  %too_many = icmp ugt i32 %threads, 1024                                    ; negative counts as huge
  br i1 %too_many, label %bad_argument, label %choose_level
choose_level:
  %level = call ptr @graphc_level()
  %unfit = icmp eq ptr %level, null
  br i1 %unfit, label %bad_cpu, label %choose
bad_cpu:
  ret i32 10
choose:
  %given_bits = ptrtoint ptr %given to i64
  %given_low = and i64 %given_bits, 7                                        ; the largest element has 8 bytes
  %given_misaligned = icmp ne i64 %given_low, 0
  br i1 %given_misaligned, label %bad_argument, label %select
select:
  %embedded = load ptr, ptr @graphc_weights
  %use_embedded = icmp eq ptr %given, null
  %weights = select i1 %use_embedded, ptr %embedded, ptr %given
  %weight_bytes = load i64, ptr @graphc_weight_bytes
  %length = select i1 %use_embedded, i64 %weight_bytes, i64 %bytes
  %missing = icmp eq ptr %weights, null
  %needed = icmp ne i64 %weight_bytes, 0
  %absent = and i1 %missing, %needed
  %mismatch = icmp ne i64 %length, %weight_bytes
  %bad_weights = or i1 %absent, %mismatch
  br i1 %bad_weights, label %no_weights, label %allocate
no_weights:
  ret i32 8
allocate:
  %table_words_at = getelementptr %graphc.level, ptr %level, i32 0, i32 4
  %table_words = load i64, ptr %table_words_at
  %symbols = load i64, ptr @graphc_symbols
  %frame_words = load i64, ptr @graphc_frame_words
  %sized = add i64 %table_words, %symbols
  %words = add i64 %sized, %frame_words
  %tail = mul i64 %words, 8
  %all = add i64 %tail, ptrtoint (ptr getelementptr (%graphc.net, ptr null, i32 1) to i64)
  %net = call ptr @calloc(i64 1, i64 %all)                                   ; sizes of 0 match no run: not prepared
  %no_memory = icmp eq ptr %net, null
  br i1 %no_memory, label %fail_memory, label %threads_start
fail_memory:
  ret i32 4
threads_start:
  %pool_error = call i32 @graphc_pool_create(ptr %net, i32 %threads)
  switch i32 %pool_error, label %fail_thread [ i32 0, label %finish i32 1, label %fail_pool_memory ]
fail_pool_memory:
  call void @free(ptr %net)
  ret i32 4
fail_thread:
  call void @free(ptr %net)
  ret i32 6
finish:
  %p1 = getelementptr %graphc.net, ptr %net, i32 0, i32 1
  store ptr %weights, ptr %p1
  %pool = load ptr, ptr %net
  %count = call i32 @graphc_pool_threads(ptr %pool)
  %count_wide = zext i32 %count to i64
  %packed_bytes_at = getelementptr %graphc.level, ptr %level, i32 0, i32 5
  %packed_bytes = load i64, ptr %packed_bytes_at
  %scratch_bytes_at = getelementptr %graphc.level, ptr %level, i32 0, i32 6
  %scratch_bytes = load i64, ptr %scratch_bytes_at
  %scratch_all = mul i64 %scratch_bytes, %count_wide
  %own_bytes = add i64 %packed_bytes, %scratch_all
  %own_some = add i64 %own_bytes, 64                                         ; aligned_alloc(0) may be null
  %own = call ptr @graphc_allocate(i64 %own_some)
  %no_own = icmp eq ptr %own, null
  br i1 %no_own, label %fail_own, label %setup
fail_own:
  call void @graphc_pool_destroy(ptr %pool)
  call void @free(ptr %net)
  ret i32 4
setup:
  %p6 = getelementptr %graphc.net, ptr %net, i32 0, i32 6
  store ptr %own, ptr %p6
  ; Lanes whose results nobody wants may read scratch that nothing was written to. Small integers and addresses, which
  ; memory used before is full of, are denormals as floats, and each costs an Intel CPU 150 cycles: LeNet-5 could take
  ; four times as long.
  %scratch = getelementptr i8, ptr %own, i64 %packed_bytes
  call void @llvm.memset.p0.i64(ptr %scratch, i8 0, i64 %scratch_all, i1 false)
  %f = alloca [3 x ptr]
  %f1 = getelementptr ptr, ptr %f, i64 1
  store ptr %own, ptr %f1
  %f2 = getelementptr ptr, ptr %f, i64 2
  store ptr %weights, ptr %f2
  %setup_at = getelementptr %graphc.level, ptr %level, i32 0, i32 1
  %setup_code = load ptr, ptr %setup_at
  call void %setup_code(ptr %f, ptr %pool, ptr %visit)
  %mutex = getelementptr %graphc.net, ptr %net, i32 0, i32 7
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  store ptr %net, ptr %out
  ret i32 0
}

; Setup calls this before it reads weights, and after:
; void visit(void *weights, int64_t offset, int64_t bytes, int after)
define internal void @graphc_visit(ptr %visit, ptr %weights, i64 %offset, i64 %bytes, i32 %after) {
  %nobody = icmp eq ptr %visit, null
  br i1 %nobody, label %done, label %tell
tell:
  call void %visit(ptr %weights, i64 %offset, i64 %bytes, i32 %after)
  br label %done
done:
  ret void
}

; void NAME_destroy(NAME *net): null is allowed
define void @NAME_destroy(ptr %net) {
  %none = icmp eq ptr %net, null
  br i1 %none, label %done, label %release
release:
  %pool = load ptr, ptr %net
  call void @graphc_pool_destroy(ptr %pool)
  %p2 = getelementptr %graphc.net, ptr %net, i32 0, i32 2
  %workspace = load ptr, ptr %p2
  call void @free(ptr %workspace)
  %p6 = getelementptr %graphc.net, ptr %net, i32 0, i32 6
  %own = load ptr, ptr %p6
  call void @free(ptr %own)
  %p4 = getelementptr %graphc.net, ptr %net, i32 0, i32 4
  %mapped = load ptr, ptr %p4
  %p5 = getelementptr %graphc.net, ptr %net, i32 0, i32 5
  %bytes = load i64, ptr %p5
  %no_map = icmp eq ptr %mapped, null
  br i1 %no_map, label %last, label %unmap
unmap:
  call i32 @munmap(ptr %mapped, i64 %bytes)
  br label %last
last:
  %mutex = getelementptr %graphc.net, ptr %net, i32 0, i32 7
  call i32 @pthread_mutex_destroy(ptr %mutex)
  call void @free(ptr %net)
  br label %done
done:
  ret void
}

; Whether the sizes are null although the network has some
define internal i1 @graphc_lacks_sizes(ptr %sizes) {
  %null = icmp eq ptr %sizes, null
  %symbols = load i64, ptr @graphc_symbols
  %some = icmp ne i64 %symbols, 0
  %lacks = and i1 %null, %some
  ret i1 %lacks
}

; int64_t NAME_workspace(const int64_t *sizes): bytes that a run needs, or minus an error code
define i64 @NAME_workspace(ptr %sizes) {
  %bytes = call i64 @graphc_query(ptr %sizes, i64 0)
  ret i64 %bytes
}

; int64_t NAME_carried(const int64_t *sizes): bytes that the tiles of a strip pass on, or minus an error code
define i64 @NAME_carried(ptr %sizes) {
  %bytes = call i64 @graphc_query(ptr %sizes, i64 1)
  ret i64 %bytes
}

; Word 0 of the table, the workspace, or word 1, what a tile carries over; or minus an error code
define internal i64 @graphc_query(ptr %sizes, i64 %word) {
  %null = call i1 @graphc_lacks_sizes(ptr %sizes)
  br i1 %null, label %bad_argument, label %prepare
bad_argument:
  ret i64 -1
prepare:
  %level = call ptr @graphc_level()
  %unfit = icmp eq ptr %level, null
  br i1 %unfit, label %bad_cpu, label %fit
bad_cpu:
  ret i64 -10
fit:
  %table_words_at = getelementptr %graphc.level, ptr %level, i32 0, i32 4
  %table_words = load i64, ptr %table_words_at
  %table = call ptr @calloc(i64 %table_words, i64 8)                         ; stacks of threads may be small
  %no_memory = icmp eq ptr %table, null
  br i1 %no_memory, label %bad_memory, label %known
bad_memory:
  ret i64 -4
known:
  %prepare_code = load ptr, ptr %level
  %code = call i32 %prepare_code(ptr %sizes, ptr %table, i64 %word, i64 0)
  %bytes_at = getelementptr i64, ptr %table, i64 %word
  %bytes = load i64, ptr %bytes_at
  call void @free(ptr %table)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %good, label %bad
good:
  ret i64 %bytes
bad:
  %wide = sext i32 %code to i64
  %negative = sub i64 0, %wide
  ret i64 %negative
}

; int NAME_output_dims(const int64_t *sizes, int output, int64_t *dims)
define i32 @NAME_output_dims(ptr %sizes, i32 %output, ptr %dims) {
  %null_sizes = call i1 @graphc_lacks_sizes(ptr %sizes)
  %null_dims = icmp eq ptr %dims, null
  %null = or i1 %null_sizes, %null_dims
  %outputs = load i64, ptr @graphc_outputs
  %index = zext i32 %output to i64
  %beyond = icmp uge i64 %index, %outputs
  %bad = or i1 %null, %beyond
  br i1 %bad, label %bad_argument, label %prepare
bad_argument:
  ret i32 1
prepare:
  %level = call ptr @graphc_level()
  %unfit = icmp eq ptr %level, null
  br i1 %unfit, label %bad_cpu, label %fit
bad_cpu:
  ret i32 10
fit:
  %table_words_at = getelementptr %graphc.level, ptr %level, i32 0, i32 4
  %table_words = load i64, ptr %table_words_at
  %table = call ptr @calloc(i64 %table_words, i64 8)
  %no_memory = icmp eq ptr %table, null
  br i1 %no_memory, label %bad_memory, label %known
bad_memory:
  ret i32 4
known:
  %prepare_code = load ptr, ptr %level
  %code = call i32 %prepare_code(ptr %sizes, ptr %table, i64 0, i64 0)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %good, label %done
good:
  %output_dims_at = getelementptr %graphc.level, ptr %level, i32 0, i32 3
  %output_dims_code = load ptr, ptr %output_dims_at
  call void %output_dims_code(ptr %table, i32 %output, ptr %dims)
  br label %done
done:
  call void @free(ptr %table)
  ret i32 %code
}
