"""Where a file stops to be an ONNX model: in which node, tensor or field, which protobuf itself does not say.

A message is a row of fields, each a tag (number << 3 | wire type) and its content; what is in a message, its descriptor
tells (protobuf.dev/programming-guides/encoding).
"""

from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from graphc.onnx.names import one_line

MOST_NESTED = 100  # messages in messages: protobuf's own limit
MOST_FIELDS = 10**6  # looked at: a second's work
FIXED = {1: 8, 5: 4}  # wire type -> bytes
NAMED = ("name", "output", "key", "domain")  # the fields that tell which of its kind a message is


class _DamageError(Exception):
    """What is wrong, at which byte."""


@dataclass
class _Message:
    """A message that is being read: its kind, in which field it stands, and the name that has been seen in it."""

    kind: Any  # protobuf's descriptor
    field: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.field} '{one_line(self.name)}'" if self.name else self.field


def find_damage(data: memoryview) -> str | None:
    """Such as "byte 54 of 200, in graph 'net', initializer 'w', raw_data: expected 432 bytes, got 146"; or None."""
    walk = _Walk(data)
    try:
        walk.message(_Message(ModelProto.DESCRIPTOR, "model"), 0, len(data))
    except _DamageError as damage:
        return str(damage)
    return None


class _Walk:
    def __init__(self, data: memoryview) -> None:
        self._data, self._open, self._fields = data, list[_Message](), 0

    def message(self, message: _Message, at: int, end: int) -> None:
        """Read the fields from `at` to `end`; both lie in the data."""
        self._open.append(message)
        if len(self._open) > MOST_NESTED:
            raise self._damage(at, f"expected at most {MOST_NESTED} messages in each other")
        while at < end:
            at = self._field(message, at, end)
        self._open.pop()

    def _field(self, message: _Message, at: int, end: int) -> int:
        """Read one field; where the next one begins."""
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise self._damage(at, "damaged from here on")
        tag, after = self._varint(at, end)
        wire, known = tag & 7, message.kind.fields_by_number.get(tag >> 3)
        label = known.name if known else f"field {tag >> 3}"
        if wire not in (0, 1, 2, 5) or not tag >> 3:
            raise self._damage(at, f"expected a field, got byte 0x{self._data[at]:02x}")
        if wire == 0:
            return self._varint(after, end)[1]
        length, begin = (FIXED[wire], after) if wire in FIXED else self._varint(after, end)
        inner = min(begin + length, end)
        if wire == 2 and known is not None and known.message_type is not None:
            self.message(_Message(known.message_type, label), begin, inner)
        if begin + length > end:
            raise self._damage(begin, f"expected {length} bytes, got {end - begin}", label)
        if known is not None and known.type == known.TYPE_STRING:
            try:
                text = str(self._data[begin:inner], "utf-8")
            except UnicodeDecodeError:
                raise self._damage(begin, "expected UTF-8", label) from None
            if label in NAMED and text:
                message.name = message.name if label == "output" and message.name else text
        return inner

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The integer at `at`, seven bits in each byte, and where it ends."""
        value = 0
        for i in range(10):
            if at + i >= end:
                raise self._damage(at, "expected an integer, got the end")
            value |= (self._data[at + i] & 127) << 7 * i
            if self._data[at + i] < 128:
                return value, at + i + 1
        raise self._damage(at, "expected an integer of at most 10 bytes, got more")

    def _damage(self, at: int, what: str, label: str = "") -> _DamageError:
        where = ", ".join([*map(str, self._open[1:6]), *([label] if label else [])])
        return _DamageError(f"byte {at} of {len(self._data)}{f', in {where}' if where else ''}: {what}")
