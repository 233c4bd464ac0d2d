"""ncnn: the exported network as its own converter, pnnx, makes it."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import ncnn
import numpy as np

from graphc.bench.problem import Loaded, Problem
from graphc.errors import UnsupportedError
from graphc.ir import Array


def load(problem: Problem, threads: int) -> Loaded:
    """The converted network. It takes one image at a time, so the images of a batch follow one another."""
    folder = problem.folder / f"ncnn{threads}"
    folder.mkdir()
    shapes = ",".join(f"[{','.join(map(str, (1, *a.shape[1:])))}]f32" for a in problem.inputs)
    (folder / "n.onnx").symlink_to(problem.onnx)
    command = [str(_find_pnnx()), "n.onnx", f"inputshape={shapes}", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if left := _list_unconverted((folder / "n.ncnn.param").read_text()):
        raise UnsupportedError("pnnx cannot convert", left)
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)  # float32 throughout, as the others
    if net.load_param(str(folder / "n.ncnn.param")) or net.load_model(str(folder / "n.ncnn.bin")):
        raise UnsupportedError("ncnn cannot load what pnnx made of the network")
    names = net.output_names()

    def run_image(i: int) -> list[Array]:
        extractor = net.create_extractor()
        for number, array in enumerate(problem.inputs):
            extractor.input(f"in{number}", ncnn.Mat(array[i]))
        results = []
        for name in names:
            status, result = extractor.extract(name)
            if status:
                raise UnsupportedError(f"ncnn ends with status {status} at {name}")
            results.append(np.array(result)[None])
        return results

    def run() -> list[Array]:
        images = [run_image(i) for i in range(len(problem.inputs[0]))]
        return [np.concatenate(parts) for parts in zip(*images, strict=True)]

    return Loaded(ncnn.__version__, run)


def _find_pnnx() -> Path:
    """The program in the package, which is not imported: it would bring PyTorch and half a GB of memory with it."""
    spec = find_spec("pnnx")
    assert spec and spec.origin
    return Path(spec.origin).with_name("pnnx")


def _list_unconverted(param: str) -> list[str]:
    """The operators in a .param file that are no layers of ncnn: they keep their dotted names of pnnx."""
    kinds = [line.split()[0] for line in param.splitlines()[2:] if line.strip()]
    return sorted({kind for kind in kinds if "." in kind or "::" in kind})
