"""A model's file without the data of its large initialisers, which stay there until they are used (graphc/stored.py).

To parse a file that holds 100 MB of weights takes twice the memory of the weights; the rest is a few hundred KB. This
walks over the fields that lead to them, and copies all others. (The fields' numbers are those of onnx.proto; how fields
are written: protobuf.dev/programming-guides/encoding.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from graphc.onnx.damage import FIXED
from graphc.onnx.tensors import DTYPES
from graphc.stored import LARGE, Span, StoredFile

GRAPH, INITIALIZER = ModelProto.GRAPH_FIELD_NUMBER, GraphProto.INITIALIZER_FIELD_NUMBER
DIMS, DATA_TYPE = TensorProto.DIMS_FIELD_NUMBER, TensorProto.DATA_TYPE_FIELD_NUMBER
NAME, RAW_DATA = TensorProto.NAME_FIELD_NUMBER, TensorProto.RAW_DATA_FIELD_NUMBER
PLAIN = {DIMS, DATA_TYPE, NAME, RAW_DATA, TensorProto.DOC_STRING_FIELD_NUMBER}
WINDOW = 2**14  # bytes that are read at once
MOST_FIELDS = 10**6  # looked at, a second's work: networks have thousands
MOST_OF_TENSOR = 100


class _OtherwiseError(Exception):
    """The file is not as this expects: protobuf reads it, or tells what is wrong."""


@dataclass(frozen=True)
class _Field:
    number: int
    start: int  # of its tag
    content: int  # what follows the tag and, where there is one, the length
    end: int
    value: int  # of an integer


def lift_data(file: StoredFile) -> tuple[bytes | memoryview, dict[str, Span]]:
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
        self._file, self._window, self._start, self._looked_at = file, memoryview(b""), 0, 0

    def lift(self) -> bytes:
        """The model without large data."""
        graphs = [f for f in self._fields(0, self._file.size) if f.number == GRAPH]
        if len(graphs) != 1:
            raise _OtherwiseError
        (graph,) = graphs
        body = self._lift_graph(graph)
        behind = self.take(graph.end, self._file.size)
        return b"".join([self.take(0, graph.start), _tag(GRAPH), _varint(len(body)), body, behind])

    def take(self, at: int, end: int) -> memoryview:
        """These bytes of the file."""
        target = np.empty(end - at, np.uint8)
        self._file.read(target, at)
        return target.data

    def _lift_graph(self, graph: _Field) -> bytes:
        parts, copied = list[bytes | memoryview](), graph.content
        for f in self._fields(graph.content, graph.end):
            if f.number != INITIALIZER or f.end - f.content < LARGE or (tensor := self._lift_tensor(f)) is None:
                continue
            parts += [self.take(copied, f.start), _tag(INITIALIZER), _varint(len(tensor)), tensor]
            copied = f.end
        return b"".join([*parts, self.take(copied, graph.end)])

    def _lift_tensor(self, tensor: _Field) -> bytes | None:
        """The tensor without its data, whose place is noted; None if it holds them in another way."""
        fields = dict[int, _Field]()
        for count, f in enumerate(self._fields(tensor.content, tensor.end)):
            if f.number not in PLAIN or (f.number in fields and f.number != DIMS) or count == MOST_OF_TENSOR:
                return None
            fields[f.number] = f
        if not {DATA_TYPE, NAME, RAW_DATA} <= fields.keys():
            return None
        data, number, name = (fields[n] for n in (RAW_DATA, DATA_TYPE, NAME))
        dtype = DTYPES.get(number.value)
        if data.end - data.content < LARGE or dtype is None or dtype.is_half:
            return None
        try:
            key = str(self.take(name.content, name.end), "utf-8")
        except UnicodeDecodeError:
            raise _OtherwiseError from None
        if key in self.found:
            raise _OtherwiseError
        self.found[key] = Span(self._file, data.content, data.end - data.content)
        return b"".join([self.take(tensor.content, data.start), self.take(data.end, tensor.end)])

    def _fields(self, at: int, end: int) -> Iterator[_Field]:
        """The fields of the message that lies there."""
        while at < end:
            self._looked_at += 1
            if self._looked_at > MOST_FIELDS:
                raise _OtherwiseError
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
