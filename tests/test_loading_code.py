"""Compiled code that is loaded without LLVM: its object files, and the target that it was made for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from artefacts import make_small, random_image

import graphc
from graphc.codegen.target import host_levels, make_target
from graphc.driver import describe, plan_network
from graphc.emission import SYMBOL, emit_objects
from graphc.errors import GraphcError
from graphc.passes import optimize
from graphc.runtime import host, jit
from graphc.runtime.elf import ElfCode, is_x86_elf
from graphc.runtime.engine import EngineCode
from graphc.runtime.host import find_target

PLAIN = "define i32 @twice(i32 %x) {\n  %y = add i32 %x, %x\n  ret i32 %y\n}\n"
ROOT = Path(__file__).parents[1]


def emit(text: str) -> bytes:
    from graphc.codegen.target import base_machine, load_llvm

    llvm = load_llvm()
    triple = llvm.get_default_triple()
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}', llvm.create_context())
    return bytes(base_machine(triple).emit_object(module))


needs_x86 = pytest.mark.skipif(not is_x86_elf(emit(PLAIN)), reason="its object files are loaded by LLVM's engine")


def test_both_loaders_run_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    graph, x = make_small(seed=3), random_image(2, 3, 19, 23)
    first = graphc.compile(graph)(x)
    monkeypatch.setattr(jit, "is_x86_elf", lambda code: False)
    np.testing.assert_array_equal(graphc.compile(graph)(x), first)


@needs_x86
def test_object_files_refer_to_each_other_and_to_the_c_library() -> None:
    caller = """
declare i32 @twice(i32)
declare i32 @abs(i32)
@table = internal constant [2 x ptr] [ptr @four, ptr @abs]
@state = internal global i32 0
define i32 @four(i32 %x) {
  %y = call i32 @twice(i32 %x)
  %z = call i32 @twice(i32 %y)
  ret i32 %z
}
define i32 @run(i32 %which, i32 %x) {
  %p = getelementptr ptr, ptr @table, i32 %which
  %f = load ptr, ptr %p
  %y = call i32 %f(i32 %x)
  %s = load i32, ptr @state
  %sum = add i32 %s, %y
  store i32 %sum, ptr @state
  %a = call i32 @abs(i32 %sum)
  ret i32 %a
}
"""
    code = jit.JitCode(emit(PLAIN), emit(caller))
    run = code.function("run", jit.ctypes.c_int, (jit.ctypes.c_int, jit.ctypes.c_int))
    assert [run(0, 3), run(0, -5), run(1, -7), run(1, 0)] == [12, 8, 1, 1]


NOWHERE = "declare i32 @graphc_nowhere()\ndefine i32 @f() {\n  %x = call i32 @graphc_nowhere()\n  ret i32 %x\n}\n"
FAR_DATA = "@environ = external global ptr\ndefine ptr @f() {\n  ret ptr @environ\n}\n"  # wants a table of addresses


@needs_x86
@pytest.mark.parametrize(
    ("text", "message"),
    [(NOWHERE, "got 'graphc_nowhere'"), (FAR_DATA, "expected relocations of the kinds 1, 2 and 4, got .* 'environ'")],
)
def test_what_it_does_not_know_is_an_error(text: str, message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        ElfCode([emit(text)])


def test_a_function_that_is_not_there_has_no_address() -> None:
    for loader in (ElfCode, EngineCode) if is_x86_elf(emit(PLAIN)) else (EngineCode,):
        code = loader([emit(PLAIN)])
        assert code.address("twice") and not code.address("thrice")


def test_the_kept_target_is_the_one_that_llvm_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    cpus = ["native", *host_levels()]
    expected = [make_target(cpu) for cpu in cpus]
    assert [find_target(cpu) for cpu in cpus] == expected
    if not host._read_cpu():
        pytest.skip("this system does not say which CPU it has")
    assert len(list((tmp_path / "cache").iterdir())) == len(cpus)
    monkeypatch.setattr(host, "make_target", lambda cpu: pytest.fail("it was kept"))
    assert [find_target(cpu) for cpu in cpus] == expected


def test_another_cpu_has_another_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(host, "CPU_INFO", info)
    asked: list[str] = []

    def make(cpu: str) -> host.Target:
        asked.append(cpu)
        return make_target(cpu)

    monkeypatch.setattr(host, "make_target", make)
    for flags, mhz in (("sse", 1), ("sse", 2), ("sse avx", 2)):
        info.write_text(f"model name\t: X\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\nmodel name\t: Y\n")
        find_target("native")
    assert len(asked) == 2
    info.write_text("Features\t: fp asimd\n")  # it does not tell the model as x86 does: nothing is kept
    find_target("native")
    find_target("native")
    assert len(asked) == 4


@needs_x86
def test_what_was_compiled_before_runs_without_llvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    code = (
        "import sys, graphc; from artefacts import *; graphc.compile(make_small())(random_image(1, 3, 19, 23)); "
        "print('llvmlite.binding' in sys.modules)"
    )
    path = f"{ROOT}:{ROOT / 'tests'}"
    command = ["env", f"PYTHONPATH={path}", sys.executable, "-c", code]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert told[0] == "True"
    assert told[1] == ("False" if host._read_cpu() else "True")


def test_no_part_refers_to_what_no_part_has() -> None:
    """Every object file of a network is whole: with none of the kernels left out."""
    graph = optimize(make_small())
    target = make_target("native")
    plan = plan_network(graph, target, 1, False, False)
    objects = emit_objects([(plan, target)], SYMBOL, describe(graph, graph))
    if is_x86_elf(objects[0]):
        with pytest.raises(GraphcError, match="expected functions of the C library, got 'graphc_"):
            ElfCode(objects[1:])
