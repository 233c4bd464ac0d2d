"""The command line: what the commands are called, take and tell. What they do stands beside, loaded when it is run.

Exit status: 0; 1 if a check failed; 2 if something is wrong with the arguments, the files or the network; 70 if
something is wrong with graphc; 130 after Ctrl-C.
"""

import errno
import os
from pathlib import Path
from signal import SIGINT
from typing import Any, Literal

import click

from graphc import __version__
from graphc.cli.arguments import parse_counts, parse_size, parse_tile, parse_words
from graphc.cli.options import (
    FILE,
    cpu,
    cpus,
    dense,
    examples,
    memory,
    model,
    precise,
    provider_names,
    reading,
    shape,
    split_recipe,
    stepping,
    threads,
)
from graphc.cli.show_commands import show
from graphc.cli.train_command import train
from graphc.errors import GraphcError, InputError, UnsupportedError


class Commands(click.Group):
    """The commands, with errors told on stderr: in one line, or in one for each problem where there are several.

    `build` is `compile`, which Python calls graphc.build.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "compile" if cmd_name == "build" else cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click tells these itself
        except KeyboardInterrupt:
            message, status = "interrupted", 128 + SIGINT  # as shells have it
        except Exception as error:
            if ctx.params["debug"]:
                raise
            message, status = explain(error)
        click.echo(f"graphc: {message}", err=True)
        raise click.exceptions.Exit(status)


def explain(error: Exception) -> tuple[str, int]:
    """What is told of an error, and the exit status."""
    match error:
        case UnsupportedError(problems=(_, _, *_)):
            head = str(error).removesuffix("; ".join(error.problems)).rstrip()
            return "\n  ".join([head, *error.problems]), 2
        case GraphcError():
            return str(error), 2
        case MemoryError():
            return "not enough memory", 2
        case OSError(errno=errno.ENOSPC | errno.EIO):  # of stdout, or of a library's own file
            return f"{error.filename or 'the result'} cannot be written: {error.strerror}", 2
    return f"internal error, please report it with what --debug shows: {error!r}", os.EX_SOFTWARE


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="graphc %(version)s")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def main(debug: bool) -> None:
    """Compile and run convolutional networks.

    MODEL is an ONNX file, the name of a built-in network such as lenet5, or module:function for a function of yours
    that returns a graphc.Graph.
    """


@main.command(
    **examples(
        "compile net.onnx -o build",
        "compile digits --dense -o build --emit so,h,exe",
        "compile net.onnx -o build --cpu x86-64-v2,x86-64-v3",
        "compile lenet5 --training-step --optimizer momentum -o build",
    )
)
@model
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="The folder to write into.")
@click.option("--emit", type=parse_words, default="so,h", show_default=True, help="Some of so, h, obj, exe, ll, asm.")
@click.option("--name", metavar="NAME", help="What files and C functions are called.  [default: as the network]")
@click.option(
    "--weights",
    type=click.Choice(["embed", "file"]),
    default="embed",
    show_default=True,
    help="In the library, or in a file beside it.",
)
@cpus
@precise
@click.option("--tune", is_flag=True, help="Measure here which kernels are fastest, at --shape, and take those.")
@shape
@dense
@stepping
def compile(
    output: Path,
    emit: tuple[str, ...],
    name: str | None,
    weights: Literal["embed", "file"],
    cpu: str,
    precise: bool,
    tune: bool,
    shapes: tuple[tuple[int, ...], ...],
    **network: Any,
) -> None:
    """Write a network as native code.

    A library (so) with its C header (h), an object file (obj), a program (exe), or the code as text (ll, asm). `graphc
    build` is the same command.

    With --training-step, a call is a step of training with softmax cross-entropy: its inputs are images, labels,
    parameters, learning_rate, step (from 0) and the state of the optimiser (zeros at first), its outputs the loss, the
    scores, and NAME.next for each parameter and state, which may lie where NAME lies. All memory is the caller's.
    """
    from graphc.cli.commands import compile_network, load_model
    from graphc.cli.recipes import choose_graph

    model, recipe = split_recipe(network)
    graph = choose_graph(load_model(**model), **recipe)
    compile_network(graph, output, emit, name, weights, cpu, precise, tune, shapes)


@main.command(
    **examples(
        "run digits photo.png",
        "run digits --dense page.png --overlay map.png",
        "run digits --dense --output-stride 2 --upsample page.png -o scores.npy",
        "run net.onnx --resize --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 *.jpg -o results",
        "run build/net.so image.npy -o result.npy",
        "run digit_masks huge.tif -o masks.zarr --tile auto --max-memory 1GiB",
        "run resnet50 --backend onnxruntime --provider cuda image.npy",
    )
)
@model
@click.argument("inputs", nargs=-1, required=True, type=FILE, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE|DIR",
    help="Write the results: a .npy file (with --tile, also .zarr or .tif), or a folder for many inputs.",
)
@click.option("--overlay", type=FILE, metavar="FILE|DIR", help="Draw the map of scores over the image, as .png.")
@reading
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, metavar="K", help="Show the K best classes."
)
@click.option(
    "--backend",
    type=click.Choice(["native", "onnxruntime"]),
    default="native",
    show_default=True,
    help="Run graphc's own code, or the exported network in ONNX Runtime.",
)
@click.option(
    "--provider",
    type=provider_names,
    help="With --backend onnxruntime, what that computes on; an error if it is not there.  [default: cpu]",
)
@click.option(
    "--tile",
    metavar="auto|HxW",
    help="Run images tile by tile, with the bits of the whole: as large as --max-memory allows, or of this size.",
)
@memory
@threads
@cpu
@precise
@dense
def run(
    inputs: tuple[Path, ...],
    output: Path | None,
    overlay: Path | None,
    tile: str | None,
    memory: str,
    resize: bool,
    mean: list[float] | None,
    std: list[float] | None,
    top: int,
    **network: Any,
) -> None:
    """Run a network on images or arrays.

    Pictures are read as red, green and blue, or grey, from 0 to 1, then normalised; .npy files are taken as they are.
    MODEL may also be a library that `graphc compile` has written.

    With --tile, .npy, .zarr and .tif files are read and written by windows, so that images may be larger than memory. A
    run that was interrupted goes on where it stopped. Several outputs are written as FILE.NAME.npy each.
    """
    from graphc.cli.running import load_network, make_reader, run_network

    if tile:
        from graphc.cli.tiling import run_tiles

        if overlay:
            raise InputError("--overlay: expected without --tile only")
        size, loaded = parse_tile(tile), load_network(**network)
        run_tiles(loaded, make_reader(loaded, resize, mean, std), inputs, output, size, memory)
        return
    loaded = load_network(**network)
    run_network(loaded, make_reader(loaded, resize, mean, std), inputs, output, overlay, top)


@main.command(
    **examples("plan digit_masks --shape 1x1x20000x20000", "plan build/net.so --shape 1x3x9000x9000 --max-memory 4GiB")
)
@model
@shape
@click.option("--tile", default="auto", show_default=True, metavar="auto|HxW", help="The size of tiles, in pixels.")
@memory
@threads
@cpu
@precise
@dense
def plan(shapes: tuple[tuple[int, ...], ...], tile: str, memory: str, **network: Any) -> None:
    """Say how large images are cut into tiles.

    Of images of --shape: the tiles, what they read, the memory that a run takes, and the work.
    """
    from graphc.cli.tiling import show_plan

    show_plan(shapes=shapes, tile=parse_tile(tile), memory=memory, **network)


@main.command(
    **examples(
        "export lenet5 -o lenet5.onnx",
        "export digits --dense -o digits.onnx",
        "export resnet50 --params resnet50.safetensors --fp16 -o resnet50.onnx",
        "export lenet5 --training-step --optimizer adam -o step.onnx",
    )
)
@model
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.onnx", help="The file to write.")
@click.option("--opset", type=int, default=18, show_default=True, help="The version of ONNX's operators, from 13 on.")
@click.option("--fp16", is_flag=True, help="Weights and arithmetic in half precision; inputs and outputs stay float32.")
@dense
@stepping
def export(output: Path, opset: int, fp16: bool, **network: Any) -> None:
    """Write a network as an ONNX file.

    Its metadata hold mean, std and labels, if the network has them, and how its outputs lie over the image. More than
    2 GiB of weights go to a file beside it, FILE.onnx.data.

    With --training-step, a run is a step of training with softmax cross-entropy: the inputs are images, labels,
    parameters, learning_rate, step (from 0) and the state of the optimiser (zeros at first), the outputs the loss, the
    scores, and NAME.next for each parameter and state.
    """
    from graphc.cli.commands import export_network, load_model
    from graphc.cli.recipes import choose_graph

    model, recipe = split_recipe(network)
    export_network(choose_graph(load_model(**model), **recipe), output, opset, fp16)


@main.command(
    **examples(
        "summary lenet5", "summary net.onnx --shape 1x3x640x480 --json", "summary resnet18 --dense --output-stride 8"
    )
)
@model
@shape
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@dense
def summary(shapes: tuple[tuple[int, ...], ...], as_json: bool, **network: Any) -> None:
    """Count parameters, operations and memory, layer by layer.

    With --dense, also tell which window of the image each score is about, and whether it is what the classifier gives
    for that window alone. If layers pad it is not: then "same" are the rows and columns, of those that a window has in
    a layer, that see no padding and stay what they are.
    """
    from graphc.cli.commands import load_model, show_summary

    show_summary(load_model(**network), shapes, as_json)


@main.command(
    **examples(
        "verify net.onnx", "verify digits --dense --shape 2x1x100x80 --threads 4", "verify resnet50 --provider cuda"
    )
)
@model
@shape
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random inputs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    default=1e-4,
    show_default=True,
    help="The largest difference that is right, as a share of a tensor's largest element.",
)
@click.option(
    "--provider",
    type=provider_names,
    default="cpu",
    show_default=True,
    help="What ONNX Runtime computes on.",
)
@threads
@cpu
@dense
def verify(
    shapes: tuple[tuple[int, ...], ...],
    seed: int,
    tolerance: float,
    provider: str,
    threads: int | None,
    cpu: str,
    **network: Any,
) -> None:
    """Compare native code with NumPy and ONNX Runtime.

    The reference is NumPy in float64 on random inputs. Where they differ, the first layer is named and the exit
    status is 1.
    """
    from graphc.cli.commands import load_model, verify_network

    if not verify_network(load_model(**network), shapes, seed, tolerance, threads, cpu, provider):
        raise click.exceptions.Exit(1)


@main.command(
    **examples(
        "bench resnet50 vgg16",
        "bench net.onnx --against onnxruntime,torch --threads 1,4 --json bench.json",
        "bench --dense alexnet --image 1024x1024",
        "bench digit_masks --sizes sizes.svg",
    )
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--against",
    type=parse_words,
    metavar="NAME,...",
    help="Other runtimes: some of onnxruntime, openvino, ncnn, torch.  [default: all of them]",
)
@click.option(
    "--threads", type=parse_counts, default="1", show_default=True, metavar="N,...", help="Threads, a CPU for each."
)
@shape
@click.option("--batch", type=click.IntRange(1), metavar="N", help="The number of images, where that is open.")
@click.option(
    "--rounds", type=click.IntRange(1), default=9, show_default=True, metavar="N", help="Turns of each runtime."
)
@click.option(
    "--time",
    "seconds",
    type=click.FloatRange(0),
    default=0.2,
    show_default=True,
    metavar="S",
    help="Seconds of a turn; a turn has one run at least.",
)
@click.option("--json", "file", type=FILE, metavar="FILE", help="Write everything that was measured.")
@click.option("--profile", is_flag=True, help="Instead, measure every step of the compiled network.")
@click.option("--training", is_flag=True, help="Instead, measure a step of training, against PyTorch.")
@click.option("--dense", is_flag=True, help="Instead, measure a dense run, against sliding windows.")
@click.option("--image", type=parse_size, metavar="HxW", help="With --dense, the image's size.  [default: 1024x1024]")
@click.option(
    "--sizes",
    "plot",
    type=FILE,
    metavar="FILE.svg",
    help="Instead, measure images from 256x256 to 8192x8192, and plot their cost; beyond --max-memory in tiles.",
)
@memory
def bench(
    models: tuple[str, ...],
    against: tuple[str, ...] | None,
    threads: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    batch: int | None,
    rounds: int,
    seconds: float,
    file: Path | None,
    profile: bool,
    training: bool,
    dense: bool,
    image: tuple[int, int] | None,
    plot: Path | None,
    memory: str,
) -> None:
    """Measure networks in graphc and in other runtimes.

    The runtimes take turns, each in a process of its own. Times are of a call from Python with random inputs; errors
    are the largest difference from float64, as a share of the largest output; the memory is that of the whole process.
    A profile tells for every step what limits it: the CPU's multiply-adds, or the bandwidth of the cache or the memory
    that its operands fit in, both measured when it starts.

    With --dense, the map of a classifier's scores over a large image is computed in one run, and window by window at
    the network's own stride; of the windows, 16 are timed. The gain stands beside (window/stride)², which it would be
    if all layers of all windows had their pixels in common, and beside the ratio of the multiply-adds.
    """
    from graphc.cli.benchmarks import (
        Effort,
        compare_networks,
        compare_trainings,
        compare_windows,
        load_models,
        plot_sizes,
        profile_networks,
    )

    modes = {"profile": profile, "training": training, "dense": dense, "sizes": plot}
    kinds = [name for name, chosen in modes.items() if chosen]
    if len(kinds) > 1:
        raise InputError(f"--{kinds[1]}: expected without --{kinds[0]} only")
    if against and kinds not in ([], ["training"]):
        raise InputError(f"--against: expected without --{kinds[0]} only")
    if image and not dense:
        raise InputError("--image: expected together with --dense only")
    if (dense or plot) and (shapes or batch):
        given, why = "shape" if shapes else "batch", "one --image" if dense else "sizes of its own"
        raise InputError(f"--{given}: expected without --{kinds[0]} only, which has {why}")
    networks, effort = load_models(models, shapes, batch), Effort(threads, rounds, seconds)
    if dense:
        compare_windows(networks, image or (1024, 1024), effort, file)
    elif plot:
        plot_sizes(networks, effort, memory, plot, file)
    elif profile:
        profile_networks(networks, effort, file)
    elif training:
        compare_trainings(networks, against or ("torch",), effort, file)
    else:
        compare_networks(networks, against or ("onnxruntime", "openvino", "ncnn", "torch"), effort, file)


@main.command(**examples("graph lenet5 -o lenet5.svg", "graph net.onnx --optimized -o net.dot"))
@model
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.svg|.dot", help="The file to write.")
@click.option("--optimized", is_flag=True, help="Draw what is compiled: the network after all passes.")
@click.option("--every-op", is_flag=True, help="Also a box for each normalisation and activation after a layer.")
@dense
def graph(output: Path, optimized: bool, every_op: bool, **network: Any) -> None:
    """Draw a network as SVG or for Graphviz."""
    from graphc.cli.commands import draw_network, load_model

    draw_network(load_model(**network), output, optimized, every_op)


@main.command(**examples("demo", "demo -o /tmp/demo"))
@click.option("-o", "--output", type=FILE, default="demo", show_default=True, metavar="DIR", help="The folder to fill.")
def demo(output: Path) -> None:
    """Find the digits on a scanned page, and draw them."""
    from graphc.cli.commands import show_demo

    show_demo(output)


main.add_command(show)
main.add_command(train)
