"""Compute once, at compile time, what depends on parameters alone."""

from graphc.ir import Builder, Graph, Node, Param, Value, dims

# A larger result is kept as a node, unless an operand is as large: a constant that is broadcast or tiled to an image
# would swell the artefact to save a copy that takes less time than reading it from a file.
FOLDED_BYTES = 1 << 20
FOLDED_IN_ALL = 1 << 30  # bytes of all results, or as many as the parameters have: then the run computes the others


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes whose inputs are all parameters by their result, a constant of the same name.

    The pipeline compiles for inference, so trainable parameters are constants too; the result is not trainable. It
    is what `op.eval` gives in the dtype of the parameters: the same bits as the reference.

    rewrite: y = f(weight, 2.0) -> y = const
    checks: every input is a parameter or already folded, and there is one (else the op computes with the sizes of a
            run); the result has a constant shape and is not too large, nor are all results together
    """
    known = dict(graph.constants)
    left = max(FOLDED_IN_ALL, _count_bytes(tuple(known)) or 0)

    def rule(builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        nonlocal left
        if not node.inputs or not all(v in known for v in node.inputs):
            return None
        size = _count_bytes(node.outputs)
        if size is None or size > min(left, max(FOLDED_BYTES, *(_count_bytes((v,)) or 0 for v in node.inputs))):
            return None
        left -= size
        results = node.op.eval(*(known[v].array for v in node.inputs))
        arrays = results if isinstance(results, tuple) else (results,)
        known.update((v, Param(v, array, False)) for v, array in zip(node.outputs, arrays, strict=True))
        return tuple(
            builder.param(v.name, array, v.type, trainable=False) for v, array in zip(node.outputs, arrays, strict=True)
        )

    return graph.rewrite(rule)


def _count_bytes(values: tuple[Value, ...]) -> int | None:
    """Bytes of all the values together; None if a shape is symbolic."""
    sizes = [v.type.elements * v.type.dtype.size for v in values]
    return sum(s for s in sizes if isinstance(s, int)) if not any(isinstance(s, dims.Dim) for s in sizes) else None
