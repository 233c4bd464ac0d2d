"""Compiled code on disk: when it is taken, when it is made anew, and who may have written it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from artefacts import make_small, random_image

import graphc
from graphc import emission
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import describe
from graphc.emission import code_key
from graphc.errors import InputError
from graphc.ir import Graph
from graphc.passes import optimize
from graphc.runtime import cache
from graphc.settings import cache_folder

ROOT = Path(__file__).parents[1]
KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("compiled again")

    monkeypatch.setattr(emission, "emit_objects", refuse)


def test_a_network_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another network of the same structure has the same code and other weights."""
    x = random_image(1, 3, 19, 23)
    first = graphc.compile(make_small(seed=1))(x)
    modes = [entry.stat().st_mode & 0o777 for entry in folder.iterdir()]
    assert folder.stat().st_mode & 0o777 == 0o700 and modes == [0o600, 0o600]  # the code, and what it is for
    with monkeypatch.context() as patch:
        forbid_compiling(patch)
        np.testing.assert_array_equal(graphc.compile(make_small(seed=1))(x), first)
        second = graphc.compile(make_small(seed=2))(x)
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    np.testing.assert_array_equal(graphc.compile(make_small(seed=2))(x), second)
    assert not np.array_equal(first, second)


def small_key(graph: Graph, cpu: str = "native", optimized: bool = True, precise: bool = False) -> bytes:
    target = make_target(cpu)
    plan = make_plan(optimize(graph) if optimized else graph, target, precise=precise)
    return code_key([(plan, target)], "net", describe(graph, graph))


def wide(kernel: int = 3, name: str = "wide", channels: int = 64) -> Graph:
    net = graphc.Builder(name)
    x = net.input("x", graphc.f32("N", channels, "H", "W"))
    return net.build(graphc.nn.relu(graphc.nn.conv2d(x, 64, kernel, padding=kernel // 2, name="conv")))


def test_the_key_holds_what_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        small_key(wide()), small_key(wide(kernel=5)), small_key(wide(name="other")), small_key(wide(channels=48)),
        small_key(wide(), "x86-64"), small_key(wide(), "x86-64-v2"), small_key(wide(), precise=True),
        small_key(wide(), optimized=False),
    ]  # fmt: skip
    monkeypatch.setattr(emission, "source_hash", lambda: "of another version")
    keys.append(small_key(wide()))
    monkeypatch.setattr("llvmlite.__version__", "0.0.0")
    keys.append(small_key(wide()))
    assert len(set(keys)) == len(keys)


def test_the_key_is_the_same_in_every_process() -> None:
    code = "import test_cache as t; print(t.small_key(t.wide()).hex())"
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert found == {small_key(wide()).hex()}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def alter(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def rename(data: bytes) -> bytes:
    """What is right under another key."""
    rest = OTHER + data[96:]
    return cache.MARK + cache.sha256(rest).digest() + rest


@pytest.mark.parametrize("damage", [cut, alter, rename, lambda _: b"", lambda d: d[:64], lambda d: d + b"x"])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    x = random_image(1, 3, 19, 23)
    expected = graphc.compile(make_small())(x)
    whole = {entry: entry.read_bytes() for entry in folder.iterdir()}
    for entry, data in whole.items():
        entry.write_bytes(damage(data))
    np.testing.assert_array_equal(graphc.compile(make_small())(x), expected)
    assert {entry: entry.read_bytes() for entry in folder.iterdir()} == whole


def test_entries_of_others_are_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(KEY, b"content")
    assert (cache.load(KEY), cache.load(OTHER)) == (b"content", None)
    entry, moved = folder / KEY.hex(), folder / "moved"
    entry.rename(moved)
    entry.symlink_to(moved)
    assert cache.load(KEY) is None
    entry.unlink()
    moved.rename(entry)
    fstat = os.fstat

    def by_another(descriptor: int) -> os.stat_result:
        about = list(fstat(descriptor))
        about[4] += 1  # st_uid
        return os.stat_result(about)

    monkeypatch.setattr(os, "fstat", by_another)
    assert cache.load(KEY) is None


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in (0o755, 0o770, 0o701):
        place = tmp_path / oct(mode) / "graphc"
        place.mkdir(parents=True)
        place.chmod(mode)
        monkeypatch.setenv("GRAPHC_CACHE", str(place))
        with pytest.raises(InputError, match=f"GRAPHC_CACHE: expected off, or a folder .* \\(mode {mode:04o} of user"):
            graphc.compile(make_small())
        monkeypatch.delenv("GRAPHC_CACHE")  # where it has not been asked for, it is only not used
        monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))
        cache.store(KEY, b"content")
        assert cache.load(KEY) is None and list(place.iterdir()) == []
    monkeypatch.setenv("GRAPHC_CACHE", "/dev/null")
    with pytest.raises(InputError, match=r"GRAPHC_CACHE: .* got '/dev/null' \(File exists\)"):
        graphc.compile(make_small())


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.delenv("GRAPHC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/graphc")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == tmp_path / ".cache" / "graphc"


def test_what_was_not_used_for_longest_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 10_000)
    keys = [bytes([i]) * 32 for i in range(12)]
    for age, key in enumerate(keys):
        cache.store(key, bytes(1000))
        if age < 8:
            os.utime(folder / key.hex(), (age, age))
        if key == keys[7]:
            assert cache.load(keys[0])  # used again: the oldest is then keys[1]
    left = [i for i, key in enumerate(keys) if cache.load(key)]
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 10_000
    assert left == [0, *range(5, 12)]  # the tenth entry of 1096 bytes was too much: 6 are less than 7,500


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert graphc.compile(make_small())(random_image(1, 3, 8, 8)).shape == (1, 5, 3, 3)
    assert list(folder.iterdir()) == []


def test_processes_share_the_folder(folder: Path) -> None:
    """All start without an entry, make the same two (the target, the code), and leave them and nothing else."""
    code = (
        "import graphc, numpy as np; from artefacts import make_small, random_image\n"
        "for _ in range(3): print(graphc.compile(make_small(), 1)(random_image(1, 3, 9, 9)).tobytes().hex())"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    lines = [line for process in running for line in process.communicate()[0].split()]
    assert [p.returncode for p in running] == [0] * 4 and len(lines) == 12 and len(set(lines)) == 1
    assert len(list(folder.iterdir())) == 2


def test_a_dump_shows_what_is_compiled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphc.compile(make_small())
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path / "dump"))
    graphc.compile(make_small())
    assert (tmp_path / "dump" / "module.s").exists()


def test_code_in_parts_is_the_code_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel is an object file; GRAPHC_DUMP makes one of all, of the same instructions."""
    x = random_image(1, 3, 19, 23)
    graph, target = make_small(seed=1), make_target("native")
    plan = make_plan(optimize(graph), target)
    kernels = {step.kernel.key for step in (*plan.setup, *plan.steps)}
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert len(emission.find_code([(plan, target)], describe(graph, graph))) == len(kernels) + 1
    parts = graphc.compile(graph)(x)
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    assert len(emission.find_code([(plan, target)], describe(graph, graph))) == 1
    np.testing.assert_array_equal(graphc.compile(graph)(x), parts)
