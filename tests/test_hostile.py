"""Every malformed or hostile model file ends in a clear error or the right result, within bounded time and memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_cases import CASES

TESTS = Path(__file__).parent
TAKEN_FIRST = 2**27  # bytes that a process may take before it refuses a file: 50,000 nodes, which a loop becomes, 70 MB


@pytest.fixture(scope="module")
def server() -> Iterator["subprocess.Popen[str]"]:
    """The process that runs the files."""
    command = [sys.executable, TESTS / "hostile_server.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file(name: str, server: "subprocess.Popen[str]") -> None:
    case = CASES[name]
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(f"{name}\n")
    server.stdin.flush()
    outcome = json.loads(server.stdout.readline())
    assert outcome["killed"] is None and "classes" in outcome, outcome
    if case.error is None:
        assert outcome["classes"] == [] and outcome["right"], outcome
        return
    assert case.error.__name__ in outcome["classes"] and "\n" not in outcome["text"], outcome
    named = case.culprit is None or case.culprit.startswith("byte ")
    assert (case.culprit or "") in outcome["text"] and (named or f"'{case.culprit}" in outcome["text"]), outcome
    assert outcome["grown"] < TAKEN_FIRST, outcome


def test_errors_name_the_culprit() -> None:
    """At least 95 % of all errors; the others are about the file, such as its opset, or that it is empty."""
    refused = [case for case in CASES.values() if case.error is not None]
    named = [case for case in refused if case.culprit is not None]
    assert len(CASES) >= 150 and len(named) >= 0.95 * len(refused), f"{len(named)} of {len(refused)}"
