"""What a 1x1 convolution computes while it reads, elementwise or depthwise: where that is done, how exact, the bits."""

from collections.abc import Callable
from functools import partial

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
from graphc.ir import Array, Builder, DType, Graph, Value, f32
from graphc.reference import run_reference
from graphc.verify import relative_difference

Make = Callable[[Builder, Value], Value]


def blocks(net: Builder, channels: int = 32, size: int | None = None) -> Value:
    """An image in blocks of channels that no convolution makes, which could fold what follows."""
    x = net.input("x", f32("N", 3, size or "H", size or "W"))
    return nn.max_pool(nn.conv2d(x, channels, 3, padding=1, name="before"), 3, 1, 1)


def after(make: Make, channels: int = 32, k: int = 48, size: int | None = None, **attributes: int) -> Graph:
    """An image in blocks of channels, what `make` makes of it, and a 1x1 convolution of that."""
    net = Builder("net")
    x = blocks(net, channels, size)
    return net.build(nn.relu(nn.conv2d(make(net, x), k, 1, name="conv", **attributes)))


def per_channel(net: Builder, name: str, channels: int) -> Value:
    return net.param(name, np.random.default_rng(len(name)).standard_normal((channels, 1, 1)).astype(np.float32))


def normalized(net: Builder, x: Value) -> Value:
    """Batch norm with a trained state, and relu."""
    c = x.type.shape[1]
    assert isinstance(c, int)
    return nn.relu(nn.add(nn.mul(x, per_channel(net, "scale", c)), per_channel(net, "shift", c)))


def swapped(net: Builder, x: Value) -> Value:
    """The image is not the first operand, and one operand is a single number."""
    c = x.type.shape[1]
    assert isinstance(c, int)
    return nn.sub(
        per_channel(net, "shift", c), nn.mul(nn.tanh(x), net.param("slope", np.full((1, 1, 1), 0.7, np.float32)))
    )


def depthwise(_: Builder, x: Value, kernel: tuple[int, int] = (3, 3), stride: int = 1, padding: int = 1) -> Value:
    c = x.type.shape[1]
    assert isinstance(c, int)
    return nn.clip(nn.conv2d(x, c, kernel, stride, padding, groups=c, name="depthwise"), -1.0, 1.0)


def forked(net: Builder, x: Value) -> Value:
    """In all, two convolutions read what is computed."""
    y = normalized(net, x)
    return nn.add(y, nn.conv2d(y, 32, 1, name="other"))


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("make", [normalized, swapped, depthwise, lambda _, x: nn.mul(nn.sigmoid(x), x)])
def test_it_is_computed_on_the_way(make: Make, cpu: str) -> None:
    names = steps_of(after(make), cpu)
    assert not [name for name in names if name.startswith(("nest", "window_conv"))]
    assert [name for name in names if name.startswith("conv_through")]


@pytest.mark.parametrize(
    "graph",
    [
        after(forked),  # two convolutions read it
        after(normalized, size=9),  # few pixels
        after(normalized, padding=1),  # zeros around what is computed
        after(normalized, stride=2),
        after(normalized, channels=40),  # a block is filled in part
        after(depthwise, channels=40),
        after(depthwise, size=9),
        after(lambda net, x: nn.add(depthwise(net, x), x)),  # two images
        after(normalized, channels=512, k=512),  # many weights
        after(lambda net, x: nn.add(x, nn.relu(nn.max_pool(x, 3, 1, 1)))),  # two images
    ],
)
def test_elsewhere_it_is_not(graph: Graph) -> None:
    assert not [name for name in steps_of(graph) if name.startswith("conv_through")]


def test_outputs_are_stored() -> None:
    net = Builder("net")
    x = blocks(net)
    y = normalized(net, x)
    assert not [s for s in steps_of(net.build(y=y, z=nn.conv2d(y, 16, 1, name="conv"))) if "through" in s]


def test_a_dense_net_stores_no_norm() -> None:
    """The largest networks with such layers: but for maps of 7x7, all of them are computed on the way."""
    names = steps_of(graphc.models.densenet121())
    assert sum(name.startswith("conv_through") for name in names) == 44
    assert sum(name == "nest_fused" for name in names) == 18


def test_a_mobile_net_stores_what_is_depthwise_of_small_maps_alone() -> None:
    names = steps_of(graphc.models.mobilenet_v2())
    assert sum(name.startswith("conv_through") for name in names) == 13
    assert sum(name.startswith("window_conv") for name in names) == 4


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=2)
@given(data=st.data())
def test_it_is_the_same(cpu: str, data: st.DataObject) -> None:
    """As the reference in float64, at several sizes, from any memory; threads change no bits."""
    channels, k = 16 * data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 8, 16, 50, 130]))
    kernel, stride = data.draw(st.tuples(*[st.integers(1, 5)] * 2)), data.draw(st.integers(1, 2))
    windows = partial(depthwise, kernel=kernel, stride=stride, padding=data.draw(st.integers(0, 2)))
    make = data.draw(st.sampled_from([normalized, swapped, windows, windows]))
    graph = after(make, channels, max(k, make_target(cpu).lanes // 2))
    assert [name for name in steps_of(graph, cpu) if name.startswith("conv_through")]
    net = graphc.compile(graph, threads=1, cpu=cpu)
    for seed in range(2):
        shape = [data.draw(st.integers(*limits)) for limits in ((1, 2), (5, 40), (5, 150))]
        image = np.random.default_rng(seed).standard_normal((shape[0], 3, *shape[1:])).astype(np.float32)
        (expected,) = run_reference(graph, [image], DType.F64)
        found = net(image)
        assert relative_difference(found, expected) < 2e-6
        (guarded,) = run_guarded(graph, cpu, [image], at_start=bool(seed))  # on two threads
        assert guarded.tobytes() == found.tobytes()


@pytest.mark.parametrize(("cpu", "stride"), [*((cpu, 1) for cpu in LEVELS), ("native", 2)])
def test_tiles_of_a_strip_are_as_the_whole(cpu: str, stride: int) -> None:
    """What is computed on the way has no rows that a tile could pass on."""
    net = Builder("net")
    x = blocks(net)
    y = nn.concat([x, nn.conv2d(nn.conv2d(normalized(net, x), 16, 1, name="a"), 16, 3, padding=1, name="b")])
    y = nn.conv2d(depthwise(net, y, (5, 3), stride, 2), 16, 1, name="c")
    graph = net.build(nn.conv2d(y, 16, 5, padding=2, name="after"))
    network, image = GuardedNetwork(graph, cpu), np.random.default_rng(0).random((1, 3, 90, 21), np.float32)
    assert sum(s.kernel.name.startswith("conv_through") for s in network.plan.steps) == 2
    whole = network.run([image], at_start=False)
    for poison in POISON:
        tiles = network.run_strip(image, 16, at_start=False, poison=poison)
        assert tiles is not None and np.array_equal(whole[0], tiles[0])
    network.close()


@pytest.mark.parametrize("make", [normalized, depthwise])
def test_whole_numbers_are_exact(make: Make) -> None:
    rng = np.random.default_rng(0)
    graph = after(make, channels=112)
    small = {v.name: rng.integers(-3, 4, v.type.static_shape()).astype(np.float32) for v in graph.constants}
    graph = graph.with_params(small)
    image: Array = rng.integers(-3, 4, (1, 3, 33, 17)).astype(np.float32)
    (expected,) = run_reference(graph, [image], DType.F64)
    assert (graphc.compile(graph, threads=2, precise=True)(image) == expected).all()
