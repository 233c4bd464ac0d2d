; graphc's thread pool: a fixed set of worker threads that help one caller through parallel regions.
;
;   i32  graphc_pool_create(ptr out, i32 threads)
;        threads counts the caller; 0 = as many as sched_getaffinity allows. Returns 0 and the pool in *out; or, with
;        nothing leaked and *out null, 1 (out of memory) or 2 (a thread could not be started).
;   i32  graphc_pool_threads(ptr pool)
;        the number of threads, the caller included
;   void graphc_pool_run(ptr pool, ptr fn, ptr frame, i64 tasks)
;        a REGION: calls `void fn(ptr frame, i64 begin, i64 end, i64 thread)` over disjoint, non-empty ranges that together
;        are [0, tasks), on any thread, the caller's too, and returns when all are done. tasks < 2^62. `thread` is the
;        caller's 0 or a worker's 1 to threads - 1: calls that run at one time have different ones.
;   void graphc_pool_destroy(ptr pool)
;        joins the workers; null is allowed
;
; The user's part: one caller at a time uses a pool, and fn runs no region on its own pool. A pool is destroyed before
; its code is unloaded (dlclose, JIT engine closed), for its workers are inside it. What fn computes for a task must
; not depend on the range that the task came in; then no result depends on which thread computed what. Workers have the
; system's default stack (8 MiB on glibc, 128 KiB on musl) and the floating-point mode (rounding, flush-to-zero) of the
; creator.
;
; THE GATE
; All that a thread ever waits for is in one 64-bit word, the gate:
;
;   bit 0       OPEN     1     a region has chunks that nobody has taken: workers may enter
;   bit 1       STOP     2     the pool ends: workers return
;   bits 2..7   WAITING  4     is 1 while the caller sleeps, or is about to, until INSIDE is 0
;   bits 8..31  INSIDE   2^8   how many workers are in the region: only they may read its fields and call fn
;   bits 32..   ASLEEP   2^32  how many workers sleep, or are about to, until OPEN or STOP
;
; A region, step by step:
;   1. OPEN is 0 and INSIDE is 0, so no worker looks at the region's fields: the caller writes them.
;   2. The caller sets OPEN and, if ASLEEP is not 0, wakes the sleepers.
;   3. A worker that sees OPEN enters: compare-and-swap gate -> gate + INSIDE. It fails if OPEN has gone meanwhile.
;   4. Caller and workers take chunks of tasks off the counter `next` until none is left. Whoever takes the last chunk
;      clears OPEN; whoever comes too late makes sure of it, lest it enter again and again.
;   5. A worker leaves: gate - INSIDE. The caller waits until INSIDE is 0, which is step 1 of the next region.
; So the caller waits only for workers that entered. With fewer free cores than threads, a worker that the system did
; not run in time holds nobody up: it finds the gate closed, and the others have done its share.
;
; TO WAIT, AND WHY NO WAKE-UP IS LOST
; graphc_pool_await looks at the gate for a while, then sleeps; an idle pool uses no CPU. To sleep is: lock
; the mutex, add one's mark (ASLEEP or WAITING) to the gate, look once more, wait on the condition variable (which
; unlocks). To wake is: lock, broadcast, unlock. Only atomic read-modify-writes change the gate, and those of one word
; happen in one order that all threads agree on, whatever their memory orders. So a change that ends a wait comes either
;   * before the mark: then the sleeper's next look, which follows its mark, sees the change, and it does not sleep; or
;   * after the mark: then the changing thread finds the mark in the value that it replaced, and goes to wake. The
;     sleeper holds the mutex from before its mark until it sleeps, so the broadcast cannot fall in between.
; (In the first case OPEN may be gone again: then the region needs no more hands, and to sleep is right.) A broadcast
; that comes late finds nobody, or someone who looks again and sleeps on.
;
; FORK
; A child process has the pool's memory but none of its workers, and finds mutex and gate as they happened to be.
; The pool records its process. In another one graphc_pool_run sets everything up anew, with fresh workers, and runs
; serially if they cannot be started; graphc_pool_destroy only frees. (getpid is a system call: about 0.1 us a region.)
;
; LAYOUT of %graphc.pool on 64-bit Linux, aligned to 64 bytes, the common cache line. The words that threads fight
; over, `gate` and `next`, are 128 apart: x86 prefetches lines in pairs, and some AArch64 lines have 128 bytes.
;
;   field  offset  name
;   0      0       gate     see above; spinning workers read this line and nothing else
;   1      8                padding
;   2      64      fn       the region: fn ...
;   3      72      frame    ... its first argument ...
;   4      80      tasks    ... how many tasks ...
;   5      88      grain    ... and tasks per chunk
;   6      96      threads  as created, the caller included
;   7      100     workers  how many run: threads - 1; or 0, and all regions are serial
;   8      104     pid      the process they run in
;   9      108     named    how many workers have taken a number
;   10     112              padding
;   11     128     next     first task that nobody has taken
;   12     136              padding
;   13     192     mutex    pthread_mutex_t: 48 bytes on glibc AArch64, 40 on x86-64 and on musl; 64 reserved
;   14     256     work     pthread_cond_t: workers sleep here; 48 bytes on all of these; 64 reserved
;   15     320     done     pthread_cond_t: the caller sleeps here
;   16     384     ids      threads - 1 times pthread_t: 8 bytes, an integer in glibc and a pointer in musl
%graphc.pool = type { i64, [56 x i8], ptr, ptr, i64, i64, i32, i32, i32, i32, [16 x i8], i64, [56 x i8],
                      [64 x i8], [64 x i8], [64 x i8], [0 x i64] }

declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i32 @getpid()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @__sched_cpucount(i64, ptr)                 ; what the C macro CPU_COUNT calls, in glibc and musl
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_mutex_destroy(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_cond_destroy(ptr)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)

; ---- the interface ---------------------------------------------------------------------------------------------------

define internal i32 @graphc_pool_create(ptr %out, i32 %threads) {
entry:
  %mask = alloca [1024 x i8], align 8                   ; for 8192 CPUs, Linux's limit
  store ptr null, ptr %out
  %all = icmp sle i32 %threads, 0
  br i1 %all, label %count, label %allocate
count:
  %error = call i32 @sched_getaffinity(i32 0, i64 1024, ptr %mask)
  %known = icmp eq i32 %error, 0
  %allowed = call i32 @__sched_cpucount(i64 1024, ptr %mask)
  %cpus = select i1 %known, i32 %allowed, i32 1
  br label %allocate
allocate:
  %n = phi i32 [ %threads, %entry ], [ %cpus, %count ]
  %wide = zext i32 %n to i64
  %ids = shl i64 %wide, 3
  %unrounded = add i64 %ids, 447                        ; 384 + 8 n, up to a multiple of 64 as aligned_alloc wants it
  %bytes = and i64 %unrounded, -64
  %pool = call ptr @aligned_alloc(i64 64, i64 %bytes)
  %none = icmp eq ptr %pool, null
  br i1 %none, label %no_memory, label %fill
no_memory:
  ret i32 1
fill:
  %threads.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 6
  store i32 %n, ptr %threads.p
  %started = call i1 @graphc_pool_start(ptr %pool)
  br i1 %started, label %good, label %no_thread
no_thread:
  call void @graphc_pool_destroy(ptr %pool)
  ret i32 2
good:
  store ptr %pool, ptr %out
  ret i32 0
}

define internal i32 @graphc_pool_threads(ptr %pool) {
  %threads.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 6
  %threads = load i32, ptr %threads.p
  ret i32 %threads
}

