"""graphc: compiles convolutional networks to native code.

    import graphc
    net = graphc.compile(graphc.load("model.onnx"))
    scores = net(image)

The names below are loaded when they are first used, so that `graphc.runtime.load` needs nothing but NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc.artefact import build
    from graphc.driver import compile
    from graphc.errors import GraphcError
    from graphc.grad import gradient
    from graphc.gradcheck import gradcheck
    from graphc.ir import Builder, DType, Graph, TensorType, f32
    from graphc.ir.view import to_networkx
    from graphc.learning import Trainer
    from graphc.onnx import export_onnx, load
    from graphc.passes import optimize
    from graphc.passes.dense import dense
    from graphc.passes.enter_training import enter_training
    from graphc.passes.fully_convolutional import fully_convolutional
    from graphc.passes.upsample import upsample
    from graphc.reference import run_reference
    from graphc.sight import find_sight
    from graphc.text import parse
    from graphc.training import add_cross_entropy, training_step

__version__ = "0.1.0"

_HOME = {
    "add_cross_entropy": "graphc.training",
    "build": "graphc.artefact",
    "compile": "graphc.driver",
    "GraphcError": "graphc.errors",
    "Builder": "graphc.ir",
    "DType": "graphc.ir",
    "Graph": "graphc.ir",
    "Trainer": "graphc.learning",
    "TensorType": "graphc.ir",
    "f32": "graphc.ir",
    "export_onnx": "graphc.onnx",
    "find_sight": "graphc.sight",
    "load": "graphc.onnx",
    "dense": "graphc.passes",
    "enter_training": "graphc.passes",
    "fully_convolutional": "graphc.passes",
    "gradcheck": "graphc.gradcheck",
    "gradient": "graphc.grad",
    "optimize": "graphc.passes",
    "run_reference": "graphc.reference",
    "parse": "graphc.text",
    "to_networkx": "graphc.ir.view",
    "training_step": "graphc.training",
    "upsample": "graphc.passes",
}
_MODULES = ("models", "nn", "ops", "optim", "passes", "runtime", "schedules")

__all__ = [
    "Builder", "DType", "Graph", "GraphcError", "TensorType", "Trainer", "__version__", "add_cross_entropy", "build",
    "compile", "dense", "enter_training", "export_onnx", "f32", "find_sight", "fully_convolutional", "gradcheck",
    "gradient", "load", "optimize", "parse", "run_reference", "to_networkx", "training_step", "upsample",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"graphc.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'graphc' has no attribute '{name}'")
