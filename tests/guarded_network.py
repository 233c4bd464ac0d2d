"""Compiled networks between forbidden pages: around every buffer that the code is given, and all that it allocates."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from guards import Guarded, guard

from graphc.codegen.plan import ALIGNMENT
from graphc.driver import lower
from graphc.errors import InputError
from graphc.halos import find_rule
from graphc.ir import Array, Graph, dims
from graphc.ir.sizes import bind_sizes
from graphc.runtime.jit import JitCode
from graphc.runtime.network import SIGNATURES
from graphc.runtime.tiling import TilePlan
from graphc.strips import make_strip_rule

POISON = (0xFF, 0x5A)  # NaN, and a large number: what is read before it is written makes results differ
SPARE = 64  # bytes of a network's own block beyond packed weights and scratch; nothing may touch them
_P, _N = ctypes.c_void_p, ctypes.c_size_t


class GuardedHeap:
    """calloc, aligned_alloc and free for compiled code; `at_start` says on which side the forbidden page lies."""

    def __init__(self) -> None:
        self.at_start, self.aligned = False, 0  # and how many aligned blocks were asked for
        self._blocks: dict[int, Guarded] = {}
        libc = ctypes.CDLL(None)
        self._free = ctypes.CFUNCTYPE(None, _P)(("free", libc))
        self._hooks: dict[str, Any] = {
            "calloc": ctypes.CFUNCTYPE(_P, _N, _N)(lambda count, size: self._give(count * size, 8, 0)),
            "aligned_alloc": ctypes.CFUNCTYPE(_P, _N, _N)(self._give_aligned),
            "free": ctypes.CFUNCTYPE(None, _P)(self._take),
        }
        self._usual = {name: ctypes.cast(getattr(libc, name), _P).value for name in self._hooks}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Code that is loaded meanwhile allocates here."""
        for name, hook in self._hooks.items():
            llvm.add_symbol(name, ctypes.cast(hook, _P).value)
        yield
        for name, address in self._usual.items():
            llvm.add_symbol(name, address)

    def _give(self, size: int, alignment: int, fill: int) -> int:
        block = Guarded((size,), np.dtype(np.uint8), self.at_start, alignment)
        block.array[...] = fill
        self._blocks[block.address] = block
        return block.address

    def _give_aligned(self, alignment: int, size: int) -> int:
        """The first block is the thread pool, the second the network's own. Kernels count on no more than ALIGNMENT."""
        self.aligned += 1
        return self._give(size - SPARE * (self.aligned == 2), min(alignment, ALIGNMENT), POISON[0])

    def _take(self, block: int | None) -> None:
        if block is not None and self._blocks.pop(block, None) is None:
            self._free(block)


