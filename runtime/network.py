"""A compiled network as a Python callable: the same class over code compiled in process and over a loaded library."""

import ctypes
import json
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from graphc.errors import GraphcError, InputError
from graphc.ir.graph import NEXT
from graphc.ir.op import Array
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType, parse_type
from graphc.settings import MOST_THREADS, num_threads

ABI_VERSION = 4
REMEMBERED_SHAPES = 64  # input shapes whose sizes are kept: working them out takes 10 us, as much as a small network
_IN_PLACE = 0x101  # of ndarray.flags.num: C-contiguous and aligned
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64

# every entry point of runtime/api.ll and calls.ll that Python uses: result and arguments
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "abi_version": (_I, ()),
    "metadata": (ctypes.c_char_p, ()),
    "strerror": (ctypes.c_char_p, (_I,)),
    "cpu": (ctypes.c_char_p, ()),
    "create": (_I, (_P, _I, ctypes.c_char_p)),
    "create_from_memory": (_I, (_P, _I, _P, _L)),
    "destroy": (None, (_P,)),
    "workspace": (_L, (_P,)),
    "carried": (_L, (_P,)),
    "output_dims": (_I, (_P, _I, _P)),
    "call": (_I, (_P, _P, _P, _P, _P, _L)),
    "strip": (_I, (_P, _P, _P, _P, _P, _L, _P, _L, _I)),
}


def check_threads(threads: int | None) -> int:
    """The thread count for the native code, with the setting or all CPUs in place of None."""
    if threads is None:
        return num_threads()
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
    return threads


