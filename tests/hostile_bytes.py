"""Files that are no model: bytes that are damaged, cut, or something else."""

from collections.abc import Callable
from pathlib import Path

from hostile import Case, bad
from onnx_models import W3, make_model, node

from graphc.errors import FileError, GraphError, UnsupportedError

Source = Callable[[Path], bytes | None]
CONV = make_model([node("Conv", "x w")], {"x": [1, 3, 8, 8]}, {"w": W3})
WHOLE = CONV.SerializeToString()


def varint(n: int) -> bytes:
    """Protobuf's form of an integer of at least 0."""
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number: int, content: bytes) -> bytes:
    """Protobuf's form of a message's field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(depth: int) -> bytes:
    """A model of graphs in attributes of nodes of graphs."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))  # GraphProto.node, NodeProto.attribute, AttributeProto.g
    return field(7, graph) + field(8, b"\x10\x12")  # ModelProto.graph, and opset_import with version 18


def of_zeros(size: int) -> Source:
    """So many zeros, which take no place on the disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def data(content: bytes) -> Source:
    return lambda path: content


FILES: dict[str, Source] = {
    "empty": data(b""),
    "zeros": data(bytes(1000)),
    "png": data(b"\x89PNG\r\n\x1a\n and so on"),
    "text": data(b"#!/bin/sh\nexit 1\n" * 100),
    "json": data(b'{"graph": {}}'),
    "cut": data(WHOLE[:200]),
    "cut_by_1": data(WHOLE[:-1]),
    "cut_in_tag": data(WHOLE + b"\x80"),
    "long_field": data(WHOLE + varint(7 << 3 | 2) + varint(2**40)),
    "negative_field": data(WHOLE + varint(7 << 3 | 2) + varint(2**64 - 1)),
    "varint_of_11_bytes": data(WHOLE + b"\x38" + b"\xff" * 11),
    "wire_type_7": data(WHOLE + b"\x3f"),
    "groups_open": data(WHOLE + b"\x3b" * 10_000),
    "nested_5000": data(nested(5_000)),
    "graph_only": data(CONV.graph.SerializeToString()),
    "name_not_utf8": data(WHOLE.replace(b"node_y", b"node_\xff")),
    "3_gib": of_zeros(3 * 2**30),
    "1_tib": of_zeros(2**40),
    "folder": lambda path: path.mkdir(),
}

# Where the damage is, for those that have a place: all of them begin as WHOLE does
PLACES = {
    "zeros": "byte 0 of 1000: expected a field, got byte 0x00",
    "png": "byte 10 of 18",
    "text": "byte 0 of 1700: expected a field, got byte 0x23",
    "json": "byte 0 of 13",
    "cut": "byte 54 of 200, in graph 'net', initializer 'w', raw_data: expected 432 bytes, got 146",
    "cut_by_1": f"byte {len(WHOLE) - 1} of {len(WHOLE) - 1}, in opset_import: expected an integer, got the end",
    "cut_in_tag": f"byte {len(WHOLE)} of {len(WHOLE) + 1}: expected an integer, got the end",
    "long_field": f"byte {len(WHOLE) + 7} of {len(WHOLE) + 7}, in graph: expected {2**40} bytes, got 0",
    "negative_field": f"byte {len(WHOLE) + 11} of {len(WHOLE) + 11}, in graph: expected {2**64 - 1} bytes, got 0",
    "varint_of_11_bytes": f"byte {len(WHOLE) + 1} of {len(WHOLE) + 12}: expected an integer of at most 10 bytes",
    "wire_type_7": f"byte {len(WHOLE)} of {len(WHOLE) + 1}: expected a field, got byte 0x3f",
    "groups_open": f"byte {len(WHOLE)} of {len(WHOLE) + 10_000}: expected a field, got byte 0x3b",
    "nested_5000": "byte 400 of 54461, in graph, node, attribute, g, node: expected at most 100 messages in each other",
    "name_not_utf8": "byte 18 of 526, in graph, node 'y', name: expected UTF-8",
}
CASES: dict[str, Case] = {
    **{f"file_{name}": bad(source, FileError, PLACES.get(name)) for name, source in FILES.items()},
    "file_twice": bad(data(WHOLE + WHOLE), GraphError, "x"),  # protobuf joins what it reads
    "file_nested_20": bad(data(nested(20)), UnsupportedError, None),
}
