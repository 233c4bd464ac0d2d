"""The matrices of Winograd's minimal filtering, F(m, r): m results of an r-tap filter by m + r - 1 products.

S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray, Fast Algorithms for Convolutional
Neural Networks (2016), https://arxiv.org/abs/1509.09308: y = AT ((G g) * (BT d)), in two dimensions from both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from llvmlite import ir

from graphc.codegen.blocks import constant, intrinsic, mangle

Matrix = tuple[tuple[Fraction, ...], ...]

# Where the polynomials are evaluated, beside infinity; m + r - 2 of them. The error of F(4, 3) in two dimensions to
# float64, at 64 to 512 channels, is 2.5 to 3.8e-6 of the largest output; with the usual 0, +-1, +-2 it would be 5.4e-6
# to 1.0e-5. F(2, 5): 2.0e-6, and 4.4e-6.
POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "1/2", "-2", "2"))


@dataclass(frozen=True)
class Transform:
    """The matrices AT (results), G (weights) and BT (data) of F(m, r).

    The products of several `phases`, of the data at a `stride` or of the taps, may be added up before AT: each place
    (column of AT) takes those of all, the last place those of the first `last` of them.

    `edges` make 1, 2, ... m - 1 results, of fewer data, by some of the same products of weights: those whose `numbers`
    they have.
    """

    results: Matrix
    weights: Matrix
    data: Matrix
    phases: int = 1
    last: int = 1
    stride: int = 1
    edges: tuple["Transform", ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def m(self) -> int:
        """Results."""
        return len(self.results)

    @property
    def r(self) -> int:
        """Taps."""
        return len(self.weights[0])

    @property
    def side(self) -> int:
        """The data under the results: m + r - 1, or (m - 1) * stride + r."""
        return len(self.data[0])

    @property
    def products(self) -> int:
        """Multiplications, place by place: m + r - 1, or a little more."""
        return len(self.data)

    @property
    def places(self) -> int:
        """What AT makes results of."""
        return len(self.results[0])


def take_taps(r: int) -> Transform:
    """F(1, r): r products for one result, which any stride may lie before the next."""
    unit = tuple(tuple(Fraction(i == j) for j in range(r)) for i in range(r))
    return Transform(((Fraction(1),),), unit, unit, r, r)


IDENTITY = take_taps(1)


def split_taps(m: int, *taps: int) -> Transform:
    """The sum of F(m, r) for runs of r taps: more products than F(m, sum of r), and a smaller error.

    F(4, 7) is off by 8e-6 of the largest output at 192 channels whatever its points; F(4, 4) and F(4, 3) by 2e-6.
    """
    parts = [make_transform(m, r) for r in taps]
    starts = [sum(part.products for part in parts[:i]) for i in range(len(parts))]
    edges = tuple(_add_runs(edges, starts) for edges in zip(*(part.edges for part in parts), strict=True))
    return replace(_add_runs(parts, starts), edges=edges)


def _add_runs(parts: Sequence[Transform], starts: Sequence[int]) -> Transform:
    """The sum over runs of taps that follow each other, whose products start at these numbers."""
    results: list[tuple[Fraction, ...]] = [()] * parts[0].m
    weights: list[tuple[Fraction, ...]] = []
    data: list[tuple[Fraction, ...]] = []
    numbers: list[int] = []
    zero, before = Fraction(0), 0
    for part, start in zip(parts, starts, strict=True):
        after = sum(p.r for p in parts) - before - part.r
        results = [(*x, *y) for x, y in zip(results, part.results, strict=True)]
        weights += [(*[zero] * before, *row, *[zero] * after) for row in part.weights]
        data += [(*[zero] * before, *row, *[zero] * after) for row in part.data]
        numbers += [start + number for number in part.numbers]
        before += part.r
    return Transform(tuple(results), tuple(weights), tuple(data), numbers=tuple(numbers))


def split_phases(m: int, r: int, stride: int) -> Transform:
    """m results of r taps at a stride: the sum of F(m, r/stride) over as many phases of the data."""
    return replace(_sum_parts(m, [range(phase, r, stride) for phase in range(stride)]), stride=stride)


def sum_runs(m: int, r: int, longest: int) -> Transform:
    """m results of r taps: the sum of F(m, taps of a run) over as few runs of at most `longest` taps as will do."""
    count = -(-r // longest)
    starts = [i * (r // count) + min(i, r % count) for i in range(count + 1)]
    return _sum_parts(m, [range(start, end) for start, end in pairwise(starts)])


def _sum_parts(m: int, parts: Sequence[range]) -> Transform:
    """The sum of F(m, r) over parts of the taps, which see data that lie as far apart.

    All parts have the same points, so that their products are added before AT. Those behind the longest ones may have
    a tap and a point less: the last place is that point.
    """
    transforms = [make_transform(m, len(taps)) for taps in parts]
    count, r, step = transforms[0].products, sum(map(len, parts)), parts[0].step
    longer = sum(len(taps) == len(parts[0]) for taps in parts) % len(parts)
    order = [*range(count - 2), count - 1, count - 2] if longer else list(range(count))
    weights, data, zero = [], [], Fraction(0)
    for place in order:
        for number, (taps, part) in enumerate(zip(parts, transforms, strict=True)):
            if longer and number >= longer and place == count - 2:
                continue
            own = place - count if place == count - 1 else place  # infinity is the last one of each
            of_taps, of_data = [zero] * r, [zero] * ((m - 1) * step + r)
            of_taps[taps.start : taps.stop : step] = part.weights[own]
            of_data[taps.start : taps.start + step * part.side : step] = part.data[own]
            weights.append(tuple(of_taps))
            data.append(tuple(of_data))
    results = tuple(tuple(row[place] for place in order) for row in transforms[0].results)
    return Transform(results, tuple(weights), tuple(data), len(parts), longer or len(parts))


def make_transform(m: int, r: int) -> Transform:
    """F(m, r) by Toom's and Cook's construction from POINTS."""
    if m + r == 2:
        return IDENTITY
    return replace(_make_transform(m, r, m), edges=tuple(_make_transform(n, r, m) for n in range(1, m)))


def _make_transform(m: int, r: int, whole: int) -> Transform:
    """F(m, r) from the first of the points of F(whole, r), with its weights: these have been divided by too much."""
    points, left = POINTS[: m + r - 2], POINTS[m + r - 2 : whole + r - 2]
    results = tuple((*(p**i for p in points), Fraction(int(i == m - 1))) for i in range(m))
    weights, data = [], []
    for j, p in enumerate(points):
        others = [q for i, q in enumerate(points) if i != j]
        more = _product([p - q for q in left])
        scale = _product([p - q for q in others]) * more
        weights.append(tuple(p**k / scale for k in range(r)))
        data.append((*(more * x for x in _polynomial(others)), Fraction(0)))
    weights.append((*[Fraction(0)] * (r - 1), Fraction(1)))
    data.append(tuple(_polynomial(points)))
    numbers = (*range(len(points)), whole + r - 2)
    return Transform(results, tuple(weights), tuple(data), numbers=numbers)


def _product(factors: Sequence[Fraction]) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the product of (x - root), from x^0 up."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * same for low, same in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def apply_both_sides(
    b: ir.IRBuilder, left: Matrix, right: Matrix, grid: Sequence[Sequence[ir.Value]]
) -> list[list[ir.Value]]:
    """left * grid * right^T, for a grid of vectors."""
    columns = [apply(b, left, [row[j] for row in grid]) for j in range(len(grid[0]))]  # columns[j][i]
    return [apply(b, right, [column[i] for column in columns]) for i in range(len(left))]


def apply(b: ir.IRBuilder, matrix: Matrix, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    """matrix * vectors."""
    return [_combine(b, row, vectors) for row in matrix]


def _combine(b: ir.IRBuilder, row: Sequence[Fraction], vectors: Sequence[ir.Value]) -> ir.Value:
    """The sum of row[i] * vectors[i], without products by 0, 1 and -1."""
    terms = sorted(((c, v) for c, v in zip(row, vectors, strict=True) if c), key=lambda term: term[0] != 1)
    coefficient, total = terms[0]
    type = total.type
    if coefficient != 1:
        total = b.fmul(total, constant(type, float(coefficient)))
    for c, v in terms[1:]:
        if abs(c) == 1:
            total = b.fadd(total, v) if c == 1 else b.fsub(total, v)
        else:
            factor = constant(type, float(c))
            total = intrinsic(b, f"llvm.fmuladd.{mangle(type)}", type, [v, factor, total])
    return total
