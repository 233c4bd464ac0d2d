"""Images from and into files, by windows: every kind of file, runs that are stopped, runs that are killed."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import FileError, InputError
from graphc.files import replace_file
from graphc.ir import Array, Builder, Graph, f32
from graphc.models import digit_masks
from graphc.runtime.network import Network
from graphc.runtime.tiled_files import read_tile
from graphc.runtime.tiling import CONTINUES, make_tile_plan, resident_bytes
from graphc.runtime.windows import Target, open_target

SHAPE = (1, 2, 90, 111)


def declare() -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 2, "H", "W"))
    y = nn.relu(nn.conv2d(x, 5, 3, padding=1, name="first"))
    return net.build(y=nn.conv2d(nn.max_pool(y, 2), 3, 3, padding=1, name="second"))


@pytest.fixture(scope="module")
def network() -> Network:
    return graphc.compile(declare(), threads=1)


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(0).random(SHAPE, np.float32)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_npy_to_npy(network: Network, image: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", image)
    got = network.tiled(tmp_path / "x.npy", tmp_path / "y.npy", tile=(16, 40))
    assert isinstance(got, np.memmap)
    assert np.array_equal(np.load(tmp_path / "y.npy"), network(image))
    assert leftovers(tmp_path) == []


def test_mapped_arrays_and_views_of_them(network: Network, image: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", image[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(network.tiled(mapped, tile=32), network(image))
    part = np.ascontiguousarray(image[:, :, 10:, 20:])
    assert np.array_equal(network.tiled(mapped[:, 10:, 20:], tile=32), network(part))
    out = np.zeros((1, 3, 45, 55), np.float32)
    assert network.tiled(image, out, tile=(90, 20)) is out  # whole rows
    assert np.array_equal(out, network(image))


def test_several_outputs(image: Array, tmp_path: Path) -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 2, "H", "W"))
    network = graphc.compile(net.build(large=nn.upsample_nearest(x, 2), small=nn.max_pool(x, 3)), threads=1)
    outs = {"large": tmp_path / "large.npy", "small": tmp_path / "small.npy"}
    large, small = network.tiled(image, outs, tile=30)
    assert [np.array_equal(a, b) for a, b in zip((large, small), network(image), strict=True)] == [True, True]
    with pytest.raises(InputError, match="expected outputs large, small, got large"):
        network.tiled(image, {"large": None})
    with pytest.raises(InputError, match="expected a file of its own for each output"):
        network.tiled(image, {"large": tmp_path / "same.npy", "small": tmp_path / "same.npy"})


def test_windows_are_prepared(network: Network, tmp_path: Path) -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    got = network.tiled(bytes_, tile=32, prepare=lambda window: (window / np.float32(255)).astype(np.float32))
    assert np.array_equal(got, network((bytes_ / np.float32(255)).astype(np.float32)))
    with pytest.raises(InputError, match="expected float32, got uint8; `prepare`"):
        network.tiled(bytes_)


class Dataset:
    """What rasterio opens, as far as it is used."""

    def __init__(self, image: Array) -> None:
        self.image, self.dtypes, self.name = image, (str(image.dtype),) * len(image), "picture"
        self.count, self.height, self.width = image.shape

    def read(self, window: tuple[tuple[int, int], tuple[int, int]]) -> Array:
        rows, columns = window
        return self.image[:, slice(*rows), slice(*columns)]


def test_datasets_with_windowed_reads(network: Network, image: Array) -> None:
    assert np.array_equal(network.tiled(Dataset(image[0]), tile=32), network(image))


def test_zarr(network: Network, image: Array, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is an extra")
    source = zarr.create_array(tmp_path / "x.zarr", shape=SHAPE, dtype="f4", chunks=(1, 1, 25, 31))
    source[:] = image
    assert np.array_equal(network.tiled(source, tile=32), network(image))
    got = network.tiled(tmp_path / "x.zarr", tmp_path / "y.zarr", tile=32)
    assert got.chunks == (1, 3, 16, 16)
    assert np.array_equal(got[:], network(image))
    assert network.tiled(tmp_path / "x.zarr", tmp_path / "y.zarr", tile=40).chunks == (1, 3, 20, 20)  # replaced
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("tiles", [{}, {"tile": (32, 16)}, {"compression": "zlib"}])
def test_tiff(network: Network, image: Array, tiles: dict[str, Any], tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is an extra")
    pytest.importorskip("zarr", reason="zarr is an extra")
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(image[0], 0, 2), planarconfig="contig", photometric="minisblack",
                     metadata={"axes": "YXS"}, **tiles)  # fmt: skip
    network.tiled(tmp_path / "x.tif", tmp_path / "y.tif", tile=32)
    assert np.array_equal(tifffile.imread(tmp_path / "y.tif").reshape(1, 3, 45, 55), network(image))
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.is_bigtiff


def test_an_interrupted_run_goes_on(network: Network, image: Array, tmp_path: Path) -> None:
    """With a sync after each tile, what is done before the interruption is not done again."""
    seen: list[int] = []

    def stop(done: int, count: int) -> None:
        seen.append(done)
        if done == 5:
            raise KeyboardInterrupt

    def count(window: Array) -> Array:
        nonlocal reads
        reads += 1
        return window

    reads = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.runtime.tiled_files.SYNC_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            network.tiled(image, tmp_path / "y.npy", tile=32, progress=stop, prepare=count)
    assert leftovers(tmp_path) == [".y.npy.begun", ".y.npy.tiles"]
    assert not (tmp_path / "y.npy").exists()
    with replace_file(tmp_path / "y"):  # removes what killed writers have left, but not this
        pass
    (tmp_path / "y").unlink()
    tiles = list(make_tile_plan(network, image.shape, None, tile=32))
    done = len((tmp_path / ".y.npy.tiles").read_text().splitlines()) - 1
    assert done >= 4
    before, reads = reads, 0
    assert before in (6, 7)  # the sixth was run while the fifth was written, and the seventh perhaps read
    network.tiled(image, tmp_path / "y.npy", tile=32, prepare=count)
    # the last one again: it must be what stands there; and what leads to it, and to the first of each strip
    first = {tile.columns: tile for tile in reversed(tiles[done:])}
    leads = sum(bool((tile.part or 0) & CONTINUES) for tile in (tiles[done - 1], *first.values()))
    assert reads == len(tiles) - done + 1 + leads
    assert np.array_equal(np.load(tmp_path / "y.npy"), network(image))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("change", ["tile", "image"])
def test_another_run_begins_anew(network: Network, image: Array, change: str, tmp_path: Path) -> None:
    def stop(done: int, count: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.runtime.tiled_files.SYNC_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            network.tiled(image, tmp_path / "y.npy", tile=32, progress=stop)
    other = image + 1 if change == "image" else image
    network.tiled(other, tmp_path / "y.npy", tile=20 if change == "tile" else 32)
    assert np.array_equal(np.load(tmp_path / "y.npy"), network(other))


KILLED = """
import os, signal, sys
import numpy as np
import graphc, graphc.runtime.tiled_files as tiled
sys.path.insert(0, {tests!r})
from test_tiled_files import declare
tiled.SYNC_SECONDS = 0
write, count = os.pwritev, 0

