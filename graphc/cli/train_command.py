"""`graphc train`: what it takes and tells."""

from pathlib import Path
from typing import Any

import click

from graphc.cli.arguments import parse_numbers, parse_size
from graphc.cli.options import FILE, examples, optimizing, threads


@click.command(
    "train",
    None,
    **examples(
        "train lenet5 --data digits --epochs 40 -o lenet5.safetensors",
        "train lenet5 --data digits --epochs 40 -o lenet5.safetensors --resume",
        "train resnet18 --data photos --classes 3 --weights resnet18.safetensors "
        "--freeze 'layer[12].*' -o photos.safetensors",
        "train mine:net --data samples.npz --optimizer momentum --lr 0.1 --schedule step -o net.safetensors",
    ),
)
@click.argument("model", metavar="NETWORK")
@click.option(
    "--data",
    "source",
    required=True,
    metavar="DATA",
    help="A folder of class folders of images, an .npz file with x and y, 'digits', or 'pages'.",
)
@click.option(
    "-o",
    "--out",
    "output",
    type=FILE,
    required=True,
    metavar="FILE.safetensors",
    help="The parameters, written after every epoch; beside them FILE.checkpoint.safetensors and FILE.png.",
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="How many in all.")
@click.option(
    "--batch", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="Samples of a step at most."
)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    metavar="RATE",
    help="The learning rate, or the highest one.",
)
@click.option(
    "--schedule",
    type=click.Choice(["constant", "step", "cosine"]),
    default="cosine",
    show_default=True,
    help="How the rate goes down: not, to a tenth after each --decay-every epochs, or to 0 at the end.",
)
@click.option("--decay-every", type=click.IntRange(1), metavar="N", help="Epochs of --schedule step.  [default: 30]")
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="First epochs of rising rates."
)
@optimizing
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of first weights, order, drawn data, dropout."
)
@click.option("--resume", is_flag=True, help="Go on from FILE.checkpoint.safetensors, as if it had not been stopped.")
@click.option(
    "--weights",
    type=FILE,
    metavar="FILE",
    help="Begin with these parameters; with --classes, but for a last layer of another size.",
)
@click.option("--classes", type=click.IntRange(2), metavar="N", help="Build the network with so many classes.")
@click.option(
    "--freeze",
    multiple=True,
    metavar="PATTERN",
    help="Leave parameters of these names as they are; running statistics, too.",
)
@click.option("--size", type=parse_size, metavar="HxW", help="Scale images to this.  [default: the network's]")
@click.option("--mean", type=parse_numbers, metavar="X,...", help="Subtract these from the channels, in 0..1.")
@click.option("--std", type=parse_numbers, metavar="X,...", help="Then divide by these.")
@threads
def train(model: str, source: str, output: Path, **options: Any) -> None:
    """Train a network, in native code.

    The loss is softmax cross-entropy. A built-in NETWORK begins with random weights. Of every class a tenth is held
    out, unless DATA has a part for that: folders train and val, or arrays x_test and y_test. 'digits' are the scanned
    digits of scikit-learn, 'pages' pages composed of them. The same seed gives the same bits, at any number of threads,
    and whether stopped and resumed or not. Ctrl-C keeps the last epoch.
    """
    from graphc.cli.recipes import Options
    from graphc.cli.training import train_network

    train_network(model, source, output, Options(**options))
