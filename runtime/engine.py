"""Object files in LLVM's own engine, for machines whose code elf.py does not load."""

from collections.abc import Sequence

import llvmlite.binding as llvm

from graphc.codegen.target import base_machine


class EngineCode:
    """Machine code in memory. It must outlive every address, and the engine its target machine."""

    def __init__(self, objects: Sequence[bytes]) -> None:
        triple = llvm.get_default_triple()
        self._machine = base_machine(triple)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{triple}"'), self._machine)
        for code in objects:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where the function of this name is; 0 if there is none."""
        return int(self._engine.get_function_address(name))
