"""Several CPU levels in one artefact: which one runs, what refuses to run, and how the CPU is read."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from artefacts import compile_c, make_small, needs_compiler, random_image, run

import graphc
from graphc.codegen import cpuid, level
from graphc.codegen.target import base_machine, check_runs_here, host_levels, limit_cpu, make_target, make_targets
from graphc.driver import lower
from graphc.errors import GraphcError, InputError
from graphc.runtime import load
from graphc.runtime.jit import JitCode
from graphc.verify import relative_difference

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not host_levels(), reason="levels are those of x86-64")
REFUSAL = "the CPU lacks instructions that the network was compiled for, or GRAPHC_CPU forbids them"


def run_library(library: Path, image: Path, cpu: str) -> "subprocess.CompletedProcess[str]":
    """Load it in a process of its own, where GRAPHC_CPU is `cpu`; print the level, write its result beside it."""
    code = (
        "import numpy as np, sys; from graphc.runtime import load; net = load(sys.argv[1], 1)\n"
        "np.save(sys.argv[2] + '.out.npy', net(np.load(sys.argv[2]))); print(net.cpu)"
    )
    environment = {**os.environ, "GRAPHC_CPU": cpu, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(library), str(image)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_compiler
def test_each_level_of_an_artefact(tmp_path: Path) -> None:
    graph, image = make_small(), tmp_path / "image.npy"
    x = random_image(1, 3, 19, 23)
    np.save(image, x)
    expected = graphc.compile(graph, threads=1)(x)
    library = graphc.build(graph, tmp_path, ["so"], cpu="x86-64-v3,x86-64-v2,x86-64-v4")["so"]
    for limit in ("", *LEVELS):
        allowed = [c for c in LEVELS if c in host_levels() and c <= (limit or "x86-64-v4")]
        done = run_library(library, image, limit)
        if not allowed:
            assert REFUSAL in done.stderr
            continue
        assert (done.stdout.strip(), done.stderr) == (allowed[-1], "")
        assert relative_difference(np.load(f"{image}.out.npy"), expected) < 1e-5
    for limit in ("x86-64", "sparc"):
        assert f"{REFUSAL}: x86-64-v4, x86-64-v3, x86-64-v2" in run_library(library, image, limit).stderr


def test_weights_stand_once_beside_all_levels(tmp_path: Path) -> None:
    graph = make_small()
    found = graphc.build(graph, tmp_path, ["obj", "h", "asm"], cpu=",".join(LEVELS))
    block = bytes(lower(graph, "small", "x86-64-v2").plan.weight_block())
    assert found["obj"].read_bytes().count(block) == 1
    assert "compiled for: x86-64-v4 or x86-64-v3 or x86-64-v2." in found["h"].read_text()
    assert "compiled by graphc for x86-64-v4, x86-64-v3, x86-64-v2." in found["asm"].read_text()


def test_code_outside_a_level_runs_on_every_cpu(tmp_path: Path) -> None:
    """What is called before a level is chosen has no instruction of one: SSE2 has no names that begin with v."""
    text = graphc.build(make_small(), tmp_path, ["asm"], cpu="x86-64-v4")["asm"].read_text()
    bodies = dict(re.findall(r"^(\w+):\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL))
    wide = {name for name, body in bodies.items() if re.search(r"^\tv\w+\s|[yz]mm|%k[0-7]", body, re.MULTILINE)}
    assert any(name.startswith(("graphc_conv", "graphc_winograd")) for name in wide)
    runtime = "".join(path.read_text() for path in (ROOT / "runtime").glob("*.ll"))
    common = set(re.findall(r"^define internal [^@]*@(\w+)", runtime, re.MULTILINE)) & bodies.keys()
    common |= {name for name in bodies if name.startswith("small_")}
    assert {"small_create", "small_run", "graphc_read_cpu", "graphc_pool_run"} <= common and not common & wide


def lack(monkeypatch: pytest.MonkeyPatch, *cpus: str) -> None:
    """Let the code for these targets need what no CPU has."""
    lacking = [make_target(cpu).needs for cpu in cpus]

    def needed(features: frozenset[str]) -> list[int]:
        return [0xFFFFFFFF] * cpuid.WORDS if features in lacking else cpuid.needed_words(features)

    monkeypatch.setattr(level, "needed_words", needed)


@needs_compiler
@pytest.mark.parametrize("cpu", ["native", "x86-64-v2"])
def test_what_the_cpu_lacks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str) -> None:
    lack(monkeypatch, cpu)
    found = graphc.build(make_small(), tmp_path, ["so", "exe", "h", "obj"], cpu=cpu)
    message = f"{REFUSAL}: {make_target(cpu).cpu}"
    with pytest.raises(InputError, match=f"network 'small': {re.escape(message)}"):
        load(found["so"])
    image = tmp_path / "image.npy"
    np.save(image, random_image(1, 3, 9, 9))
    assert run(found["exe"], image, tmp_path / "out.npy", status=1).stderr == f"small: {message}\n"
    assert "OUTPUT.npy" in run(found["exe"], "--help").stdout
    source = tmp_path / "all.c"
    source.write_text(
        '#include "small.h"\n#include <stdio.h>\nint main(void) { small *net; int64_t s[4] = {1, 9, 9}; printf('
        '"%d %d %d %d %d %d", small_create(&net, 1, NULL), net == NULL, (int)small_workspace(s), '
        "small_output_dims(s, 0, s), (int)small_workspace_bytes(1, 9, 9, 1), small_cpu() == NULL); return 0; }\n"
    )
    compile_c(tmp_path / "all", f"-I{tmp_path}", source, found["obj"])
    assert run(tmp_path / "all").stdout == "10 1 -10 10 -10 1"


@pytest.mark.skipif("x86-64-v3" not in host_levels(), reason="this machine has no x86-64-v3")
def test_the_next_level_runs_if_the_first_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "x86-64-v4")
    lowered = lower(make_small(), "net", ",".join(LEVELS))
    code = JitCode(lowered.object_code())
    assert code.function("net_cpu", ctypes.c_char_p, ())() == b"x86-64-v3"


def test_the_setting_lowers_what_is_compiled_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHC_CPU", raising=False)
    highest = host_levels()[-1]
    assert limit_cpu("native") == "native" and graphc.compile(make_small()).cpu == llvm.get_host_cpu_name()
    monkeypatch.setenv("GRAPHC_CPU", "x86-64")
    assert limit_cpu("native") == limit_cpu(highest) == graphc.compile(make_small()).cpu == "x86-64"
    monkeypatch.setenv("GRAPHC_CPU", "x86-64-v4")  # above what is asked for, or what the machine has
    assert limit_cpu("x86-64-v2") == "x86-64-v2"
    assert limit_cpu("native") == ("x86-64-v4" if highest == "x86-64-v4" else "native")
    monkeypatch.setenv("GRAPHC_CPU", "sparc")
    with pytest.raises(InputError, match=r"GRAPHC_CPU: expected one of x86-64, x86-64-v2, .*, got 'sparc'"):
        graphc.compile(make_small())


def test_levels_are_ordered_and_stand_once() -> None:
    assert [t.cpu for t in make_targets("x86-64-v2,x86-64-v4,x86-64-v2,x86-64-v3")] == list(reversed(LEVELS))
    with pytest.raises(GraphcError, match=r"cpu: expected one of native, .*got ''"):
        make_targets("x86-64-v2,")


def test_bits_are_those_that_llvm_reads() -> None:
    """runtime/cpuid_x86_64.ll on this machine says of every feature in the table what LLVM says."""
    llvm.initialize_native_asmparser()
    text = (ROOT / "runtime" / "cpuid_x86_64.ll").read_text().replace("define internal void", "define void")
    triple = llvm.get_default_triple()
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}')
    code = JitCode(base_machine(triple).emit_object(module))
    words = (ctypes.c_uint32 * cpuid.WORDS)()
    code.function("graphc_read_cpu", None, (ctypes.c_void_p,))(words)
    host = llvm.get_host_cpu_features()
    read = {name: bool(words[word] >> bit & 1) for name, (word, bit) in cpuid._BITS.items()}
    assert read == {name: host[name] for name in cpuid._BITS}
    needed = cpuid.needed_words(make_target("native").needs)
    assert all(need & ~word == 0 for need, word in zip(needed, words, strict=True))


def test_what_is_not_in_the_table_is_not_used() -> None:
    text, used = cpuid.flatten_features({"avx2": True, "sse2": True, "amx-tile": True, "fma": False, "64bit": True})
    assert (text, used) == ("-amx-tile,-fma,+avx2,+sse2", {"avx2", "sse2"})


def test_missing_features_are_named() -> None:
    with pytest.raises(GraphcError, match="cpu 'x86-64-v3': this machine lacks avx2, fma; compile for another level"):
        cpuid.check_features("x86-64-v3", ["fma", "sse2", "avx2"], ["sse2"])
    check_runs_here("native")
