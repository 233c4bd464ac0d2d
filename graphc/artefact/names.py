"""Names and texts of a network as C wants them."""

import re
from collections.abc import Iterable

from graphc.errors import InputError

# The header is for C99 and C++, so the words of both are taken; C's _Bool and the like fail the pattern below.
_KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using virtual void volatile
    wchar_t while xor xor_eq
"""
# A program has its `main`; the code behind NAME_create defines graphc_* and calls pthread_create and pthread_mutex_*.
_TAKEN = re.compile(r"main|(graphc|pthread)(_\w*)?", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LONGEST = 200  # characters: a file name has at most 255, of which endings and those of temporary files take some


def artefact_name(graph_name: str, given: str | None) -> str:
    """The C identifier that files and functions are called after: `given`, or one made from the graph's name.

    InputError if `given` is not an identifier that begins with a letter, is a word of C or C++, is taken or too long.
    """
    if given is None:
        return c_identifier(graph_name, "net")
    if not _PATTERN.fullmatch(given) or _is_reserved(given):
        raise InputError(f"name: expected a C identifier that begins with a letter and is not reserved, got {given!r}")
    if len(given) > _LONGEST:
        raise InputError(f"name: expected at most {_LONGEST} characters, got {len(given)}")
    return given


def c_identifier(text: str, stem: str) -> str:
    """`text` as a C identifier, with `stem` before it if it does not begin with a letter or is reserved."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    if not _PATTERN.fullmatch(name) or _is_reserved(name):
        name = f"{stem}_{name.lstrip('_')}".rstrip("_")
    return name[:_LONGEST]


def c_parameters(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Different C identifiers for tensors of these names, none of them in `taken`."""
    found: list[str] = []
    used = set(taken)
    for text in names:
        name = c_identifier(text, "tensor")
        while name in used:
            name += "_"
        used.add(name)
        found.append(name)
    return found


def c_comment(text: str) -> str:
    """`text` on one line that neither ends the C comment it stands in nor seems to begin another."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("*/", "* /").replace("/*", "/ *")


def c_string(text: str) -> str:
    """A C string literal of the UTF-8 bytes; all but letters, digits and harmless signs as three octal digits."""
    plain = re.compile(rb"[A-Za-z0-9 _.,:;+*/()\[\]<>|-]")
    data = (bytes([b]) for b in text.encode())
    return '"' + "".join(b.decode() if plain.fullmatch(b) else f"\\{b[0]:03o}" for b in data) + '"'


def _is_reserved(name: str) -> bool:
    return name in _KEYWORDS.split() or _TAKEN.fullmatch(name) is not None
