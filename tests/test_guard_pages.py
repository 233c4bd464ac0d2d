"""The native code stays inside its buffers: a little of `make guard`, the same in every run.

A violation is a segmentation fault, which ends the test process.
"""

import ctypes
import faulthandler
import os

import numpy as np
import pytest
from guard import draw_structures, run_structure
from guard_problems import DRAWS
from guards import guard
from test_executors import LEVELS

EXAMPLES = 3  # of each kind


@pytest.mark.parametrize("kind", sorted(DRAWS))
def test_nothing_leaves_its_buffers(kind: str) -> None:
    for number, drawn in enumerate(draw_structures(kind, 0)[:EXAMPLES]):
        run_structure(drawn, LEVELS[number % len(LEVELS)], number, count=4)


def test_the_guard_works() -> None:
    """A byte beyond the array is forbidden: a child process that reads it dies."""
    array = guard(np.zeros(100, np.float32), at_start=False)
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # its report of this wanted crash would look like a failure
        ctypes.string_at(array.ctypes.data + array.nbytes, 1)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
