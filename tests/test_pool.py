"""The thread pool in runtime/pool.ll, alone: JIT-compiled with a few task functions and driven through ctypes."""

import ctypes
import os
import re
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

POOL_LL = Path(__file__).parents[1] / "runtime" / "pool.ll"

# The frame of `count` and `uneven` is an array of i32 counters; task i adds 1 to counter i. Atomically, so that a task
# that two threads run at once is counted twice. `uneven` first does 0 to 4095 steps of volatile work, by task.
# The frame of `meet` is { i32 arrived, i32 expected, i32 missed }. A task arrives and waits until all expected ones
# have: each needs a thread of its own. After 10 million yields (seconds) it counts a miss, so a failure is no hang.
# The frame of `own` is { i32 clashes, i32 greatest thread, i32 busy[threads] }: a call marks its thread busy for as
# long as it works, and counts a clash if it was so already.
TASK_FUNCTIONS = """
define void @count(ptr %counts, i64 %begin, i64 %end, i64 %thread) {
entry:
  br label %task
task:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %task ]
  %count = getelementptr i32, ptr %counts, i64 %i
  %old = atomicrmw add ptr %count, i32 1 monotonic
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %end
  br i1 %more, label %task, label %return
return:
  ret void
}

define void @uneven(ptr %counts, i64 %begin, i64 %end, i64 %thread) {
entry:
  %sink = alloca i64
  br label %task
task:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %done ]
  %scattered = mul i64 %i, 2654435761
  %steps = and i64 %scattered, 4095
  br label %work
work:
  %step = phi i64 [ 0, %task ], [ %step.next, %work ]
  store volatile i64 %step, ptr %sink
  %step.next = add i64 %step, 1
  %busy = icmp slt i64 %step, %steps
  br i1 %busy, label %work, label %done
done:
  %i.next = add i64 %i, 1
  call void @count(ptr %counts, i64 %i, i64 %i.next, i64 %thread)
  %more = icmp slt i64 %i.next, %end
  br i1 %more, label %task, label %return
return:
  ret void
}

define void @own(ptr %frame, i64 %begin, i64 %end, i64 %thread) {
entry:
  %sink = alloca [4096 x i32]
  %greatest.p = getelementptr i32, ptr %frame, i64 1
  %number = trunc i64 %thread to i32
  %greatest = atomicrmw umax ptr %greatest.p, i32 %number monotonic
  %place = add i64 %thread, 2
  %busy.p = getelementptr i32, ptr %frame, i64 %place
  %clash = atomicrmw xchg ptr %busy.p, i32 1 monotonic
  %clashes = atomicrmw add ptr %frame, i32 %clash monotonic
  call void @uneven(ptr %sink, i64 1, i64 9, i64 %thread)
  %was = atomicrmw xchg ptr %busy.p, i32 0 monotonic
  ret void
}

declare i32 @sched_yield()

define void @meet(ptr %frame, i64 %begin, i64 %end, i64 %thread) {
entry:
  %expected.p = getelementptr i32, ptr %frame, i64 1
  %missed.p = getelementptr i32, ptr %frame, i64 2
  %expected = load i32, ptr %expected.p
  %old = atomicrmw add ptr %frame, i32 1 monotonic
  br label %wait
wait:
  %yields = phi i32 [ 0, %entry ], [ %yields.next, %yield ]
  %arrived = load atomic i32, ptr %frame monotonic, align 4
  %together = icmp eq i32 %arrived, %expected
  br i1 %together, label %return, label %yield
yield:
  %yielded = call i32 @sched_yield()
  %yields.next = add i32 %yields, 1
  %patient = icmp slt i32 %yields.next, 10000000
  br i1 %patient, label %wait, label %miss
miss:
  %old.missed = atomicrmw add ptr %missed.p, i32 1 monotonic
  br label %return
return:
  ret void
}
"""


