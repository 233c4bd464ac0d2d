"""Running images larger than memory: tile by tile from a source, into arrays or files."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from mmap import MADV_HUGEPAGE, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InputError
from graphc.ir import Array, TensorType
from graphc.ir.sizes import bind_sizes
from graphc.runtime.tiled_files import journal_path, read_tile, run_to_files
from graphc.runtime.tiling import CONTINUES, Place, Span, Tile, TilePlan, make_tile_plan
from graphc.runtime.windows import ArrayTarget, Source, open_result, open_source

if TYPE_CHECKING:
    from graphc.runtime.network import Network

PREPARED = 3  # arrays of a window's size that `prepare` may hold: what it takes, a step between, what it returns
Prepare = Callable[[Array], Array]
Found = list[tuple[int, Place, Array]]  # a tile's results: the output's number, where, and the values
Progress = Callable[[int, int], None]  # tiles that are done, and how many there are


def run_tiled(
    network: "Network",
    source: Any,
    out: Any = None,
    max_memory: int | str | None = "1GiB",
    tile: int | tuple[int, int] | None = None,
    prepare: Prepare | None = None,
    progress: bool | Progress = False,
) -> Any:
    """What `Network.tiled` says."""
    with ExitStack() as opened:
        images = open_source(source, opened)
        name, type = network.inputs[0]
        if prepare is None and images.dtype != type.dtype.numpy:
            raise InputError(
                f"input '{name}': expected {type.dtype.numpy}, got {images.dtype}; `prepare` may convert windows"
            )
        shapes = network.output_shapes(**bind_sizes(network.inputs, [images.shape]))
        dtypes = [t.dtype.numpy for _, t in network.outputs]
        wanted = _list_outs(network, out)
        memory = [o is None or isinstance(o, np.ndarray) for o in wanted]
        kept = sum(prod(s) * d.itemsize for s, d, here in zip(shapes, dtypes, memory, strict=True) if here)
        staging = 1 + images.staging + (PREPARED if prepare else 0)  # the next tile is read while one is run
        # results of a tile are written to a file while the next one is run
        slots = 2 if any(isinstance(o, Path) for o in wanted) else 1
        files = [o for o in wanted if isinstance(o, Path)]
        begun = read_tile(journal_path(files)) if files and tile is None else None
        plan = make_tile_plan(network, images.shape, max_memory, tile, staging, kept, slots, begun)
        job = TileJob(network, plan, images, shapes, prepare, slots)
        report = opened.enter_context(_show_bar(network.name)) if progress is True else progress or None
        if files:
            run_to_files(job, files, dtypes, report)
            results = [open_result(o) if isinstance(o, Path) else o for o in wanted]
        else:
            results = [_check_array(o, s, d) for o, s, d in zip(wanted, shapes, dtypes, strict=True)]
            targets = [ArrayTarget(a) for a in results]
            for i, found in enumerate(job.results(list(plan)), 1):
                for k, place, values in found:
                    targets[k].write(place.images, *place.target, values)
                if report:
                    report(i, plan.count)
        return results[0] if len(results) == 1 else tuple(results)


class TileJob:
    """The tiles of one plan, with the memory in which they are run."""

    def __init__(
        self,
        network: "Network",
        plan: TilePlan,
        source: Source,
        shapes: list[tuple[int, ...]],
        prepare: Prepare | None,
        slots: int,
    ) -> None:
        """`slots` is the number of tiles whose results stand at the same time."""
        self.network, self.plan, self.source, self.shapes, self._prepare = network, plan, source, shapes, prepare
        self._inputs = [self._allocate([network.inputs[0]], [self._shape(plan.largest)]) for _ in range(2)]
        largest = network.output_shapes(**bind_sizes(network.inputs, [self._shape(plan.largest)]))
        # The same memory for all tiles: new pages would be cleared for each. It is given back when all are done.
        with self._memory():
            self._workspace = _take_memory(plan.workspace)
            strips = [columns for columns, _ in plan.columns] if plan.strips else []
            self._carried = {columns: _take_memory(plan.carried) for columns in strips}
        self._outputs = [self._allocate(network.outputs, largest) for _ in range(slots)]
        self._strides = [plan.rule.strides[name] for name, _ in network.outputs]

    def places(self, tile: Tile) -> list[Place]:
        """Where a tile's part of each output lies."""
        size = self.plan.shape[2], self.plan.shape[3]
        named = zip(self.network.outputs, self._strides, self.shapes, strict=True)
        return [tile.results(s, shape, size, self.plan.late(name)) for (name, _), s, shape in named]

    def results(self, tiles: Sequence[Tile]) -> Iterator[Found]:
        """Each tile's part of those outputs that it has a part of. While it is run, the next tile is read.

        Results stand there until so many further ones as there are slots are asked for.
        """
        todo, slot = list(self._lead(tiles)), 0
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[Array] | None = None
            for i, (tile, asked) in enumerate(todo):
                image = ahead.result() if ahead else self._read(tile, i % 2)
                ahead = reader.submit(self._read, todo[i + 1][0], (i + 1) % 2) if i + 1 < len(todo) else None
                places = self.places(tile)
                if all(place.empty for place in places) and tile.part is None:
                    yield []
                    continue
                pairs = enumerate(zip(places, self._run(image, slot, tile), strict=True))
                if asked:
                    yield [
                        (k, p, y[:, :, slice(*p.source[0]), slice(*p.source[1])]) for k, (p, y) in pairs if not p.empty
                    ]
                    slot = (slot + 1) % len(self._outputs)

    def _lead(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, bool]]:
        """The tiles that are asked for, and before one that does not continue the strip's last, what leads to it."""
        ended = dict[Span, tuple[Span, int]]()
        for tile in tiles:
            if (
                tile.part is not None
                and tile.part & CONTINUES
                and ended.get(tile.columns) != (tile.images, tile.rows[0])
            ):
                yield self.plan.lead(tile), False
            yield tile, True
            ended[tile.columns] = tile.images, tile.rows[1]

    def _read(self, tile: Tile, slot: int) -> Array:
        image = _view(self._inputs[slot][0], (tile.shape[0], self.plan.shape[1], *tile.shape[1:]))
        with self._memory():
            if not self._prepare:
                return self.source.read(tile.images, *tile.seen, into=image)
            window = np.empty(image.shape, self.source.dtype)
            self.source.read(tile.images, *tile.seen, into=window)
            for one, whole in zip(image, window, strict=True):
                one[...] = self._prepare(whole)
        return image

    def _run(self, image: Array, slot: int, tile: Tile) -> Iterable[Array]:
        """The outputs of a run, in the memory of `slot`."""
        shapes = self.network.output_shapes(**bind_sizes(self.network.inputs, [image.shape]))
        parts = zip(self.network.outputs, self._outputs[slot], shapes, strict=True)
        run, outputs = self.network.bind(
            {self.network.inputs[0][0]: image, **{name: _view(memory, shape) for (name, _), memory, shape in parts}},
            self._workspace,
            None if tile.part is None else (self._carried[tile.columns], tile.part),
        )
        run()
        return outputs.values()

    def _shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of the input of a run."""
        return self.plan.batch, self.plan.shape[1], *size

    def _allocate(self, values: Sequence[tuple[str, TensorType]], shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        with self._memory():
            sizes = [prod(s) * t.dtype.numpy.itemsize for (_, t), s in zip(values, shapes, strict=True)]
            return [_take_memory(n).view(t.dtype.numpy) for n, (_, t) in zip(sizes, values, strict=True)]

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Let an allocation that fails tell what it was for."""
        try:
            yield
        except MemoryError:
            size = "x".join(map(str, self.plan.largest))
            raise InputError(f"network '{self.network.name}': out of memory for tiles of {size} pixels") from None


