"""Running images larger than memory: tile by tile from a source into targets, to be taken up again where it stopped.

A file is written beside its place, as .NAME.part, and moved there once it is whole. .NAME.tiles lists the tiles whose
results lie on the disk: a run that was killed goes on behind them, if network, source and tiles are the same, and if
the last one of them, computed again, gives the bits that stand there.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import FileError, InputError
from graphc.ir import Array
from graphc.ir.sizes import bind_sizes
from graphc.runtime.tiling import Place, Tile, TilePlan, make_tile_plan
from graphc.runtime.windows import (
    ArrayTarget,
    Source,
    Target,
    check_kind,
    create_file,
    open_result,
    open_source,
    open_target,
)

if TYPE_CHECKING:
    from graphc.runtime.network import Network

SYNC_SECONDS = (
    5  # of work that a crash may cost; waiting for the disk after each tile would cost as much as small tiles
)
PREPARED = 3  # arrays of a window's size that `prepare` may hold: what it takes, a step between, what it returns
Prepare = Callable[[Array], Array]
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
        staging = images.staging + (PREPARED if prepare else 0)
        # results of a tile are written to a file while the next one is run
        slots = 2 if any(isinstance(o, Path) for o in wanted) else 1
        plan = make_tile_plan(network, images.shape, max_memory, tile, staging, kept, slots)
        job = _Job(network, plan, images, shapes, prepare)
        report = opened.enter_context(_show_bar(network.name)) if progress is True else progress or None
        if files := [o for o in wanted if isinstance(o, Path)]:
            _run_to_files(job, wanted, files, dtypes, report)
            results = [open_result(o) if isinstance(o, Path) else o for o in wanted]
        else:
            results = [_check_array(o, s, d) for o, s, d in zip(wanted, shapes, dtypes, strict=True)]
            targets = [ArrayTarget(a) for a in results]
            for i, one in enumerate(plan, 1):
                _write(targets, job.results(one))
                if report:
                    report(i, plan.count)
        return results[0] if len(results) == 1 else tuple(results)


class _Job:
    """The tiles of one plan, with the memory in which they are run."""

    def __init__(
        self, network: "Network", plan: TilePlan, source: Source, shapes: list[tuple[int, ...]], prepare: Prepare | None
    ) -> None:
        self.network, self.plan, self.source, self.shapes, self._prepare = network, plan, source, shapes, prepare
        self._buffers: dict[str, Array] = {}
        self._strides = [plan.rule.strides[name] for name, _ in network.outputs]

    def results(self, tile: Tile, slot: int = 0) -> list[tuple[int, Place, Array]]:
        """A tile's part of each output that it has a part of: the output's number, where, and the values.

        They stand there until the next tile is run with the same `slot`.
        """
        size = self.plan.shape[2], self.plan.shape[3]
        places = [tile.results(s, shape, size) for s, shape in zip(self._strides, self.shapes, strict=True)]
        if all(place.empty for place in places):
            return []
        (name, type), (n, h, w) = self.network.inputs[0], tile.shape
        image = self._buffer(name, (n, self.plan.shape[1], h, w), type.dtype.numpy)
        if self._prepare:
            window = np.empty(image.shape, self.source.dtype)
            self.source.read(tile.images, *tile.seen, into=window)
            for one, whole in zip(image, window, strict=True):
                one[...] = self._prepare(whole)
        else:
            self.source.read(tile.images, *tile.seen, into=image)
        arrays = {name: image}
        shapes = self.network.output_shapes(**bind_sizes(self.network.inputs, [image.shape]))
        for (output, t), shape in zip(self.network.outputs, shapes, strict=True):
            arrays[output] = self._buffer(f"{slot} {output}", shape, t.dtype.numpy)
        run, outputs = self.network.bind(arrays)
        run()
        pairs = enumerate(zip(places, outputs.values(), strict=True))
        return [(i, p, y[:, :, slice(*p.source[0]), slice(*p.source[1])]) for i, (p, y) in pairs if not p.empty]

    def _buffer(self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory for an array of this shape, the same for all tiles: new pages would be cleared for each."""
        if key not in self._buffers or self._buffers[key].size < prod(shape):
            self._buffers.pop(key, None)
            self._buffers[key] = np.empty(prod(shape), dtype)
        return self._buffers[key][: prod(shape)].reshape(shape)


