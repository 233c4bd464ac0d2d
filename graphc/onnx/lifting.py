"""A model's file without the data of its large initialisers, which stay there until they are used (graphc/stored.py).

To parse a file that holds 100 MB of weights takes twice the memory of the weights; the rest is a few hundred KB. This
walks over the fields that lead to them, and copies all others. (The fields' numbers are those of onnx.proto; how fields
are written: protobuf.dev/programming-guides/encoding.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from graphc.onnx.tensors import DTYPES
from graphc.stored import LARGE, Span, StoredFile

GRAPH, INITIALIZER = ModelProto.GRAPH_FIELD_NUMBER, GraphProto.INITIALIZER_FIELD_NUMBER
DATA_TYPE, NAME = TensorProto.DATA_TYPE_FIELD_NUMBER, TensorProto.NAME_FIELD_NUMBER
RAW_DATA, PLAIN = TensorProto.RAW_DATA_FIELD_NUMBER, {DATA_TYPE, NAME, TensorProto.DIMS_FIELD_NUMBER,
                                                      TensorProto.DOC_STRING_FIELD_NUMBER}  # fmt: skip
WINDOW = 2**14  # bytes that are read at once
FIXED = {1: 8, 5: 4}  # wire type -> bytes


class _OtherwiseError(Exception):
    """The file is not as this expects: protobuf reads it, or tells what is wrong."""


@dataclass(frozen=True)
class _Field:
    number: int
    start: int  # of its tag
    content: int  # what follows the tag and, where there is one, the length
    end: int
    value: int  # of an integer


def lift_data(file: StoredFile) -> tuple[bytes, dict[str, Span]]:
    """A model's file without the raw data of large initialisers, and where those lie, by their names.

    The whole file, and no places, where it is not as expected.
    """
    walk = _Walk(file)
    try:
        return walk.lift(), walk.found
    except _OtherwiseError:
        return walk.take(0, file.size), {}


class _Walk:
    def __init__(self, file: StoredFile) -> None:
        self.found: dict[str, Span] = {}
        self._file, self._window, self._start = file, b"", 0

    def lift(self) -> bytes:
        """The model without large data."""
        fields = list(self._fields(0, self._file.size))
        graphs = [f for f in fields if f.number == GRAPH]
        if len(graphs) != 1:
            raise _OtherwiseError
        (graph,) = graphs
        body = self._lift_graph(graph)
        head = self.take(0, graph.start) + _tag(GRAPH) + _varint(len(body))
        return head + body + self.take(graph.end, self._file.size)

    def take(self, at: int, end: int) -> bytes:
        """These bytes of the file."""
        target = np.empty(end - at, np.uint8)
        self._file.read(target, at)
        return target.tobytes()

    def _lift_graph(self, graph: _Field) -> bytes:
        parts, copied = [], graph.content
        for f in self._fields(graph.content, graph.end):
            if f.number != INITIALIZER or f.end - f.content < LARGE or (tensor := self._lift_tensor(f)) is None:
                continue
            parts += [self.take(copied, f.start), _tag(INITIALIZER), _varint(len(tensor)), tensor]
            copied = f.end
        return b"".join([*parts, self.take(copied, graph.end)])

    def _lift_tensor(self, tensor: _Field) -> bytes | None:
        """The tensor without its data, whose place is noted; None if it holds them in another way."""
        every = list(self._fields(tensor.content, tensor.end))
        fields = {f.number: f for f in every}
        data, number, name = (fields.get(n) for n in (RAW_DATA, DATA_TYPE, NAME))
        counts = [f.number for f in every if f.number != TensorProto.DIMS_FIELD_NUMBER]
        if not (data and number and name) or len(set(counts)) < len(counts) or not fields.keys() <= {RAW_DATA, *PLAIN}:
            return None
        dtype = DTYPES.get(number.value)
        if data.end - data.content < LARGE or dtype is None or dtype.is_half:
            return None
        try:
            key = self.take(name.content, name.end).decode()
        except UnicodeDecodeError:
            raise _OtherwiseError from None
        if key in self.found:
            raise _OtherwiseError
        self.found[key] = Span(self._file, data.content, data.end - data.content)
        return self.take(tensor.content, data.start) + self.take(data.end, tensor.end)

    def _fields(self, at: int, end: int) -> Iterator[_Field]:
        """The fields of the message that lies there."""
        while at < end:
            start = at
            tag, at = self._read_varint(at, end)
            value, wire = 0, tag & 7
            if wire == 0:
                value, at = self._read_varint(at, end)
                content, at = at, at
            elif wire == 2:
                length, content = self._read_varint(at, end)
                at = content + length
            elif wire in FIXED:
                content, at = at, at + FIXED[wire]
            else:
                raise _OtherwiseError
            if at > end or not tag >> 3:
                raise _OtherwiseError
            yield _Field(tag >> 3, start, content, at, value)

    def _read_varint(self, at: int, end: int) -> tuple[int, int]:
        """The integer at `at`, seven bits in each byte, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            if not self._start <= at < self._start + len(self._window):
                self._start, self._window = at, self.take(at, min(at + WINDOW, self._file.size))
            byte = self._window[at - self._start]
            value, at = value | (byte & 127) << shift, at + 1
            if byte < 128:
                return value, at
        raise _OtherwiseError


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