def _take_memory(size: int) -> NDArray[np.uint8]:
    """Bytes, aligned to a page, that go back to the system as soon as nothing uses them; MemoryError if there are none.

    An allocator may keep what was freed.
    """
    try:
        memory = mmap(-1, max(size, 1))
    except OSError:
        raise MemoryError from None
    with suppress(OSError):  # a system without huge pages
        memory.madvise(MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)[:size]


def _view(memory: Array, shape: tuple[int, ...]) -> Array:
    """The beginning of a block of memory as an array of this shape."""
    return memory[: prod(shape)].reshape(shape)


def _list_outs(network: "Network", out: Any) -> list[Any]:
    """What each output is written into: a path, an array, or None for a new array. Errors: InputError."""
    names = [name for name, _ in network.outputs]
    if isinstance(out, Mapping):
        if out.keys() != set(names):
            raise InputError(f"out: expected outputs {', '.join(names)}, got {', '.join(map(str, out)) or 'none'}")
        outs = [out[name] for name in names]
    elif out is None or len(names) == 1:
        outs = [out] * len(names)
    else:
        raise InputError(f"out: expected one for each of the outputs {', '.join(names)}, by name, got {out}")
    outs = [Path(o) if isinstance(o, str | os.PathLike) else o for o in outs]
    files = [o for o in outs if isinstance(o, Path)]
    if files and len(set(files)) < len(outs):
        raise InputError(f"out: expected a file of its own for each output, got {', '.join(map(str, outs))}")
    return outs


def _check_array(given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if given is None:
        return np.empty(shape, dtype)
    if not hasattr(given, "__setitem__") or tuple(given.shape) != shape or given.dtype != dtype:
        got = f"{given.dtype}{list(given.shape)}" if hasattr(given, "shape") else type(given).__name__
        raise InputError(f"out: expected {dtype}{list(shape)}, got {got}")
    return given


@contextmanager
def _show_bar(name: str) -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def report(done: int, count: int) -> None:
            bar.update(task, completed=done, total=count)

        yield report
