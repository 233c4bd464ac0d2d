"""How arguments read: shapes and lists. Nothing here loads more than click."""

import re

import click


def parse_shape(text: str) -> tuple[int, ...]:
    """1x3x224x224 as (1, 3, 224, 224)."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text, re.ASCII):
        raise click.BadParameter(f"expected positive integers such as 1x3x224x224, got '{text}'")
    return tuple(map(int, text.split("x")))


def parse_size(text: str) -> tuple[int, int]:
    """224x224 as (224, 224): height and width."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text, re.ASCII):
        raise click.BadParameter(f"expected height and width such as 224x224, got '{text}'")
    height, width = map(int, text.split("x"))
    return height, width


def parse_tile(text: str) -> tuple[int, int] | None:
    """512x512 as (512, 512), auto as None."""
    return None if text == "auto" else parse_size(text)


def parse_numbers(text: str) -> list[float]:
    """0.485,0.456,0.406 as a list."""
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected numbers with commas between them, got '{text}'") from None


def parse_counts(text: str) -> tuple[int, ...]:
    """1,2 as (1, 2): positive integers."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text, re.ASCII):
        raise click.BadParameter(f"expected positive integers with commas between them, got '{text}'")
    return tuple(map(int, text.split(",")))


def parse_words(text: str) -> tuple[str, ...]:
    """so,h as ("so", "h")."""
    return tuple(text.split(","))
