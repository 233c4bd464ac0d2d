"""Texts of LLVM IR to object files: in this process, or in some of their own, side by side, if there are many.

LLVM's library and what it compiles take 80 to 100 MB, and llvmlite lets one thread at a time use it. In other processes
the parts of a network are compiled on all CPUs, and this one never has that memory: on 2 CPUs ResNet-50 is compiled in
60 % of the time.

A helper is told the paths where modules are found, the triple and the names of loop nests, then a part at a time; a
message is its length (8 bytes, little-endian) and so many bytes. It ends with its input.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from graphc.codegen.target import base_machine, load_llvm

if TYPE_CHECKING:
    import llvmlite.binding as llvm

# Modules are found where this process finds them, whatever the working folder holds
START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from graphc.codegen.compiling import serve; serve()"


class HelperError(Exception):
    """A helper could not be started, or ended too early."""


class Helpers:
    """Processes that compile; to be left by `close`. They start while this one still writes the texts."""

    def __init__(self, triple: str, count: int) -> None:
        """Start `count`. Errors: HelperError."""
        self._triple, self._processes = triple, list[subprocess.Popen[bytes]]()
        if not sys.executable:  # Python inside another program
            raise HelperError("no Python to run")
        command = [sys.executable, "-c", START, json.dumps(sys.path)]
        try:
            for _ in range(count):
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                self._processes.append(subprocess.Popen(command, **pipes))  # type: ignore[call-overload]
        except OSError as error:
            self.close()
            raise HelperError(str(error)) from None

    def compile(self, parts: Sequence[str], nests: Collection[str]) -> list[bytes]:
        """The object file of each part. Errors: HelperError."""
        from concurrent.futures import ThreadPoolExecutor  # 7 ms, which code from the cache does without

        waiting = sorted(range(len(parts)), key=lambda i: len(parts[i]))  # the longest first, from the end
        found = dict[int, bytes]()

        def work(process: "subprocess.Popen[bytes]") -> None:
            assert process.stdin and process.stdout
            _send(process.stdin, json.dumps([self._triple, sorted(nests)]).encode())
            while True:
                try:
                    i = waiting.pop()
                except IndexError:
                    return
                _send(process.stdin, parts[i].encode())
                found[i] = _receive(process.stdout)

        try:
            with ThreadPoolExecutor(len(self._processes)) as pool:
                for done in [pool.submit(work, process) for process in self._processes]:
                    done.result()
        except (OSError, EOFError) as error:
            raise HelperError(str(error)) from None
        return [found[i] for i in range(len(parts))]

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            with suppress(BrokenPipeError):  # what was not read yet
                process.__exit__(None, None, None)  # closes its pipes, and waits


def _send(file: IO[bytes], message: bytes) -> None:
    file.write(len(message).to_bytes(8, "little") + message)
    file.flush()


def _receive(file: IO[bytes]) -> bytes:
    length = int.from_bytes(_read(file, 8), "little")
    return _read(file, length)


def _read(file: IO[bytes], count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise EOFError("a process that compiles ended too early")
    return found


def serve() -> None:
    """What a helper does: compile what comes on its standard input, until that ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    try:
        triple, nests = json.loads(_receive(source))
        machine, names = base_machine(triple), set(nests)
        while True:
            _send(target, compile_part(_receive(source).decode(), machine, names))
    except EOFError:
        return


def compile_part(text: str, machine: "llvm.TargetMachine", nests: Collection[str]) -> bytes:
    """The object file of a text of LLVM IR; `nests` names the functions that loop nests became."""
    return bytes(machine.emit_object(optimize_text(text, machine, nests)))


def optimize_text(text: str, machine: "llvm.TargetMachine", nests: Collection[str]) -> "llvm.ModuleRef":
    """The module of a text, optimised."""
    from graphc.codegen.optimizing import optimize_code  # LLVM's library comes with it

    llvm = load_llvm()
    module = llvm.parse_assembly(text, llvm.create_context())  # what all share keeps types and constants for ever
    module.verify()
    optimize_code(module, machine, nests)
    return module
