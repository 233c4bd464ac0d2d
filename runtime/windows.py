"""Images that are read and written by windows: arrays, .npy files, zarr, TIFF, and what rasterio opens.

Files that hold plain rows of numbers (.npy, the TIFF that is written) are read and written by system calls, not mapped:
pages of a mapped file count as memory of the process.
"""

import mmap
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy

from graphc.errors import FileError, InputError, UnsupportedError
from graphc.ir import Array
from graphc.runtime.tiling import Span

AXES = {2: "HW", 3: "CHW", 4: "NCHW"}
TIFF = (".tif", ".tiff")


class Source(Protocol):
    """Images [N,C,H,W] of which windows are read."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    staging: int  # arrays of a window's size that a reading holds beside the one that it fills
    label: str  # tells it from others, when a run is taken up again

    def read(self, images: Span, rows: Span, columns: Span, into: Array) -> Array:
        """Fill `into` [N,C,h,w], of this dtype, and return it."""
        ...


class Target(Protocol):
    """An output [N,K,P,Q] of which windows are written."""

    def write(self, images: Span, rows: Span, columns: Span, values: Array) -> None:
        """Write `values` [N,K,p,q]."""
        ...

    def read(self, images: Span, rows: Span, columns: Span) -> Array:
        """What stands there."""
        ...

    def sync(self) -> None:
        """Let what was written outlast a crash of the machine."""
        ...

    def forget(self, images: Span, rows: Span, columns: Span) -> None:
        """These windows lie on the disk: the system need not keep them in memory."""
        ...


class ArraySource:
    """What has a shape and gives windows as NumPy arrays do: NumPy, zarr, h5py, Dask. `axes` names its dims."""

    def __init__(self, array: Any, axes: str | None = None, label: str = "") -> None:
        self._array, self.dtype, self.staging, self.label = array, np.dtype(array.dtype), 1, label
        self._axes = axes or AXES.get(len(array.shape), "")
        if sorted(self._axes) not in (sorted("HW"), sorted("CHW"), sorted("NCHW")):
            raise InputError(
                f"source: expected [H,W], [C,H,W] or [N,C,H,W], got {list(array.shape)} {axes or ''}".rstrip()
            )
        sizes = dict(zip(self._axes, array.shape, strict=True))
        n, c, h, w = (int(sizes.get(axis, 1)) for axis in "NCHW")
        self.shape = n, c, h, w

    def read(self, images: Span, rows: Span, columns: Span, into: Array) -> Array:
        """See Source."""
        spans = {"N": images, "C": (0, self.shape[1]), "H": rows, "W": columns}
        found = np.asarray(self._array[tuple(slice(*spans[axis]) for axis in self._axes)])
        found = found.transpose([self._axes.index(axis) for axis in "NCHW" if axis in self._axes])
        into[...] = found.reshape(into.shape)
        return into


class RasterSource:
    """rasterio's: what has `count`, `height`, `width`, `dtypes` and `read(window=((top, bottom), (left, right)))`."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self.dtype, self.staging = dataset, np.dtype(dataset.dtypes[0]), 1
        self.shape, self.label = (1, dataset.count, dataset.height, dataset.width), str(getattr(dataset, "name", ""))

    def read(self, images: Span, rows: Span, columns: Span, into: Array) -> Array:
        """See Source."""
        into[0] = self._dataset.read(window=(rows, columns))
        return into


