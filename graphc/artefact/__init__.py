"""Ahead of time: a network as a native library, program or object, which need only libc, libm and pthreads.

names.py    the network's name, and texts, as C wants them
header.py   NAME.h
objects.py  NAME.o and NAME.weights
link.py     NAME.so and the program NAME, by the system's C compiler
program.py  what the program (runtime/main.c) is told about the network
"""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from graphc.artefact.header import header_text
from graphc.artefact.link import find_compiler, link_library, link_program
from graphc.artefact.names import artefact_name, c_comment
from graphc.artefact.objects import write_object, write_weights
from graphc.artefact.program import check_program, program_macros
from graphc.codegen.module import WEIGHTS_LABEL
from graphc.codegen.target import check_runs_here
from graphc.driver import lower
from graphc.emission import Lowered
from graphc.errors import FileError, InputError
from graphc.files import temporary_folder
from graphc.ir import Graph

__all__ = ["KINDS", "build"]

KINDS = {"so": ".so", "h": ".h", "obj": ".o", "exe": "", "ll": ".ll", "asm": ".s"}  # and what the file ends in


def build(
    graph: Graph,
    directory: str | Path,
    emit: Sequence[str] = ("so", "h"),
    *,
    name: str | None = None,
    cpu: str = "native",
    weights: Literal["embed", "file"] = "embed",
    precise: bool = False,
    tune: bool | Mapping[str, int] = False,
) -> dict[str, Path]:
    """Compile `graph` to files in `directory` (created if missing) and return them by kind.

    `emit` lists kinds: "so" (shared library), "h" (its C header), "obj" (object file), "exe" (program that reads .npy,
    PPM or PGM and writes .npy), "ll" and "asm" (the code as text, without weights). `name`, by default the graph's as
    a C identifier, is the stem of the files and the prefix of the functions. `cpu` is "native", a level such as
    "x86-64-v3", or several with commas between: then all stand in one artefact, beside one copy of the weights, and the
    best that a CPU has runs there. `precise` and `tune` are as in `graphc.compile`; what is tuned must run here. With
    weights="file" they stand in NAME.weights (kind "weights"), which the network maps when it is created.

    The same graph gives the same bytes, whatever the directory. The files appear when all are complete, or not at all.
    InputError for a wrong argument, UnsupportedError for a network that cannot be compiled, FileError where files
    cannot be written, GraphcError if "so" or "exe" finds no working C compiler ($CC, cc, gcc or clang).
    """
    _check_arguments(graph, emit, weights)
    symbol, directory = artefact_name(graph.name, name), Path(directory)
    if "exe" in emit:
        check_program(graph)
    if {"so", "exe"} & set(emit):
        find_compiler()  # before the work, not after
    for level in cpu.split(",") if tune is not False else ():
        check_runs_here(level)
    lowered = lower(graph, symbol, cpu, artefact=True, embed=weights == "embed", precise=precise, tune=tune)
    targets = {kind: directory / f"{symbol}{KINDS[kind]}" for kind in dict.fromkeys(emit)}
    if weights == "file":
        targets["weights"] = directory / f"{symbol}.weights"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for target in targets.values():
            if target.is_dir():
                raise FileError(f"{target}: expected a file or nothing, got a directory")
        with temporary_folder(directory, symbol) as temporary:
            _write(graph, lowered, temporary, targets)
            for target in targets.values():
                os.replace(temporary / target.name, target)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{directory}: {symbol} cannot be written: {error.strerror}") from None
    return targets


def _check_arguments(graph: Graph, emit: Sequence[str], weights: str) -> None:
    if not isinstance(graph, Graph):
        raise InputError(f"build: expected a graph, got {type(graph).__name__}")
    unknown = [kind for kind in emit if kind not in KINDS]
    if isinstance(emit, str) or unknown or not emit:
        raise InputError(f"emit: expected a list of some of {', '.join(KINDS)}, got {emit!r}")
    if weights not in ("embed", "file"):
        raise InputError(f'weights: expected "embed" or "file", got {weights!r}')


def _write(graph: Graph, lowered: Lowered, folder: Path, kinds: Collection[str]) -> None:
    """Write NAME.* of these kinds, and what they are made from, into `folder`."""
    name, in_file = lowered.symbol, "weights" in kinds
    (folder / f"{name}.h").write_text(
        header_text(graph, name, in_file, [t.cpu for _, t in lowered.plans]), encoding="utf-8"
    )
    if in_file:
        write_weights(folder / f"{name}.weights", lowered.plan)
    if "ll" in kinds:
        (folder / f"{name}.ll").write_text(f"; {_describe(lowered, in_file)}\n{lowered.module}", encoding="utf-8")
    if "asm" in kinds:
        text = lowered.machine.emit_assembly(lowered.module.clone())  # a clone, for emission changes the module
        (folder / f"{name}.s").write_text(f"/* {_describe(lowered, in_file)} */\n{text}", encoding="utf-8")
    if {"obj", "so", "exe"} & set(kinds):
        write_object(folder / f"{name}.o", lowered, not in_file)
    if "so" in kinds:
        link_library(folder, name)
    if "exe" in kinds:
        link_program(folder, name, list(program_macros(graph, name, in_file)))


def _describe(lowered: Lowered, in_file: bool) -> str:
    """The first line of code as text: what it is, and where its weights are."""
    name, title, size = lowered.symbol, c_comment(lowered.plan.graph.name), lowered.plan.weight_bytes
    cpus = ", ".join(target.cpu for _, target in lowered.plans)
    where = f"{name}_create reads them" if in_file else f"the external {WEIGHTS_LABEL} stands for them"
    return (
        f"Network '{title}', compiled by graphc for {cpus}. Its {size} bytes of weights "
        f"are not in this text: {where}; {name}.weights holds them after its first 64 bytes."
    )
