"""A process that holds one network in one runtime: `python -m graphc.bench.worker LOADER FOLDER THREADS CPUS`.

It says on stdout, in a line of JSON, that the network is loaded, or why it cannot be. Then it answers each line on
stdin until that ends: {"run": s} runs the network for s seconds, once at least, and tells the seconds of the median
run; {"save": path} writes the outputs and tells the most memory that was resident so far.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from signal import SIGKILL
from statistics import median
from time import perf_counter
from typing import Any

from graphc.bench.problem import Loaded, Problem, read_problem, write_arrays

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def serve(loader: str, folder: Path, threads: int) -> None:
    """Load and answer; the answers go to what stdout was, and what a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers)

    module, function = loader.split(":")
    start = perf_counter()
    try:
        load: Callable[[Problem, int], Loaded] = getattr(import_module(module), function)
        loaded = load(read_problem(folder), threads)
        loaded.run()
    except Exception as error:
        answer(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        return
    answer(version=loaded.version, load_seconds=perf_counter() - start)
    for line in sys.stdin:
        match json.loads(line):
            case {"run": seconds}:
                answer(seconds=time_runs(loaded.run, seconds))
            case {"save": path}:
                write_arrays(Path(path), loaded.run())
                answer(peak_bytes=peak_bytes())


def time_runs(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the median run, of as many as take `seconds` together; one before them is not counted.

    The one before brings the weights back into the caches that the other runtimes have used meanwhile.
    """
    run()
    times: list[float] = []
    begin = last = perf_counter()
    while not times or last - begin < seconds:
        run()
        now = perf_counter()
        times.append(now - last)
        last = now
    return median(times)


def peak_bytes() -> int:
    """The most memory that this process ever had resident; getrusage would count its parent's, too."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def end_with_parent() -> None:
    """Be killed when the parent ends, however it does: this process may be stopped then, and would stay for ever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    os.sched_setaffinity(0, map(int, sys.argv[4].split(",")))
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
