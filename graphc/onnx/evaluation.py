"""What in a graph under construction is the same in every run, and what the rest depends on."""

from collections.abc import Container

from graphc.ir import Array, Builder, Node, Param, Value


class Evaluation:
    """Computes, by the ops' NumPy reference, values that depend on parameters alone, when they are asked for.

    Reading a model asks where an op wants a number that the file computes: by ops that shape arithmetic lacks.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._arrays: dict[Value, Array] = {}
        self._roots: dict[Value, frozenset[Value]] = {}

    def roots(self, value: Value) -> frozenset[Value]:
        """The inputs of the network that the value depends on."""
        for v in self._walk(value, self._roots):
            origin = self._builder.origin(v)
            if isinstance(origin, Node):
                self._roots[v] = frozenset().union(*(self._roots[u] for u in origin.inputs))
            else:
                self._roots[v] = frozenset() if isinstance(origin, Param) else frozenset([v])
        return self._roots[value]

    def evaluate(self, value: Value) -> Array | None:
        """What the value is in every run; None if it depends on the inputs or on their sizes."""
        if self.roots(value):
            return None
        for v in self._walk(value, self._arrays):
            origin = self._builder.origin(v)
            if v.type.symbols or origin is None:
                return None
            if isinstance(origin, Param):
                self._arrays[v] = origin.array
            else:
                results = origin.op.eval(*(self._arrays[u] for u in origin.inputs))
                arrays = results if isinstance(results, tuple) else (results,)
                self._arrays |= zip(origin.outputs, arrays, strict=True)
        return self._arrays[value]

    def _walk(self, value: Value, done: Container[Value]) -> list[Value]:
        """`value` and what it is computed from, as far as that is not `done`, each behind its operands."""
        order: list[Value] = []
        seen: set[Value] = set()
        waiting = [(value, False)]
        while waiting:
            v, ready = waiting.pop()
            if ready:
                order.append(v)
            elif v not in seen and v not in done:
                seen.add(v)
                origin = self._builder.origin(v)
                operands = origin.inputs if isinstance(origin, Node) else ()
                waiting += [(v, True), *((u, False) for u in operands)]
        return order