class GuardedNetwork:
    """A graph's code, on `threads` threads, with forbidden pages on one side of every buffer, or the other."""

    def __init__(self, graph: Graph, cpu: str, threads: int = 2) -> None:
        self.graph, self._threads, self._heap = graph, threads, GuardedHeap()
        lowered = lower(graph, "net", cpu)
        self.plan, self._weights = lowered.plan, lowered.plan.weight_block()
        with self._heap.serving():
            self._code = JitCode(lowered.object_code())
            self._call: dict[str, Callable[..., Any]] = {
                name: self._code.function(f"net_{name}", *signature) for name, signature in SIGNATURES.items()
            }
        self._handles: dict[bool, tuple[ctypes.c_void_p, Array]] = {}

    def close(self) -> None:
        """Free what `run` has made."""
        for handle, _ in self._handles.values():
            self._call["destroy"](handle)
        self._handles.clear()

    def _handle(self, at_start: bool) -> ctypes.c_void_p:
        if at_start not in self._handles:
            block = Guarded(self._weights.shape, self._weights.dtype, at_start, ALIGNMENT).array
            block[...] = self._weights
            handle, heap = ctypes.c_void_p(), self._heap
            heap.at_start, heap.aligned = at_start, 0
            address = block.ctypes.data if block.size else None
            assert self._call["create_from_memory"](ctypes.byref(handle), self._threads, address, block.size) == 0
            self._handles[at_start] = handle, block
        return self._handles[at_start][0]

    def run(self, inputs: list[Array], at_start: bool, poison: int = POISON[0]) -> list[Array]:
        """The outputs; InputError if the code refuses the sizes. All that it may write holds `poison` beforehand."""
        return self._run("call", inputs, self._workspace("workspace", inputs, at_start, poison), at_start, poison)

    def run_strip(self, image: Array, new: int, at_start: bool, poison: int = POISON[0]) -> list[Array] | None:
        """The outputs of a run by the tiles of one strip, of so many `new` rows; None if there is but one tile."""
        carry, final = self.plan.carry, self.plan.graph
        rule = find_rule(final)
        if carry is None or isinstance(rule, str):
            return None
        n, c, h, w = image.shape
        align, strips = rule.rows.align, make_strip_rule(final, carry)
        cut = replace(rule, strips=strips), (n, c, h, w), n, (-(-new // align) * align, w)
        plan = TilePlan(*cut, largest=(0, 0), workspace=0, buffers=0, resident=0, strips=True)
        tiles = list(plan)
        if len(tiles) < 2:
            return None
        seen = [np.ascontiguousarray(image[:, :, slice(*tile.seen[0])]) for tile in tiles]
        highest = max(seen, key=lambda rows: int(rows.shape[2]))
        carried = self._workspace("carried", [highest], at_start, poison)
        sizes = bind_sizes([(v.name, v.type) for v in self.graph.inputs], [image.shape])
        whole = [tuple(dims.evaluate(d, sizes) for d in v.type.shape) for v in self.graph.outputs]
        parts: list[list[Array]] = [[] for _ in whole]
        for tile, rows in zip(tiles, seen, strict=True):
            workspace = self._workspace("workspace", [rows], at_start, poison)
            strip = carried.ctypes.data, carried.size, tile.part
            results = self._run("strip", [rows], workspace, at_start, poison, *strip)
            for i, (name, y) in enumerate(zip(self.graph.output_names, results, strict=True)):
                place = tile.results(rule.strides[name], whole[i], (h, w), plan.late(name))
                parts[i].append(y[:, :, slice(*place.source[0])])
        return [np.concatenate(part, 2) for part in parts]

    def _workspace(self, query: str, inputs: list[Array], at_start: bool, poison: int) -> Array:
        needed = self._call[query](self._pack(inputs))
        if needed < 0:
            raise InputError(self._call["strerror"](-needed).decode())
        workspace: Array = Guarded((needed,), np.dtype(np.uint8), at_start, ALIGNMENT).array
        workspace[...] = poison
        return workspace

    def _pack(self, inputs: list[Array]) -> Any:
        sizes = bind_sizes([(v.name, v.type) for v in self.graph.inputs], [a.shape for a in inputs])
        return (ctypes.c_int64 * max(1, len(sizes)))(*(sizes[s] for s in self.graph.symbols))

    def _run(
        self, call: str, inputs: list[Array], workspace: Array, at_start: bool, poison: int, *part: int | None
    ) -> list[Array]:
        handle, packed, results = self._handle(at_start), self._pack(inputs), list[Array]()
        for i, v in enumerate(self.graph.outputs):
            shape = (ctypes.c_int64 * max(1, v.type.rank))()
            assert self._call["output_dims"](packed, i, shape) == 0
            dtype = v.type.dtype.numpy
            results.append(Guarded(tuple(shape[: v.type.rank]), dtype, at_start, dtype.itemsize).array)
            results[-1].reshape(-1).view(np.uint8)[...] = poison
        guarded = [guard(a, at_start) for a in inputs]
        sources = (_P * len(guarded))(*(a.ctypes.data for a in guarded))
        targets = (_P * len(results))(*(a.ctypes.data for a in results))
        space = workspace.ctypes.data, workspace.size
        assert self._call[call](handle, sources, packed, targets, *space, *part) == 0
        for given, kept in zip(inputs, guarded, strict=True):
            assert given.tobytes() == kept.tobytes(), "an input was written"
        return results


def run_guarded(graph: Graph, cpu: str, inputs: list[Array], at_start: bool) -> list[Array]:
    """The outputs of the compiled graph, with every buffer between forbidden pages; the same bits from any memory."""
    network = GuardedNetwork(graph, cpu)
    found, again = (network.run(inputs, at_start, poison) for poison in POISON)
    network.close()
    for a, b in zip(found, again, strict=True):
        assert a.tobytes() == b.tobytes(), "a result depends on memory that was never written"
    return found
