"""What a product multiplies: the operands of a fully connected layer or a matmul as matrices, or many of them."""

from dataclasses import dataclass

from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, DType, dims
from graphc.ops import Linear, MatMul

LEAST_PRODUCT, LEAST_DEPTH, LEAST_COLUMNS, UNKNOWN = 4096, 16, 8, 8  # see product_wanted
FEW = 8  # rows of y for which the way of the weights from memory takes longer than all else
LEAST_SHORTENED = 2**18  # weights: 1 MiB, which a second-level cache does not hold from one run to the next
LEAST_LANES = 8  # of a target that keeps weights in 24 bits: see shortening_pays
LARGE_RESULT, LONG_SUM = 2**20, 32  # 4 MiB, more than a second-level cache; k


@dataclass(frozen=True)
class Operands:
    """`count` products y [M,N] = a [M,K] times b [K,N]; a lies as [K,M] if turned, b as [N,K].

    If `b_short`, its rows are blocks of 24-bit weights (short_weights.py).

    From one a to the next it is `a_step` elements, 0 if all products share it; so for b.
    """

    a: Buffer
    b: Buffer
    rows: DimLike  # M
    columns: DimLike  # N
    depth: DimLike  # K
    a_turned: bool = False
    b_turned: bool = False
    count: DimLike = 1
    a_step: DimLike = 0
    b_step: DimLike = 0
    b_short: bool = False


def find_operands(op: Linear | MatMul, a: Buffer, b: Buffer, *others: Buffer) -> Operands | None:
    """The matrices, if they and `others` are float32 and dense, and one or both of them have all leading dims of y."""
    if any(x.type.dtype != DType.F32 or x.layout != DENSE or x.pitch is not None for x in (a, b, *others)):
        return None
    if isinstance(op, Linear):
        return Operands(a, b, dims.product(a.shape[:-1]), b.shape[0], b.shape[1], b_turned=True)
    if a.type.rank < 2 or b.type.rank < 2:
        return None
    rows, depth = (a.shape[-1], a.shape[-2]) if op.turn_a else (a.shape[-2], a.shape[-1])
    columns = b.shape[-2] if op.turn_b else b.shape[-1]
    if b.type.rank == 2 and not op.turn_a:  # the rows of all matrices follow each other
        return Operands(a, b, dims.product(a.shape[:-1]), columns, depth, b_turned=op.turn_b)
    a_lead, b_lead = a.shape[:-2], b.shape[:-2]
    if a_lead and b_lead and not (len(a_lead) == len(b_lead) and all(map(dims.same, a_lead, b_lead))):
        return None
    a_step, b_step = dims.product([rows, depth]) if a_lead else 0, dims.product([depth, columns]) if b_lead else 0
    return Operands(a, b, rows, columns, depth, op.turn_a, op.turn_b, dims.product(a_lead or b_lead), a_step, b_step)


def product_wanted(o: Operands) -> DimLike:
    """1 where the blocked product is faster than a loop nest, else 0; dims known only in a run count as UNKNOWN.

    Sums over few k, and products of few columns, are faster without copies. (Batch 64, GFLOP/s of nest and product:
    64 to 32 features, 92 and 148; 16 to 16, 35 and 82; its input gradient, 156 and 91; 84 to 10, 69 and 93; its input
    gradient, with 10 k, 163 and 104.)

    A gradient of weights is a sum over the batch; there a lies turned. The nest writes y along its rows and reads the
    rest from caches, so it is as fast as memory until rows of b no longer stay in them. (4096 to 4096 features, batch
    2, 16, 32, 256: 15, 80, 104, 101 and 8, 69, 118, 175; 400 to 120: 118, 216, 223, 218 and 76, 173, 183, 172. With
    panels copied ahead and y written along its rows, too, the product came near the nest at 2 k, and no nearer at 16.)
    """
    rows, columns, depth = (d if isinstance(d, int) else UNKNOWN for d in (o.rows, o.columns, o.depth))
    if o.a_turned and not o.b_turned:
        return dims.minimum(1, dims.floor_div(o.depth, LONG_SUM)) if rows * columns >= LARGE_RESULT else 0
    long = not isinstance(o.depth, int) or depth >= LEAST_DEPTH
    return int(long and columns >= LEAST_COLUMNS and rows * columns * depth >= LEAST_PRODUCT)


def shortening_pays(o: Operands, target: Target) -> bool:
    """Whether it is worth while to keep b, the same in every run, in 24 bits: see short_weights.py.

    Spreading them takes as many instructions for 4 lanes as for 16. (2048 to 1000 features, from the third-level cache:
    1.12 times as fast with 16 lanes, 1.13 with 8, 0.87 with 4; 9216 to 4096, from memory: 1.25, 1.18, 1.12.)
    """
    few = not isinstance(o.rows, int) or o.rows <= FEW
    large = isinstance(o.columns, int) and isinstance(o.depth, int) and o.columns * o.depth >= LEAST_SHORTENED
    return few and large and o.b_turned and not o.a_turned and o.b.type.rank == 2 and target.lanes >= LEAST_LANES
