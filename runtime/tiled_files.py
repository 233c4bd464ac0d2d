"""Results of tiles into files, to be taken up again where a run stopped.

A file is written beside its place, as .NAME.begun, and moved there once it is whole. (Not .NAME.part: what is called
so, graphc/files.py removes as left behind.) .NAME.tiles lists the tiles whose results lie on the disk: a run that was
killed goes on behind them, if network, source and tiles are the same, and if the last one of them, computed again,
gives the bits that stand there.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import FileError
from graphc.runtime.tiling import Place, Tile
from graphc.runtime.windows import Target, check_kind, create_file, open_target

if TYPE_CHECKING:
    from graphc.runtime.tiled import Found, Progress, TileJob

# Of work that a crash may cost. At the end of a row of tiles what was written is whole rows of the image, which go to
# the disk at its speed (1.3 GB/s); in between it is pieces of some pages, which took three times as long.
SYNC_SECONDS, LATE_SECONDS = 1, 20
LONGEST_HEAD = 200  # bytes of a journal's first line: a hash and two numbers


def run_to_files(job: "TileJob", files: list[Path], dtypes: list[np.dtype[Any]], report: "Progress | None") -> None:
    """All tiles that an earlier run has not done, then the files to their places."""
    kinds = [check_kind(path) for path in files]
    parts = [path.with_name(f".{path.name}.begun") for path in files]
    chunks = [_chunks(job, i) for i in range(len(files))]
    with ExitStack() as opened:
        journal = opened.enter_context(Journal(journal_path(files), _key(job, files), job.plan.tile))
        everything = list(zip(parts, kinds, job.shapes, strict=True))

        def open_parts() -> list[Target]:
            return [open_target(path, kind, shape, opened) for path, kind, shape in everything]

        targets = open_parts() if journal.done and all(part.exists() for part in parts) else []
        if not targets or not _stands(job, targets, journal.done[-1]):
            journal.clear()
            try:
                for (part, kind, shape), file, dtype, chunk in zip(everything, files, dtypes, chunks, strict=True):
                    with _name_errors(file):
                        create_file(part, kind, shape, dtype, chunk)
            except BaseException:  # what a full disk has room for is no use, and takes that room
                for part in parts:
                    _remove(part)
                journal.remove()
                raise
            targets = open_parts()
        _run_beside_writing(job, targets, files, journal, report)
        for part, path in zip(parts, files, strict=True):
            with _name_errors(path):
                _replace(part, path)
        journal.remove()
        for path in files:
            _remove(_old(path))


def journal_path(files: list[Path]) -> Path:
    return files[0].with_name(f".{files[0].name}.tiles")


def _old(path: Path) -> Path:
    """Where a folder lies that is being replaced."""
    return path.with_name(f".{path.name}.old")


def _replace(part: Path, path: Path) -> None:
    """Move what is whole to its place. A folder there, which cannot be replaced in one step, is moved away first.

    So at no time does a part of either stand there. A run that is killed in between is ended by the next one.
    """
    if path.is_dir():
        _remove(_old(path))
        path.rename(_old(path))
    os.replace(part, path)


def _remove(path: Path) -> None:
    """A file, or a folder and what is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run_beside_writing(
    job: "TileJob", targets: list[Target], files: list[Path], journal: "Journal", report: "Progress | None"
) -> None:
    """All tiles that the journal does not list; while one is run, the results of the one before are written."""
    done = set(journal.done)
    todo = [(i, tile) for i, tile in enumerate(job.plan) if i not in done]
    count, pending = len(done), None
    with ThreadPoolExecutor(1) as syncer, ThreadPoolExecutor(1) as writer:
        keeper = _Keeper(targets, files, journal, job.plan.shape[3], syncer)

        def finish(one: Future[None]) -> None:
            nonlocal count
            one.result()
            count += 1
            if report:
                report(count, job.plan.count)

        for (i, tile), found in zip(todo, job.results([tile for _, tile in todo]), strict=True):
            if pending:
                finish(pending)
            pending = writer.submit(keeper.write, i, tile, found)
        if pending:
            finish(pending)
        keeper.sync()


