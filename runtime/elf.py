"""Object files of x86-64 in this process's memory: what a linker and a loader do with code that needs little of them.

LLVM's engine could load them, too, but its library takes 50 MB in a process that has nothing to compile. Offsets and
numbers are those of the ELF-64 specification and of the System V ABI for x86-64 (4.4, relocation).
"""

import ctypes
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import GraphcError

_MAGIC, _X86_64 = b"\x7fELF\x02\x01\x01", 62
_SECTION, _SYMBOL, _RELOCATION = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), struct.Struct("<QQq")
_SYMTAB, _RELA, _NOBITS = 2, 4, 8  # kinds of sections; others that are to be loaded hold content
_UNWIND = 0x70000001  # how to pass exceptions on, which no function does
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4  # flags of sections
_ABS64, _PC32, _PLT32 = 1, 2, 4  # relocations: the others need a table that such code does not have
_JUMP = b"\xff\x25\0\0\0\0"  # jmp *0(%rip): to the address that follows
_STUB = 16  # bytes of a jump and its address


@dataclass
class _Section:
    """A section as its header has it; `start` is where it lies in memory, from the beginning, if it is loaded."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    start: int | None = None


class _Object:
    """An object file: its sections, and its symbols as (name, is global, section number, value)."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        (table,) = struct.unpack_from("<Q", code, 40)
        (count,) = struct.unpack_from("<H", code, 60)
        headers = _SECTION.iter_unpack(code[table : table + count * _SECTION.size])
        self.sections = [
            _Section(kind, flags, offset, size, link, info, alignment)
            for _, kind, flags, _, offset, size, link, info, alignment, _ in headers
        ]
        (symbols,) = (s for s in self.sections if s.kind == _SYMTAB)
        texts = self.sections[symbols.link].offset
        self.symbols = [
            (code[texts + name : code.index(0, texts + name)].decode(), info >= 16, section, value)
            for name, info, _, section, value, _ in _SYMBOL.iter_unpack(self.content(symbols))
        ]

    def content(self, section: _Section) -> bytes:
        """Its bytes in the file."""
        return self.code[section.offset : section.offset + section.size]

    def relocations(self) -> Iterator[tuple[int, int, int, int]]:
        """(place, kind, symbol number, addend) of all that is loaded."""
        for table in self.sections:
            if table.kind == _RELA and (start := self.sections[table.info].start) is not None:
                for place, info, addend in _RELOCATION.iter_unpack(self.content(table)):
                    yield start + place, info & 0xFFFFFFFF, info >> 32, addend


class ElfCode:
    """Object files that refer to each other and to the C library, loaded; they must outlive every address."""

    def __init__(self, objects: Sequence[bytes]) -> None:
        files = [_Object(code) for code in objects]
        defined = {name for f in files for name, outer, section, _ in f.symbols if outer and section}
        wanted = {name for f in files for name, outer, section, _ in f.symbols if outer and not section}
        stubs = {name: _STUB * i for i, name in enumerate(sorted(wanted - defined))}
        limits, end = [], _STUB * len(stubs)
        for flags in (_EXECUTE, 0, _WRITE):  # what may be done with pages is said for whole ones
            for section in (s for f in files for s in f.sections):
                if section.flags & (_ALLOC | _EXECUTE | _WRITE) == _ALLOC | flags and section.kind != _UNWIND:
                    section.start = -(-end // section.alignment) * section.alignment
                    end = section.start + section.size
            end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
            limits.append(end)
        self._space = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._base = np.frombuffer(self._space, np.uint8).ctypes.data
        for name, place in stubs.items():
            self._space[place : place + _STUB] = (_JUMP + struct.pack("<Q", _find_in_process(name))).ljust(_STUB, b"\0")
        self._places: dict[str, int] = {}
        for file in files:
            self._copy(file)
        for file in files:
            self._relocate(file, stubs)
        self._protect(0, limits[0], mmap.PROT_READ | mmap.PROT_EXEC)
        self._protect(limits[0], limits[1], mmap.PROT_READ)

    def address(self, name: str) -> int:
        """Where the function of this name is; 0 if there is none."""
        return self._base + self._places[name] if name in self._places else 0

    def _copy(self, file: _Object) -> None:
        for section in file.sections:
            if section.start is not None and section.kind != _NOBITS:
                self._space[section.start : section.start + section.size] = file.content(section)
        for name, outer, number, value in file.symbols:
            if outer and number:
                start = file.sections[number].start
                assert start is not None
                self._places[name] = start + value

    def _relocate(self, file: _Object, stubs: dict[str, int]) -> None:
        for place, kind, number, addend in file.relocations():
            name, outer, section, value = file.symbols[number]
            if outer:
                target = self._places.get(name, stubs.get(name, 0))
            else:
                start = file.sections[section].start
                assert start is not None
                target = start + value
            if kind == _ABS64:
                struct.pack_into("<Q", self._space, place, self._base + target + addend)
            elif kind in (_PC32, _PLT32):
                struct.pack_into("<i", self._space, place, target + addend - place)
            else:
                raise GraphcError(f"object file: expected relocations of the kinds 1, 2 and 4, got {kind} to '{name}'")

    def _protect(self, start: int, end: int, allowed: int) -> None:
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        if end > start and protect(ctypes.c_void_p(self._base + start), ctypes.c_size_t(end - start), allowed):
            raise OSError(ctypes.get_errno(), "mprotect: compiled code cannot be made executable")


def is_x86_elf(code: bytes) -> bool:
    """Whether `ElfCode` knows files of this kind."""
    return code.startswith(_MAGIC) and struct.unpack_from("<H", code, 18) == (_X86_64,)


def _find_in_process(name: str) -> int:
    """The address of a function of the C library or libm."""
    for library in (None, "libm.so.6"):
        function = getattr(ctypes.CDLL(library), name, None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise GraphcError(f"object file: expected functions of the C library, got '{name}', which is not there")
