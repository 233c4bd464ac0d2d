"""Strides into dilation: every score of the finer map is one that the strided network gives for a shifted image."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import read, show

from graphc import compile, dense, models, nn, ops
from graphc.errors import InputError, UnsupportedError
from graphc.geometry import find_geometry
from graphc.ir import Array, Builder, DType, Graph, Value, f32
from graphc.ir.verify import verify
from graphc.passes import fully_convolutional
from graphc.reference import random_inputs, run_reference
from graphc.verify import relative_difference


def stride_of(graph: Graph) -> int:
    place = find_geometry(graph)[graph.outputs[0]]
    assert place is not None and place.rows.stride == place.columns.stride
    return int(place.rows.stride)


def shift_and_stitch(graph: Graph, image: Array, stride: int, output_stride: int, shape: tuple[int, ...]) -> Array:
    """The scores of the strided network for the image without its first 0, t, 2t, ... rows and columns, interleaved."""
    stitched = np.full(shape, np.nan)
    factor = stride // output_stride
    for y in range(factor):
        for x in range(factor):
            places = stitched[:, :, y::factor, x::factor]
            if places.size:
                (scores,) = run_reference(graph, [image[:, :, y * output_stride :, x * output_stride :]], DType.F64)
                assert scores.shape == places.shape
                places[...] = scores
    return stitched


def check_stitched(strided: Graph, output_stride: int, height: int, width: int) -> None:
    finer = verify(dense(strided, output_stride))
    assert stride_of(finer) == output_stride
    (image,) = random_inputs(finer, {"N": 1, "H": height, "W": width})
    (got,) = run_reference(finer, [image], DType.F64)
    expected = shift_and_stitch(strided, image, stride_of(strided), output_stride, got.shape)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))


STRIDED = """
    graph net(%x: f32[N,2,H,W]) {
      %v: f32[4,2,3,3] = param()
      %w: f32[4,4,2,2] = param()
      %u: f32[3,4,3,3] = param()
      %conv: f32[N,4,(H-1)//2,(W-1)//2] = conv2d(%x, %v, stride=(2, 2), bias=False)
      %pool: f32[N,4,(H-1)//2//2,(W-1)//2//2] = max_pool(%conv, kernel=(2, 2), stride=(2, 2))
      %act: f32[N,4,(H-1)//2//2,(W-1)//2//2] = relu(%pool)
      %conv2: f32[N,4,(H-1)//2//2//2,(W-1)//2//2//2] = conv2d(%act, %w, stride=(2, 2), bias=False)
      %conv3: f32[N,3,(H-1)//2//2//2-2,(W-1)//2//2//2-2] = conv2d(%conv2, %u, bias=False)
      return %conv3
    }"""


def test_the_last_strides_go() -> None:
    lines = show(dense(read(STRIDED), 4)).splitlines()
    assert [line.partition(" = ")[2] for line in lines[1:6]] == [
        "conv2d(%x, %v, stride=(2, 2), bias=False)",
        "max_pool(%conv, kernel=(2, 2), stride=(2, 2))",
        "relu(%pool)",
        "conv2d(%act, %w, bias=False)",
        "conv2d(%conv2, %u, dilation=(2, 2), bias=False)",
    ]
    assert str(dense(read(STRIDED), 8)) == str(read(STRIDED))
    assert "dilation=(8, 8)" in str(dense(read(STRIDED), 1))


@pytest.mark.parametrize("output_stride", [1, 2, 4, 8])
def test_finer_maps_are_shift_and_stitch(output_stride: int) -> None:
    check_stitched(read(STRIDED), output_stride, 45, 38)


def test_channels_may_be_cut() -> None:
    """As exporters write a channel split."""
    net = Builder("cut", seed=1)
    x = nn.conv2d(net.input("x", f32("N", 2, "H", "W")), 6, 3, stride=2, name="first")
    half = net.apply(ops.Slice((1,), (2,), (5,), (1,)), nn.relu(x))
    check_stitched(net.build(nn.conv2d(half, 3, 2, stride=2, name="last")), 1, 21, 18)


@st.composite
def networks(draw: st.DrawFn, padded: bool) -> Graph:
    """Convolutions and pools of any stride, dilation and groups, in one path or two that are joined."""
    net = Builder("drawn", draw(st.integers(0, 99)))
    x = net.input("image", f32("N", 2, "H", "W"))

    def window(x: Value, stride: int, groups: int) -> Value:
        kernel, pad = draw(st.integers(1, 3)), draw(st.integers(0, 1)) if padded else 0
        dilation = draw(st.integers(1, 2))
        pad = min(pad, dilation * (kernel - 1))
        kind = draw(st.sampled_from(["conv", "max", "average"]))
        if kind == "conv":
            return nn.tanh(
                nn.conv2d(
                    x, 4, kernel, stride=stride, padding=pad, dilation=dilation, groups=groups, name=net.fresh("conv")
                )
            )
        ceil = padded and draw(st.booleans())
        if kind == "max":
            return nn.max_pool(x, kernel, stride, pad, dilation=dilation, ceil_mode=ceil)
        return nn.average_pool(x, kernel, stride, pad, ceil_mode=ceil, count_padding=not ceil and draw(st.booleans()))

    x = nn.conv2d(x, 4, 2, name=net.fresh("conv"))
    for _ in range(draw(st.integers(1, 3))):
        stride = draw(st.integers(1, 3))
        if draw(st.booleans()):
            x = window(x, stride, draw(st.sampled_from([1, 2, 4])))
        else:  # two paths that see the same pixels
            other = nn.conv2d(x, 4, 1, stride=stride, name=net.fresh("conv"))
            x = nn.relu(nn.add(nn.max_pool(x, 1, stride), other))
    return net.build(nn.local_response_norm(x, 3))


@settings(deadline=None, max_examples=40)
@given(networks(padded=False), st.data())
def test_random_networks_without_padding(graph: Graph, data: st.DataObject) -> None:
    stride = stride_of(graph)
    output_stride = data.draw(st.sampled_from([d for d in range(1, stride + 1) if stride % d == 0]))
    place = find_geometry(graph)[graph.outputs[0]]
    assert place is not None
    least = int(place.rows.field) + stride
    check_stitched(graph, output_stride, least + data.draw(st.integers(0, 9)), least + data.draw(st.integers(0, 9)))


@settings(deadline=None, max_examples=40)
@given(networks(padded=True), st.data())
def test_matching_pixels_are_the_strided_ones_with_padding_too(graph: Graph, data: st.DataObject) -> None:
    """Also where windows hang over the edge: there are as many strided pixels as fine ones that match."""
    stride = stride_of(graph)
    output_stride = data.draw(st.sampled_from([d for d in range(1, stride + 1) if stride % d == 0]))
    place = find_geometry(graph)[graph.outputs[0]]
    assert place is not None
    least = int(place.rows.field) + 1
    sizes = {"N": 1, "H": least + data.draw(st.integers(0, 20)), "W": least + data.draw(st.integers(0, 20))}
    image = random_inputs(graph, sizes)
    (got,) = run_reference(verify(dense(graph, output_stride)), image, DType.F64)
    (expected,) = run_reference(graph, image, DType.F64)
    factor = stride // output_stride
    np.testing.assert_allclose(got[:, :, ::factor, ::factor], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["lenet5", "digits"])
def test_networks_that_do_not_pad(name: str) -> None:
    strided = fully_convolutional(models.NETWORKS[name]())
    check_stitched(strided, 1, 37, 35)
    run = compile(dense(models.NETWORKS[name](), 2), threads=1)
    (image,) = random_inputs(strided, {"N": 2, "H": 49, "W": 44})
    (expected,) = run_reference(dense(strided, 2), [image], DType.F64)
    assert relative_difference(np.asarray(run(image)), expected) < 1e-5


PADDED = {  # whose pools, joins and reshapes are of other kinds
    "resnet18": lambda: models.resnet18(10, 64),
    "googlenet": lambda: models.googlenet(10, 64),
    "squeezenet1_1": lambda: models.squeezenet1_1(10, 64),
    "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(10, 64),
    "mobilenet_v2": lambda: models.mobilenet_v2(10, 64),
    "alexnet": lambda: models.alexnet(10, 96),
}


@pytest.mark.parametrize("name", PADDED)
def test_padded_classifiers_keep_the_scores_they_had(name: str) -> None:
    graph = PADDED[name]()
    strided, finer = fully_convolutional(graph), verify(dense(graph, 8))
    stride = stride_of(strided)
    image = random_inputs(strided, {"N": 1, "H": 128, "W": 160})
    (expected,), (got,) = run_reference(strided, image), run_reference(finer, image)
    factor = stride // 8
    assert factor > 1 and got.shape[2] > expected.shape[2]
    np.testing.assert_allclose(got[:, :, ::factor, ::factor], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_pixels_between_differ_only_where_padding_is_seen() -> None:
    """Padding of 1 at stride 2: the shifted image begins with other zeros, and they reach its first and last pixels."""
    graph = read("""
        graph net(%x: f32[N,1,H,W]) {
          %w: f32[1,1,3,3] = param()
          %v: f32[1,1,3,3] = param()
          %a: f32[N,1,(H-1)//2+1,(W-1)//2+1] = conv2d(%x, %w, stride=(2, 2), padding=(1, 1, 1, 1), bias=False)
          %b: f32[N,1,(H-1)//2+1,(W-1)//2+1] = conv2d(%a, %v, padding=(1, 1, 1, 1), bias=False)
          return %b
        }""")
    (image,) = random_inputs(graph, {"N": 1, "H": 21, "W": 21})
    (got,) = run_reference(dense(graph, 1), [image], DType.F64)
    differs = np.abs(shift_and_stitch(graph, image, 2, 1, got.shape) - got)[0, 0] > 1e-9
    inside = np.zeros_like(differs)
    inside[4:-4, 4:-4] = True  # the field of 7 pixels hangs over the edge by 3, that of a shifted image by one more
    assert not differs[inside].any()
    assert differs[1, 1:].any() and not differs[::2, ::2].any()


REFUSED = {
    "a transposed convolution": (
        "conv_transpose2d(%pool, %t, stride=(2, 2), bias=False)", "2*(H//2),2*(W//2)", "conv_transpose2d 'y'"
    ),
    "nearest neighbours": ("upsample_nearest(%pool)", "2*(H//2),2*(W//2)", "upsample_nearest 'y'"),
    "a root of squares": ("l2_pool(%pool, kernel=(1, 1), stride=(1, 1))", "H//2,W//2", "l2_pool 'y'"),
    "uneven counts": (
        "average_pool(%pool, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1), ceil_mode=True, count_padding=True)",
        "H//2,W//2", "average_pool 'y'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "size", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_dilated_is_named(line: str, size: str, named: str) -> None:
    graph = read(f"""
        graph net(%x: f32[N,1,H,W]) {{
          %t: f32[1,1,2,2] = param()
          %pool: f32[N,1,H//2,W//2] = max_pool(%x, kernel=(2, 2), stride=(2, 2))
          %y: f32[N,1,{size}] = {line}
          %z: f32[N,1,({size.replace(",", ")//2,(")})//2] = max_pool(%y, kernel=(2, 2), stride=(2, 2))
          return %z
        }}""")
    message = f"network 'net' cannot have an output stride of 1: {re.escape(named)}: cannot be dilated"
    with pytest.raises(UnsupportedError, match=message):
        dense(graph, 1)


def test_a_stride_that_cannot_go_is_named() -> None:
    graph = read("""
        graph net(%x: f32[N,1,H,W]) {
          %y: f32[N,1,H//2,W//2] = l2_pool(%x, kernel=(2, 2), stride=(2, 2))
          return %y
        }""")
    with pytest.raises(UnsupportedError, match="l2_pool 'y': cannot do without its stride"):
        dense(graph, 1)


def test_the_output_stride_divides_the_networks_own() -> None:
    with pytest.raises(InputError, match=r"expected a divisor of the stride of output 'logits' \(1, 2, 4\), got 8"):
        dense(models.digits(), 8)
    with pytest.raises(InputError, match="got 0"):
        dense(models.digits(), 0)
    with pytest.raises(UnsupportedError, match="softmax 'y': expected a map whose pixels see a part of the image"):
        dense(read("""
            graph net(%x: f32[N,2,H,W]) {
              %y: f32[N,2,H,W] = softmax(%x, axis=3)
              return %y
            }"""), 1)  # fmt: skip
