"""Channels that change places in blocks: concats, splits and shuffles of which only the ends are made."""

import numpy as np
import pytest
from guarded_network import POISON, GuardedNetwork, run_guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from test_executors import LEVELS
from test_planes import steps_of

import graphc
from graphc import nn
from graphc.codegen.target import make_target
from graphc.grad import gradient
from graphc.ir import Builder, DType, Graph, Value, f32
from graphc.reference import run_reference
from graphc.verify import relative_difference


def shuffle(x: Value, groups: int) -> Value:
    n, c, h, w = x.type.shape
    assert isinstance(c, int)
    x = nn.transpose(nn.reshape(x, (n, groups, c // groups, h, w)), (0, 2, 1, 3, 4))
    return nn.reshape(x, (n, c, h, w))


def images(net: Builder, *channels: int) -> list[Value]:
    """Images in blocks of so many channels."""
    x = net.input("x", f32("N", 3, "H", "W"))
    return [nn.conv2d(x, c, 1, name=f"conv{i}") for i, c in enumerate(channels)]


def units(half: int, count: int) -> Graph:
    """As ShuffleNet has them: one half goes on as it is, the other through a convolution, then both are shuffled."""
    net = Builder("net")
    x = nn.concat(images(net, half, half), 1)
    for i in range(count):
        kept, y = nn.split(shuffle(x, 2), (half, half))
        x = nn.concat([kept, nn.conv2d(y, half, 3, padding=1, name=f"unit{i}")], 1)
    return net.build(nn.relu(nn.conv2d(shuffle(x, 2), 16, 1, name="last")))


def test_nothing_between_is_made() -> None:
    names = steps_of(units(58, 3))
    assert names.count("move_channels") == 3 * 2 + 1
    assert not [name for name in names if name.startswith("nest")]
    assert names.count("blocks_to_dense") == 1  # the result


def test_shuffle_net_moves_vectors() -> None:
    """13 units of two parts each, and three stages that end whole."""
    names = steps_of(graphc.models.shufflenet_v2_x1_0())
    assert names.count("move_channels") == 13 * 2 + 3
    assert not [name for name in names if "dense" in name or name in ("nest_transpose", "nest_split", "nest_identity")]


def test_what_is_not_channels_is_moved_as_before() -> None:
    net = Builder("net")
    (x,) = images(net, 32)
    n, c, h, w = x.type.shape
    turned = nn.transpose(nn.reshape(x, (n, 4, 8, h, w)), (0, 1, 2, 4, 3))  # height and width change places
    rows = nn.split(nn.max_pool(x, 2, 1), (8, 24))
    names = steps_of(net.build(nn.reshape(turned, (n, c, w, h)), *rows))
    assert names.count("move_channels") == 2 and "nest_transpose" in names


def test_too_many_channels_or_sources_are_moved_as_before() -> None:
    net = Builder("net")
    parts = nn.split(nn.concat(images(net, 700, 700), 1), (1, 1399))
    assert "move_channels" not in steps_of(net.build(*parts))
    net = Builder("net")
    parts = nn.split(nn.concat(images(net, *[20] * 5), 1), (5, 95))
    assert "move_channels" not in steps_of(net.build(*parts))


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=3)
@given(data=st.data())
def test_every_channel_arrives(cpu: str, data: st.DataObject) -> None:
    """Bit by bit, from any memory."""
    net, groups = Builder("net"), data.draw(st.integers(2, 4))
    least = -(-make_target(cpu).lanes // groups)  # fewer would not lie in blocks
    channels = [groups * data.draw(st.integers(least, 30)) for _ in range(data.draw(st.integers(1, 3)))]
    xs = images(net, *channels)
    whole = shuffle(nn.concat(xs, 1) if len(xs) > 1 else xs[0], groups)
    cut = data.draw(st.integers(1, sum(channels) - 1))
    parts = nn.split(whole, (cut, sum(channels) - cut))
    graph = net.build(*xs, *parts, *([whole] if data.draw(st.booleans()) else []))
    assert "move_channels" in steps_of(graph, cpu)
    shape = [data.draw(st.integers(1, n)) for n in (2, 9, 9)]
    image = np.random.default_rng(0).standard_normal((shape[0], 3, *shape[1:])).astype(np.float32)
    found = run_guarded(graph, cpu, [image], at_start=data.draw(st.booleans()))
    joined = np.concatenate(found[: len(xs)], 1)
    n, c, h, w = joined.shape
    expected = joined.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(joined.shape)
    assert np.concatenate(found[len(xs) : len(xs) + 2], 1).tobytes() == expected.tobytes()
    assert all(y.tobytes() == expected.tobytes() for y in found[len(xs) + 2 :])


@pytest.mark.parametrize(("cpu", "half"), [*((cpu, 29) for cpu in LEVELS), ("native", 16)])
def test_units_are_the_reference_in_one_run_and_in_tiles(cpu: str, half: int) -> None:
    graph = units(half, 1)
    image = np.random.default_rng(0).random((1, 3, 90, 37), np.float32)
    (expected,) = run_reference(graph, [image], DType.F64)
    one, two = (graphc.compile(graph, threads=threads, cpu=cpu)(image) for threads in (1, 2))
    assert relative_difference(one, expected) < 5e-6
    assert one.tobytes() == two.tobytes()
    network = GuardedNetwork(graph, cpu)
    for poison in POISON:
        tiles = network.run_strip(image, 16, at_start=False, poison=poison)
        assert tiles is not None and np.array_equal(one, tiles[0])
    network.close()


def test_the_way_back_is_one_too() -> None:
    net = Builder("net")
    kept, other = nn.split(shuffle(nn.relu(nn.concat(images(net, 16, 16), 1)), 2), (16, 16))
    graph = gradient(net.build(nn.mean(nn.mul(kept, nn.conv2d(other, 16, 3, padding=1, name="unit")))))
    assert "move_channels" in steps_of(graph)
    image = np.random.default_rng(1).random((2, 3, 6, 5), np.float32)
    for found, expected in zip(graphc.compile(graph)(image), run_reference(graph, [image], DType.F64), strict=True):
        assert relative_difference(found, expected) < 1e-5
