"""ONNX in and out: `load` reads a file into a Graph, `export_onnx` writes a Graph as a file; a table of ops each."""

from graphc.onnx.exporting import export_onnx, to_model
from graphc.onnx.importing import from_model, load

__all__ = ["export_onnx", "from_model", "load", "to_model"]
