"""How alike two maps are: ranks, and what they say where values are equal."""

import numpy as np
import pytest
import scipy.stats

from mixaug_jax.scores.agreement import mean_ranks, similarity


@pytest.mark.parametrize("values", [3, 10, 1000])
def test_equal_values_share_their_mean_rank(values):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, values, (2, 9, 8)).astype(np.float32)
    np.testing.assert_array_equal(mean_ranks(a).ravel(), scipy.stats.rankdata(a) - 1)
    right = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
    assert float(similarity(a, b, "spearman")) == pytest.approx(right, abs=1e-5)
