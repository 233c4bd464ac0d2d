"""What Sight says against the truth: the set of pixels that change an element of the result when they change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import nn, ops
from graphc.errors import InputError, UnsupportedError
from graphc.ir import Builder, DType, Graph, Value, f32
from graphc.models import digits
from graphc.passes import fully_convolutional, optimize
from graphc.reference import run_reference
from graphc.sight import Box, find_sight

H, W = 9, 11


def positive(net: Builder, *shape: int) -> Value:
    return net.param(net.fresh("w"), np.random.default_rng(1).uniform(0.1, 1, shape).astype(np.float32))


def channels(x: Value) -> int:
    c = x.type.shape[1]
    assert isinstance(c, int)
    return c


def draw_layer(data: st.DataObject, x: Value) -> Value:
    """Any layer that looks through a window; weights are positive, so that nothing cancels."""
    net = x.builder
    assert net

    def pair(least: int, most: int) -> tuple[int, int]:
        return data.draw(st.integers(least, most)), data.draw(st.integers(least, most))

    kernel, stride, dilation = pair(1, 3), pair(1, 2), pair(1, 2)
    top, left, bottom, right = (data.draw(st.integers(0, (k - 1) // 2)) for k in (*kernel, *kernel))
    padding = (top, left, bottom, right)
    match data.draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            weight = positive(net, 2, channels(x), *kernel)
            return net.apply(ops.Conv2d(stride, padding, dilation, bias=False), x, weight)
        case 3:
            weight = positive(net, channels(x), 2, *kernel)
            return net.apply(ops.ConvTranspose2d(stride, padding, dilation=dilation, bias=False), x, weight)
        case 4:
            return net.apply(ops.MaxPool(kernel, stride, padding, dilation), x)
        case 5:
            return nn.average_pool(x, kernel, stride, padding, ceil_mode=data.draw(st.booleans()))
        case 6:
            return nn.upsample_nearest(x, stride)
        case 7:
            return nn.concat([nn.max_pool(x, kernel, 1, padding), nn.max_pool(x, kernel, 1, padding)])
        case 8:  # two paths that see different windows
            op = ops.Conv2d((1, 1), (0, 2, 2, 0), (2, 2), bias=False)
            return nn.concat([nn.relu(net.apply(op, x, positive(net, 1, channels(x), 2, 2))), x])
    return nn.pad(x, (0, 0, *pair(0, 2), 0, 0, *pair(0, 2)))


def find_seen(graph: Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which pixels each element of the output sees, [P,Q,H,W]: one image for each pixel, larger there."""
    image = np.repeat(np.random.default_rng(0).uniform(1, 2, (1, 1, H, W)), H * W + 1, axis=0)
    image[np.arange(H * W), 0, np.arange(H * W) // W, np.arange(H * W) % W] += 1000
    (result,) = run_reference(graph, [image], DType.F64)
    changed = (result[:-1] != result[-1]).any(axis=1)
    return np.asarray(changed.transpose(1, 2, 0).reshape(*result.shape[2:], H, W))


def enclose(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Box | None:
    places = np.argwhere(mask)
    return Box(*map(int, (*places.min(axis=0), *places.max(axis=0) + 1))) if len(places) else None


@settings(max_examples=60)
@given(st.data())
def test_sight_is_what_perturbing_pixels_shows(data: st.DataObject) -> None:
    net = Builder("net")
    y = net.input("image", f32("N", 1, "H", "W"))
    for _ in range(data.draw(st.integers(1, 3))):
        y = draw_layer(data, y)
    graph = net.build(y)
    try:
        seen = find_seen(graph)
    except (ValueError, IndexError):  # a window larger than what is left of the map
        return
    sight = find_sight(graph, H=H, W=W)
    for p, q in np.ndindex(*seen.shape[:2]):
        assert np.array_equal(sight.mask(p, q), seen[p, q]), f"element {p}, {q}"
        assert sight.box(p, q) == enclose(seen[p, q])
    top, left = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    box = Box(top, left, data.draw(st.integers(top + 1, H)), data.draw(st.integers(left + 1, W)))
    assert sight.cell(box) == enclose(seen[:, :, box.top : box.bottom, box.left : box.right].any(axis=(2, 3)))


def test_every_window_of_the_digit_network() -> None:
    graph = fully_convolutional(digits())
    for one in (graph, optimize(graph)):
        sight = find_sight(one, N=1, H=64, W=80)
        assert sight.box(2, 3) == Box(8, 12, 40, 44)
        assert sight.cell(Box(0, 0, 1, 1)) == Box(0, 0, 1, 1)
        assert sight.cell(Box(0, 0, 64, 80)) == Box(0, 0, 9, 13)


def test_errors_name_what_is_wrong() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 2, "H", "W"))
    graph = net.build(map=nn.relu(x), mean=nn.global_average_pool(x))
    with pytest.raises(UnsupportedError, match=r"global_average_pool.*whole image"):
        find_sight(graph, "mean", N=1, H=4, W=4)
    with pytest.raises(InputError, match="expected an output of map, mean, got 'm'"):
        find_sight(graph, "m", N=1, H=4, W=4)
    with pytest.raises(InputError, match="expected cells inside 4x4"):
        find_sight(graph, N=1, H=4, W=4).box(4, 0)
    with pytest.raises(InputError, match="expected cells inside 4x4"):
        find_sight(graph, N=1, H=4, W=4).cell(Box(0, 0, 4, 5))
