"""Children of a process that has imported graphc already: each a fork, with limits, whose result is JSON."""

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

MEMORY = 2**30  # bytes beyond what a process has that imported graphc: ten times what the largest good case takes
CPU_SECONDS = 60  # the longest takes 10
WALL_SECONDS = 300  # for what waits for ever; machines may be busy
Outcome = dict[str, object]


def fork(action: Callable[[], Outcome], kill_after: float | None = None) -> Outcome:
    """What `action` returns in a child of this process, and the signal that killed the child, or None.

    SIGKILL comes after `kill_after` seconds, wherever the child then is.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as out:
                json.dump(action(), out)
        finally:
            os._exit(0)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read) as lines:
        text = lines.read()
    status = os.waitpid(child, 0)[1]
    killed = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
    return {"killed": killed, **(json.loads(text) if text else {})}


def limit() -> None:
    """Bound this process: more memory is a MemoryError, more time a signal that kills."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)
    signal.alarm(WALL_SECONDS)
