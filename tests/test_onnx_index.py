"""Reading the ONNX ops that are compositions of gathers, masks and products: Einsum, losses, Resize, Pad, Range."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import floats, ints, make_model, node, number

from graphc.errors import ShapeError
from graphc.ir import Array, Graph
from graphc.onnx import from_model
from graphc.reference import run_reference


def check(nodes: list, arrays: dict[str, Array], data: dict[str, Array], opset: int = 18) -> Graph:
    """The graph computes what onnx's reference does."""
    model = make_model(nodes, inputs={n: a.shape for n, a in arrays.items()}, data=data, opset=opset)
    for declared, a in zip(model.graph.input, arrays.values(), strict=True):
        declared.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(a.dtype)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    graph = from_model(model)
    (expected,) = ReferenceEvaluator(model).run(None, arrays)
    (found,) = run_reference(graph, list(arrays.values()))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize(("equation", "shapes"), [
    ("ij,jk->ik", [(3, 4), (4, 5)]),
    ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (6, 4, 5)]),
    ("ij->ji", [(3, 4)]),
    ("ii->i", [(3, 3)]),
    ("...ii->...", [(2, 3, 3)]),
    ("ij,ij", [(3, 4), (3, 4)]),
    ("ij,k->kij", [(3, 4), (5,)]),
    ("i,ij,j->", [(3,), (3, 4), (4,)]),
    ("abc,cd,de->bae", [(2, 3, 4), (4, 5), (5, 2)]),
    ("b a , b -> a", [(2, 3), (2,)]),
])  # fmt: skip
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = {f"x{i}": floats(*s, seed=i) for i, s in enumerate(shapes)}
    check([node("Einsum", " ".join(arrays), equation=equation)], arrays, {})


@pytest.mark.parametrize(("equation", "message"), [
    ("ij,jk->ik", "over 1 operands"), ("ijk->i", "does not fit"), ("ij->ik", "must have letters of the operands"),
    ("i1->i", "cannot read"),
])  # fmt: skip
def test_einsum_is_checked(equation: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        from_model(make_model([node("Einsum", "x", equation=equation)], inputs={"x": (3, 4)}))


@pytest.mark.parametrize("op_type", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 1, -7])
def test_losses(op_type: str, reduction: str, weighted: bool, ignored: int | None) -> None:
    scores, labels = floats(3, 5, 2), np.array([[0, 1], [1, 4], [2, 3]])
    attributes = {} if ignored is None else {"ignore_index": ignored}
    if ignored is not None:
        labels[1, 1] = ignored
    weights = {"w": np.abs(floats(5))} if weighted else {}
    inputs = "x l w" if weighted else "x l"
    check([node(op_type, inputs, reduction=reduction, **attributes)], {"x": scores, "l": labels}, weights)


def test_what_a_loss_ignores_may_be_infinite() -> None:
    model = make_model([node("NegativeLogLikelihoodLoss", "x l", ignore_index=0)], {"x": (2, 3)}, {"l": ints(0, 1)})
    scores = np.array([[-np.inf, 1, 2], [3, 4, 5]], np.float32)
    np.testing.assert_array_equal(run_reference(from_model(model), [scores]), [-4])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [(1, 2, 7, 9), (3, 2, 5, 3), (1, 2, 3, 8)])
def test_resize_of_any_axes(mode: str, sizes: tuple[int, ...]) -> None:
    check([node("Resize", "x - - s", mode=mode)], {"x": floats(1, 2, 3, 4)}, {"s": ints(*sizes)})


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_keeps_the_aspect_ratio(policy: str) -> None:
    nodes = [node("Resize", "x - - s", mode="linear", keep_aspect_ratio_policy=policy, axes=[2, 3])]
    check(nodes, {"x": floats(1, 2, 3, 5)}, {"s": ints(7, 8)})


