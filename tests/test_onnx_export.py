"""Writing ONNX: every op against ONNX Runtime and back again; names, symbols and files."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import checker, defs, helper
from onnx_models import run_onnxruntime
from problems import PROBLEMS

from graphc import nn
from graphc.errors import FileError, GraphcError, UnsupportedError
from graphc.geometry import describe_geometry, find_geometry, read_geometry
from graphc.ir import Array, Builder, DimLike, Graph, Op, TensorType, Value, dims, f32
from graphc.models import digits
from graphc.onnx import export_onnx, exporting, from_model, load, to_model
from graphc.onnx.export_ops import EXPORTERS
from graphc.ops import OP_CLASSES, ConvTranspose2d, Fused, Pad, Reshape, UpsampleNearest
from graphc.passes import fully_convolutional
from graphc.reference import random_inputs, run_reference

EXAMPLES = max(1, settings.default.max_examples // 5)  # of each of some sixty ops, about 10 ms each
OPSETS = (13, 17, 18, 19, 21)


def check_export(graph: Graph, inputs: list[Array], opset: int = 18, tolerance: float = 1e-5) -> Graph:
    """Export, import, export: the same text twice, the same numbers from both graphs and ONNX Runtime."""
    model = to_model(graph, opset)
    again = from_model(model)
    assert str(from_model(to_model(again, opset))) == str(again)
    expected, names = run_reference(graph, inputs), [v.name for v in graph.inputs]
    for found in (run_onnxruntime(model, dict(zip(names, inputs, strict=True))), run_reference(again, inputs)):
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(float(np.abs(b).max()), 1e-6))
    return again


def test_every_op_has_an_exporter() -> None:
    assert set(EXPORTERS) == set(OP_CLASSES)


# What only gradients are made of: their ONNX nodes (convolutions with computed weights, ranges, scattered sums) are not
# imported again. test_executors.py runs them in ONNX Runtime.
NOT_IMPORTED = {"conv2d_weight_gradient", "extent", "iota", "max_pool_gradient", "max_pool_route", "pick_cells",
                "slice_gradient"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PROBLEMS.keys() - NOT_IMPORTED))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_ops_agree_with_onnxruntime(name: str, data: st.DataObject) -> None:
    problem, opset = data.draw(PROBLEMS[name]), data.draw(st.sampled_from(OPSETS))
    side = st.integers(problem.least_size, problem.least_size + 12)
    sizes = {"N": data.draw(st.integers(1, 3)), "H": data.draw(side), "W": data.draw(side)}
    graph, inputs = problem.build(), problem.arrays(sizes)
    try:
        run_reference(graph, inputs)
    except GraphcError:  # a size that the op refuses
        return
    check_export(graph, inputs, least_opset(graph, opset))


def least_opset(graph: Graph, opset: int) -> int:
    """`opset`, or the later one that the export asks for."""
    try:
        to_model(graph, opset)
    except UnsupportedError as error:
        needed = re.search(rf"needs opset (\d+), got {opset}$", str(error))
        return int(needed[1]) if needed else opset
    return opset


def declare_network() -> Graph:
    """Every kind of layer that has one ONNX op."""
    net = Builder("plain", meta={"classes": "cat dog"})
    image = net.input("image", f32("N", 3, "H", "W"))
    x = nn.conv2d(image, 8, 3, stride=2, padding=(1, 0, 1, 2), name="conv1")
    x = nn.leaky_relu(nn.batch_norm(x, epsilon=1e-3, name="bn1"), 0.1, name="act1")
    left = nn.max_pool(x, 2, name="pool")
    right = nn.clip(nn.conv2d(left, 8, 1, groups=2, bias=False, name="conv2"), -0.7, 0.7)
    x = nn.concat([nn.mul(left, 0.5), right])
    x = nn.reshape(x, (x.type.shape[0], 4, x.type.shape[2], -1))
    x = nn.conv_transpose2d(x, 6, 2, stride=2, name="up")
    x = nn.pad(nn.upsample_bilinear(x), (0, 0, 1, 0, 0, 0, 0, 1), mode="edge")
    a, b = nn.split(nn.local_response_norm(x, 3), (2, 4))
    x = nn.dropout(nn.flatten(nn.global_average_pool(nn.slice(b, (2,), (1,), (2**63 - 1,)))), 0.2)
    scores = nn.linear(nn.elu(nn.linear(x, 5, name="fc1"), name="act2"), 2, name="fc2")
    return net.build(logits=scores, maps=a, tail=nn.softmax(scores))


def test_plain_network_keeps_its_text() -> None:
    graph = declare_network()
    again = check_export(graph, random_inputs(graph, {"N": 2, "H": 21, "W": 17}))
    assert str(again) == str(graph)
    assert again.meta == describe_geometry(graph).meta


def test_declarations() -> None:
    model = to_model(declare_network(), 17)
    assert (model.producer_name, model.opset_import[0].version, model.ir_version) == ("graphc", 17, 8)
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert shapes[:2] == [["N", 3, "H", "W"], ["N", 2]]
    assert shapes[2][:2] == ["N", 2]
    assert "H" in shapes[2][2]


def net_of(make: Callable[[Value], Value | dict[str, Value]], type: TensorType | None = None) -> Graph:
    net = Builder("net")
    result = make(net.input("x", type or f32("N", 4, "H", "W")))
    return net.build(**result) if isinstance(result, dict) else net.build(result)


def two_names(x: Value) -> dict[str, Value]:
    y = nn.relu(x, name="y")
    return {"first": y, "second": y, "y": y}


@pytest.mark.parametrize(
    "make",
    [
        lambda x: {"out": nn.relu(x, name="y")},
        two_names,
        lambda x: dict.fromkeys(("first", "second"), nn.relu(x, name="y")),
        lambda x: {"out": x, "y": nn.relu(x)},
        lambda x: {"x": x, "y": nn.relu(x)},
        lambda x: {"a": nn.neg(nn.relu(x, name="a"), name="b"), "b": nn.abs(x, name="c")},
        lambda x: {"p": x.builder.constant(np.ones(3, np.float32), "k"), "y": nn.relu(x)},
    ],
    ids=[
        "renamed",
        "several names",
        "several other names",
        "input",
        "input itself",
        "name of another value",
        "parameter",
    ],
)
def test_output_names(make: Callable[[Value], dict[str, Value]]) -> None:
    graph = net_of(make)
    again = check_export(graph, random_inputs(graph, {"N": 1, "H": 3, "W": 2}))
    assert again.output_names == graph.output_names


def test_output_with_the_name_of_an_input() -> None:
    with pytest.raises(UnsupportedError, match="output 'x' has the name of an input"):
        to_model(net_of(lambda x: {"x": nn.relu(x)}))


N, H, W = (dims.symbol(s) for s in "NHW")


@pytest.mark.parametrize(
    "shape",
    [
        (N, 4, H * W),
        (H, N, 4, W),
        (2, H, W, 2 * N),
        (4 * H * W * N, 1),
        (W, -1, H),
        (dims.maximum(H, W), dims.minimum(H, W), 4 * N),
        (dims.maximum((H - 2 * W) // 3, 1), N, 4 * H * W),  # the numerator is negative
    ],
    ids=str,
)
def test_reshape_by_sizes(shape: tuple[DimLike, ...]) -> None:
    graph = net_of(lambda x: x.builder.apply(Reshape(shape), x))
    check_export(graph, random_inputs(graph, {"N": 2, "H": 3, "W": 5}))


@pytest.mark.parametrize(
    "expr",
    [
        "expm1(x0)", "log1p(abs(x0))", "erf(x0)", "floor(x0)", "ceil(x0)", "x0", "max(x0, 0.0)", "(2.0 / (x0 + 3.0))",
        "(x0 // x1)", "(x0 % x1)", "pow(abs(x0), x1)", "select(le(x0, x1), x0, 1.0)",
        "select(ge(x0, 0.0), x0, (x0 * 0.1))",
        "select(ge(x0, 0.0), x1, (x0 * 0.1))", "select(ge(x0, 0.0), x0, expm1(x0))", "max(x0, 0.5)",
        "min(max(x0, -inf), 0.5)", "min(max((x0 * x1), -0.5), inf)", "to_f32(gt(x0, 0.25))", "-(x0 * (x0 * x0))",
        "select(eq(x0, x1), 1.0, x0)", "select(lt(x0, 0.0), x1, x0)", "sqrt(softplus((x0 + x1)))",
    ],
)  # fmt: skip
def test_expressions(expr: str) -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 2, "H", "W"))
    operands = (x, net.input("z", x.type)) if "x1" in expr else (x,)
    graph = net.build(net.apply(Fused(expr), *operands, name="y"))
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(low, 2, (1, 2, 3, 5)).astype(np.float32) for low in (-2, 0.5)][: len(operands)]
    check_export(graph, inputs)


def test_whole_numbers_as_float_attributes() -> None:
    """ONNX tells 1 from 1.0."""

    def declare(x: Value) -> Value:
        x = nn.elu(nn.leaky_relu(nn.batch_norm(x, epsilon=1, name="norm"), 2), 3)
        return nn.local_response_norm(x, 3, alpha=1, beta=1, k=2)

    graph = net_of(declare)
    check_export(graph, random_inputs(graph, {"N": 1, "H": 2, "W": 3}))


def test_common_expressions_have_their_own_op() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 2))
    for i, expr in enumerate(("max(x0, 0.0)", "min(max(x0, -1.0), 1.0)", "select(ge(x0, 0.0), x0, (x0 * 0.5))")):
        x = net.apply(Fused(expr), x, name=f"f{i}")
    assert [n.op_type for n in to_model(net.build(x)).graph.node] == ["Relu", "Clip", "LeakyRelu"]


def test_output_padding_that_only_dilation_allows() -> None:
    """ONNX Runtime refuses it as an attribute."""
    net = Builder("net")
    x, w = net.input("x", f32("N", 2, "H", "W")), net.param("w", np.ones((2, 3, 2, 3), np.float32))
    op = ConvTranspose2d((1, 2), (0, 1, 1, 0), (2, 1), (3, 1), bias=False)
    graph = net.build(net.apply(op, x, w))
    check_export(graph, random_inputs(graph, {"N": 1, "H": 4, "W": 3}))


@pytest.mark.parametrize(("type", "size"), [(f32(1, 2, 14, 14), (16, 64)), (f32(1, 2, 14, "W"), (16, 2 * W))], ids=str)
def test_nearest_where_float32_would_miss_a_pixel(type: TensorType, size: tuple[DimLike, DimLike]) -> None:
    graph = net_of(lambda x: x.builder.apply(UpsampleNearest(size=size), x), type)
    check_export(graph, random_inputs(graph, {"W": 5}), tolerance=0)


@dataclass(frozen=True)
class Mystery(Op):
    """What ONNX cannot have: it is made here."""

    name: ClassVar[str] = "mystery"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def eval(self, *arrays: Array) -> Array:
        return arrays[0]


def test_all_that_cannot_be_exported_is_listed() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 1, 2, 2))
    x = net.apply(Mystery(), x, name="first")
    x = net.apply(Pad((0, 0, 3, 0, 0, 0, 0, 0), "symmetric"), x, name="second")
    x = net.apply(Fused("x1"), x, net.apply(Mystery(), x, name="third"), name="fourth")
    with pytest.raises(UnsupportedError) as caught:
        to_model(net.build(x))
    assert caught.value.problems == (
        "mystery 'first': ONNX has no such op",
        "pad 'second': mode=symmetric by 3, more than the size 2",
        "mystery 'third': ONNX has no such op",
        "fused 'fourth': operand x0 is not used by x1",
    )


@pytest.mark.parametrize("opset", [12, defs.onnx_opset_version() + 1])
def test_opset_is_checked(opset: int) -> None:
    with pytest.raises(UnsupportedError, match=f"opset: expected 13 to {defs.onnx_opset_version()}, got {opset}"):
        to_model(declare_network(), opset)


def test_last_window_of_ceil_mode_behind_an_image_of_constant_size() -> None:
    net = Builder("net")
    x = net.input("x", f32(2, 3, 6, 9))
    pools = [nn.max_pool(x, 1, 3, ceil_mode=True), nn.average_pool(x, 2, 3, (0, 0, 1, 1), ceil_mode=True)]
    check_export(net.build(*pools, nn.max_pool(x, (5, 8), 2, ceil_mode=True)), random_inputs(net.build(x), {}))


def test_last_window_behind_an_image_in_one_direction_alone() -> None:
    net = Builder("net")
    x = net.input("x", f32(2, 3, 6, 9))
    window: tuple[Any, ...] = (1, 3), (2, 3), (0, 1, 0, 1)  # rows: 4 by rounding up, 3 in the image; columns: 4, not 3
    pools = [nn.min_pool(x, *window, ceil_mode=True), nn.average_pool(x, *window, ceil_mode=True)]
    assert [str(y.type) for y in pools] == ["f32[2,3,3,4]"] * 2
    check_export(net.build(*pools), random_inputs(net.build(x), {}))
    counted = net.build(nn.average_pool(x, *window, ceil_mode=True, count_padding=True))
    with pytest.raises(UnsupportedError, match="padding that does not count"):
        to_model(counted)


def test_every_opset_passes_the_checker() -> None:
    for opset in range(13, defs.onnx_opset_version() + 1):
        model = to_model(declare_network(), opset)
        assert model.ir_version == helper.find_min_ir_version_for(model.opset_import)


def test_size_that_no_input_tells() -> None:
    graph = net_of(lambda x: x.builder.apply(Reshape((H, N, 4, 2 * W)), x), f32("N", 4, "H", 2 * W))
    with pytest.raises(UnsupportedError, match="no input has W as a dim of its own"):
        to_model(graph)


def test_metadata_come_back() -> None:
    """Mean, std and labels, and where each output lies over the image."""
    graph = fully_convolutional(digits())
    meta = from_model(to_model(graph)).meta
    assert {key: meta[key] for key in ("mean", "std", "labels")} == {
        k: graph.meta[k] for k in ("mean", "std", "labels")
    }
    assert read_geometry(meta, "logits") == find_geometry(graph)[graph.outputs[0]]
    assert {p.key: p.value for p in to_model(graph).metadata_props} == meta


@pytest.mark.parametrize("external", ["no", "asked for", "too large for one file"])
@pytest.mark.parametrize("fp16", [False, True])
def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: str, fp16: bool) -> None:
    graph, path = net_of(lambda x: nn.conv2d(x, 100, 3, name="conv")), tmp_path / "m.onnx"
    path.write_text("an older file")
    if external == "too large for one file":
        monkeypatch.setattr(exporting, "MESSAGE_BYTES", 7000)  # 7,200 bytes are its weights in half precision
        with pytest.raises(UnsupportedError, match="more than 2 GiB of parameters; use export_onnx"):
            to_model(graph, fp16=fp16)
    written = export_onnx(graph, path, external_data=external == "asked for", fp16=fp16)
    expected = {"m.onnx"} if external == "no" else {"m.onnx", "m.onnx.data"}
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in written} == expected
    checker.check_model(path, full_check=True)
    assert (path.stat().st_size < 7000) == (external != "no")
    if fp16:
        return
    again = load(path)
    assert str(again) == str(graph)
    np.testing.assert_array_equal(again.params["conv.weight"].array, graph.params["conv.weight"].array)


def test_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("an older file")
    with pytest.raises(UnsupportedError):
        export_onnx(net_of(lambda x: x.builder.apply(Mystery(), x)), path)
    with pytest.raises(FileError, match=r"No such file or directory"):
        export_onnx(declare_network(), tmp_path / "missing" / "m.onnx")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "an older file")]
