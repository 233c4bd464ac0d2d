"""Weights in an object file: a section that LLVM reserves, and that is filled in afterwards.

LLVM could read them itself (`.incbin`), but it holds all data in memory three times over and grows them step by step:
for 550 MB (VGG-16) that took 10 seconds and 1.7 GB. So the object is emitted with a section that has a size and no
content (NOBITS, as .bss has), and the content is then appended to the file, which takes as long as writing it.
Offsets and numbers are those of the ELF-64 specification (System V ABI, chapter 4).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm

from graphc.codegen.module import WEIGHTS_LABEL
from graphc.codegen.plan import ALIGNMENT, Plan
from graphc.driver import weights_header
from graphc.emission import Lowered
from graphc.errors import UnsupportedError

_SECTION = ".rodata.graphc_weights"  # linkers gather what begins with .rodata in .rodata, which processes share
_SHT_PROGBITS, _SHT_NOBITS = 1, 8
_LARGEST = 2**31 - 2**24  # bytes: code reaches data over them by 32-bit offsets; 16 MiB are left for the rest


def write_object(path: Path, lowered: Lowered, embed: bool) -> None:
    """Write the network's object file, with its weights if `embed`."""
    plan, module = lowered.plan, lowered.module
    if not embed or not plan.weight_bytes:
        path.write_bytes(lowered.machine.emit_object(module))
        return
    if plan.weight_bytes > _LARGEST:
        raise UnsupportedError(
            f"network '{plan.graph.name}': at most {_LARGEST} bytes of weights can be embedded, "
            f'got {plan.weight_bytes}; build with weights="file"'
        )
    module.link_in(_reserve(module, plan.weight_bytes))
    code = bytearray(lowered.machine.emit_object(module))
    code += bytes(-len(code) % ALIGNMENT)
    _give_content(code, len(code))
    with path.open("wb") as file:
        file.write(code)
        file.writelines(plan.weight_chunks())


def write_weights(path: Path, plan: Plan) -> None:
    """Write the weights file: 64 bytes that tell whose weights they are, then the block."""
    with path.open("wb") as file:
        file.write(weights_header(plan))
        file.writelines(plan.weight_chunks())


def _reserve(module: llvm.ModuleRef, size: int) -> llvm.ModuleRef:
    """A module of the same target that defines the weights' label in front of `size` bytes without content."""
    llvm.initialize_native_asmparser()
    lines = [f".section {_SECTION},\\22a\\22,@nobits", f".balign {ALIGNMENT}", f"{WEIGHTS_LABEL}:", f".zero {size}"]
    head = f'target datalayout = "{module.data_layout}"\ntarget triple = "{module.triple}"\n'
    return llvm.parse_assembly(head + "".join(f'module asm "{line}"\n' for line in lines))


def _give_content(code: bytearray, offset: int) -> None:
    """Make the reserved section of an ELF-64 object one whose content begins at `offset` of the file."""
    (header,) = (at for at, name in _section_headers(code) if name == _SECTION.encode())
    assert struct.unpack_from("<I", code, header + 4) == (_SHT_NOBITS,)
    struct.pack_into("<I", code, header + 4, _SHT_PROGBITS)
    struct.pack_into("<Q", code, header + 24, offset)


def _section_headers(code: bytearray) -> Iterator[tuple[int, bytes]]:
    """Where each section header lies in the object, and the section's name."""
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count, names = struct.unpack_from("<HHH", code, 58)
    (names_at,) = struct.unpack_from("<Q", code, table + names * size + 24)
    for at in range(table, table + count * size, size):
        (name,) = struct.unpack_from("<I", code, at)
        yield at, bytes(code[names_at + name : code.index(0, names_at + name)])
