"""Names that are unique, and that both ONNX and the graph language take."""

import re
from collections.abc import Iterable, Sequence

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters and what else ends a line
_REFUSED = re.compile(rf'[{_CONTROL}"\\]')  # what Builder and the text form refuse


def clean(name: str) -> str:
    """`name` with an underscore for each character that the graph language has no place for."""
    return _REFUSED.sub("_", name)


def one_line(message: str) -> str:
    """`message` with an underscore for each control character, which names in a file may bring in."""
    return re.sub(f"[{_CONTROL}]", "_", message)


class Names:
    """A set of names in use, and new ones beside them."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._numbers: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """`stem` if it is free, else stem_1, stem_2, ...; taken from now on."""
        name = stem
        while name in self._taken:
            self._numbers[stem] = self._numbers.get(stem, 0) + 1
            name = f"{stem}_{self._numbers[stem]}"
        self._taken.add(name)
        return name


def rename_all(names: Sequence[str]) -> list[str]:
    """A clean name for each of these, all different; the first of equal ones that is clean already is kept."""
    unique = Names(n for n in names if n and n == clean(n))
    seen: set[str] = set()
    result = []
    for name in names:
        kept = bool(name) and name == clean(name) and name not in seen
        result.append(name if kept else unique.fresh(clean(name) or "unnamed"))
        seen.add(name)
    return result