class _Keeper:
    """Writes the results of tiles, and lets them be brought to the disk and noted in another thread."""

    def __init__(
        self, targets: list[Target], files: list[Path], journal: "Journal", width: int, syncer: ThreadPoolExecutor
    ) -> None:
        self._targets, self._files, self._journal = targets, files, journal
        self._width, self._syncer = width, syncer
        self._written = list[int]()
        self._whole = list[tuple[Target, Place]]()  # where no further tile writes
        self._last, self._syncing = time.monotonic(), Future[None]()
        self._syncing.set_result(None)

    def write(self, number: int, tile: Tile, found: "Found") -> None:
        """The results of a tile; those before it in its rows have been written."""
        for i, place, values in found:
            with _name_errors(self._files[i]):
                self._targets[i].write(place.images, *place.target, values)
        self._written.append(number)
        if settled := tile.columns[1] == self._width:
            for i, place, _ in found:
                rows, (_, right) = place.target
                self._whole.append((self._targets[i], replace(place, target=(rows, (0, right)))))
        if time.monotonic() - self._last > (SYNC_SECONDS if settled else LATE_SECONDS):
            self._begin_sync()

    def sync(self) -> None:
        """Let what was written outlast a crash, and note it."""
        self._begin_sync()
        self._syncing.result()

    def _begin_sync(self) -> None:
        self._syncing.result()
        self._syncing = self._syncer.submit(self._sync, self._written, self._whole)
        self._written, self._whole, self._last = [], [], time.monotonic()

    def _sync(self, written: list[int], whole: list[tuple[Target, Place]]) -> None:
        for target, file in zip(self._targets, self._files, strict=True):
            with _name_errors(file):
                target.sync()
        self._journal.add(written)
        for target, place in whole:
            target.forget(place.images, *place.target)


@contextmanager
def _name_errors(path: Path) -> Iterator[None]:
    """Let an error of the system name the file that was to be written."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None


def _chunks(job: "TileJob", i: int) -> tuple[int, int]:
    """The part of an output that a whole tile writes: with such chunks no two tiles write the same one."""
    strides, tile = job.plan.rule.strides[job.network.outputs[i][0]], job.plan.tile
    return max(1, int(tile[0] / strides[0])), max(1, int(tile[1] / strides[1]))


def _stands(job: "TileJob", targets: list[Target], number: int) -> bool:
    """Whether a tile, run again, gives what stands in the files."""
    tile = next(t for i, t in enumerate(job.plan) if i == number)
    return all(
        targets[i].read(place.images, *place.target).tobytes() == values.tobytes()
        for i, place, values in next(iter(job.results([tile])))
    )


def _key(job: "TileJob", files: list[Path]) -> str:
    """What a run must share with an earlier one to go on where that stopped."""
    network, plan = job.network, job.plan
    parts = (network.name, network.inputs, network.outputs, sorted(network.meta.items()), network.cpu)
    text = "\n".join(map(str, (*parts, job.source.label, plan.shape, plan.batch, plan.tile, files)))
    return hashlib.sha256(text.encode()).hexdigest()


def read_tile(path: Path) -> tuple[int, int] | None:
    """The size of tiles in a journal that an earlier run has left; None if there is none."""
    try:
        with path.open("rb") as file:
            _, tile = file.readline(LONGEST_HEAD).decode().split(" ")
            rows, columns = map(int, tile.split("x"))
    except (OSError, ValueError):
        return None
    return rows, columns


class Journal:
    """The numbers of the tiles that are done, a line each behind one that says of what run; locked while it is open."""

    def __init__(self, path: Path, key: str, tile: tuple[int, int]) -> None:
        self._path, self._key = path, f"{key} {tile[0]}x{tile[1]}"
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
        self.done = [int(x) for x in lines[:-1] if x.isdecimal()] if head == self._key else []

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
        with _name_errors(self._path):
            self._file.write(text.encode())
            os.fdatasync(self._file.fileno())
