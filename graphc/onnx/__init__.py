"""ONNX in and out: `load` reads a file into a Graph, `export_onnx` writes a Graph as a file; a table of ops each.

The names below are loaded when they are first used: reading a model does not load what writes one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc.onnx.exporting import export_onnx, to_model
    from graphc.onnx.importing import from_model, load

_HOME = {"export_onnx": "exporting", "to_model": "exporting", "from_model": "importing", "load": "importing"}

__all__ = ["export_onnx", "from_model", "load", "to_model"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"graphc.onnx.{_HOME[name]}"), name)
    raise AttributeError(f"module 'graphc.onnx' has no attribute '{name}'")
