; The buffers that a run is given: they must be there, aligned, and apart, for so the code of kernels takes its operands;
; the memory that a network takes itself, and that of weights which it has read. The head of runtime/api.ll tells what
; the constants and the table are, graphc/codegen/level.py what a frame is.

declare i32 @madvise(ptr, i64, i32)
declare i32 @getpagesize()

; Memory aligned to 64 bytes, or null. It lies on huge pages where it fills some and the system grants them: then fewer
; addresses are looked up, and what is cut to the size of a cache fits it. On pages of 4 KiB, which lie anywhere, some
; layers took up to 40 % more time in one process than in the next; ResNet-50 takes 3 % less time, MobileNet v2 4 to 9 %.
define internal ptr @graphc_allocate(i64 %bytes) {
  %large = icmp uge i64 %bytes, 4194304                                      ; two huge pages
  %alignment = select i1 %large, i64 2097152, i64 64
  %p = call ptr @aligned_alloc(i64 %alignment, i64 %bytes)
  %none = icmp eq ptr %p, null
  %small = xor i1 %large, true
  %done = or i1 %none, %small
  br i1 %done, label %end, label %advise
advise:
  call i32 @madvise(ptr %p, i64 %bytes, i32 14)                              ; MADV_HUGEPAGE; where refused, small pages do
  br label %end
end:
  ret ptr %p
}

; A visit (see @graphc_visit) to weights that are mapped from a file: once they have been packed, their pages are given
; back to the system, and read from the file if they are wanted again. Until then, they counted as this process's.
define internal void @graphc_release(ptr %weights, i64 %offset, i64 %bytes, i32 %after) {
  %start = getelementptr i8, ptr %weights, i64 %offset
  %begin = ptrtoint ptr %start to i64
  %end = add i64 %begin, %bytes
  %up = add i64 %begin, 4095
  %first = and i64 %up, -4096                                                ; whole pages: the others hold more
  %last = and i64 %end, -4096
  %some = icmp ult i64 %first, %last
  %done = icmp ne i32 %after, 0
  %release = and i1 %some, %done
  br i1 %release, label %give, label %return
give:
  %page = inttoptr i64 %first to ptr
  %size = sub i64 %last, %first
  call i32 @madvise(ptr %page, i64 %size, i32 4)                             ; MADV_DONTNEED
  br label %return
return:
  ret void
}

; Whether embedded weights are mapped from a file. Where something has copied this code to memory, as what unpacks
; compressed executables does, pages that are given back would come again as zeros. So that is tried on a page of
; which nothing is wanted but to know.
@graphc_spare_page = internal constant { i8, [4095 x i8] } { i8 1, [4095 x i8] zeroinitializer }, align 4096

define internal i1 @graphc_may_release() {
  %bytes = call i32 @getpagesize()
  %fits = icmp eq i32 %bytes, 4096
  %before = load volatile i8, ptr @graphc_spare_page
  %present = icmp ne i8 %before, 0
  %try = and i1 %fits, %present
  br i1 %try, label %give, label %no
give:
  %code = call i32 @madvise(ptr @graphc_spare_page, i64 4096, i32 4)         ; MADV_DONTNEED
  %after = load volatile i8, ptr @graphc_spare_page
  %again = icmp ne i8 %after, 0
  %given = icmp eq i32 %code, 0
  %file = and i1 %again, %given
  ret i1 %file
no:
  ret i1 0
}

; Copies `count` addresses; false if one is null or not a multiple of its element's size (the mask plus 1)
define internal i1 @graphc_copy_addresses(ptr %to, ptr %from, ptr %masks, i64 %count) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %look, label %good
look:
  %source = getelementptr ptr, ptr %from, i64 %i
  %a = load ptr, ptr %source
  %bits = ptrtoint ptr %a to i64
  %mask_at = getelementptr i64, ptr %masks, i64 %i
  %mask = load i64, ptr %mask_at
  %low = and i64 %bits, %mask
  %aligned = icmp eq i64 %low, 0
  %exists = icmp ne ptr %a, null
  %fine = and i1 %aligned, %exists
  br i1 %fine, label %body, label %bad
