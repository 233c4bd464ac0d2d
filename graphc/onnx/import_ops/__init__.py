"""How each ONNX op becomes nodes: `HANDLERS`, by op_type. A handler reads its node and emits what it stands for."""

from collections.abc import Callable

from graphc.onnx.import_ops import (
    activations,
    convolutions,
    einsum,
    elementwise,
    folding,
    indexing,
    layers,
    losses,
    norms,
    pools,
    quantised,
    reductions,
    resizing,
    shapes,
    tiling,
)
from graphc.onnx.reader import NodeReader

Handler = Callable[[NodeReader], None]

HANDLERS: dict[str, Handler] = {
    **activations.HANDLERS,
    **convolutions.HANDLERS,
    **einsum.HANDLERS,
    **elementwise.HANDLERS,
    **indexing.HANDLERS,
    **layers.HANDLERS,
    **losses.HANDLERS,
    **norms.HANDLERS,
    **pools.HANDLERS,
    **quantised.HANDLERS,
    **reductions.HANDLERS,
    **resizing.HANDLERS,
    **shapes.HANDLERS,
    **tiling.HANDLERS,
}
FOLDERS, fold_node = folding.FOLDERS, folding.fold_node

__all__ = ["FOLDERS", "HANDLERS", "Handler", "fold_node"]
