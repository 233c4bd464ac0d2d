"""Geometry against the truth: which pixels, when they change, change an element of the result."""

import json
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc import nn, ops
from graphc.errors import InputError
from graphc.geometry import Axis, Geometry, describe_geometry, find_geometry, read_geometry
from graphc.ir import Builder, DType, Graph, Value, f32
from graphc.models import digits
from graphc.passes import fully_convolutional, optimize
from graphc.reference import run_reference

Layer = Callable[[Value], Value]
SIZES = {"H": 11, "W": 13}


def find_seen(graph: Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which pixels each element of the output sees, [P,Q,H,W]: one image for each pixel that is changed.

    Weights must be positive: a pixel that grows by far then changes every sum and every maximum that it is part of.
    """
    h, w = SIZES.values()
    rng = np.random.default_rng(0)
    image = np.repeat(rng.uniform(1, 2, (1, 1, h, w)), h * w + 1, axis=0)
    image[np.arange(h * w), 0, np.arange(h * w) // w, np.arange(h * w) % w] += 1000
    (result,) = run_reference(graph, [image], DType.F64)
    changed = (result[:-1] != result[-1]).any(axis=1)
    return np.asarray(changed.transpose(1, 2, 0).reshape(*result.shape[2:], h, w))


def find_box(axis: Axis, p: int) -> tuple[Fraction, Fraction]:
    return axis.low + p * axis.stride, axis.high + p * axis.stride


def check(graph: Graph, exact: bool) -> None:
    """Every pixel seen lies in the box; with `exact`, a box inside the image is seen up to its borders."""
    geometry = find_geometry(graph)[graph.outputs[0]]
    assert geometry is not None
    seen = find_seen(graph)
    for p, q in np.ndindex(*seen.shape[:2]):
        for axis, index, size, found in (
            (geometry.rows, p, SIZES["H"], np.flatnonzero(seen[p, q].any(axis=1))),
            (geometry.columns, q, SIZES["W"], np.flatnonzero(seen[p, q].any(axis=0))),
        ):
            low, high = find_box(axis, index)
            assert all(low <= i < high for i in found), f"element {index}: expected {low} to {high}, sees {found}"
            if exact and low >= 0 and high <= size:
                assert (found[0], found[-1] + 1) == (low, high)


def positive(net: Builder, *shape: int) -> Value:
    return net.param(net.fresh("w"), np.random.default_rng(1).uniform(0.1, 1, shape).astype(np.float32))


def declare(*layers: Layer) -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 1, "H", "W"))
    for layer in layers:
        x = layer(x)
    return net.build(x)


@st.composite
def windows(draw: st.DrawFn) -> Layer:
    """A convolution or pool, of different shapes along rows and columns."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    top, left, bottom, right = (draw(st.integers(0, (k - 1) // 2)) for k in (*kernel, *kernel))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding, kind = (top, left, bottom, right), draw(st.sampled_from(["conv", "conv", "max", "average", "l2"]))

    def layer(x: Value) -> Value:
        assert x.builder
        match kind:
            case "conv":
                weight = positive(x.builder, 2, int(str(x.type.shape[1])), *kernel)
                return x.builder.apply(ops.Conv2d(stride, padding, dilation, bias=False), x, weight)
            case "max":
                return x.builder.apply(ops.MaxPool(kernel, stride, padding, dilation), x)
            case "average":
                return nn.average_pool(x, kernel, stride, padding, count_padding=True)
        return nn.l2_pool(x, kernel, stride, padding)

    return layer


@given(st.lists(windows(), min_size=1, max_size=2))
def test_windows(layers: list[Layer]) -> None:
    check(declare(*layers), exact=True)


@st.composite
def spreads(draw: st.DrawFn) -> Layer:
    """A transposed convolution, an unpooling or another layer that makes images larger."""
    r, s, down, right = (draw(st.integers(1, 3)) for _ in range(4))
    kind = draw(st.sampled_from(["transposed", "nearest", "bilinear", "nails", "unpool", "pad"]))

    def layer(x: Value) -> Value:
        assert x.builder
        match kind:
            case "transposed":
                weight = positive(x.builder, int(str(x.type.shape[1])), 2, r, s)
                pads = ((r - 1) // 2, (s - 1) // 2, r // 2, s // 2)
                return x.builder.apply(ops.ConvTranspose2d((down, right), pads, bias=False), x, weight)
            case "nearest":
                return nn.upsample_nearest(x, (down, right))
            case "bilinear":
                return nn.upsample_bilinear(x, (down, right))
            case "nails":
                return nn.bed_of_nails(x, (down, right))
            case "unpool":
                y, indices = nn.max_pool_with_indices(x, (r, s), (down, right))
                return nn.max_unpool(y, indices, (r, s), (down, right), like=x)
        return nn.pad(x, (0, 0, r, s, 0, 0, down, right))

    return layer


@given(spreads(), windows())
def test_spreads_stay_in_their_box(spread: Layer, window: Layer) -> None:
    check(declare(spread, window), exact=False)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_bilinear_box_is_tight(scale: int) -> None:
    """Some element sees the first pixel of its box, and some element the last one."""
    graph = declare(lambda x: nn.upsample_bilinear(x, (scale, 1)))
    geometry = find_geometry(graph)[graph.outputs[0]]
    assert geometry is not None
    rows = find_seen(graph)[:, 0, :, 0]
    inner = range(2 * scale, len(rows) - 2 * scale)  # where no border is near
    boxes = [find_box(geometry.rows, p) for p in inner]
    seen = [np.flatnonzero(rows[p]) for p in inner]
    assert min(found[0] - low for found, (low, _) in zip(seen, boxes, strict=True)) == 0
    assert min(high - 1 - found[-1] for found, (_, high) in zip(seen, boxes, strict=True)) == 0


def test_paths_join_and_constants_do_not_count() -> None:
    def layer(x: Value) -> Value:
        assert x.builder
        wide = nn.max_pool(x, (5, 1), 1, (2, 0))
        shift = nn.mul(positive(x.builder, 1, 1, 1), positive(x.builder, 1, 1, 1))
        both = nn.concat([nn.add(nn.max_pool(x, (1, 3), 1, (0, 1)), wide), x])
        return nn.mul(nn.transpose(nn.reshape(nn.transpose(both, (1, 0, 2, 3)), (2, -1, 1, *x.shape[2:])),
                                   (1, 0, 2, 3, 4)), shift)  # fmt: skip

    graph = declare(layer)
    geometry = find_geometry(graph)[graph.outputs[0]]
    assert geometry == Geometry(Axis(*map(Fraction, (1, -2, 3))), Axis(*map(Fraction, (1, -1, 2))))


def test_what_sees_the_whole_image_has_none() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 2, 4, 4))
    flat = nn.flatten(x)
    outputs = {
        "mean": nn.global_average_pool(x),
        "excited": nn.mul(x, nn.global_average_pool(x)),
        "softmax_over_columns": nn.softmax(x, 3),
        "turned": nn.transpose(x, (0, 1, 3, 2)),
        "flat": flat,
        "folded": nn.reshape(flat, (-1, 2, 4, 4)),
        "resized": nn.upsample_nearest(x, size=(7, 7)),
        "reflected": nn.pad(x, (0, 0, 1, 1, 0, 0, 1, 1), "reflect"),
        "filtered_by_itself": net.apply(ops.Conv2d(bias=False), x, nn.sum(x, (0,))),
        "two_strides": nn.concat([nn.max_pool(x, 2), nn.max_pool(x, 3, 1)]),
        "one_pixel_for_all": nn.add(x, nn.max_pool(x, 4, 1)),
    }
    graph = net.build(**outputs)
    found = find_geometry(graph)
    assert {name for name, v in zip(graph.output_names, graph.outputs, strict=True) if found[v]} == set()