def die(*args):
    global count
    count += 1
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args)

os.pwritev = die
graphc.compile(declare(), threads=1).tiled({source!r}, {target!r}, tile=32)
"""


@pytest.mark.parametrize("after", [1, 100, 250])
def test_a_killed_run_leaves_no_half_written_tile(network: Network, image: Array, after: int, tmp_path: Path) -> None:
    """Killed in the middle of a tile's rows: nothing stands under the output's name, and the next run is whole."""
    source, target = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(source, image)
    code = KILLED.format(tests=str(Path(__file__).parent), after=after, source=str(source), target=str(target))
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == -signal.SIGKILL
    assert not target.exists()
    network.tiled(source, target, tile=32)
    assert np.array_equal(np.load(target), network(image))
    assert leftovers(tmp_path) == []


def test_a_run_that_is_taken_up_again_keeps_its_tiles(image: Array, tmp_path: Path) -> None:
    """What is resident differs from run to run, and so would tiles as large as fit."""
    network = graphc.compile(digit_masks(), threads=1)
    page = np.random.default_rng(0).random((1, 1, 2048, 256), np.float32)

    def choose(room: int, begun: tuple[int, int] | None = None) -> tuple[int, int]:
        most = resident_bytes() + (room << 20)
        return make_tile_plan(network, page.shape, most, staging=2, begun=begun).tile

    def stop(done: int, count: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.runtime.tiled_files.SYNC_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            network.tiled(page, tmp_path / "y.npy", max_memory=resident_bytes() + (75 << 20), progress=stop)
    begun = read_tile(tmp_path / ".y.npy.tiles")
    assert begun is not None
    assert choose(150) != begun == choose(150, begun)
    assert choose(60) == choose(60, begun) != begun  # it no longer fits
    left: list[int] = []
    network.tiled(
        page, tmp_path / "y.npy", max_memory=resident_bytes() + (150 << 20), progress=lambda *n: left.append(1)
    )
    assert len(left) == make_tile_plan(network, page.shape, None, begun).count - 2
    assert np.array_equal(np.load(tmp_path / "y.npy"), network(page))


def test_a_folder_that_is_being_replaced(network: Network, image: Array, tmp_path: Path) -> None:
    """Killed between the two moves, the run is ended by the next one: it computes a tile again, and what led to it."""
    pytest.importorskip("zarr", reason="zarr is an extra")
    target, reads = tmp_path / "y.zarr", list[int]()
    network.tiled(image + 1, target, tile=32)

    def count(window: Array) -> Array:
        reads.append(1)
        return window

    replace = os.replace

    def stop(source: Path, target: Path) -> None:
        if Path(source).suffix == ".begun":
            raise KeyboardInterrupt
        replace(source, target)  # zarr's own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", stop)
        with pytest.raises(KeyboardInterrupt):
            network.tiled(image, target, tile=32)
    assert leftovers(tmp_path) == [".y.zarr.begun", ".y.zarr.old", ".y.zarr.tiles"]
    assert np.array_equal(network.tiled(image, target, tile=32, prepare=count)[:], network(image))
    assert (len(reads), leftovers(tmp_path)) == (2, [])


@pytest.mark.parametrize("kind", [".npy", ".tif", ".zarr"])
def test_a_full_disk(network: Network, image: Array, kind: str, tmp_path: Path) -> None:
    """An error that names the file; nothing stands there, and with room the next run goes on."""
    if kind != ".npy":
        pytest.importorskip("tifffile" if kind == ".tif" else "zarr", reason="tifffile and zarr are extras")
    target, full = tmp_path / f"y{kind}", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind != ".zarr":  # known before anything is computed
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.posix_fallocate", Mock(side_effect=full))
            with pytest.raises(FileError, match=rf"y{kind}: cannot be written: No space left"):
                network.tiled(image, target, tile=32)
        assert list(tmp_path.iterdir()) == []
    real, calls = open_target, list[int]()

    def open_and_fill(path: Path, kind: str, shape: Sequence[int], opened: ExitStack) -> Target:
        """A target on whose disk is room for seven tiles."""
        found = real(path, kind, shape, opened)
        write = found.write

        def fill(*args: Any) -> None:
            calls.append(1)
            if len(calls) > 7:
                raise full
            write(*args)

        found.write = fill  # type: ignore[method-assign]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.runtime.tiled_files.SYNC_SECONDS", 0)
        patch.setattr("graphc.runtime.tiled_files.open_target", open_and_fill)
        with pytest.raises(FileError, match=rf"y{kind}: cannot be written: No space left on device"):
            network.tiled(image, target, tile=32)
    assert not target.exists()
    assert np.array_equal(network.tiled(image, target, tile=32)[:].reshape(1, 3, 45, 55), network(image))
    assert leftovers(tmp_path) == []


CRAMPED = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from forking import limit
from test_tiled_files import declare
import graphc
network = graphc.compile(declare(), threads=1)
limit()
network.tiled(np.zeros((1, 2, {side}, {side}), np.uint8), {target!r}, None, prepare=lambda x: x.astype(np.float32))
"""