define internal void @graphc_pool_run(ptr %pool, ptr %fn, ptr %frame, i64 %tasks) {
entry:
  %few = icmp sle i64 %tasks, 1
  br i1 %few, label %one_or_none, label %check_workers
check_workers:
  %workers.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 7
  %workers = load i32, ptr %workers.p
  %alone = icmp eq i32 %workers, 0
  br i1 %alone, label %serial, label %check_process
check_process:
  %pid = call i32 @getpid()
  %pid.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 8
  %home = load i32, ptr %pid.p
  %same = icmp eq i32 %pid, %home
  br i1 %same, label %parallel, label %restart
restart:
  %started = call i1 @graphc_pool_start(ptr %pool)
  br i1 %started, label %parallel, label %serial
one_or_none:
  %any = icmp eq i64 %tasks, 1
  br i1 %any, label %serial, label %finished
serial:
  call void %fn(ptr %frame, i64 0, i64 %tasks, i64 0)
  ret void

parallel:
  ; Chunk rule: tasks / (4 * threads), rounded down, but at least 1: four to eight chunks a thread, or single tasks. At
  ; the end the others wait for the last chunk at most a quarter of a thread's fair share; yet a thread walks through
  ; neighbouring tasks, which share cache lines, and pays for an atomic addition (20 to 100 ns) only a few times.
  %threads = add i32 %workers, 1
  %parts32 = shl i32 %threads, 2
  %parts = zext i32 %parts32 to i64
  %share = udiv i64 %tasks, %parts
  %grain = call i64 @llvm.umax.i64(i64 %share, i64 1)
  %fn.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 2
  %frame.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 3
  %tasks.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 4
  %grain.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 5
  %next.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 11
  store ptr %fn, ptr %fn.p
  store ptr %frame, ptr %frame.p
  store i64 %tasks, ptr %tasks.p
  store i64 %grain, ptr %grain.p
  store atomic i64 0, ptr %next.p monotonic, align 64
  ; Set OPEN. Release: whoever enters (acquire) sees the stores above, and all that the caller did before this region.
  %before = atomicrmw or ptr %pool, i64 1 release, align 64
  %asleep = lshr i64 %before, 32
  %sleepers = icmp ne i64 %asleep, 0
  br i1 %sleepers, label %wake, label %join_in
wake:
  %work = getelementptr %graphc.pool, ptr %pool, i32 0, i32 14
  call void @graphc_pool_wake(ptr %pool, ptr %work)
  br label %join_in
join_in:
  call void @graphc_pool_work(ptr %pool, i64 0)
  ; The gate is closed, so nobody enters any more: until (gate & INSIDE) == 0; mark WAITING = 4.
  %done = getelementptr %graphc.pool, ptr %pool, i32 0, i32 15
  call void @graphc_pool_await(ptr %pool, i64 u0xFFFFFF00, i1 false, i64 4, ptr %done, i32 50000)
  br label %finished
finished:
  ret void
}

define internal void @graphc_pool_destroy(ptr %pool) {
entry:
  %null = icmp eq ptr %pool, null
  br i1 %null, label %end, label %check_process
check_process:
  %pid = call i32 @getpid()
  %pid.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 8
  %home = load i32, ptr %pid.p
  %here = icmp eq i32 %pid, %home
  br i1 %here, label %stop, label %release
stop:
  call void @graphc_pool_stop(ptr %pool)
  %mutex = getelementptr %graphc.pool, ptr %pool, i32 0, i32 13
  %work = getelementptr %graphc.pool, ptr %pool, i32 0, i32 14
  %done = getelementptr %graphc.pool, ptr %pool, i32 0, i32 15
  %d0 = call i32 @pthread_mutex_destroy(ptr %mutex)
  %d1 = call i32 @pthread_cond_destroy(ptr %work)
  %d2 = call i32 @pthread_cond_destroy(ptr %done)
  br label %release
release:                                                ; a forked child has nobody to join, and to destroy a condition
  call void @free(ptr %pool)                            ; variable with (vanished) sleepers would hang in glibc
  br label %end
end:
  ret void
}

; ---- working ---------------------------------------------------------------------------------------------------------

