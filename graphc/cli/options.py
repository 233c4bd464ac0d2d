"""What several commands take: arguments and options that read alike everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from graphc.cli.arguments import parse_numbers, parse_shape, parse_size

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


def examples(*lines: str) -> dict[str, Any]:
    """The epilog of a command's help; \\b keeps click from joining its lines."""
    return {"epilog": "\n".join(["\b", "Examples:", *(f"  graphc {line}" for line in lines)])}


def combine(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, first one first in the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model = combine(
    click.argument("model"),
    click.option("--params", type=FILE, metavar="FILE", help="Parameters by name: .safetensors, .npz or .pth."),
    click.option("--classes", type=click.IntRange(1), metavar="N", help="Build the network with so many classes."),
)
window = click.option(
    "--window", type=parse_size, metavar="HxW", help="The image size it was made for, if it leaves that open."
)
dense = combine(
    click.option("--dense", is_flag=True, help="Make it fully convolutional: a map of scores for images of any size."),
    click.option(
        "--gap",
        type=click.Choice(["window", "drop"]),
        help="With --dense, a global average becomes a moving average (window, the default) or nothing (drop).",
    ),
    click.option(
        "--window",
        type=parse_size,
        metavar="HxW",
        help="With --dense, the image size it was made for, if it leaves that open.",
    ),
    click.option(
        "--output-stride",
        type=click.IntRange(1),
        metavar="N",
        help="With --dense, a score every N pixels: strides become dilation.  [default: the network's own stride]",
    ),
    click.option("--upsample", is_flag=True, help="Interpolate maps to the image's size: a score for every pixel."),
)
reading = combine(
    click.option("--resize", is_flag=True, help="Scale images to the size that the network wants."),
    click.option(
        "--mean", type=parse_numbers, metavar="X,...", help="Subtract these from the channels, which lie in 0..1."
    ),
    click.option(
        "--std", type=parse_numbers, metavar="X,...", help="Then divide by these.  [default for both: the network's]"
    ),
)
cpu = click.option(
    "--cpu", default="native", show_default=True, metavar="NAME", help="Compile for this CPU: native, or x86-64-v3, ..."
)
cpus = click.option(
    "--cpu",
    default="native",
    show_default=True,
    metavar="NAME,...",
    help="Compile for these CPUs: native, or x86-64-v2, x86-64-v3 and so on. The best that a CPU has runs there.",
)
threads = click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads of a run.  [default: every CPU]"
)
precise = click.option(
    "--precise",
    is_flag=True,
    help="Convolutions within 1e-6 of the largest output, not 5e-6; slower, but tiles need less around them.",
)
provider_names = click.Choice(
    ["cpu", "cuda", "tensorrt"]
)  # runtime.onnxruntime.PROVIDERS, which is not loaded for this
memory = click.option(
    "--max-memory",
    "memory",
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="What the process may take, where images are cut into tiles: such as 1GiB, 512MB.",
)
shape = click.option(
    "--shape",
    "shapes",
    type=parse_shape,
    multiple=True,
    metavar="1x3x224x224",
    help="The shape of an input; again for the next input.  [default: one image, 224x224 where that is open]",
)


optimizing = combine(
    click.option(
        "--optimizer",
        type=click.Choice(["sgd", "momentum", "nesterov", "adam", "adamw"]),
        default="adamw",
        show_default=True,
        help="How parameters move by their gradients.",
    ),
    click.option(
        "--momentum",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="X",
        help="Of momentum and nesterov.  [default: 0.9]",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(0),
        metavar="X",
        help="Pull parameters to 0.  [default: 0.01 for adamw, else 0]",
    ),
    click.option(
        "--clip",
        type=click.FloatRange(0, min_open=True),
        metavar="NORM",
        help="Scale gradients so that their norm is at most this.",
    ),
)

stepping = combine(
    click.option("--training-step", "as_step", is_flag=True, help="Instead, a whole step of training; see below."),
    optimizing,
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="With --training-step, of dropout."
    ),
)
RECIPE = ("as_step", "optimizer", "momentum", "weight_decay", "clip", "seed")


def split_recipe(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a network, and those of `stepping`."""
    return {k: v for k, v in given.items() if k not in RECIPE}, {k: given[k] for k in RECIPE}
