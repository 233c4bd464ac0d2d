"""A little of `make fuzz`, the same in every run; and what it has found."""

import pytest
from fuzz import try_file, try_passes


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_end_in_an_error_or_a_result(seed: int) -> None:
    assert "done" in try_file(seed)


@pytest.mark.parametrize("seed", range(2))
def test_passes_mean_the_same_in_any_order(seed: int) -> None:
    try_passes(seed)
