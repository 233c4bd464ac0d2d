"""From op to loop nests: one function for each op, `lower(op, *inputs, *outputs)`, listed in `LOWERINGS`."""

from collections.abc import Callable, Iterator
from typing import Any

from graphc import ops
from graphc.codegen.lowering.conv import lower_conv2d
from graphc.codegen.lowering.elementwise import lower_elementwise
from graphc.codegen.nest import Buffer, Nest
from graphc.errors import UnsupportedError
from graphc.ir import Op

LOWERINGS: dict[type[Op], Callable[..., Iterator[Nest]]] = {
    ops.Conv2d: lower_conv2d,
}


def lower(op: Op, *buffers: Buffer) -> list[Nest]:
    """The loop nests that compute `op`, in order; buffers that are neither inputs nor outputs are temporaries."""
    function: Any = lower_elementwise if isinstance(op, ops.Elementwise) else LOWERINGS.get(type(op))
    if function is None:
        raise UnsupportedError(f"{op.name}: no code generation for this op")
    return list(function(op, *buffers))
