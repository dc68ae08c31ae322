"""A sample made again from the randomness that another one was made from: the marginal distribution is kept."""

import numpy as np
import pytest

from scg import distributions as dist
from scg.distributions.coupling import ByQuantile, Coupled, Turned

pytestmark = pytest.mark.fast

PAIRS = {
    "coins": (dist.Bernoulli(logits=[0.3, -2.0, 0.0]), dist.Bernoulli(logits=[-1.0, -1.5, 0.0])),
    "sure coins": (dist.Bernoulli(probs=[0.0, 1.0, 0.4]), dist.Bernoulli(probs=[0.3, 0.0, 1.0])),
    "categories": (dist.Categorical(probs=[0.2, 0.5, 0.3]), dist.Categorical(probs=[0.3, 0.1, 0.6])),
    "one-hot": (dist.OneHotCategorical(logits=[0.2, 0.5, -0.3]), dist.OneHotCategorical(logits=[0.3, -np.inf, 1.6])),
    "binomial": (dist.Binomial(5, probs=[0.2, 0.7]), dist.Binomial(5, probs=[0.25, 0.1])),
    "geometric": (dist.Geometric(probs=0.4), dist.Geometric(probs=0.8)),
    "poisson": (dist.Poisson([0.5, 4.0]), dist.Poisson([3.0, 3.5])),
    "negative binomial": (dist.NegativeBinomial(3.0, probs=0.5), dist.NegativeBinomial(3.0, probs=0.6)),
}


def values_of(distribution):
    """All values, or those up to a negligible tail, along a leading axis that broadcasts."""
    if hasattr(distribution, "atoms"):
        return distribution.atoms()
    return np.arange(90.0).reshape(-1, *[1] * len(distribution.batch_shape))


def joint(before, after, change=lambda p: p):
    """p(z) p(z'|z), (z, z', batch), and q(z')."""
    z = values_of(before)
    table = np.stack(
        [before.masses(one) * change(after.coupled(before, np.broadcast_to(one, z[0].shape)).masses(z)) for one in z]
    )
    return table, np.broadcast_to(after.masses(z), table.shape[1:])


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_made_again_has_its_own_distribution_and_the_recorded_one_keeps_its(name):
    before, after = PAIRS[name]
    table, expected = joint(before, after)
    z = values_of(before)
    np.testing.assert_allclose(table.sum(axis=0), expected, atol=2e-15)
    np.testing.assert_allclose(table.sum(axis=1), np.broadcast_to(before.masses(z), expected.shape), atol=2e-15)


def test_likely_values_alone_would_not_have_it():
    before, after = PAIRS["binomial"]
    wrong, expected = joint(before, after, lambda p: p * (p > 0.2) / np.sum(p * (p > 0.2), axis=0))
    assert np.max(abs(wrong.sum(axis=0) - expected)) > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_under_the_same_parameters_it_is_the_same_sample(name):
    before, _ = PAIRS[name]
    z = before.sample(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(before.coupled(before, z).sample(np.random.default_rng(1)), z)


@pytest.mark.parametrize("name", [n for n in PAIRS if n not in ("one-hot", "categories")])
def test_of_numbers_the_coupling_keeps_the_order_of_their_quantiles(name):
    """p(z'|z) p(z) = P(u in both intervals), by the definition."""
    before, after = PAIRS[name]
    table, _ = joint(before, after)
    z = values_of(before)
    for i, one in enumerate(z):
        common = np.minimum(before.cdf(one), after.cdf(z)) - np.maximum(before.cdf(one - 1), after.cdf(z - 1))
        np.testing.assert_allclose(table[i], np.broadcast_to(np.maximum(common, 0), table[i].shape), atol=1e-14)


@pytest.mark.parametrize("name", ["categories", "one-hot"])
def test_of_categories_as_many_are_kept_as_can_be(name):
    before, after = PAIRS[name]
    table, _ = joint(before, after)
    kept = np.trace(table) if table.ndim == 2 else np.einsum("kk...->...", table)
    z = values_of(before)
    np.testing.assert_allclose(kept, np.sum(np.minimum(before.masses(z), after.masses(z)), axis=0), rtol=1e-14)


@pytest.mark.parametrize("name", PAIRS)
def test_samples_have_the_conditional_probabilities(name):
    """Each frequency of 20,000 within five standard errors: 200 of them, once in 10^4 for normal ones."""
    before, after = PAIRS[name]
    z = before.sample(np.random.default_rng(2))
    coupled, n = after.coupled(before, z), 20_000
    assert isinstance(coupled, Coupled)
    found = coupled.sample(np.random.default_rng(3), n)
    assert found.dtype == after.dtype
    event = tuple(range(-len(after.event_shape), 0))
    for value in values_of(after):
        p = coupled.masses(value)
        same = np.all(found == value, axis=event) if event else found == value
        assert np.all(abs(same.mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-12)


def test_float32_stays_and_rounding_far_out_gives_numbers():
    low, high = (dist.Poisson(np.array([0.5, 3.0], np.float32) * k) for k in (1, 2))
    far = ByQuantile(low, high, np.array([60.0, 80.0], np.float32))
    found = far.sample(np.random.default_rng(0), 100)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    coins = dist.Bernoulli(logits=np.zeros(3, np.float32)), dist.Bernoulli(logits=np.ones(3, np.float32))
    assert Turned(*coins, np.ones(3, np.float32)).sample(np.random.default_rng(0)).dtype == np.float32
