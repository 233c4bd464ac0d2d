"""What fails under graphc: memory and threads of a library, and processes that are killed while they write.

Each test prints a table of faults that were tried and survived; both numbers must be the same.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from artefacts import HERE, compile_c, make_small, needs_compiler, run
from test_executors import LEVELS, takes

import graphc
from graphc.reference import random_inputs, run_reference

KILLS = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "2"))  # of each kind of work
VALGRIND = shutil.which("valgrind")
SIDES = (65, 80)  # pixels: odd, and the least that classifiers take; U-Nets take multiples of 16
MEMCHECKED = os.environ.get("GRAPHC_TEST_MEMCHECK", "small lenet5").split()  # networks of graphc.models, and make_small
COMING = os.environ.get("GRAPHC_TEST_NETWORKS", "20000")  # networks that come and go


@needs_compiler
def test_a_library_survives_every_allocation_that_fails(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path, ["h", "so"])
    program = tmp_path / "faults"
    names = ["-DNET=small", '-DHEADER="small.h"', f"-I{tmp_path}", "-rdynamic"]
    compile_c(program, *names, HERE / "c" / "faults.c", found["so"], f"-Wl,-rpath,{tmp_path}", "-lpthread")
    table = run(program, COMING).stdout
    print(table)
    rows = re.findall(r"(\w+) tried (\d+) survived (\d+)", table)
    assert [row[0] for row in rows] == [
        "create",
        "create",
        "run",
        "query",
        "come_and_go",
        "flat_memory",
        "run_together",
        "small_stack",
    ]
    assert all(int(tried) == int(survived) > 0 for _, tried, survived in rows), table


@needs_compiler
def test_what_is_killed_leaves_nothing_half_written(tmp_path: Path) -> None:
    """SIGKILL at a random moment of compiling, building, training or running by tiles."""
    seed = time.time_ns() if KILLS > 20 else 0
    command = [sys.executable, str(HERE / "kill_server.py"), str(tmp_path), str(KILLS), str(seed)]
    table = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for name, row in table.items():
        print(f"killed during {name}: tried {row['tried']} survived {row['survived']}")
    assert all(row["tried"] == row["survived"] == KILLS and not row["findings"] for row in table.values()), (
        seed,
        table,
    )


@needs_compiler
@pytest.mark.skipif(VALGRIND is None, reason="valgrind is not installed")
@pytest.mark.skipif(
    "x86-64-v3" not in LEVELS, reason="this CPU has no x86-64-v3, the highest level that valgrind knows"
)
@pytest.mark.parametrize("name", MEMCHECKED)
def test_memcheck_finds_nothing(name: str, tmp_path: Path) -> None:
    """No read of what was never written, none outside of an allocation, no leak, in a program's whole life."""
    graph = make_small() if name == "small" else getattr(graphc.models, name)()
    program = graphc.build(graph, tmp_path, ["exe"], cpu="x86-64-v3")["exe"]
    shapes = [{s: 1 if s == "N" else side for s in graph.symbols} for side in SIDES]
    shape = next(shape for shape in shapes if takes(graph, random_inputs(graph, shape)))
    np.save(tmp_path / "x.npy", random_inputs(graph, shape)[0])
    checks = [
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--errors-for-leak-kinds=all",
        "--error-exitcode=9",
    ]
    command = [VALGRIND, *checks, program, "--threads", "2", tmp_path / "x.npy", tmp_path / "y.npy"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = run_reference(graph, random_inputs(graph, shape))[0]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), reference, rtol=1e-3, atol=1e-3 * np.abs(reference).max())
