"""Data for training: folders, .npz files, scanned digits, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphc import nn
from graphc.errors import FileError, GraphcError, InputError
from graphc.ir import Builder, Graph, f32
from graphc.learning.data import Wanted, hold_out, open_data, want

GREY = Wanted(f32("N", 1, 8, 8), 3, size=(8, 8))


def make_network(*shape: int | str, classes: int = 3) -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", *shape))
    x = nn.global_average_pool(x) if len(shape) == 3 else x
    return net.build(scores=nn.linear(nn.flatten(x), classes, name="fc"))


def write_folder(path: Path, classes: str = "abc", count: int = 12) -> Path:
    """FOLDER/CLASS/I.png: class k is grey k * 40 + i."""
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (10, 6), k * 40 + i).save(path / name / f"{i:02}.png")
    return path


def test_folder(tmp_path: Path) -> None:
    data = open_data(str(write_folder(tmp_path / "photos")), Wanted(f32("N", 1, 8, 8), 3, False, (8, 8), [0.5], [0.25]))
    assert data.labels == ("a", "b", "c") and data.reading is None
    training, testing = data.train(0), data.test()
    assert (len(training), len(testing)) == (30, 6)
    x, y = testing.read(np.arange(6))
    assert x.shape == (6, 1, 8, 8) and x.dtype == np.float32
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(x[3], ((40 + 10) / 255 - 0.5) / 0.25, atol=1e-6)  # the 11th of class b
    assert training.name(0) == str(tmp_path / "photos" / "a" / "01.png")


def test_folder_that_is_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", count=3)
    write_folder(tmp_path / "val", count=2)
    data = open_data(str(tmp_path), GREY)
    assert (len(data.train(0)), len(data.test())) == (9, 6)
    (tmp_path / "val" / "a").rename(tmp_path / "val" / "d")
    with pytest.raises(FileError, match=r"val: expected the classes a, b, c, got b, c, d"):
        open_data(str(tmp_path), GREY)


def test_bad_folders(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    with pytest.raises(InputError, match=r"3 class folders \(a, b, c\), but the network has 5 classes; --classes 3"):
        open_data(str(folder), Wanted(f32("N", 1, 8, 8), 5, size=(8, 8)))
    (folder / "b" / "03.png").write_bytes(b"no picture")
    samples = open_data(str(folder), GREY).train(0)
    with pytest.raises(FileError, match=r"b/03.png: cannot be read as a picture"):
        samples.read(np.arange(len(samples)))
    (folder / "empty").mkdir()
    with pytest.raises(FileError, match=r"photos/empty: expected pictures of class 'empty', got none"):
        open_data(str(folder), GREY)
    with pytest.raises(FileError, match=r"photos/a: expected a folder for each of 2 classes or more, got 0"):
        open_data(str(folder / "a"), GREY)
    with pytest.raises(FileError, match=r"nothing: expected a folder of class folders, an .npz file, 'digits'"):
        open_data(str(tmp_path / "nothing"), GREY)
    with pytest.raises(InputError, match=r"class folders of images fit a classifier of images"):
        open_data(str(folder), Wanted(f32("N", 4), 3))


def test_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "samples.npz"
    x, y = rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), np.arange(40) % 3
    np.savez(path, x=x, y=y)
    data = open_data(str(path), GREY)
    assert (len(data.train(0)), len(data.test())) == (34, 6)
    found, labels = data.test().read(np.array([1, 5]))  # in order, 0, 1, 2, 30, 31 and 32 are held out
    np.testing.assert_allclose(found[:, 0], x[[1, 32]] / 255, atol=1e-7)
    assert labels.tolist() == [1, 2]
    np.savez(path, x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    data = open_data(str(path), GREY)
    assert (len(data.train(0)), len(data.test())) == (40, 5)
    np.savez(path, x=rng.standard_normal((4, 2)), y=np.array([0, 1, 1, 0]))
    data = open_data(str(path), Wanted(f32("N", 2), 2))
    assert data.train(0).read(np.arange(2))[0].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 8, 8)), "y": np.array([0, 3])}, "y: expected labels from 0 to 2, sample 1 has 3"),
        ({"x": np.zeros((2, 8, 8)), "y": np.array([-1, 0])}, "y: expected labels from 0 to 2, sample 0 has -1"),
        ({"x": np.full((2, 8, 8), np.nan), "y": np.array([0, 1])}, "x: expected finite numbers, sample 0 has others"),
        ({"x": np.zeros((2, 8, 9)), "y": np.array([0, 1])}, r"x: expected samples f32\[N,1,8,8\], got \[2, 1, 8, 9\]"),
        ({"x": np.zeros((2, 8, 8)), "y": np.array([0])}, r"y: expected labels \[2\], got \[1\]"),
        ({"x": np.zeros((2, 8, 8)), "y": np.zeros(2)}, "expected floats or bytes in x and integers in y, got float64"),
        ({"x": np.zeros((2, 8, 8))}, "expected arrays x and y, or x_train, y_train, x_test and y_test, got x"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(FileError, match=rf"bad.npz: {message}"):
        open_data(str(tmp_path / "bad.npz"), GREY)


def test_hold_out() -> None:
    labels = np.array([0] * 11 + [1] + [2] * 2)
    kept, held = hold_out(labels)
    assert held.tolist() == [0, 10, 12]  # class 1 has one sample
    assert sorted([*kept, *held]) == list(range(14))


def test_what_a_network_wants() -> None:
    assert want(make_network(1, "H", "W"), None, [0], [1]).size == (224, 224)
    assert want(make_network(1, "H", "W"), (30, 40), [0], [1]).size == (30, 40)
    assert want(make_network(1, 8, 8), None, [0], [1]).size == (8, 8)
    assert want(make_network(4), None, [0], [1]).size is None
    with pytest.raises(InputError, match=r"size: network 'net' wants f32\[N,1,8,8\], got 9x8"):
        want(make_network(1, 8, 8), (9, 8), [0], [1])
    with pytest.raises(InputError, match=r"size: network 'net' wants f32\[N,4\], which are no images"):
        want(make_network(4), (9, 8), [0], [1])
    with pytest.raises(InputError, match=r"expected scores \[N,K\] or \[N,K,P,Q\] of 2 classes or more"):
        want(make_network(4, classes=1), None, [0], [1])


def test_digits_and_pages() -> None:
    pytest.importorskip("sklearn", reason="the scans are scikit-learn's")
    digits = open_data("digits", Wanted(f32("N", 1, 32, 32), 10, size=(32, 32)))
    assert (len(digits.train(0)), len(digits.test())) == (1433, 364)
    assert digits.reading == ((1.0,), (-1.0,))
    windows = open_data("pages", Wanted(f32("N", 1, 32, 32), 11, size=(32, 32)), seed=3)
    first, second = windows.train(0), windows.train(1)
    x, y = first.read(np.arange(len(first)))
    assert x.shape == (len(first), 1, 32, 32) and set(y) == set(range(11))
    again = open_data("pages", Wanted(f32("N", 1, 32, 32), 11, size=(32, 32)), seed=3).train(0)
    np.testing.assert_array_equal(again.read(np.arange(len(first)))[0], x)
    assert len(second) != len(first) or not np.array_equal(second.read(np.arange(len(first)))[0], x)
    assert len(windows.test()) == 2 * 364
    pieces = open_data("pages", Wanted(f32("N", 1, "H", "W"), 11, True, (64, 64)))
    x, y = pieces.test().read(np.arange(8))
    assert x.shape == (8, 1, 64, 64) and y.shape == (8, 64, 64)
    dark = y != 10
    assert 0.02 < dark.mean() < 0.5
    assert x[:, 0][dark].mean() > x[:, 0][~dark].mean() + 0.3
    ink = open_data("pages", Wanted(f32("N", 1, "H", "W"), 2, True, (64, 64)))
    np.testing.assert_array_equal(ink.test().read(np.arange(8))[1], dark)
    assert ink.labels == ("paper", "ink")
    for source, wanted in (("digits", GREY), ("pages", GREY)):
        with pytest.raises(GraphcError, match=f"data '{source}': expected a network for images"):
            open_data(source, wanted)