def test_epilogues_join_after_the_window() -> None:
    """What the passes fuse into a convolution sees what it saw before."""

    def layer(x: Value) -> Value:
        assert x.builder
        y = x.builder.apply(ops.Conv2d((1, 1), (1, 1, 1, 1), bias=False), x, positive(x.builder, 1, 1, 3, 3))
        return nn.relu(nn.add(y, nn.max_pool(x, (1, 5), 1, (0, 2))))

    graph = declare(layer)
    fused = optimize(graph)
    assert len(fused.nodes) < len(graph.nodes)
    assert find_geometry(fused)[fused.outputs[0]] == find_geometry(graph)[graph.outputs[0]]


def test_dense_digits() -> None:
    """The windows of the digit network: 32 pixels, 4 apart, the first one from pixel 0 on."""
    graph = fully_convolutional(digits())
    geometry = find_geometry(graph)[graph.outputs[0]]
    assert geometry == Geometry(*[Axis(Fraction(4), Fraction(0), Fraction(32))] * 2)
    assert geometry.rows.field == 32
    assert geometry.rows.centre == 15.5


def test_metadata_tells_the_geometry() -> None:
    graph = declare(lambda x: nn.upsample_nearest(x, (3, 1)), lambda x: nn.max_pool(x, 2))
    geometry = find_geometry(graph)[graph.outputs[0]]
    (name,) = graph.output_names
    assert read_geometry(describe_geometry(graph).meta, name) == geometry
    assert read_geometry(graph.meta, name) is None
    dense = describe_geometry(fully_convolutional(digits()))
    assert json.loads(dense.meta["geometry"]) == {
        "logits": {"stride": [4, 4], "receptive_field": [32, 32], "offset": [15.5, 15.5]}
    }
    assert read_geometry(describe_geometry(declare(nn.global_max_pool)).meta, "global_max_pool_1") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"y": 3}',
        '{"y": {"stride": [1, 1], "receptive_field": [3, 3]}}',
        '{"y": {"stride": [1, "x"], "receptive_field": [3, 3], "offset": [0, 0]}}',
        '{"y": {"stride": [1, 1, 1], "receptive_field": [3, 3, 3], "offset": [0, 0, 0]}}',
        '{"y": {"stride": [1, 1], "receptive_field": [3, NaN], "offset": [0, 0]}}',
        '{"y": {"stride": [1, 1], "receptive_field": [3, Infinity], "offset": [0, 0]}}',
    ],
)
def test_metadata_of_others_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match=r"geometry.*expected what graphc writes there"):
        read_geometry({"geometry": text}, "y")


def test_operands_that_no_image_gives_are_no_paths() -> None:
    net = Builder("net", 0)
    x, indices = net.input("x", f32(1, 1, 2, 2)), net.constant(np.array([[[[0, 3], [8, 11]]]]), "indices")
    graph = net.build(nn.max_unpool(x, indices, 2))
    place = find_geometry(graph)[graph.outputs[0]]
    assert place is not None
    assert place.rows.stride == place.columns.stride == Fraction(1, 2)
