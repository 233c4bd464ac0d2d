"""Hostile files whose initialisers are not what they say, inside the file or beside it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Case, bad
from onnx import ModelProto, TensorProto
from onnx_models import W3, make_model, node, spoil

from graphc.errors import FileError, GraphcError, GraphError, ShapeError, UnsupportedError

Source = Callable[[Path], ModelProto]


def conv(**fields: Any) -> ModelProto:
    """A convolution whose weights have these fields; None clears one."""
    return spoil(make_model([node("Conv", "x w")], {"x": [1, 3, 8, 8]}, {"w": W3}), **fields)


def segment() -> ModelProto:
    model = conv()
    model.graph.initializer[0].segment.begin = 3
    return model


def small(dtype: int, dims: list[int], **fields: Any) -> ModelProto:
    """An initialiser of another format, which node_f casts to float."""
    model = make_model([node("Cast", "w", "f", to=TensorProto.FLOAT), node("Add", "x f")], {"x": [2]})
    model.graph.initializer.add(name="w", data_type=dtype, dims=dims, **fields)
    return model


def outside(location: str | None, prepare: Callable[[Path], object] = lambda folder: None, **entries: str) -> Source:
    """Weights that are said to lie at `location`; `prepare` adds to the model's folder."""

    def make(path: Path) -> ModelProto:
        folder = path.parent
        (folder.parent / "secret.bin").write_bytes(W3.tobytes())
        (folder / "w.bin").write_bytes(W3.tobytes())
        prepare(folder)
        model = conv(raw_data=None, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": location, **entries}.items():
            if value is not None:
                model.graph.initializer[0].external_data.add(key=key, value=value)
        return model

    return make


def beside_zeros(size: int, dims: list[int], count: int = 1) -> Source:
    """Sums of weights in a file of so many zeros, which takes no place on the disk."""

    def make(path: Path) -> ModelProto:
        with (path.parent / "w.bin").open("wb") as file:
            file.truncate(size)
        names = [f"w{i}" for i in range(count)]
        nodes = [node("ReduceSum", w, f"s_{w}", keepdims=0) for w in names]
        model = make_model([*nodes, node("Sum", " ".join(["x", *(f"s_{w}" for w in names)]))], {"x": [2]})
        for w in names:
            t = model.graph.initializer.add(name=w, data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
            t.external_data.add(key="location", value="w.bin")
        return model

    return make


WRONG: dict[str, ModelProto] = {
    "dim_negative": conv(dims=[4, 3, 3, -3]),
    "dim_least": conv(dims=[4, 3, 3, -(2**63)]),
    "segment": segment(),
    "short": conv(raw_data=b"1234"),
    "long": conv(raw_data=bytes(433)),
    "none": conv(raw_data=None),
    "floats_short": conv(raw_data=None, float_data=[1.0] * 107),
    "floats_long": conv(raw_data=None, float_data=[1.0] * 109),
    "wrong_field": conv(raw_data=None, int64_data=[1] * 108),
    "halves_of_floats": conv(data_type=TensorProto.FLOAT16),
    "doubles_of_floats": conv(data_type=TensorProto.DOUBLE),
    "int4_short": small(TensorProto.INT4, [5], raw_data=b"\x01"),
    "float8_short": small(TensorProto.FLOAT8E4M3FN, [5], raw_data=b"\x01"),
}
REFUSED: dict[str, ModelProto] = {
    "dim_big": conv(dims=[2**31, 3, 3, 3]),
    "dims_huge": conv(dims=[2**62]),
    "dims_wrap_to_0": conv(dims=[2**32, 2**32], raw_data=b""),
    "dims_wrap_to_432": conv(dims=[2**62, 4, 27, 16]),
    "rank_1000": conv(dims=[1] * 1000, raw_data=bytes(4)),
    "type_0": conv(data_type=0),
    "type_999": conv(data_type=999),
    "type_negative": conv(data_type=-1),
    "strings": conv(data_type=TensorProto.STRING, raw_data=None, string_data=[b"a"] * 108),
    "complex": conv(data_type=TensorProto.COMPLEX64, raw_data=bytes(864)),
    "int4_huge": small(TensorProto.INT4, [2**62], raw_data=b"\x01"),
}
OUTSIDE: dict[str, Source] = {
    "traversal": outside("../secret.bin"),
    "traversal_through_folder": outside("a/../../secret.bin", lambda f: (f / "a").mkdir()),
    "backslash": outside("..\\secret.bin"),
    "absolute": outside("/etc/hostname"),
    "home": outside("~/secret.bin"),
    "url": outside("file:///etc/hostname"),
    "proc": outside("/proc/self/environ"),
    "link": outside("link.bin", lambda f: (f / "link.bin").symlink_to(f.parent / "secret.bin")),
    "link_inside": outside("link.bin", lambda f: (f / "link.bin").symlink_to("w.bin")),
    "link_of_folder": outside("up/secret.bin", lambda f: (f / "up").symlink_to("..")),
    "link_to_itself": outside("link.bin", lambda f: (f / "link.bin").symlink_to("link.bin")),
    "hard_link": outside("hard.bin", lambda f: os.link(f.parent / "secret.bin", f / "hard.bin")),
    "pipe": outside("pipe", lambda f: os.mkfifo(f / "pipe")),
    "folder": outside("sub", lambda f: (f / "sub").mkdir()),
    "missing": outside("missing.bin"),
    "empty": outside(""),
    "dot": outside("."),
    "no_location": outside(None),
    "nul": outside("w.bin\0x"),
    "newline": outside("w\nbin"),
    "long_path": outside("w" * 100_000),
    "long_name": outside("w" * 300),
    "unknown_key": outside("w.bin", location2="x"),
    "offset_negative": outside("w.bin", offset="-4"),
    "offset_huge": outside("w.bin", offset=str(2**63)),
    "offset_beyond": outside("w.bin", offset="1000"),
    "offset_text": outside("w.bin", offset="many"),
    "offset_digits": outside("w.bin", offset="9" * 10_000),
    "length_negative": outside("w.bin", length="-1"),
    "length_huge": outside("w.bin", length=str(2**62)),
}

CASES: dict[str, Case] = {
    **{f"tensor_{name}": bad(model, GraphError, "w") for name, model in WRONG.items()},
    **{f"tensor_{name}": bad(model, UnsupportedError, "w") for name, model in REFUSED.items()},
    "tensor_dim_0": bad(conv(dims=[0, 3, 3, 3], raw_data=b""), ShapeError, "node_y"),
    "tensor_two_fields": Case(conv(float_data=[1.0] * 108)),  # the raw data count
    "tensor_bool_2": Case(small(TensorProto.BOOL, [2], raw_data=b"\x02\x00"), right=lambda x: x + np.array([1, 0])),
    "tensor_bool_200": Case(small(TensorProto.BOOL, [2], int32_data=[200, 0]), right=lambda x: x + np.array([1, 0])),
    "tensor_int8_300": Case(
        small(TensorProto.INT8, [2], int32_data=[300, -300]), right=lambda x: x + np.array([44, -44])
    ),
    **{f"outside_{name}": bad(source, FileError, "w") for name, source in OUTSIDE.items()},
    "outside_in_folder": Case(
        outside("sub/w.bin", lambda f: ((f / "sub").mkdir(), (f / "sub" / "w.bin").write_bytes(W3.tobytes())))
    ),
    "outside_itself": bad(outside("m.onnx"), GraphError, "w"),
    "outside_length_short": bad(outside("w.bin", length="8"), GraphError, "w"),
    "outside_1_tib": bad(beside_zeros(2**40, [2**38]), UnsupportedError, "w0"),
    "outside_1_tib_for_8_bytes": bad(beside_zeros(2**40, [2]), FileError, "w0"),
    "outside_2_gib": bad(beside_zeros(2**31, [2**29]), GraphcError, "node_s_w0"),  # more than the process may have
    "outside_in_all": Case(
        beside_zeros(2**20, [2**18], count=9), UnsupportedError, "w8", settings={"GRAPHC_MOST_BYTES": str(2**23)}
    ),
}
