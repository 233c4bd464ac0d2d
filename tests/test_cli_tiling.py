"""`graphc plan` and `graphc run --tile`."""

from pathlib import Path

import numpy as np
import pytest
from commands import fail, succeed

import graphc
from graphc.models import digit_masks


def test_run_by_tiles(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((1, 1, 96, 128), np.float32)
    np.save(tmp_path / "x.npy", image)
    lines = succeed("run", "digit_masks", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--tile", "32x64")
    assert lines == [str(tmp_path / "x.npy"), "  scores f32[1,11,96,128]", f"  {tmp_path / 'y.npy'}"]
    whole = graphc.compile(digit_masks())(image)
    assert np.array_equal(np.load(tmp_path / "y.npy"), whole)
    succeed(
        "run", "digit_masks", tmp_path / "x.npy", "-o", tmp_path / "z.npy", "--tile", "auto", "--max-memory", "9GiB"
    )
    assert np.array_equal(np.load(tmp_path / "z.npy"), whole)
    succeed("run", "digit_masks", tmp_path / "x.npy", "-o", tmp_path / "p.npy", "--tile", "32x64", "--precise")
    precise = graphc.compile(digit_masks(), precise=True)(image)
    assert np.array_equal(np.load(tmp_path / "p.npy"), precise)
    assert not np.array_equal(precise, whole)


def test_several_outputs(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "from graphc import f32, nn\nfrom graphc.ir import Builder\n\n\ndef two(seed=0):\n    net = Builder('two')\n"
        "    x = net.input('image', f32('N', 1, 'H', 'W'))\n"
        "    return net.build(large=nn.upsample_nearest(x, 2), small=nn.max_pool(x, 3))\n"
    )
    image = np.random.default_rng(0).random((1, 1, 60, 90), np.float32)
    np.save(tmp_path / "x.npy", image)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        lines = succeed("run", "two:two", "x.npy", "-o", "y.npy", "--tile", "30x30")
        assert lines == [
            "x.npy",
            "  large f32[1,1,120,180]",
            "  y.large.npy",
            "  small f32[1,1,20,30]",
            "  y.small.npy",
        ]
    assert np.array_equal(np.load(tmp_path / "y.large.npy"), image.repeat(2, 2).repeat(2, 3))
    assert np.load(tmp_path / "y.small.npy").shape == (1, 1, 20, 30)


def test_run_a_tiff(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is an extra")
    pytest.importorskip("zarr", reason="zarr is an extra")
    picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", picture, tile=(32, 32))
    succeed("run", "digit_masks", tmp_path / "x.tif", "-o", tmp_path / "y.tif", "--tile", "32x32")
    from graphc.cli.running import load_network, make_reader

    network = load_network("digit_masks", None, "native")
    reader = make_reader(network, False, None, None)
    assert np.array_equal(tifffile.imread(tmp_path / "y.tif"), network(reader.read(tmp_path / "x.tif")))


def test_plan() -> None:
    lines = succeed("plan", "digit_masks", "--shape", "1x1x20000x20000", "--tile", "1000x2000", "--max-memory", "9GiB")
    assert [line.split()[0] for line in lines] == ["image", "tiles", "rule", "memory", "work"]
    assert lines[1] == "tiles   200: 20x10 of 1024x2016 pixels in strips, which read 1184x2336"
    assert lines[2] == "rule    multiples of 32x32; 142x142 before and 142x142 behind"
    assert lines[4] == "work    1.16 times the image's pixels; 21.28 billion multiply-adds a tile"
    lines = succeed("plan", "digit_masks", "--shape", "1x1x20000x20000", "--tile", "1000x2000", "--precise")
    assert lines[2] == "rule    multiples of 8x8; 46x46 before and 46x46 behind"


def test_errors() -> None:
    assert "must be open" in fail("plan", "resnet18", "--shape", "1x3x2000x2000")
    assert fail("plan", "digit_masks").startswith("--shape: expected the shape of the images")
    assert "expected such as 1GiB" in fail("plan", "digit_masks", "--shape", "1x1x800x800", "--max-memory", "much")
    assert "expected at least" in fail("plan", "digit_masks", "--shape", "1x1x800x800", "--max-memory", "1MB")
    assert fail("run", "digit_masks", "x.png", "--tile", "auto", "--overlay", "y.png").startswith("--overlay: ")
    assert fail("run", "digit_masks", "x.png", "--tile", "auto", "--resize").startswith("--resize: ")
