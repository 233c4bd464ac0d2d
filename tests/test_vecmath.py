"""graphc/codegen/vecmath.py: the error of every function, its special cases, and that no code calls libm."""

import math
import re
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numpy.typing import NDArray

from graphc.codegen.vecmath import FUNCTIONS

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]

# What the docstrings state; the contract is 4 ULP.
BOUNDS = {
    "exp": 1.05,
    "expm1": 1.73,
    "log": 1.18,
    "log1p": 1.92,
    "tanh": 2.61,
    "erf": 1.40,
    "sigmoid": 2.41,
    "softplus": 2.11,
    "pow": 0.54,
    "sqrt": 0.5,
}

REFERENCES: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "pow": np.power,
    "sqrt": np.sqrt,
}

# CPU -> lanes of its widest vector, and what the host must have to run its code.
LEVELS: dict[str, tuple[int, tuple[str, ...]]] = {
    "x86-64-v2": (4, ("sse4.2", "popcnt")),
    "x86-64-v3": (8, ("avx2", "fma", "bmi2")),
    "x86-64-v4": (16, ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")),
    llvm.get_host_cpu_name(): (4, ()),
}

SPECIAL = np.hstack(
    [
        [0, 2**-149, 3 * 2**-149, 2**-127, 2**-126, 1e-10, 1 / 3, 0.5, 1 - 2**-24, 1, 1 + 2**-23, 1.5, 2, 3, 31, 64],
        [2**24 - 1, 2**24, 2**31, 1e30, float(np.finfo(np.float32).max), np.inf, np.nan],
    ]
).astype(np.float32)
SPECIAL = np.hstack([SPECIAL, -SPECIAL])

# Where a formula changes, or a result overflows, becomes subnormal or rounds to its limit; both signs are sampled.
LN2 = math.log(2)
BREAKPOINTS = np.hstack(
    [
        [2**-149, 2**-126, 2**-25, 2**-24, 2**-12, 2**23, 2**24, 2**31, 2**127],
        [LN2 / 4, LN2 / 2, 1.5 * LN2, 16.6, 17.5],  # tanh, exp, expm1: n changes, the limit is reached
        [9.01, 44.5],  # tanh: rounds to 1, clamped
        [87.33655, 88.37626, 88.722839, 89, 103.27893, 103.97208, 104.5],  # exp: subnormal, n = 128, inf, 0, clamped
        [1 / 3, 0.5, 2 / 3, math.sqrt(0.5), 1, 4 / 3, math.sqrt(2)],  # log, log1p
        [0.927734375, 3.92, 4],  # erf
    ]
).astype(np.float32)


def build_module(lanes: int, names: tuple[str, ...] = tuple(FUNCTIONS)) -> ir.Module:
    """One loop `void name(const float *x.., float *out, int64_t n)` for each function; lanes divides n > 0."""
    module = ir.Module()
    number, pointer, size = ir.FloatType(), ir.PointerType(), ir.IntType(64)
    vector = ir.VectorType(number, lanes) if lanes > 1 else number
    for name in names:
        inputs = [pointer] * count_inputs(name)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*inputs, pointer, size]), f"loop_{name}")
        *sources, out, n = function.args
        entry, loop, done = (function.append_basic_block(block) for block in ("entry", "loop", "done"))
        ir.IRBuilder(entry).branch(loop)
        b = ir.IRBuilder(loop)
        i = b.phi(size)
        args = [b.load(b.gep(p, [i], source_etype=number), typ=vector, align=4) for p in sources]
        b.store(FUNCTIONS[name](b, *args), b.gep(out, [i], source_etype=number), align=4)
        following = b.add(i, size(lanes))
        i.add_incoming(size(0), entry)
        i.add_incoming(following, loop)
        b.cbranch(b.icmp_signed("<", following, n), loop, done)
        ir.IRBuilder(done).ret_void()
    return module


def count_inputs(name: str) -> int:
    return 2 if name == "pow" else 1


