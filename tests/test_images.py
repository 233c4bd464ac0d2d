"""Pictures as arrays: colours, orientation, transparency, bit depths, and files that are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphc.errors import FileError, InputError
from graphc.images import normalise_image, read_image, resize_image


def save(path: Path, pixels: list[list[object]], mode: str | None = None, **options: object) -> Path:
    Image.fromarray(np.array(pixels, np.uint8), mode).save(path, **options)
    return path


def test_grey_and_colour(tmp_path: Path) -> None:
    colour = save(tmp_path / "a.png", [[[255, 0, 0], [0, 255, 51]]])
    np.testing.assert_allclose(read_image(colour, 3), [[[1, 0]], [[0, 1]], [[0, 0.2]]])
    np.testing.assert_allclose(read_image(colour, 1), [[[76 / 255, 156 / 255]]])  # ITU-R 601: .299 R + .587 G + .114 B
    grey = save(tmp_path / "b.png", [[0, 51, 255]])
    np.testing.assert_allclose(read_image(grey, 1), [[[0, 0.2, 1]]])
    np.testing.assert_allclose(read_image(grey, 3), [[[0, 0.2, 1]]] * 3)
    assert read_image(grey, 3).dtype == np.float32
    assert read_image(grey, 3).flags.c_contiguous


def test_exif_orientation(tmp_path: Path) -> None:
    """6: what is stored as the left column is the top row, from right to left."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", [[10, 20, 30], [40, 50, 60]], exif=exif)
    np.testing.assert_array_equal(np.rint(255 * read_image(path, 1)[0]), [[40, 10], [50, 20], [60, 30]])


def test_transparent_is_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", [[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 51]]])
    np.testing.assert_allclose(read_image(path, 3)[:, 0], [[1, 0, 1], [1, 0, 0.8], [1, 0, 0.8]])
    palette = Image.new("P", (1, 1))
    palette.putpalette([200, 0, 0])
    palette.save(tmp_path / "b.gif", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "b.gif", 1), [[[1]]])


def test_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535, 13107]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png", 3), [[[0, 1, 0.2]]] * 3)


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (20, 20)).tolist()).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "floats.tiff")
    for name in ("absent.png", "text.png", "cut.png", "floats.tiff", "."):
        with pytest.raises(FileError, match="cannot be read as a picture") as caught:
            read_image(tmp_path / name, 3)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="1 or 3 channels, the network wants 4"):
        read_image(tmp_path / "whole.png", 4)


def test_large_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of pictures above its limit, which are fine here, and refuses those of twice as many pixels."""
    path = save(tmp_path / "a.png", [[0] * 5] * 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(path, 1).shape == (1, 3, 5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(FileError, match="decompression bomb"):
        read_image(path, 1)


def test_resize() -> None:
    image = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]], [[1, 1, 1, 1], [0, 0, 0, 0]]], np.float32)
    np.testing.assert_allclose(resize_image(image, 2, 4), image)
    small = resize_image(image, 1, 2)
    np.testing.assert_allclose(small, [[[0, 1]], [[0.5, 0.5]]], atol=0.2)  # the filter reaches a little further
    np.testing.assert_allclose(small.mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=1e-6)
    assert resize_image(image, 5, 3).shape == (2, 5, 3)


def test_normalise() -> None:
    image = np.array([[[0.5, 1]], [[0, 1]]], np.float32)
    np.testing.assert_allclose(normalise_image(image, [0.5, 1], [0.5, -1]), [[[0, 1]], [[1, 0]]])
    np.testing.assert_allclose(normalise_image(image, [0.5], [2]), [[[0, 0.25]], [[-0.25, 0.25]]])
    assert normalise_image(image, [0.5], [2]).dtype == np.float32
    for mean, std, message in (
        ([1, 2, 3], [1], "mean: expected 1 or 2 finite numbers, got 1, 2, 3"),
        ([0], [0, 1], "std: expected 1 or 2 finite numbers other than 0, got 0, 1"),
        ([np.nan], [1], "mean: expected 1 or 2 finite numbers, got nan"),
    ):
        with pytest.raises(InputError) as caught:
            normalise_image(image, mean, std)
        assert str(caught.value) == message
