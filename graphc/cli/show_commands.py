"""`graphc show`: what its commands are called, take and tell."""

from pathlib import Path
from typing import Any

import click

from graphc.cli.arguments import parse_words
from graphc.cli.options import FILE, dense, examples, model, reading, window


@click.group(
    "show",
    None,
    **examples(
        "show filters digits -o filters.png",
        "show activations digits scan.png -o activations.png",
        "show neighbours digits *.png -o neighbours.png",
        "show classes digits page.png --class 3,8 -o classes.png",
        "show boxes digits page.png -o boxes.png",
        "show masks digit_masks page.png -o masks.png",
        "show windows digits page.png -o windows.png",
    ),
)
def show() -> None:
    """Draw what a network has learnt, and what it sees where."""


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
        "show masks digits page.png --dense --output-stride 1 --upsample -o masks.png",
    )
)
@model
@click.argument("image", type=FILE)
@reading
@picture
@dense
def masks(image: Path, output: Path, **given: Any) -> None:
    """Draw the class of each pixel beside an image.

    For a network whose output is a map of scores as large as the image, as --dense and --upsample make it. The colours'
    names are those of its labels.
    """
    from graphc.cli.showing import load_and_reading, show_masks

    graph, reading = load_and_reading(given)
    show_masks(graph, image, reading, output)


@show.command(
    **examples(
        "show classes resnet18 --params resnet18.safetensors photo.jpg --gap drop -o activation_maps.png",
        "show classes digits page.png --class 3,8 -o classes.png",
    )
)
@model
@click.argument("image", type=FILE)
@click.option("--class", "names", type=parse_words, metavar="NAME,...", help="The classes.  [default: the best]")
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, metavar="K", help="The best K classes.")
@click.option(
    "--gap",
    type=click.Choice(["window", "drop"]),
    help="A global average becomes a moving average (window, the default) or nothing (drop): class activation maps.",
)
@window
@reading
@picture
def classes(image: Path, names: tuple[str, ...] | None, count: int, output: Path, **given: Any) -> None:
    """Draw where an image looks like a class, for some classes.

    The map of each class's scores lies over the image as a heat map, all on one scale. Of a classifier with a global
    average pool, --gap drop draws the class activation maps (Zhou et al. 2016), whose mean over a window is its score.
    """
    from graphc.cli.showing import split_reading
    from graphc.cli.showing_maps import show_classes

    model, reading = split_reading(given)
    show_classes(model, image, names or (), count, reading, output)


@show.command(
    **examples("show boxes digits page.png -o boxes.png", "show boxes digits page.png --count 5 -o boxes.png")
)
@model
@click.argument("image", type=FILE)
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, metavar="K", help="So many windows.")
@window
@reading
@picture
def boxes(image: Path, count: int, output: Path, **given: Any) -> None:
    """Draw boxes around the likeliest windows of an image.

    Each with its class and probability. Of windows that overlap by more than half the likeliest one counts, and class
    "background" does not.
    """
    from graphc.cli.showing import split_reading
    from graphc.cli.showing_maps import show_boxes

    model, reading = split_reading(given)
    show_boxes(model, image, count, reading, output)


@show.command(
    **examples(
        "show windows digits page.png -o windows.png", "show windows resnet18 photo.jpg --class 7 -o windows.png"
    )
)
@model
@click.argument("image", type=FILE)
@click.option("--class", "name", metavar="NAME", help="The class.  [default: the one with the highest score]")
@reading
@picture
def windows(image: Path, name: str | None, output: Path, **given: Any) -> None:
    """Draw a dense map beside that of sliding windows.

    The classifier runs on every window of the image at its own stride, and its dense form once on the whole image.
    Where no layer pads both are equal; else their difference shows what padding changes.
    """
    from graphc.cli.showing import split_reading
    from graphc.cli.showing_maps import show_windows

    model, reading = split_reading(given)
    show_windows(model, image, name, reading, output)
