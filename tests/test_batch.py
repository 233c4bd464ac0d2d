"""Many images: pools of processes, broken images, Ray Data, and how a network travels."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphc
from graphc.errors import FileError, GraphcError, InputError
from graphc.ir import Array
from graphc.models import digit_masks
from graphc.runtime import workers
from graphc.runtime.batch import FileRunner, map_files
from graphc.runtime.network import Network
from graphc.runtime.workers import WorkerNetwork


@pytest.fixture(scope="module")
def network(digit_masks_library: Path) -> Network:
    return graphc.runtime.load(digit_masks_library, threads=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    found = []
    for i, size in enumerate([(32, 64), (64, 40), (8, 8), (48, 48)]):
        found.append(folder / f"{i}.npy")
        np.save(found[-1], rng.random((1, 1, *size), np.float32))
    found.append(folder / "page.png")
    Image.fromarray(rng.integers(0, 256, (40, 56), np.uint8)).save(found[-1])
    return found


def read_array(path: Path) -> Array:
    return np.asarray(np.load(path))


def test_files_on_a_pool(network: Network, files: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    results = list(map_files(network, files, processes=2, progress=True))
    assert [r.path for r in results] == files
    for r in results[:-1]:
        assert r.outputs and np.array_equal(r.outputs["scores"], network(np.load(r.path)))
    assert results[-1].outputs and results[-1].outputs["scores"].shape == (1, 11, 40, 56)


def test_a_broken_image_is_named(network: Network, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    small = tmp_path / "small.npy"
    np.save(small, np.zeros((1, 1, 7, 8), np.float32))  # not a multiple of 8
    paths = [files[0], broken, small, files[1]]
    results = list(map_files(network, paths, errors="skip", processes=1))
    assert [r.outputs is None for r in results] == [False, True, True, False]
    assert results[1].error and results[1].error.startswith(f"{broken}: cannot be read as a picture")
    assert results[2].error and results[2].error.startswith(f"{small}: network 'digit_masks'")
    with pytest.raises(FileError, match=r"broken.png: cannot be read as a picture"):
        list(map_files(network, paths, processes=1))
    with pytest.raises(InputError, match="expected stop or skip, got 'go on'"):
        FileRunner(network, errors="go on")  # type: ignore[arg-type]


def die(path: Path) -> Array:
    os._exit(1)


def test_a_process_that_dies_is_told(network: Network, files: list[Path]) -> None:
    with pytest.raises(GraphcError, match="a process of the pool has died"):
        list(map_files(network, files, read=die, processes=1))


def test_a_network_travels_as_its_path_and_is_opened_once(network: Network) -> None:
    sent = pickle.dumps(WorkerNetwork(network))
    assert len(sent) < 1000
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first.open() is second.open()
    assert first.open() is not WorkerNetwork(network, threads=2).open()
    before = len(workers._opened)
    os.utime(str(network.__reduce__()[1][0]))  # as if it had been built again
    assert first.open() is second.open()
    assert len(workers._opened) == before + 1


def test_a_network_compiled_here_travels_too(files: list[Path]) -> None:
    net = graphc.compile(digit_masks(), threads=1)
    again = pickle.loads(pickle.dumps(WorkerNetwork(net))).open()
    assert np.array_equal(again(np.load(files[0])), net(np.load(files[0])))


def test_ray_batches(network: Network, files: list[Path]) -> None:
    """What Ray Data gives and takes, without Ray."""
    runner = pickle.loads(pickle.dumps(FileRunner(network, errors="skip")))
    columns = runner({"path": np.array([str(files[0]), "none.npy", str(files[1])])})
    assert list(columns) == ["path", "error", "scores"]
    assert [bool(e) for e in columns["error"]] == [False, True, False]
    assert np.array_equal(columns["scores"][2], network(np.load(files[1])))
    assert columns["scores"][1].size == 0


RAY = """
import sys, numpy as np, ray
from graphc.runtime import load
from graphc.runtime.batch import FileRunner
library, *files = sys.argv[1:]
network = load(library, threads=1)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
rows = ray.data.from_items([{"path": f} for f in files]).map_batches(FileRunner(network), batch_size=2).take_all()
assert sorted(r["path"] for r in rows) == sorted(files)
for r in rows:
    assert np.array_equal(r["scores"], network(np.load(r["path"]))), r["path"]
"""


def test_ray_data(network: Network, files: list[Path]) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    library = str(network.__reduce__()[1][0])
    done = subprocess.run(
        [sys.executable, "-c", RAY, library, *map(str, files[:4])], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
