; Runs: of a whole image, or of a tile of a strip (graphc/codegen/carrying.py). The head of runtime/api.ll tells what a
; network is, graphc/codegen/level.py what a frame is.

; int NAME_call(NAME *net, const void *const *inputs, const int64_t *sizes, void *const *outputs, void *workspace,
;               int64_t workspace_bytes)
; A null workspace means the network's own, which grows when a larger size comes.
define i32 @NAME_call(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes) {
  %code = call i32 @graphc_call(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes, ptr null, i64 0, i64 0)
  ret i32 %code
}

; int NAME_strip(NAME *net, const void *const *inputs, const int64_t *sizes, void *const *outputs, void *workspace,
;                int64_t workspace_bytes, void *carried, int64_t carried_bytes, int part)
; A tile of a strip; part is 1 if it continues the one before it, which had the same memory `carried` and differed from it
; in its height alone, and 2 more if another one continues it. See graphc/codegen/carrying.py.
define i32 @NAME_strip(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes, ptr %carried, i64 %carried_bytes, i32 %part) {
  %level = call ptr @graphc_level()
  %unfit = icmp eq ptr %level, null
  br i1 %unfit, label %bad_cpu, label %look
bad_cpu:
  ret i32 10
look:
  %strip_at = getelementptr %graphc.level, ptr %level, i32 0, i32 10
  %strip = load ptr, ptr %strip_at
  %none = icmp eq ptr %strip, null
  %no_space = icmp eq ptr %carried, null
  %wide = zext i32 %part to i64
  %unknown = icmp ugt i64 %wide, 3
  %missing = or i1 %none, %no_space
  %bad = or i1 %missing, %unknown
  br i1 %bad, label %bad_argument, label %call
bad_argument:
  ret i32 1
call:
  %code = call i32 @graphc_call(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes, ptr %carried, i64 %carried_bytes, i64 %wide)
  ret i32 %code
}

; `carried` is null but for a tile of a strip
define internal i32 @graphc_call(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes, ptr %carried, i64 %carried_bytes, i64 %part) {
  %n0 = icmp eq ptr %net, null
  %n1 = icmp eq ptr %inputs, null
  %n2 = call i1 @graphc_lacks_sizes(ptr %sizes)
  %n3 = icmp eq ptr %outputs, null
  %n4 = or i1 %n0, %n1
  %n5 = or i1 %n2, %n3
  %null = or i1 %n4, %n5
  br i1 %null, label %bad_argument, label %enter
bad_argument:
  ret i32 1
enter:
  %mutex = getelementptr %graphc.net, ptr %net, i32 0, i32 7
  call i32 @pthread_mutex_lock(ptr %mutex)
  %code = call i32 @graphc_run_locked(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %workspace, i64 %workspace_bytes, ptr %carried, i64 %carried_bytes, i64 %part)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret i32 %code
}

