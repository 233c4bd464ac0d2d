"""Settings that hold for every test.

Property tests run under one of two hypothesis profiles, chosen by the environment variable HYPOTHESIS_PROFILE:
`ci` (the default) tries the same few examples in every run, `deep` searches for new ones for as long as that takes.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import graphc
from graphc.models import digit_masks

# No deadlines and no too_slow: CI machines are shared, and how fast a test ran says nothing about the code there.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", deadline=None, max_examples=5000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
os.environ["GRAPHC_CACHE"] = "off"  # until there is a folder for it: tests leave the user's alone
os.environ["GRAPHC_COMPILERS"] = "0"  # and keep all CPUs busy already
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one test compiles, the next one loads: such as the same network for another number of threads."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    os.environ["GRAPHC_CACHE"] = str(folder / "compiled")


@pytest.fixture(scope="session")
def digit_masks_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' U-Net as a library: what another process opens in no time."""
    folder = tmp_path_factory.mktemp("built")
    graphc.build(digit_masks(), folder, ("so",))
    return folder / "digit_masks.so"
