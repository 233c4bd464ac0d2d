"""The graph language: symbolic dims, types, values, nodes, graphs; verifier and text form."""

from graphc.ir.dims import Dim, DimLike
from graphc.ir.graph import NEXT, Builder, Graph, Node, Param, Value
from graphc.ir.op import Array, Op
from graphc.ir.types import DType, TensorType, f32, parse_type

__all__ = [
    "NEXT",
    "Array",
    "Builder",
    "DType",
    "Dim",
    "DimLike",
    "Graph",
    "Node",
    "Op",
    "Param",
    "TensorType",
    "Value",
    "f32",
    "parse_type",
]
