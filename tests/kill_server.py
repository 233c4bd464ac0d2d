"""Kills processes that compile, build, train or run by tiles at random moments, and looks at what they leave; JSON.

    python tests/kill_server.py FOLDER KILLS SEED

`tried` counts the kills of each kind, `survived` those after which nothing half-written was taken for whole and the
same work, done again, gave the right result; `findings` says what went wrong in the others.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from artefacts import make_small, random_image
from click.testing import CliRunner
from forking import Outcome, fork

import graphc
from graphc.cli import main as command_line
from graphc.errors import FileError
from graphc.runtime import tiled_files
from graphc.runtime.load import load
from graphc.runtime.windows import open_result
from graphc.state import read_state

IMAGE = random_image(1, 3, 24, 20)
NETWORK = """
from graphc import f32, nn
from graphc.ir import Builder

def gate(seed=0):
    net = Builder("gate", seed)
    x = nn.tanh(nn.linear(net.input("bits", f32("N", 2)), 4, name="hidden"))
    return net.build(scores=nn.linear(x, 2, name="output"))
"""
OLD, NEW = make_small(seed=1), make_small(seed=2)


@dataclass(frozen=True)
class Work:
    """What is done in a folder, and what is wrong there after it was killed and done again ("" if nothing)."""

    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    fault: Callable[[Path], str]


def compile_cached(folder: Path) -> object:
    os.environ["GRAPHC_CACHE"] = str(folder / "cache")
    return graphc.compile(NEW, threads=1)(IMAGE)


def fault_of_cache(folder: Path) -> str:
    """The right result from what the cache holds now, and again."""
    wanted = graphc.run_reference(NEW, [IMAGE])[0]
    same = [np.allclose(compile_cached(folder), wanted, 1e-4, 1e-4) for _ in range(2)]
    return "" if all(same) else f"compiled code is wrong: {same}"


def build(graph: graphc.Graph, folder: Path) -> object:
    return graphc.build(graph, folder / "out", ("so", "h", "exe"), weights="file")


def fault_of_build(folder: Path) -> str:
    """The library is the old one, the new one, or refuses weights of the other; building again gives the new one."""
    known = [graphc.run_reference(g, [IMAGE])[0] for g in (OLD, NEW)]
    file = folder / "out" / "small.so"
    try:
        found = load(file, threads=1)(IMAGE)
    except FileError as error:
        if "expected the weights of" not in str(error):
            return str(error)
    else:
        if not any(np.allclose(found, one, 1e-4, 1e-4) for one in known):
            return "the library's result is neither the old nor the new"
    build(NEW, folder)
    if strays := [p.name for p in file.parent.iterdir() if not p.name.startswith("small")]:
        return f"built again, {strays} are left"
    return "" if np.allclose(load(file, threads=1)(IMAGE), known[1], 1e-4, 1e-4) else "built again, it is wrong"


def train(folder: Path, *options: str) -> object:
    os.chdir(folder)
    os.environ["GRAPHC_CACHE"] = str(folder.parent / "cache")  # the step is compiled once: what is killed is training
    words = "--data data.npz --epochs 9 --batch 8 --threads 1 -o net.safetensors"
    result = CliRunner().invoke(command_line, ["train", "mine:gate", *words.split(), *options])
    assert result.exit_code == 0, result.output
    return result


def prepare_training(folder: Path) -> None:
    (folder / "mine.py").write_text(NETWORK)
    x = random_image(400, 2)
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > x[:, 1]).astype(np.int64))
    shutil.copytree(folder, folder.parent / "undisturbed")
    train(folder.parent / "undisturbed")


def fault_of_training(folder: Path) -> str:
    """Gone on with, it ends with the bits of a training that nothing stopped."""
    resumable = (folder / "net.checkpoint.safetensors").exists()
    train(folder, *(["--resume"] if resumable else []))
    found, wanted = (read_state(f / "net.safetensors") for f in (folder, folder.parent / "undisturbed"))
    same = all(np.array_equal(found[name], wanted[name]) for name in wanted)
    return "" if same else f"other parameters than without a stop (resumed: {resumable})"


def run_by_tiles(kind: str, folder: Path, image: str = "new.npy") -> object:
    tiled_files.SYNC_SECONDS = 0  # after each row of tiles, as in a run of hours
    os.environ["GRAPHC_CACHE"] = str(folder.parent / "cache")
    files = [str(folder / image), "-o", str(folder / f"y{kind}")]
    result = CliRunner().invoke(command_line, ["run", "digit_masks", *files, "--tile", "32x32", "--threads", "1"])
    assert result.exit_code == 0, result.output
    return result


def prepare_tiles(kind: str, folder: Path) -> None:
    """Images, and the results of one of them, which those of the other replace."""
    for name in ("new", "old"):
        np.save(folder / f"{name}.npy", random_image(1, 1, 160, 192) + (name == "old"))
    run_by_tiles(kind, folder, "old.npy")


def fault_of_tiles(kind: str, folder: Path) -> str:
    """The results are the old ones or the new ones, or absent; with another run, the new ones, and nothing else."""
    os.environ["GRAPHC_CACHE"] = str(folder.parent / "cache")
    network, path = graphc.compile(graphc.models.digit_masks(), threads=1), folder / f"y{kind}"
    old, new = (network(np.load(folder / f"{name}.npy")) for name in ("old", "new"))
    if path.exists() and not any(np.array_equal(open_result(path)[:], one) for one in (old, new)):
        return "the results are neither the old nor the new"
    begun = (folder / f".y{kind}.tiles").exists()
    run_by_tiles(kind, folder)
    if not np.array_equal(open_result(path)[:], new):
        return f"run again, the results are others than those of the whole image (gone on with: {begun})"
    left = sorted({p.name for p in folder.iterdir()} - {"new.npy", "old.npy", path.name})
    return f"left behind: {', '.join(left)}" if left else ""


WORKS = {
    "compile": Work(lambda folder: None, compile_cached, fault_of_cache),
    "build": Work(partial(build, OLD), partial(build, NEW), fault_of_build),
    "train": Work(prepare_training, train, fault_of_training),
    **{
        f"tiles to {k}": Work(partial(prepare_tiles, k), partial(run_by_tiles, k), partial(fault_of_tiles, k))
        for k in (".npy", ".zarr")
        if k == ".npy" or find_spec("zarr")
    },
}


def done(action: Callable[[Path], object], folder: Path) -> Outcome:
    result = action(folder)
    return {"done": True, "fault": result if isinstance(result, str) else ""}


def torment(work: Work, folder: Path, kills: int, rng: np.random.Generator) -> dict[str, object]:
    """Kill the work so many times, each in a folder as it was prepared; the first time it may end, for its time."""
    folder.mkdir()
    prepared = folder / "prepared"
    prepared.mkdir()
    assert fork(partial(done, work.prepare, prepared)).get("done")
    survived, findings, seconds = 0, list[str](), 0.0
    for i in range(kills + 1):
        place = folder / f"run{i}"
        shutil.copytree(prepared, place)
        start = time.monotonic()
        fork(partial(done, work.act, place), kill_after=float(rng.uniform(0, 1.05)) * seconds if i else None)
        seconds = seconds or time.monotonic() - start
        after = fork(partial(done, work.fault, place))
        fault = after.get("fault", f"no answer, {after['killed']}")
        if fault:
            findings.append(f"kill {i}: {fault}")
        elif i:
            survived += 1
        shutil.rmtree(place)
    return {"tried": kills, "survived": survived, "findings": findings}


if __name__ == "__main__":
    base, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    generators = {name: np.random.default_rng([seed, i]) for i, name in enumerate(WORKS)}
    results = {name: torment(work, base / name, count, generators[name]) for name, work in WORKS.items()}
    print(json.dumps(results))