class RawFile:
    """An array [N,C,H,W] in C order from byte `offset` of a file on, read and, if `writeable`, written."""

    staging = 0

    def __init__(
        self, path: Path, offset: int, shape: Sequence[int], dtype: np.dtype[Any], writeable: bool = False
    ) -> None:
        n, c, h, w = ([1] * 4 + list(shape))[-4:]
        self.shape, self.dtype, self._path, self._offset = (n, c, h, w), dtype, path, offset
        status = path.stat()
        self.label = f"{path} {status.st_size}" + ("" if writeable else f" {status.st_mtime_ns}")
        if status.st_size < offset + prod(self.shape) * dtype.itemsize:
            raise FileError(f"{path}: expected {prod(self.shape)} numbers of {dtype}, got fewer: the file is cut off")
        self._file = path.open("r+b" if writeable else "rb", buffering=0)

    def read(self, images: Span, rows: Span, columns: Span, into: Array | None = None) -> Array:
        """See Source."""
        if into is None:
            h, w = rows[1] - rows[0], columns[1] - columns[0]
            into = np.empty((images[1] - images[0], self.shape[1], h, w), self.dtype)
        self._walk(os.preadv, images, rows, columns, into)
        return into

    def write(self, images: Span, rows: Span, columns: Span, values: Array) -> None:
        """See Target."""
        self._walk(os.pwritev, images, rows, columns, values)

    def sync(self) -> None:
        """See Target."""
        os.fdatasync(self._file.fileno())

    def forget(self, images: Span, rows: Span, columns: Span) -> None:
        """See Target.

        Its pages then serve what is written next. Else a file of the size of the memory would push out all that other
        programs read; and fresh pages cost more than writing: with them a virtual machine was seen to write 0.3 GB/s,
        without 1.1 GB/s. Pages of which a part lies outside are kept: what is beside it is written later.
        """
        _, channels, height, width = self.shape
        size, descriptor = self.dtype.itemsize, self._file.fileno()
        lines = [rows] if columns == (0, width) else [(row, row + 1) for row in range(*rows)]
        for plane in range(images[0] * channels, images[1] * channels):
            for top, bottom in lines:
                begin = (plane * height + top) * width + columns[0]
                end = (plane * height + bottom - 1) * width + columns[1]
                os.posix_fadvise(descriptor, self._offset + begin * size, (end - begin) * size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _walk(self, transfer: Any, images: Span, rows: Span, columns: Span, block: Array) -> None:
        """Row by row between the file and the block; all rows of a channel at once where they are whole."""
        descriptor, size = self._file.fileno(), self.dtype.itemsize
        _, channels, height, width = self.shape
        whole = columns == (0, width) and block.flags.c_contiguous
        for n in range(*images):
            for c in range(channels):
                plane, first = block[n - images[0], c], self._offset + (n * channels + c) * height * width * size
                for i in range(1 if whole else rows[1] - rows[0]):
                    line = plane if whole else plane[i]
                    at, view = first + ((rows[0] + i) * width + columns[0]) * size, memoryview(line).cast("B")
                    while view:
                        done = transfer(descriptor, [view], at)
                        if done == 0:
                            raise FileError(f"{self._path}: the file has become shorter while it was read")
                        at, view = at + done, view[done:]


class ArrayTarget:
    """An array in memory, or what takes windows as NumPy arrays do, such as zarr."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def write(self, images: Span, rows: Span, columns: Span, values: Array) -> None:
        """See Target."""
        self.array[slice(*images), :, slice(*rows), slice(*columns)] = values

    def read(self, images: Span, rows: Span, columns: Span) -> Array:
        """See Target."""
        return np.asarray(self.array[slice(*images), :, slice(*rows), slice(*columns)])

    def sync(self) -> None:
        """See Target."""

    def forget(self, images: Span, rows: Span, columns: Span) -> None:
        """See Target."""


class ZarrTarget(ArrayTarget):
    """A zarr array on the disk."""

    def sync(self) -> None:
        """See Target."""
        os.sync()  # zarr does not tell which files it has written


def open_source(source: Any, opened: ExitStack) -> Source:
    """What is meant by `source`; files are closed with `opened`. Errors: FileError, InputError."""
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), opened)
    if _is_whole_file(source):
        return _keep_open(RawFile(Path(source.filename), source.offset, source.shape, source.dtype), opened)
    if hasattr(source, "dtypes") and hasattr(source, "read"):  # rasterio need not be there to be told by its type
        return RasterSource(source)
    if not hasattr(source, "shape") or not hasattr(source, "__getitem__"):
        raise InputError(f"source: expected an array, a file or a dataset, got {type(source).__name__}")
    return ArraySource(source)


def _is_whole_file(source: Any) -> bool:
    """Whether an array is all of what maps a file: of a part, the whole would be the base."""
    if not isinstance(source, np.memmap) or not source.filename or source.ndim not in AXES:
        return False
    base: object = source.base
    return isinstance(base, mmap.mmap) and source.flags.c_contiguous


def _open_path(path: Path, opened: ExitStack) -> Source:
    try:
        if path.suffix == ".npy":
            return _keep_open(_open_npy(path), opened)
        if path.suffix == ".zarr":
            return ArraySource(need("zarr").open_array(path, mode="r"), label=f"{path}")
        if path.suffix.lower() in TIFF:
            series = opened.enter_context(need("tifffile").TiffFile(path)).series[0]
            axes = series.axes.replace("S", "C").replace("Y", "H").replace("X", "W")
            array = need("zarr").open_array(series.aszarr(), mode="r")
            return ArraySource(array, axes, f"{path} {path.stat().st_mtime_ns}")
    except (OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, FileError | InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"{path}: cannot be read: {reason}") from None
    raise InputError(f"{path}: expected .npy, .zarr or .tif to read by windows")


def _keep_open(file: RawFile, opened: ExitStack) -> RawFile:
    opened.callback(file.close)
    return file


def _open_npy(path: Path) -> RawFile:
    with path.open("rb") as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
        offset = file.tell()
    if (
        fortran
        or dtype.hasobject
        or len(shape) not in AXES
        or dtype.byteorder not in "=|" + "<>"[sys.byteorder == "big"]
    ):
        raise InputError(f"{path}: expected [H,W], [C,H,W] or [N,C,H,W] in C order, got {dtype}{list(shape)}"
                         f"{' in Fortran order' if fortran else ''}")  # fmt: skip
    return RawFile(path, offset, shape, dtype)


def create_file(path: Path, kind: str, shape: Sequence[int], dtype: np.dtype[Any], chunks: tuple[int, int]) -> None:
    """A new file, or folder of zarr's, for an array, of the `kind` .npy, .zarr or .tif.

    A file's room is taken at once, so that a full disk shows before the work is done. Errors: FileError, OSError.
    """
    if kind == ".zarr":
        need("zarr").create_array(path, shape=tuple(shape), dtype=dtype, chunks=(1, shape[1], *chunks), overwrite=True)
        return
    with path.open("wb") as file:
        if kind == ".npy":
            npy.write_array_header_2_0(file, {"descr": dtype.str, "fortran_order": False, "shape": tuple(shape)})
            size = file.tell() + prod(shape) * dtype.itemsize
    if kind in TIFF:
        with need("tifffile").TiffWriter(path, bigtiff=True) as tiff:
            tiff.write(shape=tuple(shape), dtype=dtype, photometric="minisblack", metadata={"axes": "TCYX"})
        size = path.stat().st_size
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))


def open_target(path: Path, kind: str, shape: Sequence[int], opened: ExitStack) -> Target:
    """What `create_file` made, to be written by windows."""
    if kind == ".zarr":
        return ZarrTarget(need("zarr").open_array(path, mode="r+"))
    if kind == ".npy":
        found = _open_npy(path)
        found.close()
        file = RawFile(path, found._offset, shape, found.dtype, writeable=True)
    else:
        with need("tifffile").TiffFile(path) as tiff:
            series = tiff.series[0]
            offset, dtype = series.dataoffset, series.dtype
        file = RawFile(path, offset, shape, dtype, writeable=True)
    return _keep_open(file, opened)


def open_result(path: Path) -> Any:
    """The finished file as an array that is read where it lies: a mapped one, or zarr's."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    return (
        need("zarr").open_array(path, mode="r") if path.suffix == ".zarr" else need("tifffile").memmap(path, mode="r")
    )


def check_kind(path: Path) -> str:
    """What an output is written as; InputError if that is not known."""
    kind = path.suffix.lower()
    if kind not in (".npy", ".zarr", *TIFF):
        raise InputError(f"{path}: expected a name that ends in .npy, .zarr or .tif")
    return ".tif" if kind in TIFF else kind


def need(name: str) -> Any:
    """A library that is an extra; UnsupportedError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise UnsupportedError(f"{name} is not installed: pip install 'graphc[tiles]'") from None