def compile_module(module: ir.Module, triple: str, cpu: str, features: str = "") -> tuple[Any, Any]:
    """The optimised LLVM module and its target machine."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    module.triple = triple
    compiled = llvm.parse_assembly(str(module))
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(compiled, builder)
    return compiled, machine


@dataclass(frozen=True)
class Jit:
    """The functions of one CPU level and vector width, as NumPy functions of float32 vectors."""

    engine: Any

    def __call__(self, name: str, *xs: Array32) -> Array32:
        n = xs[0].size
        padded = [np.pad(x, (0, -n % 16)) for x in xs]
        out = np.empty_like(padded[0])
        loop = CFUNCTYPE(None, *[c_void_p] * (len(xs) + 1), c_int64)(self.engine.get_function_address(f"loop_{name}"))
        loop(*(a.ctypes.data for a in (*padded, out)), out.size)
        return out[:n]


@cache
def jit(cpu: str, lanes: int) -> Jit:
    """Compile for a CPU that the host can stand in for, or skip the test."""
    missing = [f for f in LEVELS[cpu][1] if not llvm.get_host_cpu_features().get(f)]
    if missing:
        pytest.skip(f"{cpu} needs {', '.join(missing)}, which this host lacks")
    features = "" if LEVELS[cpu][1] else llvm.get_host_cpu_features().flatten()
    module, machine = compile_module(build_module(lanes), llvm.get_process_triple(), cpu, features)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Jit(engine)


def sample_floats(stride: int) -> Array32:
    """Every stride-th of the 2^32 bit patterns, the 513 patterns around each breakpoint, and the special values."""
    around = np.hstack([BREAKPOINTS, -BREAKPOINTS]).view(np.uint32)[:, None] + np.arange(-256, 257)
    patterns = np.hstack([np.arange(0, 2**32, stride), around.ravel()])
    return np.hstack([(patterns % 2**32).astype(np.uint32).view(np.float32), SPECIAL])


def sample_pairs() -> tuple[Array32, Array32]:
    """Bases and exponents: all special pairs, any bit patterns, small (half) integers, and results of any magnitude."""
    rng = np.random.default_rng(0)
    n = 200_000
    any_x, any_y = rng.integers(0, 2**32, (2, n), np.uint32).view(np.float32)
    small_x, small_y = (rng.integers(-64, 64, (2, n)) / 2).astype(np.float32)
    base = np.hstack([2 ** rng.uniform(-149, 128, n), 1 + rng.uniform(-1e-3, 1e-3, n)]).astype(np.float32)
    base = base[base != 1]
    exponent = (rng.uniform(-152, 130, base.size) / np.log2(base.astype(np.float64))).astype(np.float32)
    x, y = np.repeat(SPECIAL, SPECIAL.size), np.tile(SPECIAL, SPECIAL.size)
    return np.hstack([x, any_x, small_x, base]), np.hstack([y, any_y, small_y, exponent])


@cache
def get_case(name: str) -> tuple[tuple[Array32, ...], Array64]:
    """The inputs of a function and its values in float64."""
    # The reference of erf is a Python function, four times as slow as the others together.
    xs = sample_pairs() if name == "pow" else (sample_floats(4099 if name == "erf" else 1021),)
    with np.errstate(all="ignore"):
        return xs, REFERENCES[name](*(x.astype(np.float64) for x in xs))


def count_ulps(got: Array32, expected: Array64) -> Array64:
    """|got - expected| in units of the last place of float32 at `expected`, of 2^-149 where it is subnormal.

    Infinity counts as 2^128, the number that overflow rounds to; inf where only one of the two is NaN.
    """
    largest = 2.0**128
    limited = np.clip(expected, -largest, largest)
    exponent = np.clip(np.frexp(limited)[1] - 1, -126, 127)
    with np.errstate(invalid="ignore"):  # log passes signalling NaNs on
        ulps = np.ldexp(np.abs(np.clip(got.astype(np.float64), -largest, largest) - limited), 23 - exponent)
    return np.where(np.isnan(got) | np.isnan(expected), np.where(np.isnan(got) == np.isnan(expected), 0, np.inf), ulps)


def describe(name: str, xs: tuple[Array32, ...], got: Array32, expected: Array64, i: int) -> str:
    return f"{name}({', '.join(repr(float(x[i])) for x in xs)}) = {got[i]!r}, expected {expected[i]!r}"


@pytest.mark.parametrize("cpu", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_within_the_stated_bound(name: str, cpu: str) -> None:
    xs, expected = get_case(name)
    got = jit(cpu, LEVELS[cpu][0])(name, *xs)
    ulps = count_ulps(got, expected)
    worst = int(np.argmax(ulps))
    assert ulps[worst] <= BOUNDS[name] <= 4, describe(name, xs, got, expected, worst)


@pytest.mark.parametrize("cpu", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_results_and_signs(name: str, cpu: str) -> None:
    """Zeros, infinities and other results that float32 holds are exact at the special values, zeros have their sign."""
    xs = tuple(x.ravel() for x in np.meshgrid(*[SPECIAL] * count_inputs(name)))
    with np.errstate(all="ignore"):
        expected = REFERENCES[name](*(x.astype(np.float64) for x in xs))
        exact = expected.astype(np.float32) == expected
    got = jit(cpu, LEVELS[cpu][0])(name, *xs)
    wrong = exact & ((got != expected) | (np.signbit(got) != np.signbit(expected)))
    assert exact.sum() >= 4
    assert not wrong.any(), describe(name, xs, got, expected, int(np.argmax(wrong)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_width_gives_the_same_bits(name: str) -> None:
    cpu = llvm.get_host_cpu_name()
    xs = tuple(x[::97] for x in get_case(name)[0])
    scalar = jit(cpu, 1)(name, *xs)
    for lanes in (4, 8, 16):
        np.testing.assert_array_equal(jit(cpu, lanes)(name, *xs), scalar)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
@pytest.mark.parametrize(
    ("triple", "cpu"),
    [("x86_64-linux-gnu", f"x86-64{level}") for level in ("", "-v2", "-v3", "-v4")]
    + [("aarch64-linux-gnu", "generic")],
)
def test_no_function_is_called(triple: str, cpu: str, lanes: int) -> None:
    module, machine = compile_module(build_module(lanes), triple, cpu)
    code = machine.emit_assembly(module)
    assert all(f"loop_{name}:" in code for name in FUNCTIONS)
    assert re.findall(r"^\s+(?:call\w*|jmp\w*|bl|b)\s+[A-Za-z_*].*", code, re.MULTILINE) == []
