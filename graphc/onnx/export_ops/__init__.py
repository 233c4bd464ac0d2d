"""How each op becomes ONNX nodes: `EXPORTERS`, by class. Elementwise ops have one exporter, for their expression."""

from collections.abc import Callable
from typing import Any

from graphc.ir import Op
from graphc.onnx.export_ops import expressions, indexing, layers, losses, pools, shapes
from graphc.onnx.writer import NodeWriter

Exporter = Callable[[NodeWriter, Any], None]

EXPORTERS: dict[type[Op], Exporter] = {
    **expressions.EXPORTERS,
    **indexing.EXPORTERS,
    **layers.EXPORTERS,
    **losses.EXPORTERS,
    **pools.EXPORTERS,
    **shapes.EXPORTERS,
}

__all__ = ["EXPORTERS", "Exporter"]
