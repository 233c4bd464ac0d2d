"""How each ONNX op becomes nodes: `HANDLERS`, by op_type. A handler reads its node and emits what it stands for."""

from collections.abc import Callable

from graphc.onnx.import_ops import elementwise, folding, layers, pools, reductions, resizing, shapes
from graphc.onnx.reader import NodeReader

Handler = Callable[[NodeReader], None]

HANDLERS: dict[str, Handler] = {
    **elementwise.HANDLERS,
    **layers.HANDLERS,
    **pools.HANDLERS,
    **reductions.HANDLERS,
    **resizing.HANDLERS,
    **shapes.HANDLERS,
}
FOLDERS = folding.FOLDERS

__all__ = ["FOLDERS", "HANDLERS", "Handler"]
