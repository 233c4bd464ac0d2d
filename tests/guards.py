"""Arrays between pages that may not be touched: code that reads or writes beyond them dies at once."""

import ctypes
import mmap

import numpy as np

from graphc.ir import Array

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
PROT_NONE = 0


class Guarded:
    """`array` lies against a forbidden page: at its end, or with `at_start` at its start. `alignment` is in bytes.

    An array without elements lies at the forbidden page itself, on either side.
    """

    def __init__(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]", at_start: bool, alignment: int) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        room = max(1, -(-size // PAGE)) * PAGE
        self._map = mmap.mmap(-1, room + 2 * PAGE)
        everything = np.frombuffer(self._map, np.uint8)
        base = everything.ctypes.data
        for forbidden in (base, base + PAGE + room):
            if _libc.mprotect(forbidden, PAGE, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        start = PAGE if at_start and size else (PAGE + room - size) // alignment * alignment
        self.address = int(base + start)
        self.array: Array = everything[start : start + size].view(dtype).reshape(shape)


def guard(array: Array, at_start: bool) -> Array:
    """A copy of the array against a forbidden page."""
    copy = Guarded(array.shape, array.dtype, at_start, array.dtype.itemsize).array
    copy[...] = array
    return copy
