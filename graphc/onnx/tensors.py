"""TensorProto to NumPy and back, with every length checked before anything is read."""

import math
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from onnx import TensorProto, checker, external_data_helper, numpy_helper

from graphc.errors import FileError, GraphError, UnsupportedError
from graphc.ir import Array, DimLike, DType, dims
from graphc.onnx.small import HELD, hold
from graphc.settings import MOST_BYTES, most_bytes
from graphc.stored import LARGE, Span, Stored, StoredFile

DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: DType.F32,
    TensorProto.DOUBLE: DType.F64,
    TensorProto.FLOAT16: DType.F16,
    TensorProto.BFLOAT16: DType.BF16,
    TensorProto.INT8: DType.I8,
    TensorProto.INT16: DType.I16,
    TensorProto.INT32: DType.I32,
    TensorProto.INT64: DType.I64,
    TensorProto.UINT8: DType.U8,
    TensorProto.UINT16: DType.U16,
    TensorProto.UINT32: DType.U32,
    TensorProto.UINT64: DType.U64,
    TensorProto.BOOL: DType.BOOL,
}
ELEMENT_TYPES = {dtype: number for number, dtype in DTYPES.items()}
PRODUCER = "graphc"  # the producer_name of exported models, whose two notes below the import understands
CONSTANT = "not trained"  # the doc_string of an initialiser that is a constant or a running statistic, not a weight
ALIGNMENT = 4096  # of external data, a page: a runtime can map a tensor without copying it
MOST_DIMS = 64  # NumPy's own limit
LONGEST_PATH = 4096  # characters, Linux's own limit
EXTERNAL_KEYS = {"location", "offset", "length", "checksum", "basepath"}  # of which the last is onnx's own
RENAMED = "%"  # begins the doc_string of an output that takes the place of a value; that value's name follows


def element_type_name(number: int) -> str:
    """FLOAT16 for 10; the number itself if ONNX has no such type."""
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"number {number}"


def read_dtype(number: int) -> DType:
    """The DType that holds an ONNX element type; UnsupportedError if graphc has none."""
    if number not in DTYPES and number not in HELD:
        names = ", ".join(element_type_name(n) for n in (*DTYPES, *HELD))
        raise UnsupportedError(f"element type {element_type_name(number)}, expected one of {names}")
    return HELD[number] if number in HELD else DTYPES[number]


def open_tensor(
    tensor: TensorProto, folder: Path | None, taken: int, lifted: Span | None, beside: dict[str, StoredFile]
) -> Array | Stored:
    """As `read_tensor`; the data of a large one stay where they are.

    That is the model's file, if they were `lifted`, or one beside it; of those the open ones, by their paths, are in
    `beside`.
    """
    dtype = _check_tensor(tensor, taken)
    if lifted is not None:
        _check_count(tensor, dtype, math.prod(tensor.dims) * dtype.size, "bytes", lifted.length)
        return lifted.typed(tensor.dims, dtype.numpy)
    if tensor.data_location == TensorProto.EXTERNAL and tensor.data_type not in HELD and not dtype.is_half:
        found = _find_external(tensor, folder, math.prod(tensor.dims) * dtype.size, beside)
        if found is not None:
            return found.typed(tensor.dims, dtype.numpy)
    return read_tensor(tensor, folder, taken)


def read_tensor(tensor: TensorProto, folder: Path | None, taken: int = 0) -> Array:
    """The data as a writable array, f16 and bf16 as float32, smaller formats as what holds them.

    External data must lie in `folder`, the model's own. `taken` bytes of GRAPHC_MOST_BYTES are in use already.
    """
    dtype = _check_tensor(tensor, taken)
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _load_external(tensor, folder, math.prod(tensor.dims) * dtype.size)
    if tensor.data_type in HELD:
        return np.array(hold(_read_small(tensor)))
    count, unit = math.prod(tensor.dims), "elements"
    raw = tensor.raw_data if tensor.HasField("raw_data") else None  # each look at the field copies it
    if raw is not None:
        count, unit, got = count * dtype.size, "bytes", len(raw)
    else:
        fields = {
            DType.F32: tensor.float_data,
            DType.F64: tensor.double_data,
            DType.I64: tensor.int64_data,
            DType.U32: tensor.uint64_data,
            DType.U64: tensor.uint64_data,
        }
        got = len(fields.get(dtype, tensor.int32_data))  # which holds every smaller type
    _check_count(tensor, dtype, count, unit, got)
    if raw is not None and not dtype.is_half:
        return np.array(np.frombuffer(raw, dtype.numpy.newbyteorder("<")), dtype.numpy).reshape(tensor.dims)
    return np.array(numpy_helper.to_array(tensor), (DType.F32 if dtype.is_half else dtype).numpy)


def _check_tensor(tensor: TensorProto, taken: int) -> DType:
    """What holds its elements. Errors: UnsupportedError, GraphError."""
    where = f"tensor '{tensor.name}'"
    try:
        dtype = read_dtype(tensor.data_type)
    except UnsupportedError as error:
        raise UnsupportedError(f"{where} has {error}") from None
    if min(tensor.dims, default=0) < 0 or tensor.HasField("segment"):
        raise GraphError(f"{where}: expected a whole tensor with dims of at least 0, got {list(tensor.dims)}")
    check_size(where, tensor.dims, dtype, taken)
    return dtype


def _check_count(tensor: TensorProto, dtype: DType, count: int, unit: str, got: int) -> None:
    if got != count:
        shape = ",".join(map(str, tensor.dims))
        raise GraphError(f"tensor '{tensor.name}': expected {count} {unit} for {dtype.value}[{shape}], got {got}")