class Network:
    """Call it with arrays, by position or by input name; it returns an array, or a tuple if it has several outputs.

    Inputs may be anything with `__array__` or `__dlpack__`, of the input's dtype (float32 for images); other layouts
    than C order are copied. A call releases the GIL, and calls from several threads run at the same time, each with a
    workspace of its own. After a fork the child goes on with threads of its own.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        create: Callable[[Any], int],
        owner: object,
        recipe: tuple[Callable[..., "Network"], tuple[Any, ...]],
    ) -> None:
        self._functions, self._create, self._recipe = functions, create, recipe
        version = functions["abi_version"]()
        if version != ABI_VERSION:
            raise GraphcError(f"compiled network: expected interface version {ABI_VERSION}, got {version}")
        meta = json.loads(functions["metadata"]().decode())
        self.name: str = meta["name"]
        self.meta: dict[str, str] = meta["meta"]
        self.inputs = tuple((name, parse_type(type)) for name, type in meta["inputs"])
        self.outputs = tuple((name, parse_type(type)) for name, type in meta["outputs"])
        self.symbols: tuple[str, ...] = tuple(meta["symbols"])
        self._sources, self._targets = (_P * len(self.inputs)), (_P * len(self.outputs))  # types of address arrays
        self._prepared: dict[tuple[tuple[int, ...], ...], tuple[Any, dict[str, int], list[tuple[int, ...]]]] = {}
        self._idle: deque[ctypes.c_void_p] = deque()
        self._idle.append(self._new_handle())
        self.cpu: str = functions["cpu"]().decode()  # what the code that runs was compiled for
        self._finalizer = weakref.finalize(self, _destroy_all, self._idle, functions["destroy"], owner)

    def __reduce__(self) -> tuple[Callable[..., "Network"], tuple[Any, ...]]:
        return self._recipe

    def __repr__(self) -> str:
        def listed(values: tuple[tuple[str, TensorType], ...]) -> str:
            return ", ".join(f"{n}: {t}" for n, t in values)

        return f"<network {self.name}: ({listed(self.inputs)}) -> ({listed(self.outputs)})>"

    def __call__(self, *args: Any, **named: Any) -> Any:
        arrays = arrange_inputs(self.name, self.inputs, args, named)
        packed, sizes, shapes = self._prepare(tuple([a.shape for a in arrays]))
        results = [self._allocate(*of, shape) for of, shape in zip(self.outputs, shapes, strict=True)]
        sources, targets = self._sources(*map(_address, arrays)), self._targets(*map(_address, results))
        self._run(self._functions["call"], (sources, packed, targets, None, 0), sizes)
        return results[0] if len(results) == 1 else tuple(results)

    def bind(
        self, arrays: Mapping[str, Array], workspace: Array | None = None, strip: tuple[Array, int] | None = None
    ) -> tuple[Callable[[], None], dict[str, Array]]:
        """A run, to be called any number of times, that reads and writes these arrays where they lie; and the outputs.

        `arrays` holds every input by name, and outputs that are to be written into given memory, C-contiguous and of
        the right dtype and shape. Of the others, NAME.next goes into the input NAME, if there is one of its type: a
        state is updated in place. The rest are new arrays. `workspace` are the bytes, aligned to 64, in which it runs,
        where that is not to be memory that the network keeps. Of a tile of a `strip`, that is the memory in which its
        tiles pass on rows, as aligned, and what part of it this one is (see runtime/tiling.py). Errors: InputError.
        """
        if missing := [name for name, _ in self.inputs if name not in arrays]:
            raise InputError(f"network '{self.name}': expected arrays for inputs {', '.join(missing)}, got none")
        inputs = [arrays[name] for name, _ in self.inputs]
        _, _, shapes = self._prepare(tuple(a.shape for a in inputs))
        states = {f"{name}{NEXT}": (arrays[name], type) for name, type in self.inputs}
        outputs: dict[str, Array] = {}
        for (name, type), shape in zip(self.outputs, shapes, strict=True):
            state, its_type = states.get(name, (None, None))
            if name in arrays:
                outputs[name] = arrays[name]
            else:
                outputs[name] = state if state is not None and its_type == type else self._allocate(name, type, shape)
            _check_memory(name, outputs[name], shape, type, writeable=True)
        for (name, type), array in zip(self.inputs, inputs, strict=True):
            _check_memory(name, array, array.shape, type)
        return self._bind(inputs, list(outputs.values()), workspace, strip), outputs

    def _allocate(self, name: str, type: TensorType, shape: tuple[int, ...]) -> Array:
        try:
            return np.empty(shape, type.dtype.numpy)
        except (MemoryError, ValueError):  # it is more than there is, or than any array can have
            got = f"{type.dtype.value}[{','.join(map(str, shape))}]"
            raise InputError(f"network '{self.name}': output '{name}': out of memory for {got}") from None

    def _bind(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        workspace: Array | None = None,
        strip: tuple[Array, int] | None = None,
    ) -> Callable[[], None]:
        packed, sizes, _ = self._prepare(tuple([a.shape for a in inputs]))
        sources, targets = self._sources(*map(_address, inputs)), self._targets(*map(_address, outputs))
        place = (None, 0) if workspace is None else (workspace.ctypes.data, workspace.nbytes)
        function, arguments = self._functions["call"], (sources, packed, targets, *place)
        if strip is None:
            return partial(self._run, function, arguments, sizes, (*inputs, *outputs, workspace))
        carried, part = strip
        function, arguments = self._functions["strip"], (*arguments, carried.ctypes.data, carried.nbytes, part)
        return partial(self._run, function, arguments, sizes, (*inputs, *outputs, workspace, carried))

    def _run(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        sizes: Mapping[str, int],
        _arrays: Sequence[Array | None] = (),
    ) -> None:
        """One run on the addresses of these arrays, with a handle that no other thread uses meanwhile."""
        try:
            handle = self._idle.pop()
        except IndexError:  # every handle is in use by another thread
            handle = self._new_handle()
        try:
            if code := function(handle, *arguments):
                self._check(code, sizes)
        finally:
            self._idle.append(handle)

    def _prepare(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, dict[str, int], list[tuple[int, ...]]]:
        """What follows from the shapes of the inputs: the sizes, as a C array and by name, and the output shapes."""
        known = self._prepared.get(shapes)
        if known is None:
            sizes = bind_sizes(self.inputs, shapes)
            packed = (ctypes.c_int64 * len(self.symbols))(*(sizes[s] for s in self.symbols))
            known = packed, sizes, self._output_shapes(packed, sizes)
            if len(self._prepared) >= REMEMBERED_SHAPES:
                self._prepared.clear()
            self._prepared[shapes] = known
        return known

    def tiled(
        self,
        source: Any,
        out: Any = None,
        max_memory: int | str | None = "1GiB",
        tile: int | tuple[int, int] | None = None,
        prepare: Callable[[Array], Array] | None = None,
        progress: bool | Callable[[int, int], None] = False,
    ) -> Any:
        """Run images of any size tile by tile, with the bits of a run over the whole image.

        `source` is an array [H,W], [C,H,W] or [N,C,H,W] (NumPy, zarr, or what slices like them), a file (.npy, .zarr,
        .tif), or a dataset that rasterio has opened. `out` is a file (.npy, .zarr, .tif: BigTIFF), an array, or None
        for a new one; of several outputs, a mapping from their names. Files are whole or absent; a run that was
        interrupted goes on where it stopped. The result is the output, mapped where it is a file.

        Tiles are as large as `max_memory` allows the process (bytes, or such as "1GiB"; None for no limit), or `tile`
        pixels. `prepare` turns each window [C,h,w] of the source into what the network takes, pixel by pixel. With
        `progress`, a bar is shown; or it is called with the tiles that are done and how many there are.

        Errors: UnsupportedError that names what in the network sees the whole image; InputError; FileError.
        """
        from graphc.runtime.tiled import run_tiled

        return run_tiled(self, source, out, max_memory, tile, prepare, progress)

    def output_shapes(self, **sizes: int) -> list[tuple[int, ...]]:
        """The shapes of the outputs for these values of N, H and W; InputError if the network cannot take them."""
        return self._output_shapes(self._pack(sizes), sizes)

    def workspace_bytes(self, **sizes: int) -> int:
        """The bytes that a run of these sizes takes beside inputs, outputs and weights."""
        return self._count_bytes("workspace", sizes)

    def carried_bytes(self, **sizes: int) -> int:
        """The bytes that a tile of a strip, of these sizes, passes on: as many as any of the strip."""
        return self._count_bytes("carried", sizes)

    def _count_bytes(self, function: str, sizes: Mapping[str, int]) -> int:
        result = int(self._functions[function](self._pack(sizes)))
        self._check(-min(result, 0), sizes)
        return result

    def _pack(self, sizes: Mapping[str, int]) -> Any:
        """The sizes as the native code takes them; InputError unless there is a 64-bit integer for each symbol."""
        fit = all(isinstance(size, int | np.integer) and -(2**63) <= size < 2**63 for size in sizes.values())
        if sizes.keys() != set(self.symbols) or not fit:
            got = ", ".join(f"{s}={size}" for s, size in sizes.items()) or "none"
            raise InputError(f"network '{self.name}': expected sizes {', '.join(self.symbols) or 'none'}, got {got}")
        return (ctypes.c_int64 * len(self.symbols))(*(sizes[s] for s in self.symbols))

    def _output_shapes(self, packed: Any, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
        shapes = []
        for i, (_, type) in enumerate(self.outputs):
            dims = (ctypes.c_int64 * max(1, type.rank))()
            self._check(self._functions["output_dims"](packed, i, dims), sizes)
            shapes.append(tuple(dims[: type.rank]))
        return shapes

    def _new_handle(self) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._check(self._create(ctypes.byref(handle)), {})
        return handle

    def _check(self, code: int, sizes: Mapping[str, int]) -> None:
        if code:
            given = f" (got {', '.join(f'{k}={v}' for k, v in sizes.items())})" if sizes else ""
            raise InputError(f"network '{self.name}': {self._functions['strerror'](code).decode()}{given}")


def arrange_inputs(
    network: str, inputs: Sequence[tuple[str, TensorType]], args: Sequence[Any], named: Mapping[str, Any]
) -> list[Array]:
    """The arrays of a call in the inputs' order, each C-contiguous and of its input's dtype. Errors: InputError."""
    if len(args) == len(inputs) and not named:
        return [_as_array(name, type, array) for (name, type), array in zip(inputs, args, strict=True)]
    names = [name for name, _ in inputs]
    given = dict(zip(names, args, strict=False)) | dict(named)
    unknown = [n for n in named if n not in names or n in names[: len(args)]]
    if len(args) > len(names) or unknown or len(given) != len(names):
        got = ", ".join([*(f"#{i}" for i in range(len(args))), *named]) or "none"
        raise InputError(f"network '{network}': expected inputs {', '.join(names)}, got {got}")
    return [_as_array(name, type, given[name]) for name, type in inputs]


def _check_memory(name: str, array: Array, shape: tuple[int, ...], type: TensorType, writeable: bool = False) -> None:
    """InputError unless native code may read the array where it lies, or write it."""
    fits = array.flags.c_contiguous and array.flags.aligned and (array.flags.writeable or not writeable)
    if array.shape != shape or array.dtype != type.dtype.numpy or not fits:
        wanted = f"{'writeable ' if writeable else ''}C-contiguous {type.dtype.numpy}{list(shape)}"
        raise InputError(f"'{name}': expected a {wanted}, got {array.dtype}{list(array.shape)}")


def _address(array: Array) -> int:
    """Where its elements lie; found in a third of the time that `array.ctypes` takes, if they may be written."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]  # before Python 3.12
    except (TypeError, ValueError, BufferError):  # they may not, there are none, or their type is no buffer's
        return int(array.ctypes.data)


def _destroy_all(handles: deque[ctypes.c_void_p], destroy: Callable[..., Any], _owner: object) -> None:
    """Free the handles while their code, which `_owner` keeps loaded, still exists."""
    while handles:
        destroy(handles.pop())


def _as_array(name: str, type: TensorType, given: Any) -> Array:
    """The input as a C-contiguous array of the right dtype; InputError if it has another."""
    dtype = type.dtype.numpy
    if given.__class__ is np.ndarray and given.dtype == dtype and given.flags.num & _IN_PLACE == _IN_PLACE:
        return given  # what nearly all inputs are, found in a third of the time that the checks below take
    try:
        array = (
            np.from_dlpack(given)
            if not hasattr(given, "__array__") and hasattr(given, "__dlpack__")
            else (np.asarray(given))
        )
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(f"input '{name}': expected an array, got {given.__class__.__name__} ({error})") from None
    if array.dtype != dtype:
        raise InputError(f"input '{name}': expected {dtype}, got {array.dtype}")
    return np.require(array, requirements=["C", "A"])
