"""Half precision: float16 within float32 borders, for every op, and nothing that float16 cannot hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, shape_inference
from onnx_models import run_onnxruntime
from problems import PROBLEMS

from graphc import nn
from graphc.errors import GraphcError, UnsupportedError
from graphc.ir import Builder, Graph, f32
from graphc.onnx import to_model
from graphc.ops import Linear
from graphc.reference import run_reference
from graphc.verify import relative_difference

HALF = TensorProto.FLOAT16


def types_of(model: ModelProto) -> dict[str, int]:
    """The element type of every value, by strict inference."""
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in inferred.initializer}


def declare(weight: float = 1) -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 2, "H", "W"))
    w = net.param("w", np.full((2, 2, 3, 3), weight, np.float32))
    y = nn.upsample_nearest(nn.relu(nn.conv2d(x, 2, 3, weight=w, bias=False, name="conv")))
    return net.build(y=nn.mul(y, 0.5), z=nn.global_max_pool(y), image=x, w=w)


def test_borders_are_float32_and_what_is_between_is_not() -> None:
    model = to_model(declare(), fp16=True)
    types = types_of(model)
    assert {types[v.name] for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert [n.op_type for n in model.graph.node].count("Cast") == 4  # the image, the two results, the weight
    single = {name for name, t in types.items() if t == TensorProto.FLOAT}
    scales = {n.input[2] for n in model.graph.node if n.op_type == "Resize"}  # which ONNX wants as float32
    assert single == {"image", "y", "z", "w", *scales}
    assert types["conv"] == HALF


def test_weights_take_half_the_bytes() -> None:
    net = Builder("net")
    graph = net.build(y=nn.linear(net.input("x", f32("N", 300)), 300, name="fc"))
    full, half = (to_model(graph, fp16=fp16).ByteSize() for fp16 in (False, True))
    assert full - half == pytest.approx(2 * 300 * 301, rel=0.01)


def declare_weight(value: float) -> Graph:
    net = Builder("net")
    x, w = net.input("x", f32("N", 3)), net.param("fc.weight", np.array([[1, value, 2]], np.float32))
    return net.build(y=net.apply(Linear(bias=False), x, w))


def test_weights_beyond_its_range_are_listed() -> None:
    with pytest.raises(UnsupportedError) as caught:
        to_model(declare_weight(1e5), fp16=True)
    assert str(caught.value) == "network 'net': half precision ends at 65504: 'fc.weight' reaches 100000"
    to_model(declare_weight(65519.0), fp16=True)  # rounds to 65504
    with pytest.raises(UnsupportedError, match="reaches 65520"):
        to_model(declare_weight(65520.0), fp16=True)
    to_model(declare_weight(float("-inf")), fp16=True)  # is what it was


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@settings(max_examples=max(1, settings.default.max_examples // 10))
@given(data=st.data())
def test_every_op(name: str, data: st.DataObject) -> None:
    """Every op's model passes strict inference, and ONNX Runtime's results within 5e-3 of its largest."""
    problem, opset = data.draw(PROBLEMS[name]), data.draw(st.sampled_from((13, 18, 21)))
    sizes = {"N": 2, "H": problem.least_size + 5, "W": problem.least_size + 3}
    graph, inputs = problem.build(), problem.arrays(sizes)
    try:
        expected = run_reference(graph, inputs)
        to_model(graph, opset)
    except GraphcError:  # a size that the op refuses, or what this opset cannot say
        return
    model = to_model(graph, opset, fp16=True)
    types_of(model)
    feed = dict(zip((v.name for v in graph.inputs), inputs, strict=True))
    for a, b in zip(run_onnxruntime(model, feed), expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert relative_difference(a, b) < 5e-3  # ten roundings to 11 bits
