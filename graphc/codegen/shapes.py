"""Dims at run time: the code that turns N, H and W into every size, task count and address that a run needs."""

from collections.abc import Mapping

from llvmlite import ir

from graphc.codegen.arithmetic import emit_primitive
from graphc.codegen.blocks import I1, I64, i64
from graphc.ir import Dim, DimLike, dims

_CHECKED = ir.LiteralStructType([I64, I1])


class ShapeCode:
    """Emits dims as i64 arithmetic. `overflow` is the value (i1) that tells whether any result did not fit 64 bits."""

    def __init__(self, b: ir.IRBuilder, symbols: Mapping[str, ir.Value]) -> None:
        self.b, self._known = b, {dims.symbol(name): value for name, value in symbols.items()}
        self.overflow: ir.Value = ir.Constant(I1, 0)

    def emit(self, d: DimLike) -> ir.Value:
        """The value of a dim."""
        if not isinstance(d, Dim):
            return i64(d)
        if d not in self._known:
            self._known[d] = self._polynomial(d)
        return self._known[d]

    def define(self, d: Dim, value: ir.Value) -> None:
        """Let a symbol stand for this."""
        self._known[d] = value

    def checked(self, operation: str, x: ir.Value, y: ir.Value) -> ir.Value:
        """x (operation) y for "sadd" or "smul", noting overflow."""
        name = f"llvm.{operation}.with.overflow.i64"
        function = self.b.module.globals.get(name) or ir.Function(
            self.b.module, ir.FunctionType(_CHECKED, [I64, I64]), name
        )
        pair = self.b.call(function, [x, y])
        self.overflow = self.b.or_(self.overflow, self.b.extract_value(pair, 1))
        return self.b.extract_value(pair, 0)

    def _polynomial(self, d: Dim) -> ir.Value:
        total: ir.Value = i64(0)
        for monomial, coefficient in d.terms:
            term: ir.Value = i64(coefficient)
            for atom in monomial:
                term = self.checked("smul", term, self._atom(atom))
            total = self.checked("sadd", total, term)
        return total

    def _atom(self, atom: dims.Atom) -> ir.Value:
        whole = Dim((((atom,), 1),))
        if whole not in self._known:
            a, b = (self.emit(x) for x in atom.args if not isinstance(x, str))
            if atom.kind == "floordiv" and not isinstance(b, ir.Constant):
                b = self.b.select(self.b.icmp_signed("<", b, i64(1)), i64(1), b)  # refused by a requirement
            self._known[whole] = emit_primitive(self.b, atom.kind, [a, b])
        return self._known[whole]
