"""What is measured, and what follows from it: medians, spreads, ratios and geometric means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from statistics import median
from typing import Any

import numpy as np

OWN = "graphc"


@dataclass(frozen=True)
class Measurement:
    """One runtime: `seconds` of one run, for each round (its median run).

    `error` is the largest difference from float64, as a share of the largest output; `peak_bytes` the most memory that
    its process had resident, loading included; `load_seconds` what making the network ready to run took.
    """

    runtime: str
    version: str
    seconds: tuple[float, ...]
    error: float
    peak_bytes: int
    load_seconds: float

    @cached_property
    def median(self) -> float:
        """Seconds of the median round."""
        return median(self.seconds)

    @cached_property
    def quartiles(self) -> tuple[float, float]:
        """Seconds of the first and third quartile of the rounds."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median."""
        low, high = self.quartiles
        return (high - low) / 2 / self.median

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts and lists."""
        return {
            "version": self.version,
            "seconds": list(self.seconds),
            "median_seconds": self.median,
            "quartile_seconds": list(self.quartiles),
            "error": self.error,
            "peak_bytes": self.peak_bytes,
            "load_seconds": self.load_seconds,
        }


@dataclass(frozen=True)
class Comparison:
    """One network at one size and number of threads: graphc's measurement first, then its peers'.

    `left_out` says of the other peers that were asked for why they were not measured.
    """

    network: str
    shapes: tuple[tuple[int, ...], ...]
    threads: int
    measurements: tuple[Measurement, ...]
    left_out: Mapping[str, str]

    def ratio(self, peer: Measurement) -> float:
        """The peer's time ÷ graphc's: the median of the ratios in each round, so what slows a round slows both."""
        own, *_ = self.measurements
        return median(p / o for p, o in zip(peer.seconds, own.seconds, strict=True))

    @property
    def best_ratio(self) -> float | None:
        """The ratio of the fastest peer; None if there is no peer."""
        _, *peers = self.measurements
        return min(map(self.ratio, peers), default=None)

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts, lists and dicts."""
        _, *peers = self.measurements
        return {
            "network": self.network,
            "shapes": [list(shape) for shape in self.shapes],
            "threads": self.threads,
            "runtimes": {m.runtime: m.to_json() for m in self.measurements},
            "ratios": {p.runtime: self.ratio(p) for p in peers},
            "best_ratio": self.best_ratio,
            "left_out": dict(self.left_out),
        }


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n values."""
    return exp(sum(map(log, values)) / len(values))


def mean_ratios(comparisons: Sequence[Comparison]) -> dict[str, tuple[float, int]]:
    """The geometric mean of each peer's ratios, and of the best peer's ("best peer"), each with how many it is of."""
    ratios: dict[str, list[float]] = {}
    for c in comparisons:
        for peer in c.measurements[1:]:
            ratios.setdefault(peer.runtime, []).append(c.ratio(peer))
        if c.best_ratio is not None:
            ratios.setdefault("best peer", []).append(c.best_ratio)
    if "best peer" in ratios:
        ratios["best peer"] = ratios.pop("best peer")  # to the end
    return {name: (geometric_mean(values), len(values)) for name, values in ratios.items()}
