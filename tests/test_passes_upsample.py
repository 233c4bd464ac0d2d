"""Score maps at the image's size: each score stays on the middle of what it saw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import read

from graphc import compile, models, upsample
from graphc.errors import InputError, UnsupportedError
from graphc.geometry import find_geometry
from graphc.ir import Array, DType, Graph, dims
from graphc.ir.verify import verify
from graphc.passes import dense, fully_convolutional
from graphc.reference import random_inputs, run_reference
from graphc.runtime.onnxruntime import OnnxRuntimeNetwork
from graphc.verify import relative_difference


def interpolate(scores: Array, graph: Graph, height: int, width: int) -> Array:
    """By the geometry of the output, axis by axis; np.interp repeats what is outermost."""
    place = find_geometry(graph)[graph.outputs[0]]
    assert place is not None
    for number, axis, size in ((2, place.rows, height), (3, place.columns, width)):
        where = (np.arange(size) - float(axis.centre)) / float(axis.stride)
        scores = np.apply_along_axis(lambda line, at=where: np.interp(at, np.arange(len(line)), line), number, scores)
    return scores


def convolution(kernel: int, stride: int, padding: tuple[int, int, int, int]) -> Graph:
    top, left, bottom, right = padding
    p, q = (f"({d}+{a + b - kernel})//{stride}+1" for d, a, b in (("H", top, bottom), ("W", left, right)))
    return read(f"""
        graph net(%x: f32[N,1,H,W]) {{
          %w: f32[2,1,{kernel},{kernel}] = param()
          %y: f32[N,2,{p},{q}] = conv2d(%x, %w, stride=({stride}, {stride}), padding={padding}, bias=False)
          return %y
        }}""")


NETWORKS = {
    "between pixels": lambda: fully_convolutional(models.digits()),
    "another stride": lambda: dense(models.digits(), 1),
    "on a pixel": lambda: convolution(5, 2, (0, 0, 0, 0)),
    "before the image": lambda: convolution(2, 2, (3, 2, 4, 3)),
    "an odd stride": lambda: convolution(4, 3, (0, 1, 2, 0)),
    "a classifier that pads": lambda: fully_convolutional(models.squeezenet1_1(4, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_stay_where_they_are(name: str) -> None:
    """Reference, native code and ONNX Runtime at several sizes."""
    graph = NETWORKS[name]()
    large = verify(upsample(graph))
    assert large.outputs[0].type.shape[2:] == large.inputs[0].type.shape[2:]
    runs = compile(large, threads=1), OnnxRuntimeNetwork(large, threads=1)
    sizes = ((64, 97), (80, 64)) if "squeeze" in graph.name else ((32, 41), (37, 34), (50, 47))
    for height, width in sizes:
        images = random_inputs(graph, {"N": 2, "H": height, "W": width})
        (scores,), (got,) = (run_reference(g, images, DType.F64) for g in (graph, large))
        np.testing.assert_allclose(got, interpolate(scores, graph, height, width), rtol=0, atol=1e-9)
        for run in runs:
            assert relative_difference(np.asarray(run(*images)), got) < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    *(st.integers(1, 6) for _ in range(2)), st.tuples(*[st.integers(0, 9)] * 4), *(st.integers(6, 40) for _ in range(2))
)
def test_any_stride_and_centre(
    kernel: int, stride: int, padding: tuple[int, int, int, int], height: int, width: int
) -> None:
    graph = convolution(kernel, stride, padding)
    images = random_inputs(graph, {"N": 1, "H": height, "W": width})
    (scores,), (got,) = (run_reference(g, images, DType.F64) for g in (graph, upsample(graph)))
    np.testing.assert_allclose(got, interpolate(scores, graph, height, width), rtol=0, atol=1e-9)


def test_what_has_the_size_stays() -> None:
    graph = models.digit_masks()
    assert str(upsample(graph)) == str(graph)
    sizes = {"N": 1, "H": 40, "W": 48}
    shape = upsample(fully_convolutional(models.digits()), "image").outputs[0].type.shape
    assert [dims.evaluate(d, sizes) for d in shape] == [1, 11, 40, 48]


def test_what_cannot_be_upsampled_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"output 'logits': expected a map of floats .* got %fc2"):
        upsample(models.digits())
    with pytest.raises(InputError, match=r"to: expected an input \[N,C,H,W\] of network 'digits', got 'page'"):
        upsample(models.digits(), "page")
    finer = read("""
        graph net(%x: f32[N,1,H,W]) {
          %y: f32[N,1,2*H,2*W] = upsample_nearest(%x)
          return %y
        }""")
    with pytest.raises(UnsupportedError, match=r"output 'y': expected a stride of whole pixels .* got 1/2 and"):
        upsample(finer)
