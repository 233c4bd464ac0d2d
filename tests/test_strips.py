"""Strips: tiles that pass rows on, from the top of an image to its bottom."""

import json
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from guarded_network import POISON, GuardedNetwork
from test_executors import LEVELS

import graphc
from graphc import nn
from graphc.codegen.carrying import CONTINUED, CONTINUES
from graphc.codegen.level import count_tasks
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.errors import InputError
from graphc.ir import Array, Builder, Graph, dims, f32
from graphc.models import digit_masks
from graphc.passes import optimize
from graphc.runtime.network import Network
from graphc.runtime.tiled import TileJob
from graphc.runtime.tiling import make_tile_plan
from graphc.runtime.windows import open_source
from graphc.strips import find_carry


def declare() -> Graph:
    """Down and up again beside a skip, with what is computed pixel by pixel between; 5 channels fill no block."""
    net = Builder("net", 1)
    x = net.input("image", f32("N", 2, "H", "W"))
    fine = nn.sigmoid(nn.conv2d(x, 16, 3, padding=1, name="fine"))
    down = nn.conv2d(nn.max_pool(fine, 3, 2, 1), 24, 5, 2, padding=2, name="down")
    up = nn.conv_transpose2d(nn.mul(down, down), 16, 4, stride=4, name="up")
    y = nn.conv2d(nn.local_response_norm(nn.concat([fine, up]), 3, 0.1), 5, 1, name="y")
    return net.build(y=y, coarse=nn.softmax(down, 1))


@pytest.fixture(scope="module")
def network() -> Network:
    return graphc.compile(declare(), threads=2)


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(0).random((2, 2, 240, 50), np.float32)[:, :, :, :48]


def test_a_tile_computes_no_row_twice() -> None:
    """Of what a tile sees, it computes as many rows as are new, but for what is computed pixel by pixel."""
    graph = optimize(digit_masks())
    carry = find_carry(graph)
    assert carry is not None
    sizes = {"N": 1, "H": carry.overlap + 416, "W": 320, CONTINUES: 1, CONTINUED: 1}
    for precise in (False, True):
        plan = make_plan(graph, make_target(), precise=precise, carry=carry)
        new, done, whole = 416, 0.0, 0.0
        for step in plan.steps:
            work = dims.evaluate(step.kernel.work, sizes)
            left = count_tasks(step.kernel, step.rows, lambda d: dims.evaluate(d, sizes))
            tasks, left = (dims.evaluate(d, sizes) for d in (step.kernel.tasks, left))
            done, whole = done + work * left / tasks, whole + work
        assert done < 1.06 * whole * new / (carry.overlap + new)


@pytest.mark.parametrize("cpu", LEVELS)
def test_what_a_tile_leaves_out_is_never_read(cpu: str) -> None:
    """Rows that a tile does not compute hold what was there before; results do not depend on it."""
    image = np.random.default_rng(1).random((1, 2, 140, 20), np.float32)
    network = GuardedNetwork(declare(), cpu)
    whole = network.run([image], at_start=False)
    for poison in POISON:
        tiles = network.run_strip(image, 16, at_start=False, poison=poison)
        assert tiles is not None
        for a, b in zip(whole, tiles, strict=True):
            assert np.array_equal(a, b)
    network.close()


def test_a_run_may_begin_at_any_tile(network: Network, image: Array) -> None:
    """What was not run before is led to; the results are the same."""
    whole = network(image)
    plan = make_tile_plan(network, image.shape, None, (16, 24))
    assert plan.strips and len(plan.rows) > 5 and len(plan.columns) == 2
    with ExitStack() as opened:
        job = TileJob(network, plan, open_source(image, opened), [y.shape for y in whole], None, slots=1)
        for tile in plan:
            (found,) = job.results([tile])
            for i, place, values in found:
                (top, bottom), (left, right) = place.target
                assert np.array_equal(values, whole[i][slice(*place.images), :, top:bottom, left:right])


@pytest.mark.parametrize("kernel", [(1, 5), (2, 2), (3, 3)])
def test_rows_that_a_tile_lacks_at_its_end(kernel: tuple[int, int]) -> None:
    """A transposed convolution's padding cuts rows off; of a tile, those are in the midst of the image."""
    net = Builder("net")
    x = net.input("image", f32(3, 8, "H", "W"))
    y = nn.conv_transpose2d(x, 8, kernel, padding=1, groups=8, name="a")
    network = graphc.compile(net.build(y=nn.conv2d(y, 16, 3, padding=1, name="b")), threads=1)
    image = np.random.default_rng(0).random((3, 8, 60, 12), np.float32)
    assert make_tile_plan(network, image.shape, None, 4).strips
    assert np.array_equal(network.tiled(image, tile=(4, 8), max_memory=None), network(image))


