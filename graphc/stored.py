"""Arrays of a file that stay there until they are used, and are in memory only then.

Weights that a network packs in an order of its own are read once. Held beside the packed ones they were a quarter of
the memory of a ResNet-50.

A .safetensors file holds the length of a header (8 bytes, little-endian), the header (JSON), then the data; where those
of an ONNX file lie, graphc/onnx/lifting.py finds.
"""

import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import FileError

LARGE = 2**16  # bytes: reading so many takes some 10 us, and all smaller arrays of a ResNet-50 are 1 % of it
# How .safetensors files call the element types that NumPy has
TYPES = {
    name: np.dtype(code)
    for name, code in (
        *(("F32", "<f4"), ("F64", "<f8"), ("F16", "<f2"), ("BOOL", "?")),
        *(("I64", "<i8"), ("I32", "<i4"), ("I16", "<i2"), ("I8", "i1")),
        *(("U64", "<u8"), ("U32", "<u4"), ("U16", "<u2"), ("U8", "u1")),
    )
}


class StoredFile:
    """A file that stays open, and must stay as it is: one that was replaced by another is still there."""

    def __init__(self, path: str | os.PathLike[str], descriptor: int | None = None) -> None:
        """Open the file, or take over a `descriptor`. Errors: OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if descriptor is None else descriptor
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = self._look()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._stamp[0]

    def read(self, target: NDArray[np.uint8], offset: int) -> None:
        """Fill the target with what is there. FileError if it is not as it was."""
        done = 0
        while done < target.size:
            count = os.preadv(self._descriptor, [target[done:].data], offset + done)  # at most 2 GiB
            if not count:
                break
            done += count
        if done < target.size or self._look() != self._stamp:
            raise FileError(f"{self.path}: expected the file as it was when its weights were loaded, got a changed one")

    def _look(self) -> tuple[int, int]:
        about = os.fstat(self._descriptor)
        return about.st_size, about.st_mtime_ns


@dataclass(frozen=True)
class Stored:
    """An array in a file, which must stay as it is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _file: StoredFile
    _offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        """A new array. Errors: FileError."""
        array = np.empty(self.shape, self.dtype)
        self.fill(array.reshape(-1).view(np.uint8))
        return array

    def fill(self, target: NDArray[np.uint8]) -> None:
        """Write the data to as many bytes. Errors: FileError."""
        self._file.read(target, self._offset)


@dataclass(frozen=True)
class Span:
    """Bytes in a file, which must stay as it is: the data of an array in C order, little-endian."""

    file: StoredFile
    offset: int
    length: int

    def typed(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Stored:
        """The array, which has as many bytes."""
        found = Stored(tuple(shape), dtype.newbyteorder("<"), self.file, self.offset)
        assert found.nbytes == self.length
        return found


def find_stored(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """The arrays of a .safetensors file, whose header the library has checked, that are of a type of NumPy's."""
    file = StoredFile(path)
    length = np.empty(1, "<u8")
    file.read(length.view(np.uint8), 0)
    start = 8 + int(length[0])
    if start > file.size:  # the library found it well
        raise OSError("it was changed")
    text = np.empty(start - 8, np.uint8)
    file.read(text, 8)
    found = {}
    for name, about in json.loads(text.tobytes()).items():
        if dtype := TYPES.get(about.get("dtype")):
            begin, end = about["data_offsets"]
            found[name] = stored = Stored(tuple(about["shape"]), dtype, file, start + begin)
            assert stored.nbytes == end - begin
    return found
