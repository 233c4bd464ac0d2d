"""What the tests of artefacts share: a few networks, and the system's tools."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from graphc import nn
from graphc.ir import Array, Builder, Graph, f32

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")


def make_small(name: str = "small", seed: int = 0) -> Graph:
    """f32[N,3,H,W] -> f32[N,5,P,Q]: convolution, ReLU, convolution; an image of 1 x 1 is too small."""
    builder = Builder(name, seed=seed)
    x = builder.input("image", f32("N", 3, "H", "W"))
    x = nn.relu(nn.conv2d(x, 8, 3, padding=1, name="conv1"))
    return builder.build(scores=nn.conv2d(x, 5, 3, stride=2, name="conv2"))


def make_two_outputs() -> Graph:
    """f32[N,1,H,W] -> maxima f32 and their positions i64, [N,1,H//2,W//2]; it has no weights."""
    builder = Builder("two outputs")
    x = builder.input("image", f32("N", 1, "H", "W"))
    values, positions = nn.max_pool_with_indices(x, 2)
    return builder.build(maxima=values, positions=positions)


def make_fixed() -> Graph:
    """f32[1,2,6,4] -> f32[1,7]: nothing is left to choose."""
    builder = Builder("fixed", seed=3)
    x = builder.input("image", f32(1, 2, 6, 4))
    return builder.build(scores=nn.linear(nn.flatten(x), 7, name="fc"))


def make_sum() -> Graph:
    """Two inputs f32[N,2,H,W] -> their sum."""
    builder = Builder("sum")
    a, b = (builder.input(name, f32("N", 2, "H", "W")) for name in ("left", "right"))
    return builder.build(total=nn.add(a, b))


def make_sequence() -> Graph:
    """f32[T,4] -> f32[T,3]: its size is none of N, H and W."""
    builder = Builder("sequence", seed=4)
    return builder.build(y=nn.linear(builder.input("x", f32("T", 4)), 3, name="fc"))


def random_image(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(*command: str | Path, status: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a command and check its exit status."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def compile_c(output: Path, *arguments: str | Path) -> None:
    """Compile and link a C program without a single warning."""
    assert COMPILER is not None
    strict = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g0")
    run(COMPILER, *strict, "-o", output, *arguments, "-lm", "-lpthread")
