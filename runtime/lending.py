"""The weights of a network in this process, in memory only while they are read.

Most are packed into another order when a handle is created, and not read again. Kept as they are, beside those of the
graph and the packed ones, they were a quarter of the memory of a ResNet-50.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np

from graphc.codegen.plan import Plan

Visit = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
CREATE_VISITING = (  # of runtime/in_process.ll: result and arguments
    ctypes.c_int,
    (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, Visit),
)
_lending = Lock()  # one handle is created at a time: what one is done with, another may be reading


def _renew() -> None:
    global _lending
    _lending = Lock()


os.register_at_fork(after_in_child=_renew)  # a thread that the child does not have may have held it


class LentWeights:
    """The weights of a plan as they lie in memory: always those that a run reads, the others while they are packed."""

    def __init__(self, plan: Plan) -> None:
        # Pages that nothing was written to take no memory; of a private mapping, they can be given back.
        self._space = mmap.mmap(-1, max(1, plan.weight_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._block = np.frombuffer(self._space, np.uint8)
        self._plan, self._values = plan, dict(plan.weights)
        read = {plan.places[buffer.memory] for step in plan.steps for buffer in step.kernel.buffers}
        self._kept = {place.index for place in read if place.kind == "weights"}
        for start in self._kept:
            self._fill(start)

    @contextmanager
    def lend(self) -> Iterator[tuple[int, int, Any]]:
        """What creates a handle wants: where the weights are, how many bytes, and what to tell of those that it reads.

        An error that comes while they are put there is raised at the end.
        """
        errors: list[BaseException] = []

        def visit(_: int, offset: int, size: int, after: int) -> None:
            if offset in self._kept or errors:
                return
            try:
                self._take_back(offset, size) if after else self._fill(offset)
            except BaseException as error:  # must not pass through the native code
                errors.append(error)

        with _lending:
            yield self._block.ctypes.data, self._plan.weight_bytes, Visit(visit)
        if errors:
            raise errors[0]

    def _fill(self, start: int) -> None:
        self._plan.fill_weight(self._block, start, self._values[start])

    def _take_back(self, offset: int, size: int) -> None:
        """Give the system the pages that hold nothing else."""
        first, last = -(-offset // mmap.PAGESIZE), (offset + size) // mmap.PAGESIZE
        if first < last:
            self._space.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