; Takes chunks until there are none, then sees to it that OPEN is cleared. For the caller, and for workers INSIDE.
define internal void @graphc_pool_work(ptr %pool, i64 %thread) {
entry:
  %fn.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 2
  %frame.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 3
  %tasks.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 4
  %grain.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 5
  %next.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 11
  %fn = load ptr, ptr %fn.p
  %frame = load ptr, ptr %frame.p
  %tasks = load i64, ptr %tasks.p
  %grain = load i64, ptr %grain.p
  br label %take
take:
  ; Monotonic: it is only to be handed out once; the gate orders all other memory. It ends at most one grain a thread
  ; above `tasks`, far from overflow.
  %begin = atomicrmw add ptr %next.p, i64 %grain monotonic, align 64
  %after = add i64 %begin, %grain
  %more = icmp slt i64 %after, %tasks
  br i1 %more, label %call, label %last
last:                                                   ; this chunk is the last, or there was none left
  %gate = load atomic i64, ptr %pool monotonic, align 64
  %open = trunc i64 %gate to i1
  br i1 %open, label %close, label %closed              ; look first: a load is cheaper, and mostly someone was quicker
close:                                                  ; it is this region's OPEN: no region ends while we are in it
  %old = atomicrmw and ptr %pool, i64 -2 monotonic, align 64 ; monotonic: it publishes nothing
  br label %closed
closed:
  %none = icmp sge i64 %begin, %tasks
  br i1 %none, label %end, label %call
call:
  %end.task = call i64 @llvm.smin.i64(i64 %after, i64 %tasks)
  call void %fn(ptr %frame, i64 %begin, i64 %end.task, i64 %thread)
  br i1 %more, label %take, label %end
end:
  ret void
}

define internal ptr @graphc_pool_worker(ptr %pool) {
entry:
  %work = getelementptr %graphc.pool, ptr %pool, i32 0, i32 14
  %done = getelementptr %graphc.pool, ptr %pool, i32 0, i32 15
  %named.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 9
  %before.me = atomicrmw add ptr %named.p, i32 1 monotonic ; only to be handed out once, like the tasks
  %number = add i32 %before.me, 1
  %thread = zext i32 %number to i64
  br label %idle
idle:                                                   ; until (gate & (OPEN | STOP)) != 0; mark ASLEEP = 2^32
  call void @graphc_pool_await(ptr %pool, i64 3, i1 true, i64 u0x100000000, ptr %work, i32 400000)
  br label %look
look:
  %gate = load atomic i64, ptr %pool monotonic, align 64
  %stop = and i64 %gate, 2
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %check_open
check_open:
  %open = trunc i64 %gate to i1
  br i1 %open, label %enter, label %idle
enter:
  ; INSIDE + 1. Acquire pairs with the caller's setting of OPEN; that holds although other threads may have changed the
  ; gate since, for read-modify-writes carry a release on.
  %entered = add i64 %gate, u0x100
  %swap = cmpxchg ptr %pool, i64 %gate, i64 %entered acquire monotonic, align 64
  %success = extractvalue { i64, i1 } %swap, 1
  br i1 %success, label %inside, label %look
inside:
  call void @graphc_pool_work(ptr %pool, i64 %thread)
  ; INSIDE - 1. Release pairs with the caller's look at the gate (acquire): it sees what fn wrote here.
  %before = atomicrmw sub ptr %pool, i64 u0x100 release, align 64
  %state = and i64 %before, u0xFFFFFFFC                 ; INSIDE and WAITING ...
  %last = icmp eq i64 %state, u0x104                    ; ... were 1 and 1: the caller waits, and we were the last
  br i1 %last, label %tell, label %idle
tell:
  call void @graphc_pool_wake(ptr %pool, ptr %done)
  br label %idle
end:
  ret ptr null
}

; ---- waiting ---------------------------------------------------------------------------------------------------------

