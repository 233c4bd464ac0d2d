"""Many images: files through a network, on the processes of this machine or, by the same class, in Ray Data."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphc.errors import FileError, GraphcError, InputError
from graphc.images import normalise_image, read_image
from graphc.ir import Array, TensorType
from graphc.runtime.network import Network
from graphc.runtime.workers import WorkerNetwork
from graphc.settings import num_threads

WAITING = 4  # files a process that are handed out ahead of the one whose result is wanted next
Read = Callable[[Path], Array]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True)
class Result:
    """What became of a file: the network's outputs by name, or the error that names it."""

    path: Path
    outputs: Mapping[str, Array] | None
    error: str | None = None


class FileRunner:
    """Runs a network on files. It travels to other processes, where the network is opened once.

    `read` makes the input from a path; without it, .npy files are taken as they are, and pictures are made f32[1,C,H,W]
    from 0 to 1, normalised by the network's `mean` and `std`. With `errors` "stop" a file that cannot be read or run
    raises its error, with "skip" it is reported in the result.

    In Ray Data: `dataset.map_batches(FileRunner(network), batch_size=8)`, for rows with a column `path`; the result's
    rows have `path`, `error` (empty where all is well), and a column for each output.
    """

    def __init__(self, network: Network, read: Read | None = None, threads: int = 1, errors: OnError = "stop") -> None:
        if errors not in ("stop", "skip"):
            raise InputError(f"errors: expected stop or skip, got {errors!r}")
        if len(network.inputs) != 1:
            raise InputError(f"network '{network.name}': expected one input to fill from files")
        self._worker, self._errors = WorkerNetwork(network, threads), errors
        self._read = read or partial(read_input, type=network.inputs[0][1], meta=network.meta)

    def run(self, path: Path) -> Result:
        """One file. Errors, if they stop: GraphcError, naming the file."""
        try:
            network = self._worker.open()
            found = network(self._read(path))
            outputs = found if isinstance(found, tuple) else (found,)
            return Result(path, {name: y for (name, _), y in zip(network.outputs, outputs, strict=True)})
        except Exception as error:  # whatever a reader of the user's raises
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            if self._errors == "stop":
                raise FileError(message) from error
            return Result(path, None, message)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of Ray Data's, with the column `path`."""
        results = [self.run(Path(str(path))) for path in batch["path"]]
        columns: dict[str, Any] = {"path": np.array([str(r.path) for r in results])}
        columns["error"] = np.array([r.error or "" for r in results])
        for name, type in self._worker.open().outputs:
            column = np.empty(len(results), object)  # maps differ in size
            for i, r in enumerate(results):
                column[i] = np.zeros((0,) * type.rank, type.dtype.numpy) if r.outputs is None else r.outputs[name]
            columns[name] = column
        return columns


def map_files(
    network: Network,
    paths: Iterable[str | Path],
    read: Read | None = None,
    errors: OnError = "stop",
    processes: int | None = None,
    threads: int = 1,
    progress: bool = False,
) -> Iterator[Result]:
    """The results of many files, in their order, from a pool of `processes` (by default one a CPU).

    See FileRunner for `read`, `errors` and `threads`. With `progress`, a bar is shown on stderr, and the files that are
    skipped are named there. At most a few files a process are in memory. Errors: GraphcError if a process dies.
    """
    files, count = [Path(p) for p in paths], processes or num_threads()
    runner = FileRunner(network, read, threads, errors)
    found = _run_all(runner, files, count)
    return _show(found, len(files), network.name) if progress else found


def read_input(path: Path, type: TensorType, meta: Mapping[str, str]) -> Array:
    """A network's input from a .npy file or a picture. Errors: FileError, InputError."""
    if path.suffix == ".npy":
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise FileError(f"{path}: cannot be read as .npy: {error}") from None
    channels = type.shape[1] if type.rank == 4 else None
    if not isinstance(channels, int):
        raise InputError(f"{path}: the input is {type}, which no picture can be; give it as .npy")
    mean, std = (json.loads(meta.get(key, default)) for key, default in (("mean", "[0]"), ("std", "[1]")))
    return normalise_image(read_image(path, channels), mean, std)[None]


_runner: FileRunner | None = None  # in a process of the pool


def _begin(runner: FileRunner) -> None:
    global _runner
    _runner = runner


def _run(path: Path) -> Result:
    assert _runner
    return _runner.run(path)


def _run_all(runner: FileRunner, files: list[Path], processes: int) -> Iterator[Result]:
    # spawned: a fork would copy locks that other threads of this process hold
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (runner,)) as pool:
        waiting, rest = deque[Future[Result]](), iter(files)
        try:
            for path in rest:
                waiting.append(pool.submit(_run, path))
                if len(waiting) >= WAITING * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise GraphcError("a process of the pool has died; out of memory?") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _show(results: Iterator[Result], count: int, name: str) -> Iterator[Result]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, markup=False, highlight=False)
    with closing(results), Progress(console=console, transient=True, disable=not console.is_terminal) as bar:  # type: ignore[type-var]
        task = bar.add_task(name, total=count)
        for result in results:
            bar.advance(task)
            if result.error:
                console.print(f"skipped: {result.error}", soft_wrap=True)
            yield result
