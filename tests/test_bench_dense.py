"""Dense runs against sliding windows: what is counted, sampled and told. No time is judged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import fail, succeed

from graphc import nn
from graphc.bench.dense import DenseComparison, compare_dense
from graphc.bench.tables import describe_dense
from graphc.errors import InputError
from graphc.ir import Builder, Graph, f32
from graphc.models import digit_masks, lenet5


def tiny(batch: int | str = "N", padding: int = 0) -> Graph:
    """Windows of 8x8 at a stride of 2: a convolution of 36 multiply-adds for a pixel, and a linear layer of 36."""
    net = Builder("tiny")
    x = net.input("image", f32(batch, 1, 8, 8))
    x = nn.max_pool(nn.relu(nn.conv2d(x, 4, 3, padding=padding, name="conv")), 2)
    return net.build(scores=nn.linear(nn.flatten(x), 1, bias=False, name="fc"))


def test_counts_and_scores() -> None:
    told: list[str] = []
    (c,) = compare_dense(tiny(), (20, 26), [1], rounds=3, seconds=0, tell=told.append)
    assert (c.window, c.stride, c.scores, c.compared) == ((8, 8), (2, 2), (7, 10), 16)
    assert c.timed in (1, 16)
    assert (c.bound, c.covered) == (16, 70 * 4 / (20 * 26))
    dense = 36 * 18 * 24 + 36 * 70
    assert c.work == 70 * (36 * 36 + 36) / dense
    assert (c.once, c.once_layers) == (36 * 70 / dense, ("fc",))
    assert c.difference < 1e-6
    assert (len(c.dense_seconds), len(c.window_seconds), c.padded) == (3, 3, 0)
    assert told[-1] == "tiny, threads 1: round 3 of 3"


def test_one_image_at_a_time_and_padding() -> None:
    """Windows of a network with a batch of one run one by one. What padding makes different is told."""
    (c,) = compare_dense(tiny(batch=1, padding=1), (12, 12), [1], rounds=1, seconds=0)
    assert (c.timed, c.compared, c.padded) == (1, 1, 1)
    (fewer,) = compare_dense(tiny(padding=1), (9, 11), [1], rounds=1, seconds=0)  # no window begins at the last pixel
    assert fewer.scores == (1, 2)
    assert fewer.compared == 2
    assert fewer.difference > 1e-3
    assert describe_dense(fewer)[-1].endswith("from the windows', which see padding for neighbours in 1 layers")


def test_a_gain_is_the_median_over_rounds() -> None:
    c = DenseComparison("net", (40, 40), 1, (8, 8), (4, 4), (9, 9), 16, 16, (1.0, 10.0, 2.0), (0.1, 1.0, 0.1), 3.0, 0.4,
                        ("fc",), 1e-7, 0, (5 * 10**8, 2 * 10**5), 3 * 10**7, 10**9)  # fmt: skip
    assert (c.gain, c.bound) == (pytest.approx(8.1), 4)
    assert describe_dense(c) == [
        "81 windows; timed was 16 of them in one run, which is faster than one by one",
        "no window hangs over the edges of the image, which leaves 81% of the bound",
        "40% of the dense run's multiply-adds are those of fc, which have one pixel for each score, so that windows "
        "have nothing of them in common",
        "the dense run's maps take 500 MB and go through memory; a window's, 0.2 MB, stay in the cache of 30 MB",
        "16 scores differ by up to 1.0e-07 of the largest from the windows'",
    ]
    assert not any("MB" in line for line in describe_dense(replace(c, workspace_bytes=(2 * 10**7, 2 * 10**5))))
    assert describe_dense(replace(c, timed=1))[0] == "81 windows; timed was one alone"


def test_what_is_no_classifier_of_windows() -> None:
    with pytest.raises(InputError, match="network 'digit_masks': expected a classifier of one image, of one size"):
        compare_dense(digit_masks(), (64, 64), [1], 1, 0)
    with pytest.raises(InputError, match="--image: expected at least a window of 'lenet5', 32x32, got 64x31"):
        compare_dense(lenet5(), (64, 31), [1], 1, 0)


def test_command(tmp_path: Path) -> None:
    lines = succeed("bench", "--dense", "lenet5", "--image", "40x44", "--rounds", 1, "--time", 0,
                    "--json", tmp_path / "x.json")  # fmt: skip
    (row,) = (line.split() for line in lines if line.split()[:2] == ["lenet5", "40x44"])
    assert row[2:6] == ["1", "32x32", "4x4", "3x4"]
    assert row[9] == "64.0"
    (c,) = json.loads((tmp_path / "x.json").read_text())["comparisons"]
    assert (c["network"], c["scores"], c["bound"]) == ("lenet5", [3, 4], 64)
    assert fail("bench", "lenet5", "--image", "40x44") == "--image: expected together with --dense only"
    assert fail("bench", "lenet5", "--dense", "--profile") == "--dense: expected without --profile only"
    assert fail("bench", "lenet5", "--dense", "--against", "torch") == "--against: expected without --dense only"
    message = fail("bench", "lenet5", "--dense", "--shape", "1x1x32x32")
    assert message == "--shape: expected without --dense only, which has one --image"
