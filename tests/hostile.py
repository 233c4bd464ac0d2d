"""What a malformed or hostile ONNX file is in the tests: how it is made, and what must come of it.

The files are listed in hostile_bytes.py, _tensors.py, _ops.py, _graphs.py, _bodies.py and _names.py; `CASES` in
hostile_cases.py has all of them. hostile_server.py runs them within limits, test_hostile.py judges.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto

from graphc.errors import GraphcError
from graphc.ir import Array


@dataclass(frozen=True)
class Case:
    """A file that ends in an `error` whose message names `culprit`; or, without an error, in the right result.

    `source` is the model, or what makes the file at a path: it returns the model, or the bytes, or has written it.
    """

    source: ModelProto | Callable[[Path], ModelProto | bytes | None]
    error: type[GraphcError] | None = None
    # a node, tensor, input, output or function, or "byte N" and where that is; None if the file as a whole is at fault
    culprit: str | None = None
    right: Callable[..., object] | None = None  # the result of these inputs; by default that of the NumPy reference
    inputs: Callable[[], list[Array]] | None = None  # by default random ones of `sizes`
    sizes: dict[str, int] = field(default_factory=dict)  # of dims; others are 1
    settings: dict[str, str] = field(default_factory=dict)
    only_read: bool = False  # not compiled
    artefact: bool = False  # run it as a library, and build a program

    def write(self, path: Path) -> None:
        """Write the file."""
        made = self.source(path) if callable(self.source) else self.source
        if made is not None:
            path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())


def bad(
    source: ModelProto | Callable[[Path], ModelProto | bytes | None], error: type[GraphcError], culprit: str | None
) -> Case:
    """A file that must be refused."""
    return Case(source, error, culprit)