def check_size(where: str, shape: Sequence[DimLike], dtype: DType, taken: int = 0) -> None:
    """UnsupportedError if a tensor is too large, even of inputs of the least size, or has more dims than NumPy's can.

    `taken` bytes are in use already.
    """
    if len(shape) > MOST_DIMS:
        raise UnsupportedError(f"{where}: expected at most {MOST_DIMS} dims, got {len(shape)}")
    size = math.prod(d if isinstance(d, int) else max(1, dims.bounds(d)[0]) for d in shape) * dtype.size
    if size + taken > most_bytes():
        text = f"{dtype.value}[{','.join(map(str, shape))}] takes {size} bytes{f' beside {taken}' if taken else ''}"
        raise UnsupportedError(f"{where}: {text}, expected at most {most_bytes()} ({MOST_BYTES.name})")


def _read_small(tensor: TensorProto) -> Array:
    """Elements of a format of 8 bits and less, several of those below 8 in a byte."""
    try:
        return numpy_helper.to_array(tensor)
    except ValueError as error:
        raise GraphError(f"tensor '{tensor.name}': {' '.join(str(error).split())}") from None


def _load_external(tensor: TensorProto, folder: Path | None, limit: int) -> TensorProto:
    """A copy of `tensor` with its data, at most `limit` bytes.

    onnx's loader reads it, which refuses links and paths that leave the folder.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    where = f"tensor '{tensor.name}': external data '{location}'"
    if folder is None:
        raise FileError(f"{where}: expected the model's folder, got a model without one")
    if len(location) > LONGEST_PATH or not location.isprintable():  # onnx's loader reads up to a NUL
        raise FileError(
            f"tensor '{tensor.name}': external data: expected a path that can be printed, got {location[:80]!r}"
        )
    if len(entries) < len(tensor.external_data) or not entries.keys() <= EXTERNAL_KEYS:
        raise FileError(f"{where}: expected {', '.join(sorted(EXTERNAL_KEYS))}, got {', '.join(sorted(entries))}")
    _check_length(where, folder / location, limit, entries)
    loaded = TensorProto()
    loaded.CopyFrom(tensor)
    try:
        external_data_helper.load_external_data_for_tensor(loaded, str(folder))
    except (checker.ValidationError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: a name too long
        raise FileError(f"{where}: {' '.join(str(error).split())}") from None
    return loaded


def _find_external(tensor: TensorProto, folder: Path | None, size: int, files: dict[str, StoredFile]) -> Span | None:
    """Where the `size` bytes of data lie beside the model, if they are many; None if `_load_external` must look."""
    entries = {e.key: e.value for e in tensor.external_data}
    location, offset, length = (entries.get(key, "") for key in ("location", "offset", "length"))
    plain = len(entries) == len(tensor.external_data) and entries.keys() <= EXTERNAL_KEYS and location.isprintable()
    if folder is None or size < LARGE or not plain or not (offset or "0").isdecimal() or length != str(size):
        return None
    try:
        if location not in files:
            files[location] = StoredFile(folder / location, open_inside(folder, location))
    except OSError:
        return None
    span = Span(files[location], int(offset or "0"), size)
    return span if span.offset + size <= span.file.size else None


def open_inside(folder: Path, location: str) -> int:
    """A descriptor of the regular file at this path in the folder, which no link leads to. Errors: OSError."""
    *folders, name = PurePosixPath(location).parts or ("",)
    if any(part in ("..", "/", "") for part in (*folders, name)):
        raise FileNotFoundError(location)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = inner
        # not to wait at a pipe
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    about = os.fstat(found)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(found)
        raise FileNotFoundError(location)
    return found


def _check_length(where: str, path: Path, limit: int, entries: Mapping[str, str]) -> None:
    """FileError if the loader would read more than the tensor's `limit` bytes: without a length, all that is left."""
    try:
        offset = int(entries.get("offset", "0"))
        got = int(entries["length"]) if "length" in entries else path.stat().st_size - offset
    except (OSError, ValueError):
        return  # the loader says what is wrong
    if got > limit:
        raise FileError(f"{where}: expected at most {limit} bytes, got {got}")


def write_tensor(name: str, array: Array) -> TensorProto:
    """The array, a constant, as an initialiser."""
    tensor = numpy_helper.from_array(array, name)
    tensor.doc_string = CONSTANT
    return tensor


def declare_tensor(name: str, array: Array, trainable: bool) -> TensorProto:
    """The array as an initialiser that lacks its data, for `store_inside` or `store_outside`."""
    doc = "" if trainable else CONSTANT
    return TensorProto(name=name, data_type=ELEMENT_TYPES[DType.of(array.dtype)], dims=array.shape, doc_string=doc)


def store_inside(tensors: Iterable[TensorProto], arrays: Mapping[str, Array]) -> None:
    """Put the data into those tensors that `arrays` names."""
    for tensor in tensors:
        if tensor.name in arrays:
            tensor.raw_data = _little_endian(arrays[tensor.name]).tobytes()


def store_outside(tensors: Iterable[TensorProto], arrays: Mapping[str, Array], file: BinaryIO, location: str) -> None:
    """Write the data into `file`, which the model knows as `location`. No message ever holds it: that ends at 2 GiB."""
    for tensor in tensors:
        if tensor.name in arrays:
            data = _little_endian(arrays[tensor.name])
            file.write(bytes(-file.tell() % ALIGNMENT))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", file.tell()), ("length", data.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            file.write(data.data)


def _little_endian(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
