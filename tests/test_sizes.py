"""Many sizes through one network: what is measured of them, and that memory does not grow."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import fail, succeed

import graphc
from graphc.bench.sizes import SizeTime, fit_exponent
from graphc.models import digit_masks
from graphc.runtime.tiling import resident_bytes


def test_plot_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.bench.sizes.SIDES", (64, 128, 640))
    lines = succeed(
        "bench", "digit_masks", "--sizes", tmp_path / "sizes.svg", "--time", "0", "--max-memory", "1GB", "--json",
        tmp_path / "sizes.json",
    )  # fmt: skip
    assert [line.split()[0] for line in lines[:3]] == ["64x64", "128x128", "640x640"]
    assert lines[3].startswith("time grows with pixels to the power of ")
    found = json.loads((tmp_path / "sizes.json").read_text())
    assert [(t["side"], t["tiled"]) for t in found["sizes"]] == [(64, False), (128, False), (640, False)]
    svg = ElementTree.parse(tmp_path / "sizes.svg").getroot()
    assert len(svg.findall("{http://www.w3.org/2000/svg}circle")) == 3
    assert fail("bench", "digit_masks", "--sizes", "x.png").endswith("x.png: expected a name that ends in .svg")
    assert fail("bench", "digit_masks", "--sizes", "x.svg", "--profile").startswith("--sizes: expected without")


def test_exponent() -> None:
    assert fit_exponent([SizeTime(s, s * s * 1e-9, False) for s in (1, 10, 100)]) == pytest.approx(1)
    assert fit_exponent([SizeTime(s, s * 1e-9, False) for s in (1, 10, 100)]) == pytest.approx(0.5)


def test_many_sizes_through_one_network() -> None:
    """Memory is flat after the largest, and no answer depends on the sizes that came before."""
    graph, rng = digit_masks(), np.random.default_rng(0)
    network, other = graphc.compile(graph, threads=2), graphc.compile(graph, threads=1)
    image = rng.random((1, 1, 400, 400), np.float32)
    windows = [image] + [image[:, :, : 8 * h, : 8 * w].copy() for h, w in rng.integers(1, 26, (50, 2))]
    digests, resident = [], []
    for x in windows:
        digests.append(hash(network(x).tobytes()))
        resident.append(resident_bytes())
    assert max(resident[10:]) - resident[10] < 16 << 20  # what Python itself keeps has settled
    assert [hash(other(x).tobytes()) for x in reversed(windows)] == digests[::-1]
