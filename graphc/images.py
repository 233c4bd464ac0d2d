"""Image files as a network reads them: f32[C,H,W], grey or colour, 0 for black to 1 for white."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from graphc.errors import FileError, InputError

Floats = NDArray[np.float32]


def read_image(path: Path, channels: int) -> Floats:
    """The picture in a file as f32[channels,H,W] in 0..1: grey for 1 channel, red, green and blue for 3.

    It is turned as its EXIF orientation says; what is transparent becomes white. Errors: FileError if the file is not
    a picture, InputError for other numbers of channels.
    """
    if channels not in (1, 3):
        raise InputError(f"{path}: a picture has 1 or 3 channels, the network wants {channels}; give it as .npy")
    try:
        with warnings.catch_warnings():  # a picture of up to 179 million pixels is wanted; more is an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)
                if upright.mode == "F":
                    raise ValueError("its pixels are floats of unknown range; give them as .npy")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"{path}: cannot be read as a picture: {reason}") from None
    return _to_floats(upright, channels)


def _to_floats(picture: Image.Image, channels: int) -> Floats:
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversions would clip to 8
        grey = np.asarray(picture).astype(np.float32) / 65535
        return np.repeat(grey[None], channels, axis=0)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), 2, 0))


def resize_image(image: Floats, height: int, width: int) -> Floats:
    """The image f32[C,H,W] as f32[C,height,width]: bilinear, with a mean over what falls together."""
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in image]
    return np.stack([np.asarray(plane, np.float32) for plane in planes])


def normalise_image(image: Floats, mean: Sequence[float], std: Sequence[float]) -> Floats:
    """(image - mean) / std for f32[C,H,W]; `mean` and `std` have one number, or one for each channel. InputError."""
    for what, numbers in (("mean", mean), ("std", std)):
        if len(numbers) not in (1, len(image)) or not np.isfinite(numbers).all() or (what == "std" and 0 in numbers):
            wanted = f"1 or {len(image)} finite numbers" + (" other than 0" if what == "std" else "")
            raise InputError(f"{what}: expected {wanted}, got {', '.join(f'{x:g}' for x in numbers)}")
    columns = [np.asarray(numbers, np.float32).reshape(-1, 1, 1) for numbers in (mean, std)]
    return np.asarray((image - columns[0]) / columns[1], np.float32)
