"""Einsum as transposes, sums and matrix products: operands are combined from left to right, two at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import ShapeError
from graphc.ir import DimLike, Value, dims
from graphc.onnx.import_ops.indexing import positions, zero_of
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Fused, Identity
from graphc.ops.linear import MatMul
from graphc.ops.reduce import Sum
from graphc.ops.shape import Reshape, Transpose


@dataclass(frozen=True)
class Term:
    """A tensor and the letters of its dims. The dims of an ellipsis have digits for letters, 0 for the last."""

    value: Value
    letters: str

    def size(self, letter: str) -> DimLike:
        """The size of the dim of this letter, 1 if there is none."""
        return self.value.type.shape[self.letters.index(letter)] if letter in self.letters else 1


def read_einsum(n: NodeReader) -> None:
    """Einsum; without an arrow, the result has the letters that occur once, in alphabetical order."""
    equation = n.text("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    written = left.split(",")
    if len(written) != len(n.inputs) or not _is_readable([*written, result]):
        raise ShapeError(f"cannot read the equation {equation!r} over {len(n.inputs)} operands")
    terms = [_spell(n.value(i), letters, equation) for i, letters in enumerate(written)]
    longest = max(sum(c.isdigit() for c in t.letters) for t in terms)
    rest = "".join(map(str, reversed(range(longest))))
    if not arrow:
        seen = "".join(written).replace("...", "")
        result = "..." + "".join(sorted(c for c in set(seen) if seen.count(c) == 1))
    result = result.replace("...", rest)
    if len(set(result)) != len(result) or not set(result) <= set("".join(t.letters for t in terms)):
        raise ShapeError(f"the result of {equation!r} must have letters of the operands, each once")
    terms = [_take_diagonals(n, t) for t in terms]
    while len(terms) > 1:
        a, b, *others = terms
        wanted = result + "".join(t.letters for t in others)
        terms = [_multiply(n, _sum_out(n, a, wanted + b.letters), _sum_out(n, b, wanted + a.letters), wanted), *others]
    term = _sum_out(n, terms[0], result)
    if term.letters == result:
        return n.emit(Identity(), term.value)
    return n.emit(Transpose(tuple(term.letters.index(c) for c in result)), term.value)


def _is_readable(parts: Sequence[str]) -> bool:
    left = [p.replace("...", "", 1) for p in parts]
    return all(c.isascii() and c.isalpha() for p in left for c in p)


def _spell(x: Value, letters: str, equation: str) -> Term:
    """The operand with a letter for each dim."""
    dots = x.type.rank - len(letters.replace("...", ""))
    if dots < 0 or dots > 9 or (dots and "..." not in letters):
        raise ShapeError(f"{letters!r} in {equation!r} does not fit {x.type}")
    return Term(x, letters.replace("...", "".join(map(str, reversed(range(dots))))))


def _take_diagonals(n: NodeReader, term: Term) -> Term:
    """Of dims of one letter the first: what lies beside their diagonal becomes 0, and the others are summed out."""
    x, letters = term.value, term.letters
    for later in reversed(range(len(letters))):
        first = letters.index(letters[later])
        if first != later:
            beside = f"select(eq(x1, x2), x0, {zero_of(x)})"
            x = n.step(Fused(beside), x, positions(n, x, first), positions(n, x, later))
            x, letters = n.step(Sum((later,), False), x), letters[:later] + letters[later + 1 :]
    return Term(x, letters)


def _sum_out(n: NodeReader, term: Term, wanted: str) -> Term:
    """The term without the letters that nothing else has."""
    gone = tuple(i for i, c in enumerate(term.letters) if c not in wanted)
    if not gone:
        return term
    return Term(n.step(Sum(gone, False), term.value), "".join(c for c in term.letters if c in wanted))


def _multiply(n: NodeReader, a: Term, b: Term, wanted: str) -> Term:
    """The product of two terms: letters that both have and nothing else wants are summed over."""
    both = [c for c in a.letters if c in b.letters]
    summed = "".join(c for c in both if c not in wanted and not c.isdigit())
    batch = "".join(c for c in _in_order(a.letters + b.letters) if (c in both and c in wanted) or c.isdigit())
    rows = "".join(c for c in a.letters if c not in batch + summed)
    columns = "".join(c for c in b.letters if c not in batch + summed)
    left = _as_matrices(n, a, batch, rows, summed)
    right = _as_matrices(n, b, batch, summed, columns)
    product = n.step(MatMul(), left, right)
    shape = *product.type.shape[: len(batch)], *(a.size(c) for c in rows), *(b.size(c) for c in columns)
    return Term(n.step(Reshape(shape), product), batch + rows + columns)


def _in_order(letters: str) -> list[str]:
    return list(dict.fromkeys(letters))


def _as_matrices(n: NodeReader, term: Term, batch: str, rows: str, columns: str) -> Value:
    """The term as [batch...,product of the rows' dims,product of the columns'], with 1 for batch letters it lacks."""
    order = tuple(term.letters.index(c) for c in batch + rows + columns if c in term.letters)
    turned = n.step(Transpose(order), term.value)
    merged = (dims.product([term.size(c) for c in part]) for part in (rows, columns))
    return n.step(Reshape((*(term.size(c) for c in batch), *merged)), turned)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {"Einsum": read_einsum}
