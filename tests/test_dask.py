"""One image on a cluster of processes on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import InputError
from graphc.ir import Array, Builder, f32
from graphc.runtime.network import Network

pytest.importorskip("dask.array", reason="Dask is an extra")
pytest.importorskip("distributed", reason="Dask's cluster is an extra")

import dask.array
from distributed import Client, LocalCluster

from graphc.runtime.dask import map_image

pytestmark = pytest.mark.filterwarnings("ignore")  # the cluster's own: ports in use, sockets that close late


@pytest.fixture(scope="module")
def network(digit_masks_library: Path) -> Network:
    return graphc.runtime.load(digit_masks_library, threads=1)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(0).random((1, 1, 200, 328), np.float32)


def test_threads_of_this_process(network: Network, image: Array) -> None:
    result = map_image(network, dask.array.from_array(image[0, 0], (64, 50)), tile=(64, 96))
    assert result.chunks == ((1,), (11,), (64, 64, 72), (96, 96, 96, 40))
    assert np.array_equal(result.compute(scheduler="threads", num_workers=2), network(image))


def test_every_chunk_is_made_once(network: Network, image: Array) -> None:
    made = []

    def read(block: Array) -> Array:
        made.append(block.shape)
        return block

    source = dask.array.from_array(image, (1, 1, 50, 82)).map_blocks(read, dtype=np.float32, meta=image[:0])
    assert np.array_equal(map_image(network, source, tile=64).compute(scheduler="sync"), network(image))
    assert len(made) == source.npartitions


def test_several_outputs_and_images() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 1, "H", "W"))
    y = nn.max_pool(nn.conv2d(x, 4, 3, name="conv"), 2)
    network = graphc.compile(net.build(large=nn.upsample_nearest(x, 2), small=y), threads=1)
    images = np.random.default_rng(0).random((2, 1, 61, 50), np.float32)
    found = map_image(network, dask.array.from_array(images, (1, 1, 20, 20)), tile=16)
    for got, wanted in zip(dask.compute(*found, scheduler="sync"), network(images), strict=True):
        assert np.array_equal(got, wanted)


def test_zarr_to_zarr_on_a_cluster(network: Network, client: Any, image: Array, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is an extra")
    source = zarr.create_array(tmp_path / "x.zarr", shape=image.shape, dtype="f4", chunks=(1, 1, 100, 100))
    source[:] = image
    map_image(network, dask.array.from_zarr(str(tmp_path / "x.zarr")), tile=96).rechunk((1, 11, 96, 96)).to_zarr(
        str(tmp_path / "y.zarr")
    )
    assert np.array_equal(zarr.open_array(tmp_path / "y.zarr", mode="r")[:], network(image))


def slow(block: Array) -> Array:
    time.sleep(0.2)
    return block


def test_a_killed_worker_loses_nothing(network: Network, client: Any, image: Array) -> None:
    source = dask.array.from_array(image, (1, 1, 50, 82)).map_blocks(slow, dtype=np.float32)
    future = client.compute(map_image(network, source, tile=32))
    victim = next(iter(client.run(os.getpid).values()))
    while not any(client.has_what().values()):  # until there is something to lose
        time.sleep(0.02)
    assert not future.done()
    os.kill(victim, signal.SIGKILL)
    assert np.array_equal(future.result(), network(image))
    assert victim not in client.run(os.getpid).values()


def test_errors(network: Network) -> None:
    with pytest.raises(InputError, match="expected float32, got float64"):
        map_image(network, dask.array.zeros((64, 64)))
    with pytest.raises(InputError, match=r"map_image: expected an array \[H,W\]"):
        map_image(network, dask.array.zeros((3,)))
