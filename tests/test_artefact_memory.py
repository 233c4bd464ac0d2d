"""The memory of weights that a library has packed: their pages are given back, where they can be read again."""

import ctypes
import mmap
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from artefacts import needs_compiler, random_image
from forking import Outcome, fork

import graphc
from graphc import nn
from graphc.ir import Builder, Graph, f32
from graphc.runtime import load

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="pages of another size are kept"),
]
WEIGHT_BYTES = 2 * 9 * 512 * 512 * 4


def make_graph() -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 512, "H", "W"))
    return net.build(nn.conv2d(nn.conv2d(x, 512, 3, name="conv1"), 512, 3, name="conv2"))


def resident(path: Path) -> int:
    """Bytes of a file that this process has in memory."""
    maps = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"{re.escape(str(path))}\n(?:\w+: .*\n)*?Rss: +(\d+) kB", maps)
    assert found
    return 1024 * sum(map(int, found))


def given_back(folder: Path, weights: Literal["embed", "file"]) -> Outcome:
    built, image = graphc.build(make_graph(), folder, weights=weights), random_image(1, 512, 9, 9)
    library = load(built["so"], threads=1)
    left = resident(built["so" if weights == "embed" else "weights"])
    expected = library(image)
    again = load(built["so"], threads=1)(image)  # they are read once more
    compiled = graphc.compile(make_graph(), threads=1)(image)
    return {"left": left, "same": [np.array_equal(x, expected) for x in (again, compiled)]}


def copied_to_memory(folder: Path) -> Outcome:
    path, image = graphc.build(make_graph(), folder)["so"], random_image(1, 512, 9, 9)
    expected = load(path, threads=1)(image)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)) and " r--p " in line:
            begin, end = (int(x, 16) for x in line.split()[0].split("-"))
            content = ctypes.string_at(begin, end - begin)
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
            assert libc.mmap(begin, end - begin, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == begin
            ctypes.memmove(begin, content, len(content))
    left = resident(path)
    return {"left": left, "same": [np.array_equal(load(path, threads=1)(image), expected) for _ in range(3)]}


@pytest.mark.parametrize("weights", ["embed", "file"])
def test_packed_weights_are_given_back(tmp_path: Path, weights: Literal["embed", "file"]) -> None:
    outcome = fork(lambda: given_back(tmp_path, weights))  # a library stays in a process for good
    assert outcome["same"] == [True, True]
    assert outcome["left"] < WEIGHT_BYTES / 4


def test_weights_that_were_copied_to_memory_are_kept(tmp_path: Path) -> None:
    """As what unpacks a compressed executable does: pages that are given back come again as zeros."""
    outcome = fork(lambda: copied_to_memory(tmp_path))
    assert outcome["same"] == [True, True, True]
    assert outcome["left"] < WEIGHT_BYTES / 4
