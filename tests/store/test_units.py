"""One pass over a shard's features finds what numpy's separate, slower functions find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.format.units import Scan, scan

SPECIAL_VALUES = [
    0.0,
    -0.0,
    np.nan,
    -np.nan,
    np.inf,
    -np.inf,
    65504.0,
    -65504.0,
    6e-8,
    1.0,
]  # the largest and smallest of float16


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(SPECIAL_VALUES), max_size=20), st.integers(0, 40), st.sampled_from(["float16", "float32"])
)
def test_zeros_and_finiteness_equal_numpys(special: list[float], ordinary: int, dtype: str) -> None:
    values = np.array([*special, *np.linspace(1, 2, ordinary)], dtype)
    rows = np.random.default_rng(0).permutation(values).reshape(-1, 1)
    result = scan(rows, block=7)  # several blocks, the last one short
    assert result.zeros == np.count_nonzero(rows == 0)
    assert result.finite == np.isfinite(rows).all()


@pytest.mark.parametrize("at", [0, 2**18 - 1, 2**18, 2**19 - 1, 2**19 + 4])
def test_every_block_is_examined(at: int) -> None:
    rows = np.ones((2**19 + 5, 1), np.float16)
    rows[at] = np.nan
    assert not scan(rows).finite
    rows[at] = -0.0
    assert scan(rows) == Scan(1, True)
