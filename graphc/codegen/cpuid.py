"""Where an x86-64 CPU tells which instructions it has: LLVM's feature names as bits of what `cpuid` and `xgetbv` say.

runtime/cpuid_x86_64.ll reads these words when an artefact is first used; code whose bits are not all there is not run.
The bits are those of Intel's Software Developer's Manual (volume 2, CPUID) and AMD's Programmer's Manual (volume 3, E).
"""

from collections.abc import Collection, Iterable, Mapping

from graphc.errors import GraphcError

WORDS = 8  # the last one is XCR0: the registers that the operating system keeps for each thread
_LEAF1_C, _LEAF1_D, _LEAF7_B, _LEAF7_C, _LEAF7_D, _LEAF71_A, _EXTENDED_C, _XCR0 = range(WORDS)
_YMM_STATE, _ZMM_STATE = 0x6, 0xE6  # of XCR0: xmm and ymm; with these k0 to k7, zmm and zmm16 to zmm31

# feature -> (word, bit); what is not here is for operating systems, or no loop over numbers turns into it
_BITS: Mapping[str, tuple[int, int]] = {
    "sse3": (_LEAF1_C, 0), "ssse3": (_LEAF1_C, 9), "fma": (_LEAF1_C, 12), "cx16": (_LEAF1_C, 13),
    "sse4.1": (_LEAF1_C, 19), "sse4.2": (_LEAF1_C, 20), "crc32": (_LEAF1_C, 20), "movbe": (_LEAF1_C, 22),
    "popcnt": (_LEAF1_C, 23), "xsave": (_LEAF1_C, 26), "avx": (_LEAF1_C, 28), "f16c": (_LEAF1_C, 29),
    "cx8": (_LEAF1_D, 8), "cmov": (_LEAF1_D, 15), "mmx": (_LEAF1_D, 23), "fxsr": (_LEAF1_D, 24),
    "sse": (_LEAF1_D, 25), "sse2": (_LEAF1_D, 26),
    "bmi": (_LEAF7_B, 3), "avx2": (_LEAF7_B, 5), "bmi2": (_LEAF7_B, 8), "avx512f": (_LEAF7_B, 16),
    "avx512dq": (_LEAF7_B, 17), "avx512ifma": (_LEAF7_B, 21), "avx512cd": (_LEAF7_B, 28),
    "avx512bw": (_LEAF7_B, 30), "avx512vl": (_LEAF7_B, 31),
    "avx512vbmi": (_LEAF7_C, 1), "avx512vbmi2": (_LEAF7_C, 6), "gfni": (_LEAF7_C, 8), "avx512vnni": (_LEAF7_C, 11),
    "avx512bitalg": (_LEAF7_C, 12), "avx512vpopcntdq": (_LEAF7_C, 14),
    "avx512fp16": (_LEAF7_D, 23),
    "avxvnni": (_LEAF71_A, 4), "avx512bf16": (_LEAF71_A, 5),
    "sahf": (_EXTENDED_C, 0), "lzcnt": (_EXTENDED_C, 5), "prfchw": (_EXTENDED_C, 8),
}  # fmt: skip
_ALWAYS = {"64bit"}  # the code would not have been loaded


def flatten_features(host: Mapping[str, bool]) -> tuple[str, frozenset[str]]:
    """What LLVM may use of a CPU with these features, as the text that it takes, and as names.

    A feature that is not in the table is switched off, so that what the code needs is known.
    """
    used = {name for name, present in host.items() if present and name in _BITS}
    unused = sorted(host.keys() - used - _ALWAYS)  # first, for what comes later wins where one implies another
    return ",".join([*(f"-{name}" for name in unused), *(f"+{name}" for name in sorted(used))]), frozenset(used)


def needed_words(features: Collection[str]) -> list[int]:
    """The bits that must be set for code that uses these features."""
    words = [0] * WORDS
    for name in features:
        word, bit = _BITS[name]
        words[word] |= 1 << bit
    if "avx" in features:
        words[_XCR0] = _ZMM_STATE if "avx512f" in features else _YMM_STATE
    return words


def check_features(label: str, needed: Iterable[str], present: Collection[str]) -> None:
    """GraphcError that names the features that are needed and not present."""
    if missing := sorted(set(needed) - set(present)):
        lacking = ", ".join(missing)
        raise GraphcError(f"cpu '{label}': this machine lacks {lacking}; compile for another level or 'native'")
