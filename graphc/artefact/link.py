"""The system's C compiler: it links the library and compiles the program around a network."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from graphc.errors import GraphcError
from graphc.settings import c_compiler

# Calls inside the library stay inside, whatever else the process has loaded; all symbols are bound when it is loaded,
# and the table that they are bound through is read-only from then on. --as-needed drops libm and libpthread, which
# newer C libraries contain.
_HARDENING = ("-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack")
_LIBRARIES = ("-Wl,--as-needed", "-lm", "-lpthread")


def find_compiler() -> list[str]:
    """The command of the C compiler, $CC or the first of cc, gcc and clang; GraphcError says how to get one."""
    given = c_compiler()
    for command in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    wanted = f"CC: expected a C compiler, got '{given[0]}', which is not found" if given else "no C compiler found"
    raise GraphcError(f"{wanted}: install gcc or clang (Debian: apt install gcc), or use graphc.compile in process")


def link_library(folder: Path, name: str) -> None:
    """NAME.so from NAME.o, both in `folder`."""
    _run(folder, f"{name}.so", ["-shared", f"{name}.o", f"-Wl,-soname,{name}.so", "-Wl,-Bsymbolic"])


def link_program(folder: Path, name: str, macros: Sequence[str]) -> None:
    """The executable NAME from NAME.h and NAME.o, all in `folder`, and the sources beside runtime/main.c."""
    for source in ("arrays.c", "arrays.h", "main.c"):
        (folder / source).write_bytes((resources.files("graphc.runtime") / source).read_bytes())
    _run(folder, name, ["-std=c99", "-O2", *macros, "main.c", "arrays.c", f"{name}.o"])


def _run(folder: Path, output: str, arguments: Sequence[str]) -> None:
    command = [*find_compiler(), "-o", output, *arguments, *_HARDENING, *_LIBRARIES]
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise GraphcError(f"{command[0]}: cannot be run: {error.strerror}") from None
    if done.returncode:
        raise GraphcError(f"{command[0]} failed on {output}: {_first_line(done)}")


def _first_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The first line that says something: "main.c: In function 'main':" does not."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
    return next((line for line in lines if line and line[-1] not in ":,"), f"exit status {done.returncode}")