; Returns when ((gate & mask) != 0) == set: spins, then sleeps on the condition variable `signal` with `mark` added to
; the gate. The loads acquire for the caller's sake (see `inside` above); the marks need no order but the gate's own.
;
; How long it spins: `longest` loads, one a cycle. To sleep and be woken costs 17 us, and more where the core has gone
; to sleep, too. A worker spins for some 100 us, longer than most layers that are serial or small: with 12 us, networks
; of many small layers took 2 to 6 % more time with two threads. (Where two processes share the cores, that costs them
; 10 to 15 %.) The caller spins for some 12 us: whom it waits for may want its core.
; Plain loads, because LLVM has no portable pause: those of x86 and AArch64 are target intrinsics, and the
; cycle counter traps on AArch64. No sched_yield: on a core that others want, Linux makes a yielding thread wait a
; whole time slice, milliseconds, where a thread that slept is run soon after it is woken.
define internal void @graphc_pool_await(ptr %pool, i64 %mask, i1 %set, i64 %mark, ptr %signal, i32 %longest) {
entry:
  %mutex = getelementptr %graphc.pool, ptr %pool, i32 0, i32 13
  br label %spin
spin:
  %spins = phi i32 [ 0, %entry ], [ %spins.next, %again ]
  %gate = load atomic i64, ptr %pool acquire, align 64
  %bits = and i64 %gate, %mask
  %nonzero = icmp ne i64 %bits, 0
  %ready = icmp eq i1 %nonzero, %set
  br i1 %ready, label %end, label %again
again:
  %spins.next = add i32 %spins, 1
  %tired = icmp eq i32 %spins.next, %longest
  br i1 %tired, label %sleep, label %spin
sleep:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %marked = atomicrmw add ptr %pool, i64 %mark monotonic, align 64
  br label %check
check:
  %gate.now = load atomic i64, ptr %pool acquire, align 64
  %bits.now = and i64 %gate.now, %mask
  %nonzero.now = icmp ne i64 %bits.now, 0
  %ready.now = icmp eq i1 %nonzero.now, %set
  br i1 %ready.now, label %awake, label %wait
wait:
  %woken = call i32 @pthread_cond_wait(ptr %signal, ptr %mutex)
  br label %check
awake:
  %unmarked = atomicrmw sub ptr %pool, i64 %mark monotonic, align 64
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %end
end:
  ret void
}

define internal void @graphc_pool_wake(ptr %pool, ptr %signal) {
  %mutex = getelementptr %graphc.pool, ptr %pool, i32 0, i32 13
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %sent = call i32 @pthread_cond_broadcast(ptr %signal)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

; ---- starting and stopping -------------------------------------------------------------------------------------------

; Sets up everything but `threads` for this process and starts threads - 1 workers. If one cannot be started it ends the
; others and returns false, with workers = 0. (The inits cannot fail: with default attributes glibc and musl only write
; the memory, which is also why they may overwrite what a fork left behind.)
define internal i1 @graphc_pool_start(ptr %pool) {
entry:
  %threads.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 6
  %workers.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 7
  %pid.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 8
  %mutex = getelementptr %graphc.pool, ptr %pool, i32 0, i32 13
  %work = getelementptr %graphc.pool, ptr %pool, i32 0, i32 14
  %done = getelementptr %graphc.pool, ptr %pool, i32 0, i32 15
  %pid = call i32 @getpid()
  store i32 %pid, ptr %pid.p
  store i32 0, ptr %workers.p
  %named.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 9
  store i32 0, ptr %named.p
  store atomic i64 0, ptr %pool monotonic, align 64     ; the gate; pthread_create publishes it
  %i0 = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %i1 = call i32 @pthread_cond_init(ptr %work, ptr null)
  %i2 = call i32 @pthread_cond_init(ptr %done, ptr null)
  %threads = load i32, ptr %threads.p
  %wanted = sub i32 %threads, 1
  br label %next
next:
  %workers = load i32, ptr %workers.p
  %all = icmp eq i32 %workers, %wanted
  br i1 %all, label %good, label %create
create:
  %id.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 16, i32 %workers
  %error = call i32 @pthread_create(ptr %id.p, ptr null, ptr @graphc_pool_worker, ptr %pool)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %bad, label %created
created:
  %one_more = add i32 %workers, 1
  store i32 %one_more, ptr %workers.p
  br label %next
good:
  ret i1 true
bad:
  call void @graphc_pool_stop(ptr %pool)
  ret i1 false
}

; Ends and joins the workers.
define internal void @graphc_pool_stop(ptr %pool) {
entry:
  %workers.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 7
  %work = getelementptr %graphc.pool, ptr %pool, i32 0, i32 14
  %old = atomicrmw or ptr %pool, i64 2 monotonic, align 64 ; STOP; monotonic: it publishes nothing
  call void @graphc_pool_wake(ptr %pool, ptr %work)
  br label %next
next:
  %workers = load i32, ptr %workers.p
  %none = icmp eq i32 %workers, 0
  br i1 %none, label %end, label %join
join:
  %left = sub i32 %workers, 1
  store i32 %left, ptr %workers.p
  %id.p = getelementptr %graphc.pool, ptr %pool, i32 0, i32 16, i32 %left
  %id = load i64, ptr %id.p
  %joined = call i32 @pthread_join(i64 %id, ptr null)
  br label %next
end:
  ret void
}