body:
  %target = getelementptr ptr, ptr %to, i64 %i
  store ptr %a, ptr %target
  %next = add i64 %i, 1
  br label %head
good:
  ret i1 1
bad:
  ret i1 0
}

; Whether anything that a run writes shares a byte with anything else that it writes or reads; an output that continues
; an input may have its address. The ranges, by number: inputs, outputs, workspace, what is carried, weights.
define internal i1 @graphc_overlaps(ptr %f, ptr %table) {
entry:
  %inputs = load i64, ptr @graphc_inputs
  %outputs = load i64, ptr @graphc_outputs
  %space = add i64 %inputs, %outputs
  %carried = add i64 %space, 1
  %weights = add i64 %space, 2
  br label %writes
writes:
  %w = phi i64 [ %inputs, %entry ], [ %w_next, %next_write ]
  %more_writes = icmp ule i64 %w, %carried
  br i1 %more_writes, label %write, label %none
write:
  %w_start = call i64 @graphc_start(ptr %f, i64 %w, i64 %space)
  %w_bytes = call i64 @graphc_bytes(ptr %table, i64 %w, i64 %space)
  %w_end = add i64 %w_start, %w_bytes
  %w_output = sub i64 %w, %inputs
  %continued_at = getelementptr i64, ptr @graphc_updates, i64 %w_output
  %continued = load i64, ptr %continued_at
  br label %others
others:
  %k = phi i64 [ 0, %write ], [ %k_next, %next_other ]
  %more_others = icmp ule i64 %k, %weights
  br i1 %more_others, label %other, label %next_write
other:
  %k_start = call i64 @graphc_start(ptr %f, i64 %k, i64 %space)
  %k_bytes = call i64 @graphc_bytes(ptr %table, i64 %k, i64 %space)
  %k_end = add i64 %k_start, %k_bytes
  %before = icmp ult i64 %w_start, %k_end
  %behind = icmp ult i64 %k_start, %w_end
  %shared = and i1 %before, %behind
  %itself = icmp eq i64 %k, %w
  %its_input = icmp eq i64 %k, %continued
  %same = icmp eq i64 %k_start, %w_start
  %in_place = and i1 %its_input, %same
  %allowed = or i1 %itself, %in_place
  %wrong = xor i1 %allowed, 1
  %overlap = and i1 %shared, %wrong
  br i1 %overlap, label %found, label %next_other
next_other:
  %k_next = add i64 %k, 1
  br label %others
next_write:
  %w_next = add i64 %w, 1
  br label %writes
found:
  ret i1 1
none:
  ret i1 0
}

; The address of range `i`, where the workspace has the number `space`
define internal i64 @graphc_start(ptr %f, i64 %i, i64 %space) {
  %after = sub i64 %i, %space                                                ; 0 for the workspace, then what is carried
  %usual = icmp ult i64 %i, %space
  %fixed = sub i64 4, %after
  %tensor = add i64 %i, 5
  %word = select i1 %usual, i64 %tensor, i64 %fixed
  %p = getelementptr i64, ptr %f, i64 %word
  %start = load i64, ptr %p
  ret i64 %start
}

; Its bytes: of the workspace in word 0 of the table, of what is carried in word 1, of inputs and outputs from word 2 on
define internal i64 @graphc_bytes(ptr %table, i64 %i, i64 %space) {
  %usual = icmp ult i64 %i, %space
  %behind = add i64 %i, 2
  %after = sub i64 %i, %space
  %is_weights = icmp eq i64 %after, 2
  %first = select i1 %is_weights, i64 0, i64 %after
  %word = select i1 %usual, i64 %behind, i64 %first
  %p = getelementptr i64, ptr %table, i64 %word
  %bytes = load i64, ptr %p
  %weight_bytes = load i64, ptr @graphc_weight_bytes
  %result = select i1 %is_weights, i64 %weight_bytes, i64 %bytes
  ret i64 %result
}