def test_scales_are_the_fractions_that_they_were_rounded_from() -> None:
    """7/3 of H is 2*H + H//3, and of 9 rows it is 21, though float32(7/3)*9 is not."""
    s = np.array([1, 1, 7 / 3, 0.7], np.float32)
    graph = from_model(make_model([node("Resize", "x - s", mode="linear")], data={"s": s}))
    assert str(graph.outputs[0].type) == "f32[N,3,2*H+H//3,(7*W)//10]"
    assert [a.shape for a in run_reference(graph, [floats(1, 3, 9, 10)])] == [(1, 3, 21, 7)]


def test_pads_below_zero_crop() -> None:
    x, zeros = floats(4, 5), np.zeros((2, 3), np.float32)
    for pads, expected in (
        ((0, -1, 2, -1), np.concatenate([x[:, 1:4], zeros])),
        ((-1, -1, -1, 0), x[1:3, 1:]),
        ((2, 0, 0, -2), np.concatenate([zeros, x[:, :3]])),
    ):
        graph = from_model(make_model([node("Pad", "x p")], {"x": x.shape}, {"p": ints(*pads)}))
        np.testing.assert_array_equal(run_reference(graph, [x])[0], expected)


def test_group_norm_has_factors_for_groups_before_opset_21() -> None:
    nodes, x = [node("GroupNormalization", "x s b", num_groups=2)], floats(2, 4, 3)
    data = {"s": floats(2, seed=1), "b": floats(2, seed=2)}
    (found,) = run_reference(from_model(make_model(nodes, {"x": x.shape}, data, opset=18)), [x])
    groups = x.reshape(2, 2, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    expected = normal * data["s"][:, None] + data["b"][:, None]
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-5)


def test_one_hot_counts_from_the_end_and_is_off_outside() -> None:
    nodes, x = [node("OneHot", "x d v", axis=0)], np.array([0, -1, 3, -4, 2], np.float32)
    model = make_model(nodes, {"x": x.shape}, {"d": number(3), "v": np.array([5, 9], np.float32)})
    (found,) = run_reference(from_model(model), [x])
    np.testing.assert_array_equal(found, [[9, 5, 5, 5, 5], [5, 5, 5, 5, 5], [5, 9, 5, 5, 9]])


def test_range_up_to_a_symbolic_size() -> None:
    nodes = [
        node("Shape", "x", "s", start=2, end=3), node("Squeeze", "s", "h"), node("Range", "a h b", "r"),
        node("Cast", "r", to=TensorProto.FLOAT),
    ]  # fmt: skip
    for start, step in ((0, 1), (1, 1), (-2, 3), (9, -2)):
        graph = from_model(make_model(nodes, data={"a": np.array(start), "b": np.array(step)}))
        np.testing.assert_array_equal(run_reference(graph, [floats(1, 3, 5, 4)]), [np.arange(start, 5.0, step)])
        assert {n.op.name for n in graph.nodes} & {"iota", "positions"}


def test_reverse_sequence() -> None:
    x = floats(4, 3, 2)
    check([node("ReverseSequence", "x n", time_axis=0, batch_axis=1)], {"x": x}, {"n": ints(1, 4, 2)})
    check([node("ReverseSequence", "x n", time_axis=1, batch_axis=0)], {"x": x}, {"n": ints(1, 3, 2, 1)})


def test_affine_grid_then_grid_sample() -> None:
    nodes = [
        node("AffineGrid", "t s", "g", align_corners=0), node("GridSample", "x g", mode="linear", align_corners=0),
    ]  # fmt: skip
    turn = np.array([[[0, 1, 0], [-1, 0, 0]]], np.float32)  # a quarter turn
    x = floats(1, 2, 4, 4)
    model = make_model(nodes, {"x": x.shape, "t": turn.shape}, {"s": ints(1, 2, 4, 4)}, opset=20)
    np.testing.assert_allclose(run_reference(from_model(model), [x, turn])[0], np.rot90(x, -1, (2, 3)), atol=1e-6)
