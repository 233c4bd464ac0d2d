"""The nine networks that come with onnx, whose weights are one number each: here with weights as networks have them.

By default the two smallest run; all of them do with HYPOTHESIS_PROFILE=deep.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test as onnx_test
import pytest
from onnx import ModelProto, numpy_helper
from onnx_models import floats, run_onnxruntime

import graphc
from graphc.ir import Array, DType
from graphc.onnx import from_model
from graphc.reference import run_reference
from graphc.verify import relative_difference

FOLDER = Path(onnx_test.__file__).parent / "data" / "light"
NAMES = sorted(p.stem.removeprefix("light_") for p in FOLDER.glob("*.onnx"))
QUICK = ("squeezenet", "shufflenet")
TOLERANCE = 1e-4  # of the largest output
MOVERS = ("Reshape", "Unsqueeze", "Squeeze")  # what lies between a weight and what reads it


def draw_weights(model: ModelProto) -> ModelProto:
    """The model with drawn initialisers in place of its ConstantOfShape nodes.

    Weights have He's scale, factors and variances lie from 0.5 to 1.5, the rest is small.
    """
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    fills = {n.output[0]: tuple(shapes[n.input[0]]) for n in graph.node if n.op_type == "ConstantOfShape"}
    roles: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.node):
        for i, name in enumerate(node.input):
            moved = node.op_type in MOVERS and i == 0
            roles[name] = roles.get(node.output[0], ("", 0)) if moved else (node.op_type, i)
    kept = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(kept)
    for name, shape in fills.items():
        graph.initializer.append(numpy_helper.from_array(draw(rng, roles[name], shape), name))
    return model


def draw(rng: np.random.Generator, role: tuple[str, int], shape: tuple[int, ...]) -> Array:
    match role:
        case ("Conv", 1):
            data = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        case ("Gemm" | "MatMul", 1):
            data = rng.standard_normal(shape) * np.sqrt(2 / max(shape))
        case ("BatchNormalization", 1 | 4) | ("Mul", _):
            data = rng.uniform(0.5, 1.5, shape)
        case _:
            data = rng.standard_normal(shape) * 0.1
    return np.asarray(data, np.float32)


@pytest.mark.parametrize("name", [n for n in NAMES if n in QUICK or os.environ.get("HYPOTHESIS_PROFILE") == "deep"])
def test_light_networks_agree(name: str) -> None:
    """With the reference in float64 and with ONNX Runtime."""
    model = draw_weights(onnx.load(FOLDER / f"light_{name}.onnx"))
    graph = from_model(model)
    x = floats(*graph.inputs[0].type.static_shape())
    found = graphc.compile(graph)(x)
    (exact,) = run_reference(graph, [x], DType.F64)
    (other,) = run_onnxruntime(model, {graph.inputs[0].name: x})
    assert exact.std() > 0
    assert relative_difference(found, exact) < TOLERANCE
    assert relative_difference(found, other) < TOLERANCE


def test_all_nine_are_there() -> None:
    assert len(NAMES) == 9
    for name in NAMES:
        assert from_model(onnx.load(FOLDER / f"light_{name}.onnx")).outputs[0].type.elements == 1000
