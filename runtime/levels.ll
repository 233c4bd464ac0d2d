; Which of the compiled levels runs: code for several CPUs stands side by side, and this chooses when it is first needed.
;
; The compiler defines, beside this text and one of runtime/cpuid_*.ll:
;
;   @graphc_levels ([n x %graphc.level]), @graphc_level_count (i64)   the most demanding level first
;
; A level is everything that differs between CPUs: the number of lanes decides how tensors and weights lie in memory.
;
;   0 i32 prepare(ptr sizes, ptr table, i64 carries, i64 part)   checks the sizes (in the order of the symbols),
;                                         fills the table with all that depends on them; word 0 is the workspace in
;                                         bytes, word 1 what is carried; `carries` is 1 for a tile of a strip, `part` as
;                                         in NAME_strip
;   1 void setup(ptr frame, ptr pool, ptr visit)   runs the kernels that read nothing but weights, once (see
;                                         @graphc_visit in runtime/api.ll)
;   2 void forward(ptr frame, ptr pool)   runs the others; the frame holds addresses: table, the network's own block,
;                                         weights, what is carried, workspace, the inputs, the outputs
;   3 void output_dims(ptr table, i32 output, ptr dims)   stores the dims of an output
;   4 how many words the table has
;   5, 6 what the network's own block holds: the bytes of setup's results, and then for each thread the bytes that its
;      kernels write down for themselves
;   7 the name    8 its place in @graphc_level_names, counted from 1; 5 if it was compiled for one CPU, as "native"
;   9 the bits that a CPU must have
;  10 void strip(ptr frame, ptr pool)     as forward, for a tile of a strip (graphc/codegen/carrying.py); null if the
;                                         network's images are not cut into any
%graphc.level = type { ptr, ptr, ptr, ptr, i64, i64, i64, ptr, i64, [8 x i32], ptr }

@graphc_l1 = internal constant [7 x i8] c"x86-64\00"
@graphc_l2 = internal constant [10 x i8] c"x86-64-v2\00"
@graphc_l3 = internal constant [10 x i8] c"x86-64-v3\00"
@graphc_l4 = internal constant [10 x i8] c"x86-64-v4\00"
@graphc_level_names = internal constant [4 x ptr] [ptr @graphc_l1, ptr @graphc_l2, ptr @graphc_l3, ptr @graphc_l4]
@graphc_setting = internal constant [11 x i8] c"GRAPHC_CPU\00"
@graphc_chosen = internal global ptr null

declare ptr @getenv(ptr)
declare i32 @strcmp(ptr, ptr)

; The first level that the CPU has and that GRAPHC_CPU allows; null if there is none. Every thread finds the same.
define internal ptr @graphc_level() {
  %known = load atomic ptr, ptr @graphc_chosen monotonic, align 8
  %unknown = icmp eq ptr %known, null
  br i1 %unknown, label %read, label %return_known
return_known:
  ret ptr %known
read:
  %words = alloca [8 x i32], align 32
  store [8 x i32] zeroinitializer, ptr %words
  call void @graphc_read_cpu(ptr %words)
  %have = load <8 x i32>, ptr %words, align 32
  %limit = call i64 @graphc_limit()
  %count = load i64, ptr @graphc_level_count
  br label %head
head:
  %i = phi i64 [ 0, %read ], [ %next, %advance ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %look, label %none
none:
  ret ptr null
look:
  %level = getelementptr %graphc.level, ptr @graphc_levels, i64 %i
  %place_at = getelementptr %graphc.level, ptr %level, i32 0, i32 8
  %place = load i64, ptr %place_at
  %allowed = icmp ule i64 %place, %limit
  %bits_at = getelementptr %graphc.level, ptr %level, i32 0, i32 9
  %bits = load <8 x i32>, ptr %bits_at, align 4
  %present = and <8 x i32> %bits, %have
  %missing = xor <8 x i32> %bits, %present
  %missing_bits = bitcast <8 x i32> %missing to i256
  %complete = icmp eq i256 %missing_bits, 0
  %fits = and i1 %allowed, %complete
  br i1 %fits, label %choose, label %advance
advance:
  %next = add i64 %i, 1
  br label %head
choose:
  store atomic ptr %level, ptr @graphc_chosen monotonic, align 8
  ret ptr %level
}

; What GRAPHC_CPU allows: the place of the level that it names, 0 if it names none, all if it is not set
define internal i64 @graphc_limit() {
  %text = call ptr @getenv(ptr @graphc_setting)
  %unset = icmp eq ptr %text, null
  br i1 %unset, label %all, label %set
set:
  %first = load i8, ptr %text
  %empty = icmp eq i8 %first, 0
  br i1 %empty, label %all, label %head
all:
  ret i64 5
head:
  %i = phi i64 [ 4, %set ], [ %previous, %look ]
  %over = icmp eq i64 %i, 0
  br i1 %over, label %found, label %look
look:
  %previous = sub i64 %i, 1
  %name_at = getelementptr ptr, ptr @graphc_level_names, i64 %previous
  %name = load ptr, ptr %name_at
  %differs = call i32 @strcmp(ptr %text, ptr %name)
  %same = icmp eq i32 %differs, 0
  br i1 %same, label %found, label %head
found:
  ret i64 %i
}
