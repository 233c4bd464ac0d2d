"""Code compiled for this process, kept alive for as long as a network uses its functions."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.runtime.elf import ElfCode, is_x86_elf
from graphc.runtime.lending import CREATE_VISITING, LentWeights
from graphc.runtime.network import SIGNATURES, Network


class JitCode:
    """Machine code in memory. It must outlive every function pointer."""

    def __init__(self, *objects: bytes) -> None:
        """Load object files, as `emit_object` of a target machine returns them; they may call each other."""
        if all(map(is_x86_elf, objects)):
            self._address = ElfCode(objects).address
        else:
            from graphc.runtime.engine import EngineCode  # LLVM

            self._address = EngineCode(objects).address

    def function(self, name: str, result: Any, args: tuple[Any, ...]) -> Callable[..., Any]:
        """A C function of the module; calls release the GIL."""
        return ctypes.CFUNCTYPE(result, *args)(self._address(name))


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
