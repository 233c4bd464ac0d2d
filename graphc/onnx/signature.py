"""The inputs of an ONNX model as types: which symbol stands for which of its dynamic dims."""

import keyword
import re
from collections.abc import Sequence

from onnx import TensorShapeProto, ValueInfoProto

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DimLike, DType, TensorType, dims
from graphc.onnx.tensors import read_dtype

LETTERS = {0: "N", 2: "H", 3: "W"}  # by position in an image batch [N,C,H,W]
_RESERVED = ("min", "max", "inf", "nan")  # what the text form reads as something else than a symbol
_EXPRESSION = re.compile(r"[\w+\-*/(), ]{1,200}")  # the texts that dims.parse is asked to read


def read_input_types(inputs: Sequence[ValueInfoProto]) -> list[TensorType]:
    """The types of a model's inputs.

    The dynamic dims of a float input of rank 4 become N, H and W; a dim_param that occurs again is the same symbol
    again, and an expression of known ones (2*height) is that expression. Other dims keep their dim_param if it is an
    identifier that is still free, else they get a new symbol.
    """
    dtypes = [_read_dtype(v) for v in inputs]
    shapes = [v.type.tensor_type.shape.dim for v in inputs]
    images = [
        (dtype.is_float or dtype.is_half) and len(shape) == 4 for dtype, shape in zip(dtypes, shapes, strict=True)
    ]
    order = sorted(range(len(inputs)), key=lambda i: not images[i])
    symbols = _Symbols()
    for expressions in (False, True):  # an expression may use the symbols of a later input
        for i in order:
            for position, d in enumerate(shapes[i]):
                if not d.HasField("dim_value") and _is_expression(d.dim_param) == expressions:
                    if images[i] and position == 1:
                        got = d.dim_param or "a dynamic dim"
                        raise ShapeError(f"input '{inputs[i].name}': expected a constant number of channels, got {got}")
                    symbols.bind(_key(d, i, position), d.dim_param, LETTERS.get(position) if images[i] else None)
    return [
        TensorType(dtype, tuple(_read_dim(d, symbols, _key(d, i, position)) for position, d in enumerate(shape)))
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]


def _read_dtype(v: ValueInfoProto) -> DType:
    if v.type.WhichOneof("value") != "tensor_type" or not v.type.tensor_type.HasField("shape"):
        raise UnsupportedError(f"input '{v.name}': expected a tensor of known rank")
    try:
        return read_dtype(v.type.tensor_type.elem_type)
    except UnsupportedError as error:
        raise UnsupportedError(f"input '{v.name}': {error}") from None


def _read_dim(d: TensorShapeProto.Dimension, symbols: "_Symbols", key: str) -> DimLike:
    return d.dim_value if d.HasField("dim_value") else symbols.bound[key]


def _key(d: TensorShapeProto.Dimension, index: int, position: int) -> str:
    return d.dim_param or f"\0{index}.{position}"  # an unnamed dim is told apart by its place


def _is_expression(text: str) -> bool:
    return bool(text) and not text.isidentifier()


class _Symbols:
    """Gives each dynamic dim, known by its key, a symbol or an expression."""

    def __init__(self) -> None:
        self.bound: dict[str, DimLike] = {}
        self._taken: set[str] = set()

    def bind(self, key: str, text: str, letter: str | None) -> None:
        """Choose what a dim with this dim_param is called; `letter` is what it stands for in an image batch."""
        if key not in self.bound:
            known = self._parse(text)
            self.bound[key] = dims.symbol(self._choose(text, letter)) if known is None else known

    def _parse(self, text: str) -> DimLike | None:
        """The expression of known dims that `text` is, or None."""
        if not _is_expression(text) or not _EXPRESSION.fullmatch(text):
            return None
        try:
            found = dims.parse(text)
        except ShapeError:
            return None
        return dims.substitute(found, self.bound) if dims.symbols_of(found) <= self.bound.keys() else None

    def _choose(self, text: str, letter: str | None) -> str:
        usable = text.isidentifier() and not keyword.iskeyword(text) and text not in _RESERVED
        numbered = (f"d{i}" for i in range(1, len(self._taken) + 2))
        options = (*([letter] if letter else []), *([text] if usable else []), *numbered)
        name = next(o for o in options if o not in self._taken)
        self._taken.add(name)
        return name
