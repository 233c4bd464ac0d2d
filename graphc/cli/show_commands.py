"""`graphc show`: what its commands are called, take and tell."""

from pathlib import Path
from typing import Any

import click

from graphc.cli.options import FILE, dense, examples, model, reading


@click.group(
    "show",
    None,
    **examples(
        "show filters digits -o filters.png",
        "show activations digits scan.png -o activations.png",
        "show neighbours digits *.png -o neighbours.png",
    ),
)
def show() -> None:
    """Draw what a network has learnt: filters, activations, neighbours."""


picture = click.option("-o", "--output", type=FILE, required=True, metavar="FILE.png", help="The file to write.")


@show.command(
    **examples(
        "show filters digits -o filters.png",
        "show filters resnet50 --params resnet50.safetensors --layer conv1 -o filters.png",
    )
)
@model
@click.option("--layer", metavar="NAME", help="The convolution.  [default: the first]")
@picture
def filters(layer: str | None, output: Path, **network: Any) -> None:
    """Draw the filters of a convolution.

    They form a grid, each scaled by its largest weight, in colour where the convolution reads three channels.
    """
    from graphc.cli.commands import load_model
    from graphc.cli.showing import show_filters

    show_filters(load_model(**network), layer, output)


@show.command(
    **examples(
        "show activations digits scan.png -o activations.png",
        "show activations net.onnx photo.jpg --resize --value conv2 -o activations.png",
    )
)
@model
@click.argument("image", type=FILE)
@click.option("--value", metavar="NAME", help="The value.  [default: the result of the first convolution]")
@reading
@picture
@dense
def activations(image: Path, value: str | None, output: Path, **given: Any) -> None:
    """Draw the channels of a value for an image.

    They form a grid of heat maps, all on one scale.
    """
    from graphc.cli.showing import load_and_reading, show_activations

    graph, reading = load_and_reading(given)
    show_activations(graph, image, value, reading, output)


@show.command(
    **examples(
        "show neighbours digits *.png -o neighbours.png",
        "show neighbours resnet50 --params resnet50.safetensors --resize --count 5 *.jpg -o neighbours.png",
    )
)
@model
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGE...")
@click.option(
    "--count", type=click.IntRange(1), default=8, show_default=True, metavar="K", help="The neighbours of an image."
)
@click.option(
    "--queries", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="The first N images get a row."
)
@reading
@picture
@dense
def neighbours(images: tuple[Path, ...], count: int, queries: int, output: Path, **given: Any) -> None:
    """Draw images, each beside those most like it.

    The nearest ones are those of the least Euclidean distance in the feature space of the last hidden layer; of a map
    of features, each one's mean counts.
    """
    from graphc.cli.showing import load_and_reading, show_neighbours

    graph, reading = load_and_reading(given)
    show_neighbours(graph, images, count, queries, reading, output)


@show.command(
    **examples(
        "show masks digit_masks page.png -o masks.png",
        "show masks unet --params cells.safetensors photo.png -o masks.png",
    )
)
@model
@click.argument("image", type=FILE)
@reading
@picture
def masks(image: Path, output: Path, **given: Any) -> None:
    """Draw the class of each pixel beside an image.

    For a network whose output is a map of scores as large as the image. The colours' names are those of its labels.
    """
    from graphc.cli.showing import load_and_reading, show_masks

    graph, reading = load_and_reading(given)
    show_masks(graph, image, reading, output)
