"""Code compiled for this process: LLVM's engine, kept alive for as long as a network uses its functions."""

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from graphc.codegen.target import base_machine
from graphc.runtime.lending import CREATE_VISITING, LentWeights
from graphc.runtime.network import SIGNATURES, Network


class JitCode:
    """Machine code in memory. It must outlive every function pointer, and the engine its target machine."""

    def __init__(self, *objects: bytes) -> None:
        """Load object files, as `emit_object` of a target machine returns them; later ones call those before them."""
        triple = llvm.get_default_triple()
        self.machine = base_machine(triple)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{triple}"'), self.machine)
        for code in objects:
            self.engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self.engine.finalize_object()

    def function(self, name: str, result: Any, args: tuple[Any, ...]) -> Callable[..., Any]:
        """A C function of the module; calls release the GIL."""
        pointer = self.engine.get_function_address(name)
        return ctypes.CFUNCTYPE(result, *args)(pointer)


def make_network(
    code: JitCode,
    symbol: str,
    weights: NDArray[np.uint8] | LentWeights,
    threads: int,
    recipe: tuple[Callable[..., Network], tuple[Any, ...]],
) -> Network:
    """The callable over the functions `symbol_*` of `code`, reading its weights where they lie."""
    functions = {name: code.function(f"{symbol}_{name}", *signature) for name, signature in SIGNATURES.items()}

    def create(out: Any) -> int:
        if isinstance(weights, LentWeights):
            try:
                with weights.lend() as lent:
                    return int(code.function(f"{symbol}_create_visiting", *CREATE_VISITING)(out, threads, *lent))
            except BaseException:  # weights that could not be made: it holds others
                functions["destroy"](out._obj)
                raise
        return int(functions["create_from_memory"](out, threads, weights.ctypes.data, weights.size))

    return Network(functions, create, (code, weights), recipe)