class Pools:
    """The compiled pool: its four functions, and the addresses of the task functions."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        interface = r"define internal (\w+ @graphc_pool_(create|threads|run|destroy)\()"
        source, made_external = re.subn(interface, r"define \1", POOL_LL.read_text())
        assert made_external == 4
        machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(source + TASK_FUNCTIONS), machine)
        self.engine.finalize_object()
        pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self._create = ctypes.CFUNCTYPE(i32, pointer, i32)(self.address("graphc_pool_create"))
        self.threads = ctypes.CFUNCTYPE(i32, pointer)(self.address("graphc_pool_threads"))
        self._run = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, i64)(self.address("graphc_pool_run"))
        self.destroy = ctypes.CFUNCTYPE(None, pointer)(self.address("graphc_pool_destroy"))

    def address(self, name: str) -> int:
        return int(self.engine.get_function_address(name))

    def try_create(self, threads: int) -> tuple[int, int | None]:
        """The error code and the pool."""
        out = ctypes.c_void_p(1)
        error: int = self._create(ctypes.addressof(out), threads)
        return error, out.value

    def create(self, threads: int) -> int:
        error, pool = self.try_create(threads)
        assert error == 0 and pool is not None
        return pool

    def run(self, pool: int, task: str, frame: np.ndarray, tasks: int) -> None:
        self._run(pool, self.address(task), frame.ctypes.data, tasks)

    def runs_each_task_once(self, pool: int, task: str, tasks: int, regions: int = 1) -> bool:
        counts = np.zeros(tasks + 2, np.int32)  # two more, of tasks that do not exist
        for _ in range(regions):
            self.run(pool, task, counts, tasks)
        return bool((counts[:tasks] == regions).all() and (counts[tasks:] == 0).all())


@pytest.fixture(scope="module")
def pools() -> Pools:
    return Pools()


def count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def passes_in_child(check: Callable[[], bool]) -> bool:
    """Whether `check` returns True in a forked child; one that hangs is killed after 20 s and has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is the point here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def forbid_new_threads() -> None:
    """Makes pthread_create fail in this process, for good. Linux does not limit root, so root becomes `nobody`."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)


@pytest.fixture(params=[1, 2, 3, 4, 8])
def pool(pools: Pools, request: pytest.FixtureRequest) -> Iterator[int]:
    pool = pools.create(request.param)
    assert pools.threads(pool) == request.param
    yield pool
    pools.destroy(pool)


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64, 1000, 100_000])
def test_each_task_runs_exactly_once(pools: Pools, pool: int, tasks: int) -> None:
    assert pools.runs_each_task_once(pool, "count", tasks, regions=3)


def test_threads_that_run_at_once_have_different_numbers(pools: Pools, pool: int) -> None:
    threads = pools.threads(pool)
    frame = np.zeros(2 + threads, np.int32)
    for _ in range(20):
        pools.run(pool, "own", frame, 400)
    clashes, greatest, *busy = frame.tolist()
    assert clashes == 0 and greatest < threads and not any(busy)


def test_uneven_tasks(pools: Pools, pool: int) -> None:
    assert pools.runs_each_task_once(pool, "uneven", 1000, regions=3)


def test_many_short_regions(pools: Pools, pool: int) -> None:
    assert pools.runs_each_task_once(pool, "count", 20, regions=20_000)


def test_every_worker_comes_spinning_or_asleep(pools: Pools, pool: int) -> None:
    threads = pools.threads(pool)
    for attempt in range(60):
        if attempt % 2:
            time.sleep(0.001)  # the workers spin for some microseconds
        frame = np.array([0, threads, 0], np.int32)
        pools.run(pool, "meet", frame, threads)
        assert frame.tolist() == [threads, threads, 0]


def test_regions_after_the_workers_fell_asleep(pools: Pools, pool: int) -> None:
    for _ in range(5):
        time.sleep(0.01)
        assert pools.runs_each_task_once(pool, "uneven", 100)


def test_idle_pool_uses_no_cpu(pools: Pools, pool: int) -> None:
    assert pools.runs_each_task_once(pool, "uneven", 100)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1  # one spinning worker would use 0.2 s


def test_threads_0_means_all_that_the_process_may_use(pools: Pools) -> None:
    pool = pools.create(0)
    assert pools.threads(pool) == len(os.sched_getaffinity(0))
    pools.destroy(pool)


def test_destroying_no_pool_is_allowed(pools: Pools) -> None:
    pools.destroy(None)


def test_creating_and_destroying_leaks_no_thread(pools: Pools) -> None:
    before = count_threads()
    for attempt in range(500):
        pool = pools.create(4)
        if attempt % 3 == 0:  # otherwise destroyed while its workers start
            assert pools.runs_each_task_once(pool, "count", 64)
        pools.destroy(pool)
    deadline = time.monotonic() + 5.0
    while count_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel lists a thread for a moment after it was joined
    assert count_threads() == before


def test_out_of_memory_is_error_1(pools: Pools) -> None:
    def check() -> bool:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
        return pools.try_create(2**31 - 1) == (1, None)  # 16 GiB of thread ids

    assert passes_in_child(check)


def test_a_thread_that_cannot_start_is_error_2(pools: Pools) -> None:
    def check() -> bool:
        forbid_new_threads()
        return pools.try_create(3) == (2, None)

    assert passes_in_child(check)


def test_threads_started_before_one_that_cannot_are_joined(pools: Pools) -> None:
    def check() -> bool:
        with open("/proc/self/statm") as statm:
            room = int(statm.read().split()[0]) * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        refused = pools.try_create(1000) == (2, None)  # 1000 stacks of some MiB do not fit into 64 MiB
        deadline = time.monotonic() + 5.0
        while count_threads() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        return refused and count_threads() == 1

    assert passes_in_child(check)


def test_forked_child_starts_its_own_workers(pools: Pools, pool: int) -> None:
    def check() -> bool:
        right = pools.runs_each_task_once(pool, "uneven", 1000, regions=10)
        started = count_threads() == pools.threads(pool)
        pools.destroy(pool)
        return right and started

    assert pools.runs_each_task_once(pool, "uneven", 1000)
    assert passes_in_child(check)
    assert pools.runs_each_task_once(pool, "uneven", 1000)  # the parent's workers are as they were


def test_forked_child_destroys_a_pool_it_never_ran(pools: Pools, pool: int) -> None:
    def check() -> bool:
        pools.destroy(pool)
        return True

    time.sleep(0.01)  # let the workers sleep, so that the child's copy of the condition variable has sleepers
    assert passes_in_child(check)


def test_forked_child_that_cannot_start_workers_runs_serially(pools: Pools, pool: int) -> None:
    def check() -> bool:
        forbid_new_threads()
        right = pools.runs_each_task_once(pool, "uneven", 1000, regions=2)
        alone = count_threads() == 1
        pools.destroy(pool)
        return right and alone

    assert passes_in_child(check)
