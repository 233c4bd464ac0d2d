"""What fails under graphc: memory and threads of a library, and processes that are killed while they write.

Each test prints a table of faults that were tried and survived; both numbers must be the same.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from artefacts import HERE, compile_c, make_small, needs_compiler, run

import graphc

KILLS = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "2"))  # of each kind of work
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
    assert [row[0] for row in rows] == ["create", "create", "run", "come_and_go", "flat_memory", "run_together"]
    assert all(int(tried) == int(survived) > 0 for _, tried, survived in rows), table


@needs_compiler
def test_what_is_killed_leaves_nothing_half_written(tmp_path: Path) -> None:
    """SIGKILL at a random moment of compiling, building or training."""
    seed = time.time_ns() if KILLS > 20 else 0
    command = [sys.executable, str(HERE / "kill_server.py"), str(tmp_path), str(KILLS), str(seed)]
    table = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for name, row in table.items():
        print(f"killed during {name}: tried {row['tried']} survived {row['survived']}")
    assert all(row["tried"] == row["survived"] == KILLS and not row["findings"] for row in table.values()), (
        seed,
        table,
    )