; One run, with the network's mutex held
define internal i32 @graphc_run_locked(ptr %net, ptr %inputs, ptr %sizes, ptr %outputs, ptr %given, i64 %given_bytes, ptr %carried, i64 %carried_bytes, i64 %part) {
  %level = call ptr @graphc_level()                                          ; as when the network was created
  %table = getelementptr %graphc.net, ptr %net, i32 1
  %table_words_at = getelementptr %graphc.level, ptr %level, i32 0, i32 4
  %table_words = load i64, ptr %table_words_at
  %last = getelementptr i64, ptr %table, i64 %table_words
  %symbols = load i64, ptr @graphc_symbols
  %f = getelementptr i64, ptr %last, i64 %symbols
  %input_count = load i64, ptr @graphc_inputs
  %output_count = load i64, ptr @graphc_outputs
  %f_inputs = getelementptr ptr, ptr %f, i64 5
  %in_ok = call i1 @graphc_copy_addresses(ptr %f_inputs, ptr %inputs, ptr @graphc_alignments, i64 %input_count)
  %f_outputs = getelementptr ptr, ptr %f_inputs, i64 %input_count
  %out_masks = getelementptr i64, ptr @graphc_alignments, i64 %input_count
  %out_ok = call i1 @graphc_copy_addresses(ptr %f_outputs, ptr %outputs, ptr %out_masks, i64 %output_count)
  %both = and i1 %in_ok, %out_ok
  br i1 %both, label %look_sizes, label %bad_argument
bad_argument:
  ret i32 1
look_sizes:
  %size_bytes = mul i64 %symbols, 8
  %first_word = load i64, ptr %table                                         ; 0 in a fresh table, then at least 64
  %fresh = icmp eq i64 %first_word, 0
  %changed = call i32 @memcmp(ptr %last, ptr %sizes, i64 %size_bytes)
  %differs = icmp ne i32 %changed, 0
  %stale = or i1 %fresh, %differs
  %in_strip = icmp ne ptr %carried, null
  %carries = zext i1 %in_strip to i64
  %prepare_now = or i1 %stale, %in_strip
  br i1 %prepare_now, label %prepare, label %space
prepare:
  store i64 0, ptr %table
  %prepare_code = load ptr, ptr %level
  %code = call i32 %prepare_code(ptr %sizes, ptr %table, i64 %carries, i64 %part)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %remember, label %refused
refused:
  store i64 0, ptr %table
  ret i32 %code
remember:
  call void @llvm.memcpy.p0.p0.i64(ptr %last, ptr %sizes, i64 %size_bytes, i1 false)
  br i1 %in_strip, label %forget, label %space
forget:                                                                      ; this table serves one tile
  store i64 0, ptr %last
  br label %space
space:
  %carried_need_at = getelementptr i64, ptr %table, i64 1
  %carried_need = load i64, ptr %carried_need_at
  %carried_small = icmp slt i64 %carried_bytes, %carried_need
  %carried_bits = ptrtoint ptr %carried to i64
  %carried_low = and i64 %carried_bits, 63
  %carried_misaligned = icmp ne i64 %carried_low, 0
  %carried_unfit = or i1 %carried_small, %carried_misaligned
  br i1 %carried_unfit, label %bad_workspace, label %space_too
space_too:
  %need = load i64, ptr %table
  %use_own = icmp eq ptr %given, null
  br i1 %use_own, label %own, label %theirs
theirs:
  %bits = ptrtoint ptr %given to i64
  %low = and i64 %bits, 63
  %misaligned = icmp ne i64 %low, 0
  %small = icmp slt i64 %given_bytes, %need
  %unfit = or i1 %misaligned, %small
  br i1 %unfit, label %bad_workspace, label %run
bad_workspace:
  ret i32 5
own:
  %p2 = getelementptr %graphc.net, ptr %net, i32 0, i32 2
  %p3 = getelementptr %graphc.net, ptr %net, i32 0, i32 3
  %have = load i64, ptr %p3
  %enough = icmp sge i64 %have, %need
  %old = load ptr, ptr %p2
  br i1 %enough, label %run, label %grow
grow:
  call void @free(ptr %old)
  store ptr null, ptr %p2
  store i64 0, ptr %p3
  %new = call ptr @graphc_allocate(i64 %need)
  %none = icmp eq ptr %new, null
  br i1 %none, label %no_memory, label %grown
no_memory:
  ret i32 4
grown:
  store ptr %new, ptr %p2
  store i64 %need, ptr %p3
  br label %run
run:
  %workspace = phi ptr [ %given, %theirs ], [ %old, %own ], [ %new, %grown ]
  store ptr %table, ptr %f
  %p6 = getelementptr %graphc.net, ptr %net, i32 0, i32 6
  %own_block = load ptr, ptr %p6
  %f1 = getelementptr ptr, ptr %f, i64 1
  store ptr %own_block, ptr %f1
  %p1 = getelementptr %graphc.net, ptr %net, i32 0, i32 1
  %weights = load ptr, ptr %p1
  %f2 = getelementptr ptr, ptr %f, i64 2
  store ptr %weights, ptr %f2
  %f3 = getelementptr ptr, ptr %f, i64 3
  store ptr %carried, ptr %f3
  %f4 = getelementptr ptr, ptr %f, i64 4
  store ptr %workspace, ptr %f4
  %overlap = call i1 @graphc_overlaps(ptr %f, ptr %table)
  br i1 %overlap, label %bad_overlap, label %forward
bad_overlap:
  ret i32 11
forward:
  %pool = load ptr, ptr %net
  br i1 %in_strip, label %tile, label %whole
whole:
  %forward_at = getelementptr %graphc.level, ptr %level, i32 0, i32 2
  %forward_code = load ptr, ptr %forward_at
  call void %forward_code(ptr %f, ptr %pool)
  ret i32 0
tile:
  %strip_at = getelementptr %graphc.level, ptr %level, i32 0, i32 10
  %strip_code = load ptr, ptr %strip_at
  call void %strip_code(ptr %f, ptr %pool)
  ret i32 0
}

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