def _run_to_files(
    job: _Job, wanted: list[Any], files: list[Path], dtypes: list[np.dtype[Any]], report: Progress | None
) -> None:
    """All tiles that an earlier run has not done, then the files to their places."""
    if len(files) < len(wanted) or len(set(files)) < len(files):
        raise InputError(f"out: expected a file of its own for each output, got {', '.join(map(str, wanted))}")
    kinds = [check_kind(path) for path in files]
    parts = [path.with_name(f".{path.name}.part") for path in files]
    chunks = [_chunks(job, i) for i in range(len(files))]
    with ExitStack() as opened:
        journal = opened.enter_context(Journal(files[0].with_name(f".{files[0].name}.tiles"), _key(job, files)))
        everything = list(zip(parts, kinds, job.shapes, strict=True))

        def open_parts() -> list[Target]:
            return [open_target(path, kind, shape, opened) for path, kind, shape in everything]

        targets = open_parts() if journal.done and all(part.exists() for part in parts) else []
        if not targets or not _stands(job, targets, journal.done[-1]):
            journal.clear()
            for (part, kind, shape), dtype, chunk in zip(everything, dtypes, chunks, strict=True):
                create_file(part, kind, shape, dtype, chunk)
            targets = open_parts()
        _run_beside_writing(job, targets, journal, report)
        for part, path in zip(parts, files, strict=True):
            if path.is_dir():
                shutil.rmtree(path)  # a folder cannot be replaced in one step
            os.replace(part, path)
        journal.remove()


def _run_beside_writing(job: _Job, targets: list[Target], journal: "Journal", report: Progress | None) -> None:
    """All tiles that the journal does not list; while one is run, the results of the one before are written."""
    done, written, last = set(journal.done), list[int](), time.monotonic()
    pending: tuple[int, Future[None]] | None = None

    def finish() -> None:
        nonlocal written, last
        if pending:
            pending[1].result()
            done.add(pending[0])
            written.append(pending[0])
            if time.monotonic() - last > SYNC_SECONDS:
                _sync(targets)
                journal.add(written)
                written, last = [], time.monotonic()
            if report:
                report(len(done), job.plan.count)

    with ThreadPoolExecutor(1) as writer:
        slot = 0
        for i, tile in enumerate(job.plan):
            if i not in done:
                slot = 1 - slot
                found = job.results(tile, slot)
                finish()
                pending = i, writer.submit(_write, targets, found)
        finish()
    _sync(targets)


def _write(targets: Sequence[Target], found: list[tuple[int, Place, Array]]) -> None:
    for i, place, values in found:
        targets[i].write(place.images, *place.target, values)


def _sync(targets: list[Target]) -> None:
    for target in targets:
        target.sync()


def _chunks(job: _Job, i: int) -> tuple[int, int]:
    """The part of an output that a whole tile writes: with such chunks no two tiles write the same one."""
    strides, tile = job.plan.rule.strides[job.network.outputs[i][0]], job.plan.tile
    return max(1, int(tile[0] / strides[0])), max(1, int(tile[1] / strides[1]))


def _stands(job: _Job, targets: list[Target], number: int) -> bool:
    """Whether a tile, run again, gives what stands in the files."""
    tile = next(t for i, t in enumerate(job.plan) if i == number)
    return all(
        targets[i].read(place.images, *place.target).tobytes() == values.tobytes()
        for i, place, values in job.results(tile)
    )


def _key(job: _Job, files: list[Path]) -> str:
    """What a run must share with an earlier one to go on where that stopped."""
    network, plan = job.network, job.plan
    parts = (network.name, network.inputs, network.outputs, sorted(network.meta.items()), network.cpu)
    text = "\n".join(map(str, (*parts, job.source.label, plan.shape, plan.batch, plan.tile, files)))
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The numbers of the tiles that are done, a line each behind one that says of what run; locked while it is open."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise FileError(f"{path}: another run is writing the same file") from None
        self._file.seek(0)
        head, *lines = self._file.read().decode(errors="replace").split("\n")
        self.done = [int(x) for x in lines[:-1] if x.isdecimal()] if head == key else []  # the last may be cut off

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def clear(self) -> None:
        """Begin anew."""
        self._file.truncate(0)
        self._write(f"{self._key}\n")
        self.done = []

    def add(self, numbers: list[int]) -> None:
        """Note these tiles, whose results lie on the disk."""
        self._write("".join(f"{i}\n" for i in numbers))

    def remove(self) -> None:
        """The run is finished."""
        self._path.unlink()

    def _write(self, text: str) -> None:
        self._file.write(text.encode())
        os.fdatasync(self._file.fileno())


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
    return [Path(o) if isinstance(o, str | os.PathLike) else o for o in outs]


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