@pytest.mark.parametrize("height", range(201, 217))
def test_heights_that_leave_something_over(height: int) -> None:
    net = Builder("net")
    x = net.input("image", f32(1, 3, "H", "W"))
    y = nn.max_pool(nn.conv2d(x, 32, 3, 2, padding=(2, 0, 0, 1), name="a"), 3, 2, ceil_mode=True)
    network = graphc.compile(net.build(y=nn.conv2d(y, 16, 3, padding=1, name="b")), threads=1)
    image = np.random.default_rng(height).random((1, 3, height, 40), np.float32)
    assert make_tile_plan(network, image.shape, None, 32).strips
    assert np.array_equal(network.tiled(image, tile=32, max_memory=None), network(image))


def test_several_outputs_come_late_by_their_own_measure(network: Network, image: Array) -> None:
    assert json.loads(network.meta["tiling"])["strips"][1] == {"y": 8, "coarse": 2}
    for tile in (8, 24, (40, 16)):
        for got, wanted in zip(network.tiled(image, tile=tile, max_memory=None), network(image), strict=True):
            assert np.array_equal(got, wanted)


def test_strips_take_turns(network: Network, image: Array) -> None:
    """All tiles beside each other are run before those below them: what they write is whole rows of the image."""
    plan = make_tile_plan(network, image.shape, None, (16, 24))
    tiles = list(plan)
    assert [t.columns for t in tiles[:4]] == [c for c, _ in plan.columns] * 2
    assert [t.rows for t in tiles[:4]] == [r for r, _ in plan.rows[:2] for _ in range(2)]
    assert plan.memory - replace(plan, carried=0).memory == 2 * plan.carried > 0
    with ExitStack() as opened:
        job = TileJob(network, plan, open_source(image, opened), [y.shape for y in network(image)], None, slots=1)
        assert all(asked for _, asked in job._lead(tiles))  # so no rows are computed to lead to another strip
    for skipped in (3, 4):  # of the strips, one or both are led to
        led = [tile for tile, asked in job._lead(tiles[skipped:]) if not asked]
        assert len(led) == 2 and len({tile.columns for tile in led}) == 2


def test_places_in_a_tile_are_not_passed_on() -> None:
    net = Builder("net")
    x = net.input("image", f32(1, 8, "H", "W"))
    y, places = nn.max_pool_with_indices(x, 2, 2)
    graph = net.build(y=nn.max_unpool(nn.tanh(y), places, 2, like=x))
    assert find_carry(optimize(graph)) is None
    network = graphc.compile(graph, threads=1)
    image = np.random.default_rng(0).random((1, 8, 64, 40), np.float32)
    assert not make_tile_plan(network, image.shape, None, 8).strips
    assert np.array_equal(network.tiled(image, tile=8, max_memory=None), network(image))
    with pytest.raises(InputError, match="an argument is null, not aligned"):
        run_tile(network, image, part=0)


def run_tile(network: Network, image: Array, part: int, spare: int = 0, carried_spare: int = 0) -> None:
    """A tile in memory of its own, of which so many bytes are missing."""
    sizes = {s: image.shape["NCHW".index(s)] for s in network.symbols}

    def take(size: int) -> Array:
        space = np.zeros(size + 64, np.uint8)
        return space[-space.ctypes.data % 64 :][:size]

    workspace = take(network.workspace_bytes(**sizes) - spare)
    network.bind({"image": image}, workspace, (take(network.carried_bytes(**sizes) - carried_spare), part))[0]()


def test_tiles_that_do_not_fit_are_refused(network: Network, image: Array) -> None:
    whole = network(image)
    run_tile(network, np.ascontiguousarray(image), part=3)
    with pytest.raises(InputError, match="an argument is null, not aligned"):
        run_tile(network, np.ascontiguousarray(image), part=4)
    with pytest.raises(InputError, match="the workspace is too small"):
        run_tile(network, np.ascontiguousarray(image), part=1, spare=64)
    with pytest.raises(InputError, match="the workspace is too small"):
        run_tile(network, np.ascontiguousarray(image), part=1, carried_spare=64)
    overlap = json.loads(network.meta["tiling"])["strips"][0]
    with pytest.raises(InputError, match="a size is less than"):
        run_tile(network, np.ascontiguousarray(image[:, :, : overlap - 4]), part=0)
    assert np.array_equal(network(image)[0], whole[0])  # what was prepared for a tile does not serve a whole image
