"""Models whose shapes depend on the values of inputs: compiled for the values of a call."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import fail
from onnx import TensorProto, helper
from onnx_models import floats, ints, make_model, node, number, run_onnxruntime

import graphc
from graphc.errors import InputError, UnsupportedError, ValueDependentError
from graphc.ir import Array, parse_type
from graphc.onnx import backend, from_model
from graphc.runtime import specializing
from graphc.runtime.network import Network
from graphc.runtime.specializing import SpecializingNetwork


def model_with(*nodes: onnx.NodeProto, lists: dict[str, int | None], outputs: str = "y") -> onnx.ModelProto:
    """A model of x f32[N,3,H,W] and lists of integers; a length of None is a scalar."""
    model = make_model(nodes, outputs=outputs)
    for name, length in lists.items():
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.INT64, [] if length is None else [length])
        )
    return model


RESHAPED = model_with(node("Reshape", "x shape"), lists={"shape": 3})
X = floats(2, 3, 4, 6)
CASES = {
    "reshape": (RESHAPED, {"shape": [ints(2, 3, 24), ints(-1, 12, 6)]}),
    "arithmetic": (  # the shape is computed from a value, a size and a constant
        model_with(
            node("Shape", "x", "n", end=1), node("Mul", "n k", "m"), node("Concat", "m rest", "s", axis=0),
            node("Constant", "", "rest", value_ints=[-1]), node("Reshape", "x s"), lists={"k": 1},
        ),
        {"k": [ints(3), ints(6)]},
    ),
    "by_other_ops": (  # which shape arithmetic lacks
        model_with(
            node("Neg", "k", "a"), node("ArgMax", "a", "i"), node("Constant", "", "one", value_ints=[1]),
            node("Add", "i one", "end"), node("Constant", "", "zero", value_ints=[0]), node("Slice", "x zero end zero"),
            lists={"k": 2},
        ),
        {"k": [ints(3, 1), ints(1, 3)]},
    ),
    "one_after_the_other": (  # which axes are wanted is seen only once the shape is known
        model_with(node("Reshape", "x shape", "r"), node("ReduceSum", "r axes"), lists={"shape": 2, "axes": 1}),
        {"shape": [ints(2, -1), ints(6, -1)], "axes": [ints(1), ints(0)]},
    ),
    "range": (
        model_with(node("Range", "a b c", "r"), node("Cast", "r", "f", to=1), node("ReduceMax", "x", "m", keepdims=0),
                   node("Add", "f m"), lists={"a": None, "b": None, "c": None}),
        {"a": [np.array(1), np.array(9)], "b": [np.array(9), np.array(0)], "c": [np.array(3), np.array(-2)]},
    ),
    "range_of_floats": (
        make_model([node("ReduceMax", "x", "m", keepdims=0), node("Range", "a b c", "r"), node("Add", "r m")],
                   {"x": (2, 3, 4, 6), "a": (), "b": (), "c": ()}),
        {"a": [number(1.0), number(-1.0)], "b": [number(2.1), number(-3.0)],
         "c": [number(0.25), number(-0.5)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_onnxruntime(name: str) -> None:
    model, values = CASES[name]
    run = graphc.compile(model, threads=1)
    assert isinstance(run, SpecializingNetwork)
    for i in (0, 1, 0):
        arrays = {"x": X} | {key: given[i] for key, given in values.items()}
        (expected,) = run_onnxruntime(model, arrays)
        np.testing.assert_allclose(run(**arrays), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run(*arrays.values()), expected, rtol=0, atol=1e-5)
    assert run.known == values.keys()


@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_dropout_in_training_takes_the_ratio_of_a_call(ratio: float) -> None:
    """Those that are kept grow by 1/(1-ratio); NumPy's generator says which, as in ONNX's reference."""
    model = make_model([node("Dropout", "x r t", seed=0)], {"x": (2, 3, 4, 6), "r": ()})
    model.graph.input.append(helper.make_tensor_value_info("t", TensorProto.BOOL, []))
    kept = np.random.RandomState(0).uniform(0, 1, X.shape) >= ratio
    (found,) = backend.run_model(model, [X, number(ratio), np.array(True)])
    np.testing.assert_allclose(found, X * kept / (1 - ratio), rtol=1e-6)
    (found,) = backend.run_model(model, [X, number(ratio), np.array(False)])
    np.testing.assert_array_equal(found, X)


def test_a_network_is_compiled_once_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Array]] = []
    network = graphc.compile(from_model(make_model([node("Relu", "x")])), threads=1)
    monkeypatch.setattr(specializing, "REMEMBERED_NETWORKS", 2)

    def specialize(values: specializing.Values) -> Network:
        made.append(dict(values))
        return network

    run = SpecializingNetwork("net", (*network.inputs, ("k", parse_type("i64[1]"))), ["k"], specialize, (list, ()))
    for k in (1, 2, 1, 3, 1, 2):  # 3 pushes 2 out, which was used last before 1
        run(X, ints(k))
    assert [int(values["k"][0]) for values in made] == [1, 2, 3, 2]
    run(np.ones((1, 3, 2, 5), np.float32), ints(2))
    assert len(made) == 4  # sizes are arguments here as everywhere


def test_the_interface_is_that_of_a_network(tmp_path: Path) -> None:
    path = tmp_path / "reshaped.onnx"
    onnx.save(RESHAPED, path)
    run = pickle.loads(pickle.dumps(graphc.compile(path, threads=1)))
    assert repr(run) == "<network reshaped: (x: f32[N,3,H,W], shape: i64[3]), compiled for each value of shape>"
    assert run(X, shape=ints(2, 3, 24)).shape == (2, 3, 24)
    with pytest.raises(InputError, match=r"network 'reshaped': expected inputs x, shape, got #0"):
        run(X)
    with pytest.raises(InputError, match=r"input 'shape': expected i64\[3\], got an array of shape \[2\]"):
        run(X, ints(2, 3))
    with pytest.raises(InputError, match="input 'shape': expected int64, got float32"):
        run(X, floats(3))
    with pytest.raises(graphc.GraphcError, match="125 must equal"):
        run(X, ints(5, 5, 5))
    assert run(X, ints(2, 3, 24)).shape == (2, 3, 24)  # after a mistake, too
    (y,) = backend.run_model(RESHAPED, [X, ints(2, 3, 24)])
    assert y.shape == (2, 3, 24)


def test_static_models_are_networks(tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    onnx.save(make_model([node("Relu", "x")]), path)
    for source in (path, str(path), onnx.load(path)):
        assert isinstance(graphc.compile(source, threads=1), Network)
    with pytest.raises(InputError, match="compile: expected a graph or an ONNX model, got int"):
        graphc.compile(5)  # type: ignore[call-overload]


def test_reading_and_building_name_the_input(tmp_path: Path) -> None:
    path = tmp_path / "reshaped.onnx"
    onnx.save(RESHAPED, path)
    message = "the shape 'shape' depends on the value of input 'shape'; make it an initialiser"
    with pytest.raises(ValueDependentError, match=message) as caught:
        graphc.load(path)
    assert caught.value.inputs == {"shape"}
    assert message in fail("compile", path, "-o", tmp_path)


def test_other_problems_are_told_at_once() -> None:
    model = model_with(node("Reshape", "x shape", "r"), node("Det", "x", "d"), lists={"shape": 3}, outputs="r d")
    with pytest.raises(UnsupportedError) as caught:
        graphc.compile(model)
    assert not isinstance(caught.value, ValueDependentError)
    assert [p.split("'")[1] for p in caught.value.problems] == ["node_r", "node_d"]


def test_shapes_that_depend_on_pixels_are_refused() -> None:
    nodes = [node("Cast", "x", "i", to=7), node("Constant", "", "s", value_ints=[-1]), node("Reshape", "i s", "f"),
             node("Reshape", "x f")]  # fmt: skip
    with pytest.raises(UnsupportedError, match="'f' is computed at run time by more than shape arithmetic") as caught:
        graphc.compile(make_model(nodes))
    assert not isinstance(caught.value, ValueDependentError)
