"""Processes that compile the parts of a network: the same code, and the network all the same if one fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from artefacts import make_small

import graphc
from graphc import emission
from graphc.codegen.compiling import HelperError, Helpers, compile_part
from graphc.codegen.target import base_machine, make_target
from graphc.driver import plan_network
from graphc.errors import InputError
from graphc.passes import optimize
from graphc.runtime.elf import is_x86_elf

ROOT = Path(__file__).parents[1]
TRIPLE = make_target().triple
PARTS = [f"define i32 @f{i}() {{\n  ret i32 {i}\n}}\n" for i in range(5)]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network has many kernels."""
    monkeypatch.setattr(emission, "MANY_KERNELS", 1)
    monkeypatch.setenv("GRAPHC_COMPILERS", "2")


def emit() -> list[bytes]:
    target = make_target()
    return emission.emit_objects([(plan_network(optimize(make_small()), target, 1, False, False), target)], "net", "")


def test_the_code_is_the_same(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        m.setattr(emission, "compile_part", None)  # none is compiled here
        found = emit()
    monkeypatch.setenv("GRAPHC_COMPILERS", "0")
    assert found == emit()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_parts_keep_their_order(count: int) -> None:
    helpers = Helpers(TRIPLE, count)
    try:
        assert helpers.compile(PARTS, set()) == [compile_part(part, base_machine(TRIPLE), set()) for part in PARTS]
    finally:
        helpers.close()
    assert all(process.returncode is not None for process in helpers._processes)


@pytest.mark.parametrize("executable", ["/no/such/python", "/bin/true", "", None])
def test_without_helpers_this_process_compiles(
    many: None, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert len(emit()) > 1


def test_a_helper_that_is_killed_is_told() -> None:
    helpers = Helpers(TRIPLE, 2)
    try:
        os.kill(helpers._processes[0].pid, signal.SIGKILL)
        helpers._processes[0].wait()
        with pytest.raises(HelperError):
            helpers.compile(PARTS, set())
    finally:
        helpers.close()


def test_what_is_wrong_with_a_part_is_told_in_this_process(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "_runtime_texts", lambda plans: ["define nothing"])
    with pytest.raises(RuntimeError, match="expected"):
        emit()


@pytest.mark.skipif(not is_x86_elf(compile_part(PARTS[0], base_machine(TRIPLE), set())), reason="LLVM loads its code")
def test_this_process_has_no_llvm_then(tmp_path: Path) -> None:
    code = (
        "import sys, graphc; from artefacts import *; from graphc import emission; emission.MANY_KERNELS = 1; "
        "graphc.compile(make_small(), threads=int(sys.argv[1])); print('llvmlite.binding' in sys.modules)"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "GRAPHC_CACHE": str(tmp_path / "cache"), "GRAPHC_COMPILERS": "1",
    }  # fmt: skip
    told = []
    for _ in range(2):
        command = [sys.executable, "-c", code, "1"]
        told.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip())
        for entry in (tmp_path / "cache").iterdir():
            if entry.stat().st_size > 5000:  # the code; what is known of the CPU stays
                entry.unlink()
    assert told == ["True", "False"]  # at first it asks LLVM what the CPU is


def test_a_setting_tells_how_many(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    monkeypatch.setenv("GRAPHC_COMPILERS", "many")
    with pytest.raises(InputError, match="GRAPHC_COMPILERS: expected an integer from 0 to 64, got 'many'"):
        graphc.compile(make_small())
