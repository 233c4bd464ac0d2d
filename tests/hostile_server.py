"""Runs the hostile files, each in a process of its own with limits: a case's name on stdin, a line of JSON on stdout.

One process imports graphc once and forks for each file: once to write it, so that what that takes does not count, and
once to read, compile and run it. What kills that second process, or what it takes, is in its outcome.
"""

import json
import os
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from forking import Outcome, fork, limit
from hostile import Case
from hostile_cases import CASES
from onnx_models import make_model, node

import graphc
from graphc.errors import GraphcError
from graphc.ir import Array
from graphc.reference import random_inputs, run_reference
from graphc.runtime.load import load


def attempt(case: Case, path: Path) -> Outcome:
    """Read, compile and run the file: the classes and the text of its error, or whether its result is right."""
    limit()
    os.environ.update(case.settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found: Outcome = {"classes": [], "text": "", **use(case, path)}
    except GraphcError as error:
        found = {"classes": [c.__name__ for c in type(error).__mro__], "text": str(error)}
    except BaseException as error:  # no error that graphc means
        found = {"classes": [type(error).__name__], "text": str(error)}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {**found, "grown": grown * 1024}  # it is in KiB


def use(case: Case, path: Path) -> Outcome:
    """What becomes of a file that is none to refuse."""
    graph = graphc.load(path)
    if case.only_read:
        return {"right": True}
    sizes = {s: case.sizes.get(s, 1) for s in graph.symbols}
    inputs = random_inputs(graph, sizes) if case.inputs is None else case.inputs()
    result = run_artefact(graph, path.parent, inputs) if case.artefact else graphc.compile(graph, threads=1)(*inputs)
    wanted = run_reference(graph, inputs) if case.right is None else case.right(*inputs)
    found, right = ([x] if isinstance(x, np.ndarray) else list(x) for x in (result, wanted))
    same = [a.shape == b.shape and np.allclose(a, b, 1e-5, 1e-5, True) for a, b in zip(found, right, strict=True)]
    return {"right": all(same), "text": str(found)[:200]}


def run_artefact(graph: graphc.Graph, folder: Path, inputs: list[Array]) -> object:
    """The result of the network as a library. All that building writes must lie in the folder that it is given."""
    before = set(folder.parent.rglob("*"))
    written = graphc.build(graph, folder / "out", emit=("so", "h", "exe"))
    strays = {p for p in folder.parent.rglob("*") if p.parent != folder / "out"} - before - {folder / "out"}
    assert not strays, strays
    assert all(p.is_file() for p in written.values())
    return load(written["so"], threads=1)(*inputs)


def main() -> None:
    """Answer names with outcomes until there are no more."""
    with tempfile.TemporaryDirectory() as folder:  # what is imported and set up once does not count for the first file
        path = Path(folder) / "m.onnx"
        attempt_once = Case(make_model([node("Conv", "x w")], {"x": [1, 1, 9, 9]}, {"w": np.ones((1, 1, 3, 3), "f4")}))
        attempt_once.write(path)
        assert use(attempt_once, path)["right"]
    for line in sys.stdin:
        case = CASES[line.strip()]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model" / "m.onnx"
            path.parent.mkdir()
            os.chdir(folder)  # where a command that a name holds would leave something
            outcome = fork(partial(write, case, path))
            if outcome.get("written"):
                outcome = fork(partial(attempt, case, path))
            os.chdir("/")
        print(json.dumps(outcome), flush=True)


def write(case: Case, path: Path) -> Outcome:
    """Write the file."""
    case.write(path)
    return {"written": True}


if __name__ == "__main__":
    main()