@pytest.mark.parametrize("side", [6000, 9000])
def test_too_little_memory_for_a_tile(side: int, tmp_path: Path) -> None:
    """For the workspace, or already for the buffers: an error, and nothing under the name."""
    target = tmp_path / "y.npy"
    code = CRAMPED.format(tests=str(Path(__file__).parent), target=str(target), side=side)
    found = subprocess.run([sys.executable, "-c", code], env=os.environ, stderr=subprocess.PIPE, check=False)
    last = found.stderr.decode().splitlines()[-1]
    assert last.startswith("graphc.errors.InputError: network 'net'") and "out of memory" in last, last
    assert not target.exists()


def test_two_runs_into_one_file(network: Network, image: Array, tmp_path: Path) -> None:
    def again(done: int, count: int) -> None:
        with pytest.raises(FileError, match="another run is writing"):
            network.tiled(image, tmp_path / "y.npy", tile=32)

    network.tiled(image, tmp_path / "y.npy", progress=again, tile=64)


def test_errors_name_the_file(network: Network, image: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "order.npy", np.asfortranarray(image))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "cut.npy", image)
    os.truncate(tmp_path / "cut.npy", 1000)
    with pytest.raises(InputError, match=r"order.npy: expected .* in C order, got float32\[1, 2, 90, 111\] in Fortran"):
        network.tiled(tmp_path / "order.npy")
    with pytest.raises(FileError, match=r"text.npy: cannot be read"):
        network.tiled(tmp_path / "text.npy")
    with pytest.raises(FileError, match=r"cut.npy: expected 19980 numbers of float32, got fewer"):
        network.tiled(tmp_path / "cut.npy")
    with pytest.raises(FileError, match=r"none.npy: cannot be read: No such file"):
        network.tiled(tmp_path / "none.npy")
    with pytest.raises(InputError, match=r"x.txt: expected .npy, .zarr or .tif"):
        network.tiled(tmp_path / "x.txt")
    with pytest.raises(InputError, match=r"y.txt: expected a name that ends in"):
        network.tiled(image, tmp_path / "y.txt", max_memory=None)
    with pytest.raises(FileError, match=r"cannot be written: No such file"):
        network.tiled(image, tmp_path / "none" / "y.npy", max_memory=None)
    with pytest.raises(InputError, match=r"out: expected float32\[1, 3, 45, 55\], got float64\[3\]"):
        network.tiled(image, np.zeros(3), max_memory=None)
    with pytest.raises(InputError, match="source: expected an array, a file or a dataset, got int"):
        network.tiled(3)
