"""Random numbers as a graph: a hash of (seed, step, element), so their bits depend on no thread and no order."""

import hashlib

from graphc import ops
from graphc.ir import Builder, TensorType, Value
from graphc.ops.derive import fused

_HIGH = "((x0 - (x0 % 4294967296)) / 4294967296)"  # the upper 32 bits, with their sign


def make_key(seed: int, name: str) -> int:
    """A positive odd 63-bit key with irregular bits, which Squares wants."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 1


def random_bits(b: Builder, type: TensorType, key: int, step: Value) -> Value:
    """i64 of this type's shape, uniform from 0 to 2^32 - 1; others for each key and for each `step`, i64[].

    Squares (Widynski 2020), a counter-based generator with four rounds: x = x*x + y, halves swapped. The counter is
    step * 2^32 + the element's position. Signed arithmetic that wraps round does the same as unsigned.
    """
    place = b.apply(ops.Iota(type.shape))
    x = y = fused(b, f"((x0 + (x1 * 4294967296)) * {key})", place, step)
    z = fused(b, f"(x0 + {key})", y)
    for added in (y, z, y):
        x = fused(b, "((x0 * x0) + x1)", x, added)
        x = fused(b, f"(({_HIGH} % 4294967296) + (x0 * 4294967296))", x)
    return fused(b, f"({_HIGH} % 4294967296)", fused(b, "((x0 * x0) + x1)", x, z))
