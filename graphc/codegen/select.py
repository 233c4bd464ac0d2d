"""Which kernel computes which op: the one place where that is decided, and the reason with it."""

from collections.abc import Sequence

from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.loop_nest import LoopNestKernel
from graphc.codegen.lowering import lower
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import Op


def select_kernels(op: Op, inputs: Sequence[Buffer], outputs: Sequence[Buffer], target: Target) -> list[Kernel]:
    """The kernels that compute `outputs = op(inputs)`, in order. Buffers beside those two are temporaries."""
    return [LoopNestKernel(op.name, nest, target) for nest in lower(op, *inputs, *outputs)]
